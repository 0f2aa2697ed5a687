"""Fixtures of containers."""

from collections.abc import Iterator

import pytest

from tests.containers.engines import NAMES, Engine


@pytest.fixture(params=NAMES)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Each of the engines, with nothing in it. To be asked for before the lab: what runs there ends
    with the lab's programs, and natsup in it is to end first."""
    engine = Engine(request.param)
    yield engine
    engine.close()
