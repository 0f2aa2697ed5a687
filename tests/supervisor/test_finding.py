"""What the search for a router has anybody wait for, with stand-ins for the network."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from natsup.state.gateway import Gateway
from natsup.state.history import History
from natsup.state.journal import Header, Journal
from natsup.state.keeper import Keeper
from natsup.state.known import Known, recall, remember
from natsup.state.ledger import Ledger
from natsup.state.model import Ignored, Outcome
from natsup.supervisor import clock, finding
from natsup.supervisor.finding import Finder
from natsup.supervisor.pinholes import Pinholes
from natsup.supervisor.verdict import Rules
from natsup.upnp.network import Network, NoGateway
from tests.state.test_keeper import GRANTED, PORT, Others, Router

LOCATION = "http://127.0.0.9/d.xml"
MAC = "127.0.0.9 00:11:22:33:44:55"
NONE = NoGateway("no router here")


class World:
    """``names``, ``gateways``: of the network, at each look, the last one for all that follow.
    ``found``: by each search. ``hold_...``: what a look or a search waits for, by its number."""

    def __init__(self) -> None:
        self.names = [MAC]
        self.gateways = ["127.0.0.9"]
        self.found: Gateway | NoGateway = NONE
        self.known: list[str | None] = []  # what each search was told
        self.preferred: list[object] = []
        self.seconds: list[float] = []  # how long each was to be
        self.looks = 0
        self.hold_look: dict[int, trio.Event] = {}
        self.hold_search: dict[int, trio.Event] = {}

    async def look(self, **_: object) -> Network:
        self.looks += 1
        if self.looks in self.hold_look:
            await self.hold_look[self.looks].wait()
        name, gateway = (row[min(self.looks, len(row)) - 1] for row in (self.names, self.gateways))
        return Network("lo", gateway, "127.0.0.1", name=name)

    async def find(
        self,
        network: Network,
        speakers: object,
        *,
        known: str | None,
        seconds: float,
        **more: object,
    ) -> Gateway | NoGateway:
        self.known.append(known)
        self.preferred.append(more["prefer"])
        self.seconds.append(seconds)
        if len(self.known) in self.hold_search:
            await self.hold_search[len(self.known)].wait()
        return self.found


class Here(Router):
    location = LOCATION
    internal_address = "127.0.0.1"


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr("natsup.upnp.discovery.network_of", made.look)
    monkeypatch.setattr("natsup.upnp.choosing.find", made.find)
    return made


@pytest.fixture
def keeper(tmp_path: Path, nursery: trio.Nursery) -> Keeper:
    made = Keeper(
        Ledger(),
        Journal.create(tmp_path, Header("s", pid=1, command=["x"], started=0.0)),
        clock=clock.now,
        sleep_until=clock.sleep_until,
        neighbours=Others(),
    )
    nursery.start_soon(made.run)
    return made


Start = Callable[..., Finder]


@pytest.fixture
def start(world: World, keeper: Keeper, tmp_path: Path, nursery: trio.Nursery) -> Start:
    def run(startup_timeout: float = 60.0) -> Finder:
        settings = {
            "gateway": None,
            "interface": None,
            "startup_timeout": startup_timeout,
            "protocols": ["upnp", "pcp", "natpmp"],
        }
        history = History(tmp_path, "s", ["x"])
        pinholes = Pinholes(settings, keeper, lambda: bytes(32))
        made = Finder(settings, keeper, Rules(), tmp_path, Others(), history, pinholes)
        nursery.start_soon(made.run)
        return made

    return run


async def outcome(finder: Finder, keeper: Keeper) -> Outcome:
    """What a call gets that waits for the search, and for the router as long as it takes."""
    with trio.fail_after(20), keeper.wish(PORT) as wish:
        assert await finder.searched()
        return await wish.outcome(60)


def remembered(folder: Path) -> Known | None:
    return recall(folder, MAC, wall=time.time())


@pytest.mark.parametrize("found", [Here(), NONE])
async def test_nobody_waits_for_the_name_of_the_network(
    world: World, start: Start, keeper: Keeper, tmp_path: Path, found: Here | NoGateway
) -> None:
    world.names = ["", MAC]
    world.hold_look[2] = trio.Event()
    world.found = found
    granted = isinstance(found, Here)
    assert await outcome(start(), keeper) == (GRANTED if granted else Ignored("no router here"))
    assert remembered(tmp_path) is None
    world.hold_look[2].set()
    await wait_all_tasks_blocked()
    known = remembered(tmp_path)
    assert known is not None
    assert known.location == (LOCATION if granted else None)


async def test_a_known_network_is_looked_at_once(
    world: World,
    start: Start,
    keeper: Keeper,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And what is known of it is read once."""
    world.found = Here()
    read: list[str] = []

    def recalled(folder: Path, network: str, *, wall: float) -> Known | None:
        read.append(network)
        return recall(folder, network, wall=wall)

    monkeypatch.setattr(finding, "recall", recalled)
    assert await outcome(start(), keeper) == GRANTED
    await wait_all_tasks_blocked()
    assert remembered(tmp_path) is not None
    assert world.looks == 1
    assert read == [MAC]


