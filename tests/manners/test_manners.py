"""Nobody notices natsup, but for what is explained; and docs/manners.md is what comes out."""

from pathlib import Path

import pytest

from tests.manners import table
from tests.manners.ways import ways


@pytest.mark.parametrize("group", [pytest.param(one, id=one.__name__) for one in table.GROUPS])
def test_the_page_says_what_comes_out(group: table.Group, tmp_path: Path) -> None:
    found = table.rows(group, ways(tmp_path))
    assert table.differences(found) <= set(table.EXPLAINED)
    page = table.PAGE.read_text()
    for name, seen in found.items():
        assert table.line(name, seen) in page


def test_the_page_is_made_by_the_table() -> None:
    """Its rows are read back, and make the same page; each explanation is of a row."""
    lines = table.PAGE.read_text().splitlines()
    cells = [line.split(" | ") for line in lines if line.startswith("| ") and " | " in line]
    found = {row[0].removeprefix("| "): row[1:] for row in cells if row[0] != "|"}
    for name, seen in found.items():
        seen[-1] = seen[-1].removesuffix(" |")
        for place, text in enumerate(seen):
            text, number, _ = text.partition(" (")
            assert bool(number) == ((name, table.WAYS[place]) in table.EXPLAINED)
            seen[place] = seen[0] if text == "=" else text
    unescaped = {
        name.replace("\\\\", "\\"): [text.replace("\\\\", "\\") for text in seen]
        for name, seen in found.items()
    }
    assert len(unescaped) >= 40
    assert table.page(unescaped) == table.PAGE.read_text()
    assert {name for name, _ in table.EXPLAINED} <= set(unescaped)
