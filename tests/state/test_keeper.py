"""The keeper with a router that does what the test says, and a clock that jumps."""

from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from natsup.state.journal import Header, Journal, sessions
from natsup.state.keeper import Keeper
from natsup.state.ledger import Ledger, State
from natsup.state.model import (
    Conflict,
    Ignored,
    Mapped,
    Outcome,
    Port,
    Protocol,
    Removal,
    Unknown,
)

PORT = Port(Protocol.TCP, 6881)
GRANTED = Mapped(3600)
HEADER = Header("s", pid=1, command=["x"], started=0.0)


class Router:
    """Answers as told, after as long as told, and notes what it was asked and what was written."""

    protocol = "upnp"
    location = "http://192.168.77.1/x"
    internal_address = "192.168.77.2"

    def __init__(self, outcome: Outcome | Exception = GRANTED, delay: float = 0.0) -> None:
        self.outcome = outcome
        self.delay = delay
        self.removal: Removal | Exception = Removal.GONE
        self.kept: Outcome = Mapped(0)  # what a later look finds
        self.checks = 0
        self.asked: list[str] = []
        self.look: Callable[[], object] = lambda: None

    async def add(self, port: Port, *, lease: int) -> Outcome:
        self.asked.append(f"add {port}")
        self.look()
        await trio.sleep(self.delay)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    async def check(self, port: Port) -> Outcome:
        self.checks += 1
        return self.kept

    async def remove(self, port: Port) -> Removal:
        self.asked.append(f"remove {port}")
        await trio.sleep(self.delay)
        if isinstance(self.removal, Exception):
            raise self.removal
        return self.removal

    async def external_address(self) -> str | None:
        return None


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal.create(tmp_path, HEADER)


@pytest.fixture
async def keeper(journal: Journal, nursery: trio.Nursery) -> Keeper:
    found = Keeper(Ledger(), journal, clock=trio.current_time)
    nursery.start_soon(found.run)
    return found


async def test_a_wish_is_granted(autojump_clock: MockClock, keeper: Keeper) -> None:
    router = Router()
    keeper.gateway_found(router)
    with keeper.wish(PORT) as wish:
        assert await wish.outcome(0.5) == Mapped(3600)
        wish.claim(7)
    assert keeper.claims() == {7: PORT}
    keeper.release(7)
    await trio.sleep(1)
    assert router.asked == ["add tcp/6881", "remove tcp/6881"]


async def test_the_journal_comes_before_the_request(
    autojump_clock: MockClock, keeper: Keeper, tmp_path: Path
) -> None:
    router = Router()
    seen: list[bool] = []
    router.look = lambda: seen.append(sessions(tmp_path)[0].ports[PORT].exists)
    keeper.gateway_found(router)
    with keeper.wish(PORT) as wish:
        await wish.outcome(0.5)
    assert seen == [True]


async def test_a_conflict_leaves_nothing(
    autojump_clock: MockClock, keeper: Keeper, tmp_path: Path
) -> None:
    keeper.gateway_found(Router(Conflict("192.168.77.3")))
    with keeper.wish(PORT) as wish:
        assert await wish.outcome(0.5) == Conflict("192.168.77.3")
    assert sessions(tmp_path)[0].ports == {}


async def test_a_slow_router_is_left_behind_and_heard_later(
    autojump_clock: MockClock, keeper: Keeper, tmp_path: Path
) -> None:
    keeper.gateway_found(Router(delay=4))
    begin = trio.current_time()
    with keeper.wish(PORT) as wish:
        assert await wish.outcome(0.5) == Ignored("no answer within 0.5 s")
        wish.claim(7)
    assert trio.current_time() - begin == pytest.approx(0.5)
    assert sessions(tmp_path)[0].ports[PORT].state is State.PENDING
    await trio.sleep(4)
    assert sessions(tmp_path)[0].ports[PORT].state is State.MAPPED


