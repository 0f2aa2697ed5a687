"""Short forms of the loads; `just load` has the full ones."""

from collections.abc import Iterator

import pytest

from natsup.supervisor.page import SLOTS
from tests import leftovers
from tests.lab.lab import Lab
from tests.load import scenarios
from tests.load.scenarios import STARTUP, TIMEOUT, House, Row

_SLACK = 3.0  # seconds, for what else has a part in it: the program, the router, the disk
# Seconds of a processor that a bind may take until its answer, the supervisor's start included: a
# few times what it takes, since a processor that does other things as well is slower for each.
_PROCESSOR = 0.02


def check(row: Row) -> None:
    """A call keeps to its budget, but for the time in which others had the processors."""
    assert row.worst < STARTUP + TIMEOUT + row.answered.held_up + _SLACK, row
    assert row.processor < _PROCESSOR, row


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("load")
    with Lab(folder) as lab:
        yield House(lab, folder)


@pytest.fixture
def house(network: House, mark: bytes) -> Iterator[House]:
    yield network
    network.lab.end_programs(spared=leftovers.natsups(mark))


def test_a_bomb_of_short_binders(house: House) -> None:
    check(scenarios.bomb(house, 40, 10))


def test_more_threads_than_the_page_has_slots(house: House) -> None:
    """The others are passed, and published all the same."""
    check(scenarios.threads(house, SLOTS + 100))


def test_a_thousand_threads_that_are_passed(house: House) -> None:
    check(scenarios.passed_threads(house, 1000))


def test_a_storm_of_closes(house: House) -> None:
    scenarios.held(house, 600)


def test_a_program_that_is_killed(house: House) -> None:
    scenarios.killed(house, 200)


def test_a_soak(house: House) -> None:
    scenarios.soak(house, 4, 4)
