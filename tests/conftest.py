"""Fixtures for all tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import apart, leftovers
from tests.lab.lab import Lab


def pytest_configure(config: pytest.Config) -> None:
    if not (config.option.collectonly or config.option.numprocesses):  # its runners have their own
        apart.own_network()


@pytest.fixture(autouse=True)
def mark(request: pytest.FixtureRequest) -> Iterator[bytes]:
    """What natsup's processes of this test are known by. A test that leaves one behind fails."""
    with leftovers.marked(request.node.name) as mark:
        yield mark
    leftovers.expect_none(mark)


@pytest.fixture
def lab(tmp_path: Path, mark: bytes, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A home network with a real router, of the test's own. A parameter: options of `Lab`."""
    folder = tmp_path / "lab"
    folder.mkdir()
    with Lab(folder, **getattr(request, "param", {})) as network:
        yield network
        # Sessions end with their programs; and that while they can still ask the router.
        network.end_programs(spared=leftovers.natsups(mark))
        leftovers.expect_none(mark, besides=network.pids("router"))
        # What no journal tells of any more is to be forwarded no more, either.
        stray = [] if list(tmp_path.glob("*/sessions/*")) else network.leases("natsup")
        assert stray == [], "the router still forwards what was mapped in the test"
