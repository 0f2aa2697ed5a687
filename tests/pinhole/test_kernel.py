"""How it is heard that the network for IPv6 has changed, where that is permitted and where not."""

import socket
from contextlib import aclosing
from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock

from natsup.upnp import rtnetlink
from natsup.upnp.pinhole.kernel import Spacing, changes


async def test_where_changes_cannot_be_heard_of_it_is_looked_now_and_then(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = rtnetlink.opened

    def bound() -> socket.socket:
        sock = opened()
        sock.bind((0, 0))  # so that the kernel refuses the next one
        return sock

    monkeypatch.setattr(rtnetlink, "opened", bound)
    begin = trio.current_time()
    async with aclosing(changes()) as heard:
        for _ in range(3):
            await anext(heard)
    assert trio.current_time() - begin == pytest.approx(90)


def test_it_is_looked_once_it_has_settled_and_more_rarely_while_it_goes_on() -> None:
    spacing, now, looks = Spacing(), 100.0, list[float]()
    assert spacing.until(now) == pytest.approx(100.3)
    while now < 700:  # something is told every second
        when = spacing.until(now)
        spacing.looked(when)
        looks.append(when)
        now = max(now + 1, when)
    assert len(looks) < 30
    assert max(later - sooner for sooner, later in pairwise(looks)) <= 30.3
    assert spacing.until(2000.0) == pytest.approx(2000.3)
    spacing.looked(2000.3)
    assert spacing.until(2000.5) == pytest.approx(2001.3)
