"""Words between launcher, guard and supervisor."""

import contextlib

from natsup.supervisor import handover


def test_last_words_of_one_who_did_not_listen() -> None:
    """Who goes with something unread is told of by ECONNRESET, and what it said is still there."""
    here, there = handover.pair()
    with contextlib.closing(here):
        handover.send(there, handover.DONE)
        handover.send(here, handover.FINISH)
        there.close()
        assert handover.receive(here) == (handover.DONE, 0, None)
        assert handover.receive(here) == (b"", 0, None)
        assert handover.receive(here) == (b"", 0, None)


def test_an_end_without_words() -> None:
    here, there = handover.pair()
    with contextlib.closing(here):
        handover.send(here, handover.FINISH)
        there.close()
        assert handover.receive(here) == (b"", 0, None)
