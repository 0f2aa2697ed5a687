"""Who opens pinholes is found out when one is wished for, and anew when that changes."""

from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from natsup.state.gateway import Gateway
from natsup.state.journal import Journal
from natsup.state.keeper import Keeper
from natsup.state.ledger import Ledger
from natsup.state.model import Ignored, Mapped, Outcome, Port, Protocol, Removal
from natsup.supervisor import pinholes as module
from natsup.supervisor.pinholes import Pinholes
from natsup.upnp.network import NoGateway
from natsup.upnp.pinhole.address import Network
from tests.gateway.house import Alone

PORT = Port(Protocol.TCP, 6881, ipv6=True)
HERE, THERE = (Network("eth0", "fe80::1%eth0", f"2001:db8::{number}") for number in (2, 3))
NONE = NoGateway("there is none")


class Opener:
    protocol = "upnp"
    location = "http://[fe80::1%eth0]:5000/"

    def __init__(self, internal_address: str) -> None:
        self.internal_address = internal_address
        self.open: set[Port] = set()
        self.answers = True

    async def add(self, port: Port, *, lease: int) -> Outcome:
        if not self.answers:
            return Ignored("silence", silent=True)
        self.open.add(port)
        return Mapped(lease)

    async def check(self, port: Port) -> Outcome:
        return Mapped(0) if port in self.open else Ignored("gone")

    async def remove(self, port: Port) -> Removal:
        self.open.discard(port)
        return Removal.GONE

    async def external_address(self) -> str | None:
        return None

    def recall(self, port: Port, handle: str) -> None: ...


class World:
    """What is looked at, and who is found there."""

    def __init__(self) -> None:
        self.network: Network | NoGateway = HERE
        self.found: Opener | NoGateway = Opener(HERE.address)
        self.mappers: list[Gateway | None] = []  # by which it was searched
        self.change, self._heard = trio.open_memory_channel[None](10)

    async def look(self, interface: str | None, current: str | None = None) -> Any:
        return self.network

    async def find(
        self,
        network: Network,
        mapper: Gateway | None,
        *,
        protocols: Sequence[str],
        secret: Callable[[], bytes],
    ) -> Any:
        self.mappers.append(mapper)
        return self.found

    async def changes(self) -> AsyncGenerator[None, None]:
        async for _ in self._heard:
            yield

    def move(self, network: Network | NoGateway, found: Opener | NoGateway = NONE) -> None:
        self.network, self.found = network, found
        self.change.send_nowait(None)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    for name in ("look", "find", "changes"):
        monkeypatch.setattr(module, name, getattr(world, name))
    return world


@pytest.fixture
def pinholes(world: World, nursery: trio.Nursery, tmp_path: Path) -> Pinholes:
    keeper = Keeper(
        Ledger(),
        Journal(None, None),
        clock=trio.current_time,
        sleep_until=trio.sleep_until,
        neighbours=Alone(),
    )
    settings = {"interface": None, "protocols": ["upnp", "pcp"]}
    made = Pinholes(settings, keeper, lambda: bytes(32))
    nursery.start_soon(keeper.run)
    nursery.start_soon(made.run)
    return made


async def bind(pinholes: Pinholes, socket: int = 1, port: Port = PORT) -> Outcome:
    with await pinholes.wish(port, None) as wish:
        outcome = await wish.outcome(5)
        wish.claim(socket)
    return outcome


async def test_nothing_is_looked_for_before_it_is_wished_for(
    world: World, pinholes: Pinholes, autojump_clock: MockClock
) -> None:
    pinholes.mapper(None)
    await trio.sleep(3600)
    assert world.mappers == []
    assert await bind(pinholes) == Mapped(3600)
    assert world.mappers == [None]


async def test_the_search_waits_for_who_maps_ports(
    world: World, pinholes: Pinholes, autojump_clock: MockClock
) -> None:
    assert isinstance(await bind(pinholes), Ignored)
    mapper = Opener("192.168.1.2")
    pinholes.mapper(mapper)
    assert await bind(pinholes, 2) == Mapped(3600)
    assert world.mappers == [mapper]


async def test_what_lay_dormant_is_wished_for_once_there_is_ipv6(
    world: World, pinholes: Pinholes, autojump_clock: MockClock
) -> None:
    pinholes.mapper(None)
    world.network = NONE
    begin = trio.current_time()
    assert isinstance(await bind(pinholes), Ignored)
    assert isinstance(await bind(pinholes, 2, PORT), Ignored)
    closed = Port(Protocol.UDP, 7000, ipv6=True)
    await bind(pinholes, 3, closed)
    assert trio.current_time() == begin
    assert pinholes.wanted(PORT)
    pinholes.release(3)
    assert not pinholes.wanted(closed)
    opener = Opener(HERE.address)
    world.move(HERE, opener)
    await trio.sleep(1)
    assert opener.open == {PORT}
    pinholes.release(1)
    await trio.sleep(1)
    assert opener.open == {PORT}  # the other one has it still
    pinholes.release(2)
    await trio.sleep(1)
    assert opener.open == set()


async def test_ipv6_that_is_seen_while_a_call_goes_on(
    world: World, pinholes: Pinholes, autojump_clock: MockClock
) -> None:
    pinholes.mapper(None)
    world.network = NONE
    opener = Opener(HERE.address)
    with await pinholes.wish(PORT, None) as wish:
        world.move(HERE, opener)
        await trio.sleep(1)
        wish.claim(1)
    await trio.sleep(1)
    assert opener.open == {PORT}


async def test_another_address_and_another_mapper(
    world: World, pinholes: Pinholes, autojump_clock: MockClock
) -> None:
    pinholes.mapper(None)
    await bind(pinholes)
    world.change.send_nowait(None)  # of something else
    await trio.sleep(1)
    assert len(world.mappers) == 1
    moved = Opener(THERE.address)
    world.move(THERE, moved)
    await trio.sleep(1)
    assert moved.open == {PORT}
    moved.open.clear()  # as by a restart, which who maps ports is found again after
    pinholes.mapper(Opener("192.168.1.2"))
    await trio.sleep(10)  # it was to be looked for after 3 s
    assert moved.open == {PORT}


async def test_a_router_that_fell_silent_is_found_again(
    world: World, pinholes: Pinholes, autojump_clock: MockClock
) -> None:
    pinholes.mapper(None)
    opener = world.found
    assert isinstance(opener, Opener)
    opener.answers = False
    assert isinstance(await bind(pinholes), Ignored)
    world.found = NONE
    await trio.sleep(600)
    assert 5 < len(world.mappers) < 15  # ever more rarely
    opener.answers, world.found = True, opener
    await trio.sleep(600)
    assert opener.open == {PORT}
