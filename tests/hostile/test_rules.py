"""Every rule has its tests."""

import re
from pathlib import Path

from tests.hostile.rules import RULES


def test_every_rule_has_a_test_and_every_test_its_rule() -> None:
    text = "".join(file.read_text() for file in Path(__file__).parent.glob("test_*.py"))
    assert {int(number) for number in re.findall(r"def test_(\d+)_", text)} == set(RULES)
