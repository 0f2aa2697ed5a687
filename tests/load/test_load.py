"""Short forms of the loads; `just load` has the full ones."""

from collections.abc import Iterator

import pytest

from natsup.supervisor.page import SLOTS
from tests import leftovers
from tests.lab.lab import Lab
from tests.load import scenarios
from tests.load.scenarios import STARTUP, TIMEOUT, House

_MACHINE = 3.0  # seconds that a busy one may add


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
    row = scenarios.bomb(house, 40, 10)
    assert row.worst < STARTUP + TIMEOUT + _MACHINE


def test_more_threads_than_the_page_has_slots(house: House) -> None:
    """The others are passed, and published all the same."""
    row = scenarios.threads(house, SLOTS + 100)
    assert row.worst < STARTUP + TIMEOUT + _MACHINE


def test_a_storm_of_closes(house: House) -> None:
    scenarios.held(house, 600)


def test_a_soak(house: House) -> None:
    scenarios.soak(house, 4, 4)