async def test_a_wish_given_up_is_taken_back(autojump_clock: MockClock, keeper: Keeper) -> None:
    router = Router(delay=2)
    keeper.gateway_found(router)
    with keeper.wish(PORT) as wish:
        await wish.outcome(0.5)
    await trio.sleep(10)
    assert router.asked == ["add tcp/6881", "remove tcp/6881"]


async def test_many_wishes_are_one_request(autojump_clock: MockClock, keeper: Keeper) -> None:
    router = Router(delay=0.1)
    keeper.gateway_found(router)
    outcomes: list[Outcome] = []

    async def wish_for(holder: int) -> None:
        with keeper.wish(PORT) as wish:
            outcomes.append(await wish.outcome(0.5))
            wish.claim(holder)

    async with trio.open_nursery() as nursery:
        for holder in range(5):
            nursery.start_soon(wish_for, holder)
    assert outcomes == [Mapped(3600)] * 5
    assert router.asked == ["add tcp/6881"]


async def test_an_error_inside_is_an_unknown_outcome(
    autojump_clock: MockClock, keeper: Keeper, caplog: pytest.LogCaptureFixture
) -> None:
    router = Router(RuntimeError("a bug"))
    keeper.gateway_found(router)
    with keeper.wish(PORT) as wish:
        outcome = await wish.outcome(0.5)
        assert isinstance(outcome, Unknown)
        wish.claim(7)
    assert "a bug" in caplog.text
    router.outcome = Mapped(3600)
    await trio.sleep(6)
    assert router.asked == ["add tcp/6881"] * 2


async def test_no_router_is_told_at_once(autojump_clock: MockClock, keeper: Keeper) -> None:
    async def miss() -> None:
        await trio.sleep(0.1)
        keeper.gateway_missing("no router")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(miss)
        with keeper.wish(PORT) as wish:
            assert await wish.outcome(5) == Ignored("no router")
            wish.claim(7)
    router = Router()
    keeper.gateway_found(router)
    await trio.testing.wait_all_tasks_blocked()
    assert router.asked == ["add tcp/6881"]


async def test_the_end_takes_everything_back(autojump_clock: MockClock, keeper: Keeper) -> None:
    router = Router()
    keeper.gateway_found(router)
    with keeper.wish(PORT) as wish:
        await wish.outcome(0.5)
        wish.claim(7)
    assert await keeper.close(5)
    assert router.asked == ["add tcp/6881", "remove tcp/6881"]


async def test_the_end_does_not_wait_for_ever(autojump_clock: MockClock, keeper: Keeper) -> None:
    router = Router()
    keeper.gateway_found(router)
    with keeper.wish(PORT) as wish:
        await wish.outcome(0.5)
        wish.claim(7)
    router.delay = 60
    begin = trio.current_time()
    assert not await keeper.close(5)
    assert trio.current_time() - begin == pytest.approx(5)


async def test_leases_are_renewed(autojump_clock: MockClock, keeper: Keeper) -> None:
    router = Router()
    keeper.gateway_found(router)
    with keeper.wish(PORT) as wish:
        await wish.outcome(0.5)
        wish.claim(7)
    await trio.sleep(4 * 3600)
    assert router.asked == ["add tcp/6881"] * 8


async def test_a_router_that_kept_nothing_is_found_out(
    autojump_clock: MockClock, keeper: Keeper, tmp_path: Path
) -> None:
    router = Router()
    router.kept = Ignored("the router did not keep the mapping")
    keeper.gateway_found(router)
    with keeper.wish(PORT) as wish:
        assert await wish.outcome(0.5) == Mapped(3600)
        wish.claim(7)
    await trio.sleep(4)
    record = sessions(tmp_path)[0].ports[PORT]
    assert (record.state, record.reason) == (State.IGNORED, "the router did not keep the mapping")
    router.kept = Mapped(0)
    await trio.sleep(60)
    assert sessions(tmp_path)[0].ports[PORT].state is State.MAPPED
    assert (router.asked, router.checks) == (["add tcp/6881"] * 2, 2)
