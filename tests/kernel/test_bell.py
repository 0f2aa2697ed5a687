"""The bell between two threads."""

import select
from collections.abc import Iterator

import pytest

from natsup.supervisor.bell import Bell


@pytest.fixture
def bell() -> Iterator[Bell]:
    made = Bell()
    yield made
    made.close()


def rung(bell: Bell) -> bool:
    return bool(select.select([bell.fd], [], [], 0)[0])


def test_it_is_heard_once(bell: Bell) -> None:
    assert not rung(bell)
    bell.ring()
    bell.ring()
    assert rung(bell)
    bell.hear()
    assert not rung(bell)
    bell.ring()
    assert rung(bell)


def test_hearing_nothing_changes_nothing(bell: Bell) -> None:
    bell.hear()
    bell.ring()
    assert rung(bell)
