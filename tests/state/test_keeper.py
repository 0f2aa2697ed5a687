"""The keeper with a router that does what the test says, and a clock that jumps."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from natsup.state.happenings import Caller, Event, What
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


class Others:
    """The other sessions on this host, and what they see of this one."""

    def __init__(self) -> None:
        self.announced: set[Port] = set()
        self.wanted: set[Port] = set()

    def announce(self, port: Port) -> None:
        self.announced.add(port)

    def withdraw(self, port: Port) -> None:
        self.announced.discard(port)

    def use(self, where: str, *, ipv6: bool) -> None: ...

    def removing(self, port: Port, where: str = "") -> AbstractContextManager[bool]:
        return nullcontext(port not in self.wanted)

    async def removed(self, port: Port) -> None: ...


@pytest.fixture
def others() -> Others:
    return Others()


@pytest.fixture
def told() -> list[Event]:
    """What the keeper tells."""
    return []


@pytest.fixture
async def keeper(
    journal: Journal, nursery: trio.Nursery, others: Others, told: list[Event]
) -> Keeper:
    found = Keeper(
        Ledger(),
        journal,
        clock=trio.current_time,
        sleep_until=trio.sleep_until,
        neighbours=others,
        tell=told.append,
    )
    nursery.start_soon(found.run)
    return found


async def test_a_wish_is_granted(autojump_clock: MockClock, keeper: Keeper, tmp_path: Path) -> None:
    router = Router()
    keeper.gateway_found(router)
    with keeper.wish(PORT) as wish:
        assert await wish.outcome(0.5) == Mapped(3600)
        wish.claim(7)
    assert sessions(tmp_path)[0].ports[PORT].claims == 1
    keeper.release(7)
    await trio.sleep(1)
    assert router.asked == ["add tcp/6881", "remove tcp/6881"]


async def test_what_happens_is_told_with_who_and_why(
    autojump_clock: MockClock, keeper: Keeper, told: list[Event]
) -> None:
    router = Router()
    keeper.gateway_found(router)
    keeper.external_address("11.22.33.1")
    mine, theirs = Caller("mine", 1), Caller("theirs", 2)
    with keeper.wish(PORT, mine) as wish:
        await wish.outcome(0.5)
        wish.claim(7)
    router.kept = Ignored("it is not there")
    await trio.sleep(4)
    other = Port(Protocol.UDP, 6881)
    router.outcome = Conflict("192.168.77.3")
    with keeper.wish(other, theirs) as wish:
        await wish.outcome(0.5)
    router.removal = Removal.NOT_OURS
    assert await keeper.close(5)
    outside = "11.22.33.1"
    assert told == [
        Event(What.ROUTER, reason="its external address", external_address=outside),
        Event(What.MAPPED, PORT, mine, "", outside, 3600),
        Event(What.LOST, PORT, mine, "it is not there"),
        Event(What.PUT_BACK, PORT, mine, "", outside, 3600),
        Event(What.REFUSED, other, theirs, "held by 192.168.77.3", holder="192.168.77.3"),
        Event(What.NOT_OURS, PORT, mine, "it belongs to another host by now", outside),
    ]


async def test_a_call_that_has_not_waited_for_the_conflict_is_not_refused(
    autojump_clock: MockClock, keeper: Keeper, told: list[Event]
) -> None:
    keeper.gateway_found(Router(Conflict("192.168.77.3"), delay=1))
    with keeper.wish(PORT, Caller("mine", 1)) as wish:
        assert isinstance(await wish.outcome(0.5), Ignored)
        wish.claim(7)
    await trio.sleep(2)
    assert [event.what for event in told] == [What.CONFLICT]


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


async def test_what_can_wait_waits_for_the_calls(autojump_clock: MockClock, keeper: Keeper) -> None:
    router = Router(delay=0.1)
    with keeper.wish(PORT) as wish:
        keeper.gateway_found(router)
        await keeper.answered()
        assert router.asked == [f"add {PORT}"]
        assert await wish.outcome(0) == GRANTED
    with trio.fail_after(0.01):
        await keeper.answered()  # a call that has its answer is not waited for


async def test_calls_that_come_without_pause_hold_up_nothing_else(
    autojump_clock: MockClock, keeper: Keeper, nursery: trio.Nursery
) -> None:
    keeper.gateway_found(Router(delay=0.2))

    async def bind(number: int) -> None:
        with keeper.wish(Port(Protocol.TCP, number)) as wish:
            await wish.outcome(0.5)
            wish.claim(number)

    async def bind_without_pause() -> None:
        for number in range(7000, 7100):
            nursery.start_soon(bind, number)
            await trio.sleep(0.1)

    nursery.start_soon(bind_without_pause)
    await trio.sleep(1)
    with trio.fail_after(1):
        await keeper.answered()


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
    await trio.sleep(7)  # it is put back once
    record = sessions(tmp_path)[0].ports[PORT]
    assert (record.state, record.reason) == (State.IGNORED, "the router did not keep the mapping")
    router.kept = Mapped(0)
    await trio.sleep(60)
    assert sessions(tmp_path)[0].ports[PORT].state is State.MAPPED
    assert (router.asked, router.checks) == (["add tcp/6881"] * 3, 3)


async def test_what_another_session_wants_is_left_to_it(
    autojump_clock: MockClock, keeper: Keeper, others: Others, tmp_path: Path
) -> None:
    router = Router()
    keeper.gateway_found(router)
    with keeper.wish(PORT) as wish:
        assert others.announced == {PORT}  # before the router is asked
        await wish.outcome(0.5)
        wish.claim(7)
    others.wanted.add(PORT)
    keeper.release(7)
    await trio.sleep(0.1)
    assert others.announced == {PORT}  # it lingers
    await trio.sleep(1)
    assert others.announced == set()
    assert router.asked == ["add tcp/6881"]
    assert sessions(tmp_path)[0].ports == {}


async def test_a_wish_that_comes_to_nothing_is_not_announced_for_ever(
    autojump_clock: MockClock, keeper: Keeper, others: Others
) -> None:
    keeper.gateway_found(Router(Conflict("192.168.77.3")))
    with keeper.wish(PORT) as wish:
        await wish.outcome(0.5)
    assert others.announced == set()


SILENCE = Unknown("no answer", silent=True)


async def test_after_one_time_out_nobody_waits(autojump_clock: MockClock, keeper: Keeper) -> None:
    router = Router(delay=10)
    router.outcome = SILENCE
    keeper.gateway_found(router)

    async def waited(number: int) -> float:
        begin = trio.current_time()
        with keeper.wish(Port(Protocol.TCP, number)) as wish:
            await wish.outcome(0.5)
            wish.claim(number)
        return trio.current_time() - begin

    assert [await waited(number) for number in (7000, 7001, 7002)] == [0.5, 0, 0]
    await trio.sleep(11)
    assert await waited(7003) == 0  # it has still not answered
    router.outcome, router.delay = GRANTED, 0.1
    await trio.sleep(60)
    assert await waited(7004) == pytest.approx(0.1)


async def test_a_slow_answer_to_somebody_else_is_an_answer(
    autojump_clock: MockClock, keeper: Keeper
) -> None:
    """Many binds at once may take longer than the budget, with a router that works."""
    router = Router()
    delays = [0.2, 2, 0.1]
    router.look = lambda: setattr(router, "delay", delays.pop(0))
    keeper.gateway_found(router)
    with keeper.wish(PORT) as first:
        await trio.testing.wait_all_tasks_blocked()
        with keeper.wish(Port(Protocol.UDP, 6881)) as second:
            assert await first.outcome(0.5) == GRANTED
            assert isinstance(await second.outcome(0.3), Ignored)
            second.claim(8)
        first.claim(7)
    with keeper.wish(Port(Protocol.TCP, 7000)) as third:
        assert await third.outcome(0.5) == GRANTED


async def test_a_loss_is_told(autojump_clock: MockClock, keeper: Keeper) -> None:
    router = Router(SILENCE)
    keeper.gateway_found(router)
    with trio.move_on_after(5) as scope:
        await keeper.lost()
    assert scope.cancelled_caught
    with keeper.wish(PORT) as wish:
        await wish.outcome(0.5)
        wish.claim(7)
    with trio.fail_after(1):
        await keeper.lost()
    router.outcome = GRANTED
    keeper.gateway_found(router)
    with trio.move_on_after(5) as scope:
        await keeper.lost()
    assert scope.cancelled_caught


async def test_a_router_that_lost_its_table_gets_it_back(
    autojump_clock: MockClock, keeper: Keeper
) -> None:
    router = Router()
    keeper.gateway_found(router)
    with keeper.wish(PORT) as wish:
        await wish.outcome(0.5)
        wish.claim(7)
    await trio.sleep(10)
    assert (len(router.asked), router.checks) == (1, 1)
    router.kept = Ignored("it is not there")
    await trio.sleep(291)
    assert (len(router.asked), router.checks) == (2, 2)
    router.kept = Mapped(0)
    await trio.sleep(5)
    assert (len(router.asked), router.checks) == (2, 3)
    keeper.compare()
    await trio.sleep(1)
    assert (len(router.asked), router.checks) == (2, 4)


async def test_an_end_without_an_answer_is_remembered(
    autojump_clock: MockClock, keeper: Keeper
) -> None:
    router = Router()
    keeper.gateway_found(router)
    with keeper.wish(PORT) as wish:
        await wish.outcome(0.5)
        wish.claim(7)
    router.removal = Removal.FAILED
    begin = trio.current_time()
    assert not await keeper.close(5)
    assert trio.current_time() == begin  # there is nothing to wait for


async def test_what_nobody_wants_by_its_turn_is_not_asked_for(
    autojump_clock: MockClock, keeper: Keeper
) -> None:
    """A crowd of short binders is over before a slow router has come to most of them."""
    router = Router(delay=1.0)
    keeper.gateway_found(router)
    for number in range(100):
        with keeper.wish(Port(Protocol.TCP, 7000 + number)) as wish:
            wish.claim(number)
    await trio.sleep(0.5)
    for number in range(100):
        keeper.release(number)
    await trio.sleep(60)
    added = [word for word in router.asked if word.startswith("add")]
    assert 0 < len(added) < 20
    assert len(router.asked) == 2 * len(added)
    assert not list(keeper._ledger)


@pytest.mark.parametrize("moved", [False, True])
async def test_who_comes_back_before_the_removals_turn_has_the_mapping_as_it_was(
    autojump_clock: MockClock, keeper: Keeper, others: Others, moved: bool
) -> None:
    """A machine is so busy that its removal and the next bind() are seen at the same time. Where
    there is another router by then, the mapping is made there."""
    router = Router()
    keeper.gateway_found(router)
    with keeper.wish(PORT) as wish:
        assert await wish.outcome(0.5) == GRANTED
        wish.claim(7)
    router.delay = 1.0
    for number in range(20):  # the removal waits behind these
        with keeper.wish(Port(Protocol.TCP, 7000 + number)) as wish:
            wish.claim(100 + number)
    keeper.release(7)
    await trio.sleep(0.5)
    assert keeper._ledger._entries[PORT].state is State.RELEASING
    other = Router()
    other.location = "http://192.168.77.9/x"
    if moved:
        keeper.gateway_found(other)
    with keeper.wish(PORT) as wish:
        outcome = await wish.outcome(60)
        assert isinstance(outcome, Mapped)
        assert (outcome.lease < 3600) is not moved
        wish.claim(8)
    assert PORT in others.announced
    await trio.sleep(60)
    asked = [word for word in router.asked if word.endswith(str(PORT))]
    assert asked == ["add tcp/6881", *(["remove tcp/6881"] if moved else [])]
    assert ("add tcp/6881" in other.asked) is moved
    assert keeper._ledger._entries[PORT].state is State.MAPPED


async def test_what_nobody_wants_any_more_is_not_looked_for(
    autojump_clock: MockClock, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    router, turn = Router(), trio.Lock()

    async def check(port: Port) -> Outcome:
        async with turn:
            await trio.sleep(100)
            router.asked.append(f"check {port}")
            return Mapped(0)

    monkeypatch.setattr(router, "check", check)
    keeper.gateway_found(router)
    for number in range(20):
        with keeper.wish(Port(Protocol.TCP, 7000 + number)) as wish:
            assert await wish.outcome(60) == GRANTED
            wish.claim(number)
    await trio.sleep(10)  # the first one is looked for
    for number in range(20):
        keeper.release(number)
    await trio.sleep(10)
    assert {word.split()[0] for word in router.asked} == {"add", "remove"}
    assert not list(keeper._ledger)


async def test_a_wait_cut_short_does_not_tell_of_silence(
    autojump_clock: MockClock, keeper: Keeper
) -> None:
    """Whoever had to wait long for his own turn leaves the router little time."""
    router = Router(delay=0.3)
    keeper.gateway_found(router)
    with keeper.wish(PORT) as wish:
        assert isinstance(await wish.outcome(0.1, telling=False), Ignored)
        wish.claim(7)
    with keeper.wish(Port(Protocol.TCP, 7000)) as wish:
        assert await wish.outcome(0.5) == GRANTED


async def test_a_removal_is_announced_when_its_turn_has_come(
    autojump_clock: MockClock,
    keeper: Keeper,
    others: Others,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Other sessions do not wait long for one, and see whether they are in time."""
    router, announced, turn = Router(), dict[Port, float](), trio.Lock()

    async def remove(port: Port) -> Removal:
        async with turn:
            await trio.sleep(0.1)
        return Removal.GONE

    @contextmanager
    def removing(port: Port, where: str = "") -> Iterator[bool]:
        begun = trio.current_time()
        yield True
        announced[port] = trio.current_time() - begun

    monkeypatch.setattr(others, "removing", removing)
    monkeypatch.setattr(router, "remove", remove)
    keeper.gateway_found(router)
    for number in range(20):
        with keeper.wish(Port(Protocol.TCP, 7000 + number)) as wish:
            assert await wish.outcome(60) == GRANTED
            wish.claim(number)
    for number in range(20):
        keeper.release(number)
    await trio.sleep(10)
    assert len(announced) == 20
    assert max(announced.values()) < 0.15


