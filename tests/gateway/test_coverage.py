"""Every scenario has its test, or stands here among those that have none yet.

The scenarios are numbered from 1 to 93: 1-22 conflicts, 23-35 codes and leases, 36-45 restarts and
networks, 46-60 descriptions and HTTP, 61-73 the search and the choice, 74-93 NAT-PMP and PCP.
"""

import re
from pathlib import Path

from tests.gateway import test_scenarios, test_scenarios_pmp

TESTS = Path(__file__).parents[1]

# Those that tests of other folders play: number → file, and the name of the test
ELSEWHERE = {
    38: ("upnp/test_watch.py", "test_a_goodbye_is_heard"),
    41: ("lab/test_network_changes.py", "test_41_a_router_that_appears_late"),
    42: (
        "lab/test_network_changes.py",
        "test_42_another_address_in_place_of_the_old_one",
    ),
    73: ("upnp/test_watch.py", "test_signs_are_apart_whatever_is_said"),
}

# Played, but for a part
PARTLY: dict[int, str] = {}

NOT_YET: dict[int, str] = {}


def played() -> set[int]:
    """By the names of the tests in this folder, and the rows."""
    numbers = {row.number for row in test_scenarios.ROWS}
    numbers |= {row.number for row in test_scenarios_pmp.ROWS}
    for file in Path(__file__).parent.glob("test_*.py"):
        for name in re.findall(r"def test_((?:\d+_(?:and_)?)+)", file.read_text()):
            numbers |= {int(number) for number in re.findall(r"\d+", name)}
    return numbers


def test_every_scenario_is_played_or_known_to_be_missing() -> None:
    assert played() | ELSEWHERE.keys() | NOT_YET.keys() == set(range(1, 94))


def test_what_is_played_is_not_said_to_be_missing() -> None:
    assert (played() | ELSEWHERE.keys()) & NOT_YET.keys() == set()


def test_what_is_played_in_part_is_played() -> None:
    assert PARTLY.keys() <= played()


def test_what_is_played_elsewhere_is_there() -> None:
    for file, name in ELSEWHERE.values():
        assert f"def {name}(" in (TESTS / file).read_text()
