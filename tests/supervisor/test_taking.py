"""Who takes the calls after a supervisor's end: the next one asks its guard for them."""

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


@pytest.mark.parametrize(
    ("word", "takes"),
    [(handover.RECEIVED, True), (handover.FINISH, False), (None, True)],
    ids=["given", "all is to end", "the guard has gone"],
)
def test_calls_are_taken_unless_the_guard_is_against_it(
    ends: Ends, word: bytes | None, takes: bool
) -> None:
    """Should it have gone meanwhile, there is nobody else to serve, nor to clean up."""
    here, there = ends
    if word is None:
        there.close()
    else:
        handover.send(there, word)
    assert session._take_calls(here) is takes


def test_a_guard_that_goes_while_it_is_asked(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = ends
    send = handover.send

    def lost(end: handover.End, word: bytes) -> None:
        send(end, word)
        there.close()

    monkeypatch.setattr(handover, "send", lost)
    assert session._take_calls(here)