async def test_a_silent_router_is_asked_for_all_removals_at_once(
    autojump_clock: MockClock, keeper: Keeper
) -> None:
    router = Router()
    keeper.gateway_found(router)
    for number in range(20):
        with keeper.wish(Port(Protocol.TCP, 7000 + number)) as wish:
            assert await wish.outcome(60) == GRANTED
            wish.claim(number)
    router.delay, router.removal = 10.0, Removal.FAILED
    begin = trio.current_time()
    assert not await keeper.close(15)
    assert trio.current_time() - begin < 30


async def test_who_waits_for_another_session_does_not_hold_the_router_silent(
    autojump_clock: MockClock, keeper: Keeper, others: Others, monkeypatch: pytest.MonkeyPatch
) -> None:
    router = Router()
    keeper.gateway_found(router)

    async def removed(port: Port) -> None:
        await trio.sleep(1.0 if port == PORT else 0.0)

    monkeypatch.setattr(others, "removed", removed)
    with keeper.wish(PORT) as wish:
        assert isinstance(await wish.outcome(0.5), Ignored)
        assert router.asked == []
        with keeper.wish(Port(Protocol.UDP, 7000)) as other:
            assert await other.outcome(0.1) == GRANTED
        await trio.sleep(0.6)
        assert router.asked[-1] == f"add {PORT}"


