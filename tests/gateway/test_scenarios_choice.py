"""Scenarios of a router that speaks several protocols, or not the one that is preferred: which is
taken, and that what one of them has mapped is left to it. The search is the real one, on loopback.
"""

from functools import partial

import pytest
import trio
from trio.testing import MockClock

from natsup.state.gateway import Gateway as Chosen
from natsup.state.model import Ignored, Mapped, Port, Protocol, Removal
from natsup.upnp.choosing import PROTOCOLS, Speakers, find, reopen
from natsup.upnp.network import Network, NoGateway
from natsup.upnp.pmp import gateway as pmp
from tests.gateway.gateway import HERE, IMPOSTOR, ROUTER, Gateway, running
from tests.gateway.house import open_pmp, trust_loopback
from tests.gateway.quirks import Quirks

NETWORK = Network("lo", ROUTER, HERE)
PORT = Port(Protocol.TCP, 6881)
MINE = {"TCP 6881": HERE}


@pytest.fixture(autouse=True)
def _on_loopback(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    trust_loopback(monkeypatch)
    monkeypatch.setattr(pmp, "_now", trio.current_time)  # one clock for router and host
    autojump_clock.autojump_threshold = 0.01  # sockets are real: leave the kernel a moment


async def chosen(*protocols: str, seconds: float = 2.0) -> Chosen:
    found = await find(
        NETWORK, Speakers(lambda: b"secret"), protocols=protocols or PROTOCOLS, seconds=seconds
    )
    assert not isinstance(found, NoGateway), found.reason
    return found


def maps(gateway: Gateway) -> list[str]:
    """What it was asked that changes its table."""
    return [one for one in gateway.asked if one.startswith(("add", "delete")) or "map" in one]


async def test_72_without_upnp_it_falls_through_to_natpmp(autojump_clock: MockClock) -> None:
    async with running(Quirks(speaks=("natpmp",))) as gateway:
        found = await chosen()
        assert found.protocol == "natpmp"
        assert await found.add(PORT, lease=3600) == Mapped(3600)
        assert maps(gateway) == ["natpmp map 3600"]
        assert gateway.holders == MINE


async def test_81_a_port_that_is_denied_to_all_is_no_conflict_where_one_can_look(
    autojump_clock: MockClock,
) -> None:
    """PCP alone could not tell; but it is not asked."""
    quirks = Quirks(speaks=PROTOCOLS, lowest_port=7000)
    async with running(quirks) as gateway:
        found = await chosen()
        assert isinstance(await found.add(PORT, lease=3600), Ignored)
        assert maps(gateway) == ["add 3600"]
        assert gateway.holders == {}


@pytest.mark.parametrize("length", [4, 8, 12])
async def test_84_a_router_that_says_it_speaks_natpmp_alone_however_briefly(
    autojump_clock: MockClock, length: int
) -> None:
    quirks = Quirks(speaks=("natpmp",), pmp_downgrade=length)
    async with running(quirks) as gateway:
        began = trio.current_time()
        found = await chosen("pcp", "natpmp", seconds=10)
        assert (found.protocol, await found.add(PORT, lease=60)) == ("natpmp", Mapped(60))
        assert trio.current_time() - began < 0.5  # PCP is not waited for
        assert gateway.asked.count("pcp query") == 1


@pytest.mark.parametrize("protocol", ["natpmp", "pcp"])
async def test_88_announcements_are_hints_to_look_at_the_clock_of_the_router_and_not_all_the_time(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    monkeypatch.setattr(pmp, "_EVERY", 1000.0)  # seconds: it looks by itself no more
    query = f"{protocol} query"
    async with running(Quirks(speaks=PROTOCOLS, pmp_epoch=1000)) as gateway:
        found = open_pmp(gateway, protocol)
        send, receive = trio.open_memory_channel[str](1)
        assert await found.add(PORT, lease=3600) == Mapped(3600)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(found.watch, send, interface="lo"))
            await trio.testing.wait_all_tasks_blocked()  # it listens
            await gateway.announce(IMPOSTOR)
            await trio.sleep(20)
            assert gateway.asked.count(query) == 0
            for _ in range(20):
                await gateway.announce()
            await trio.sleep(6)
            assert gateway.asked.count(query) == 1
            await gateway.announce()
            await trio.sleep(6)
            assert gateway.asked.count(query) == 1
            gateway.quirks.pmp_epoch = 3
            began = trio.current_time()
            await gateway.announce()
            assert await receive.receive() == "the router was restarted, by its clock"
            assert trio.current_time() - began <= 6
            assert gateway.holders == MINE
            nursery.cancel_scope.cancel()


async def test_92_a_router_that_speaks_all_of_them_is_asked_for_mappings_by_one(
    autojump_clock: MockClock,
) -> None:
    async with running(Quirks(speaks=PROTOCOLS)) as gateway:
        found = await chosen()
        assert await found.add(PORT, lease=3600) == Mapped(3600)
        assert gateway.asked.count("add 3600") == 1
        assert [entry.by for entry in gateway.table.entries.values()] == ["upnp"]
        assert await found.remove(PORT) is Removal.GONE
        assert maps(gateway) == ["add 3600", "delete"]
        assert gateway.holders == {}


@pytest.mark.parametrize("protocol", ["natpmp", "pcp"])
async def test_92_what_one_protocol_has_made_is_removed_by_it(
    autojump_clock: MockClock, protocol: str
) -> None:
    """By a later session, too, which would choose another; by the wrong one it would stay."""
    async with running(Quirks(speaks=PROTOCOLS)) as gateway:
        made = await chosen(protocol)
        assert await made.add(PORT, lease=3600) == Mapped(3600)
        wrong = await chosen("pcp" if protocol == "natpmp" else "natpmp")
        await wrong.remove(PORT)
        assert gateway.holders == MINE
        again = await reopen(made.location, NETWORK, Speakers(lambda: b"secret"))
        assert again is not None
        assert await again.remove(PORT) is Removal.GONE
        assert gateway.holders == {}
