"""Eight hours of a session, on a clock that jumps: keeper, ledger and journal beside a router that
answers, hangs, forgets and comes back. What is kept does not grow, and the table is right."""

import gc
import os
import tracemalloc
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from random import Random

import trio
from trio.testing import MockClock

from natsup.state.journal import Header, Journal
from natsup.state.keeper import Keeper
from natsup.state.ledger import Ledger
from natsup.state.model import Ignored, Mapped, Outcome, Port, Protocol, Removal, Unknown

_HOURS, _WARM = 8, 2
_FLAT = 200_000  # bytes
_PORTS = [Port(protocol, number) for protocol in Protocol for number in range(7000, 7050)]


class Router:
    """Its table is true. ``hangs``: it answers nothing."""

    protocol, location, internal_address = "upnp", "http://192.168.77.1/x", "192.168.77.2"

    def __init__(self) -> None:
        self.table: set[Port] = set()
        self.hangs = False

    async def _answers(self) -> bool:
        await trio.sleep(10 if self.hangs else 0.02)
        return not self.hangs

    async def add(self, port: Port, *, lease: int) -> Outcome:
        self.table.add(port)  # though perhaps nobody hears of it
        return Mapped(lease) if await self._answers() else Unknown("no answer", silent=True)

    async def check(self, port: Port) -> Outcome:
        if not await self._answers():
            return Unknown("no answer", silent=True)
        return Mapped(0) if port in self.table else Ignored("it is not there")

    async def remove(self, port: Port) -> Removal:
        if not await self._answers():
            return Removal.FAILED
        self.table.discard(port)
        return Removal.GONE

    async def external_address(self) -> str | None:
        return None


class Nobody:
    """There are no other sessions."""

    def announce(self, port: Port) -> None: ...

    def withdraw(self, port: Port) -> None: ...

    def use(self, where: str, *, ipv6: bool) -> None: ...

    def removing(self, port: Port, where: str = "") -> AbstractContextManager[bool]:
        return nullcontext(True)

    async def removed(self, port: Port) -> None: ...


async def _an_hour(keeper: Keeper, router: Router, dice: Random, held: dict[int, Port]) -> None:
    end = trio.current_time() + 3600
    while trio.current_time() < end:
        number, port = dice.getrandbits(60), dice.choice(_PORTS)
        with keeper.wish(port) as wish:
            await wish.outcome(0.5)
            if dice.random() < 0.9:
                wish.claim(number)
                held[number] = port
        for gone in dice.sample(sorted(held), min(len(held), dice.choice((0, 1, 1, 2)))):
            del held[gone]
            keeper.release(gone)
        trouble = dice.random()
        router.hangs = trouble < 0.02
        if trouble > 0.995:
            router.table.clear()  # it was restarted
            keeper.compare()
        await trio.sleep(dice.expovariate(1 / 60))
    router.hangs = False


async def test_eight_hours(autojump_clock: MockClock, tmp_path: Path) -> None:
    dice, router, held = Random(8), Router(), dict[int, Port]()
    journal = Journal.create(tmp_path, Header("s", 1, ["x"], 0.0), most=20_000)
    keeper = Keeper(
        Ledger(),
        journal,
        clock=trio.current_time,
        sleep_until=trio.sleep_until,
        neighbours=Nobody(),
        wall=trio.current_time,
    )
    sizes = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run)
        keeper.gateway_found(router)
        tracemalloc.start()
        for _ in range(_HOURS):
            await _an_hour(keeper, router, dice, held)
            await trio.sleep(700)  # two comparisons
            assert router.table == set(held.values())
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        for gone in held:
            keeper.release(gone)
        await trio.sleep(60)
        assert router.table == set()
        assert not list(keeper._ledger)
        assert not keeper._wishes
        nursery.cancel_scope.cancel()
    assert max(sizes[_WARM:]) - sizes[_WARM - 1] < _FLAT, sizes
    fd = journal.fileno()
    assert fd is not None
    assert os.fstat(fd).st_size < 100_000
    journal.end(left=False)