async def test_what_the_user_releases_is_announced_no_more(
    autojump_clock: MockClock, keeper: Keeper, others: Others, tmp_path: Path
) -> None:
    router = Router(delay=1.0)
    keeper.gateway_found(router)
    with keeper.wish(PORT) as wish:
        await wish.outcome(2)
        wish.claim(7)
    assert keeper.give_back(PORT)
    assert others.announced == set()
    await keeper.decided(PORT)
    assert keeper.state(PORT) == (State.RELEASED, "released by hand")
    with keeper.wish(PORT) as wish:  # another socket of the program's
        assert await wish.outcome(2) == Ignored("released by hand")
        wish.claim(8)
    assert others.announced == set()
    assert keeper.wanted(PORT)
    record = sessions(tmp_path)[0].ports[PORT]
    assert (record.claims, record.exists, record.released) == (2, False, True)

    assert keeper.retry(PORT)
    assert others.announced == {PORT}
    await keeper.decided(PORT)
    assert keeper.state(PORT) == (State.MAPPED, "")
    assert router.asked == ["add tcp/6881", "remove tcp/6881", "add tcp/6881"]
    assert not keeper.retry(Port(Protocol.UDP, 1))
    assert keeper.state(Port(Protocol.UDP, 1)) == (State.GONE, "")
