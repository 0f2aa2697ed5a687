"""Many that bind at once, and a router that takes its time over each."""

from pathlib import Path

import trio
from trio.testing import MockClock

from natsup.state.model import Mapped, Outcome, Port, Protocol
from tests.gateway.gateway import HERE
from tests.gateway.house import house
from tests.gateway.quirks import Quirks

_PROGRAMS, _ANSWER = 40, 0.2  # seconds
_ALONE = _PROGRAMS * 2 * _ANSWER  # what the router needs: it looks, and adds. More than a deadline


async def test_all_are_answered_in_the_time_that_the_router_needs(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    slow = Quirks(late={"*": _ANSWER})
    outcomes: list[Outcome] = []
    async with house(tmp_path, autojump_clock, slow) as home:
        home.gateway.log.clear()

        async def bind(number: int) -> None:
            outcomes.append(await home.bind(Port(Protocol.TCP, number)))

        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for number in range(7000, 7000 + _PROGRAMS):
                nursery.start_soon(bind, number)
        took = trio.current_time() - began
        assert outcomes == [Mapped(3600)] * _PROGRAMS
        assert home.gateway.asked.count("add 3600") == _PROGRAMS
        # One before each is added, and one to see that it was kept.
        assert home.gateway.asked.count("look") <= 2 * _PROGRAMS
        assert home.gateway.most_at_once == 1
        assert set(home.gateway.holders.values()) == {HERE}
        assert 10 < took <= 1.25 * _ALONE


async def test_a_router_that_falls_silent_is_waited_for_once(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Not by each of those that wait, one after another: by a few, then by all others at once."""
    mute = Quirks(manners={"*": "silent"})
    async with house(tmp_path, autojump_clock, mute) as home:
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for number in range(7000, 7000 + _PROGRAMS):
                nursery.start_soon(home.bind, Port(Protocol.TCP, number))
        assert 9 < trio.current_time() - began < 22


async def test_a_session_that_ends_takes_everything_back(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """However long that is, as long as the router answers."""
    async with house(tmp_path, autojump_clock) as home:
        for number in range(7000, 7000 + _PROGRAMS):
            await home.bind(Port(Protocol.TCP, number))
        home.gateway.quirks.late = {"*": _ANSWER}
        assert await home.keeper.close(5.0)
        assert home.gateway.holders == {}
