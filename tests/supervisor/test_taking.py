"""Who takes the calls after a supervisor's end: the next one asks its guard for them."""

import os
import threading
from collections.abc import Iterator

import pytest

from natsup.supervisor import handover, session

Ends = tuple[handover.End, handover.End]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """The supervisor's and the guard's."""
    here, there = handover.pair()
    yield here, there
    here.close()
    there.close()


def test_a_guard_is_waited_for(ends: Ends) -> None:
    """Until it says that it lets no more calls pass; also by a supervisor that has begun anew, and
    finds its end as it was before."""
    here, there = ends
    here.setblocking(False)
    again = handover.End(fileno=os.dup(here.fileno()))
    taken: list[bool] = []
    asking = threading.Thread(target=lambda: taken.append(session._take_calls(again)))
    asking.start()
    assert handover.receive(there)[0] == handover.TAKING
    asking.join(0.1)
    assert asking.is_alive()
    handover.send(there, handover.FINISH)
    handover.send(there, handover.RECEIVED)
    asking.join(20)
    assert taken == [True]
    again.close()


def test_a_guard_that_is_stopped(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not waited for until somebody types fg."""
    here, there = ends
    monkeypatch.setattr(session, "_GUARD_SECONDS", 0.05)
    assert not session._take_calls(here)
    assert handover.receive(there)[0] == handover.TAKING


@pytest.mark.parametrize(
    ("words", "finish"),
    [((handover.RECEIVED,), False), ((handover.FINISH, handover.RECEIVED), True), ((), False)],
    ids=["given", "all is to end", "the guard has gone"],
)
def test_calls_are_taken_whatever_the_guard_says(
    ends: Ends, words: tuple[bytes, ...], finish: bool
) -> None:
    """Should it have gone meanwhile, there is nobody else to serve, nor to clean up."""
    here, there = ends
    for word in words:
        handover.send(there, word)
    if not words:
        there.close()
    assert session._take_calls(here) is finish


def test_a_guard_that_goes_while_it_is_asked(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = ends
    send = handover.send

    def lost(end: handover.End, word: bytes) -> None:
        send(end, word)
        there.close()

    monkeypatch.setattr(handover, "send", lost)
    assert not session._take_calls(here)