async def test_another_networks_name_is_not_taken(
    world: World, start: Start, keeper: Keeper, tmp_path: Path
) -> None:
    """Whoever takes his laptop elsewhere in between."""
    world.names, world.gateways = ["", MAC], ["127.0.0.9", "127.0.0.8"]
    world.found = Here()
    assert await outcome(start(), keeper) == GRANTED
    await wait_all_tasks_blocked()
    assert world.looks == 2
    assert not (tmp_path / "networks.json").exists()


async def test_where_the_router_was_is_tried(
    world: World, start: Start, keeper: Keeper, tmp_path: Path
) -> None:
    remember(tmp_path, MAC, Known(LOCATION, time.time() - 1e6))
    world.found = Here()
    assert await outcome(start(), keeper) == GRANTED
    assert world.known == [LOCATION]


@pytest.mark.parametrize(
    ("location", "age", "preferred"),
    [
        ("pcp://127.0.0.9:5351", 10.0, "pcp"),
        ("natpmp://127.0.0.9:5351", 80000.0, "natpmp"),
        ("pcp://127.0.0.9:5351", 90000.0, None),  # the user may have switched a better one on
        ("pcp://127.0.0.9:5351", -10.0, None),
        (LOCATION, 10.0, "upnp"),
    ],
)
async def test_the_protocol_that_was_chosen_is_preferred_for_a_day(
    world: World,
    start: Start,
    keeper: Keeper,
    tmp_path: Path,
    location: str,
    age: float,
    preferred: str | None,
) -> None:
    chosen = time.time() - age
    remember(tmp_path, MAC, Known(location, time.time() - 1, chosen=chosen))
    router = Here()
    router.location, router.protocol = location, location.partition(":")[0].replace("http", "upnp")
    world.found = router
    assert await outcome(start(), keeper) == GRANTED
    assert world.preferred == [preferred]
    await wait_all_tasks_blocked()
    known = remembered(tmp_path)
    assert known is not None
    # It is the choice that grows old, not the last use of it.
    assert (known.chosen == chosen) is (preferred is not None)
    assert known.location == location


@pytest.mark.parametrize(("age", "counts"), [(0, True), (290, True), (310, False)])
async def test_that_there_was_none_counts_for_minutes(
    world: World, start: Start, keeper: Keeper, tmp_path: Path, age: float, counts: bool
) -> None:
    remember(tmp_path, MAC, Known(None, time.time() - age, "there was none"))
    world.hold_search[1] = trio.Event()
    router, asked = Here(), trio.Event()
    world.found, router.look = router, asked.set
    finder = start(startup_timeout=0.5)
    with keeper.wish(PORT) as wish:
        assert await finder.searched() is counts
        if counts:
            refused = await wish.outcome(60)
            assert isinstance(refused, Ignored)
            assert refused.reason.startswith("there was none (so it was at ")
        wish.claim(7)
    world.hold_search[1].set()
    with trio.fail_after(20):
        await asked.wait()  # the search went on all the same


async def test_the_search_is_waited_for_once(world: World, start: Start) -> None:
    """The time is the session's, not each call's."""
    world.hold_search[1] = trio.Event()
    finder = start(startup_timeout=0.5)
    begin = clock.now()
    assert not await finder.searched()
    assert 0.4 < clock.now() - begin < 5
    with trio.fail_after(0.4):
        for _ in range(100):
            assert not await finder.searched()


async def test_only_the_search_that_nobody_waits_for_is_a_long_one(
    world: World, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are routers that answer after 20 s."""
    monkeypatch.setattr(finding, "_FIRST_PAUSE", 0.0)
    third = world.hold_search[3] = trio.Event()
    finder = start(startup_timeout=0.5)
    assert await finder.searched()
    await wait_all_tasks_blocked()
    assert world.seconds == [0.5, 25.0, 25.0]
    third.set()


async def test_the_external_address_is_asked_for_again_when_the_router_is_compared(
    world: World,
    start: Start,
    keeper: Keeper,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(finding, "_ADDRESS_SECONDS", 0.0)
    told = ["11.22.33.1", "11.22.33.2"]
    asked = [trio.Event(), trio.Event()]

    class Changing(Here):
        async def external_address(self) -> str | None:
            asked[2 - len(told)].set()
            return told.pop(0)

    world.found = Changing()
    finder = start()
    with trio.fail_after(20), keeper.wish(PORT) as wish:
        assert await finder.searched()
        assert await wish.outcome(60) == GRANTED
        wish.claim(7)
        await asked[0].wait()
        await wait_all_tasks_blocked()
        assert not asked[1].is_set()
        keeper.compare()
        await asked[1].wait()
        await wait_all_tasks_blocked()
    known = remembered(tmp_path)
    assert known is not None
    assert known.external == "11.22.33.2"


async def test_a_change_of_the_network_ends_a_search_of_another_one(
    world: World, start: Start, keeper: Keeper
) -> None:
    world.hold_search[1] = trio.Event()  # for ever
    finder = start()
    await wait_all_tasks_blocked()
    world.found = Here()
    finder._signs.change("this host has another address")
    assert await outcome(finder, keeper) == GRANTED
    assert world.looks == 2


async def test_a_router_that_only_says_that_it_is_there_is_not_searched_for_without_end(
    world: World, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def arrival(network: Network) -> None:
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr("natsup.upnp.arrival.arrival", arrival)
    finder = start()
    assert await finder.searched()
    await wait_all_tasks_blocked()
    assert world.seconds == [60.0, 60.0]  # the first one, and one after it was heard
