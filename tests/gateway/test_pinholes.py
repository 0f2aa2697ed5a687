"""Pinholes on the fake gateway: what is asked, what comes of it, and what is left in the end."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from natsup.state.gateway import Pinholes
from natsup.state.happenings import Event, What
from natsup.state.journal import Header, Journal, sessions
from natsup.state.keeper import Keeper
from natsup.state.ledger import Ledger
from natsup.state.model import Ignored, Mapped, Outcome, Port, Protocol
from natsup.state.sweep import sweep
from natsup.upnp.network import NoGateway
from natsup.upnp.pinhole.address import Network
from natsup.upnp.pinhole.finding import find
from tests.gateway.firewall import FirewallQuirks
from tests.gateway.gateway import DESCRIPTIONS, ROUTER, Gateway
from tests.gateway.house import Alone, open_igd

PORT = Port(Protocol.UDP, 6881, ipv6=True)
HERE = "::1"  # there is but one address of IPv6 on loopback
OPEN = {"17 6881": HERE}


class House:
    """A host whose pinholes are kept on the fake gateway; the clock jumps."""

    def __init__(self, gateway: Gateway, keeper: Keeper, pinholes: Pinholes) -> None:
        self.gateway = gateway
        self.firewall = gateway.firewall
        self.keeper = keeper
        self.pinholes = pinholes
        self.told: list[Event] = []

    @property
    def asked(self) -> list[str]:
        return self.gateway.asked

    @property
    def what(self) -> list[What]:
        return [event.what for event in self.told]

    async def bind(self, port: Port = PORT, socket: int = 0) -> Outcome:
        with self.keeper.wish(port) as wish:
            outcome = await wish.outcome(60)
            wish.claim(socket)
        return outcome

    async def settle(self, condition: Callable[[], bool], seconds: float = 7200) -> None:
        with trio.fail_after(seconds):
            while not condition():  # noqa: ASYNC110 - time is no matter here
                await trio.sleep(seconds / 100)


async def opener(gateway: Gateway) -> Pinholes:
    igd = await open_igd(gateway)
    network = Network("lo", HERE, HERE)
    found = await find(network, igd, protocols=["upnp"], secret=lambda: bytes(32))
    assert not isinstance(found, NoGateway), found.reason
    gateway.log.clear()
    return found


@asynccontextmanager
async def house(
    folder: Path, clock: MockClock, quirks: FirewallQuirks | None = None
) -> AsyncIterator[House]:
    clock.autojump_threshold = 0.005  # sockets are real: leave the kernel a moment
    gateway = Gateway(ROUTER, ipv6=HERE)
    gateway.documents["/d.xml"] = (DESCRIPTIONS / "with-firewall.xml").read_text()
    gateway.firewall.quirks = quirks or FirewallQuirks()
    journal = Journal.create(folder, Header("s", pid=1, command=["x"], started=0.0))
    told: list[Event] = []
    keeper = Keeper(
        Ledger(),
        journal,
        clock=trio.current_time,
        sleep_until=trio.sleep_until,
        neighbours=Alone(),
        tell=told.append,
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(gateway.serve)
        nursery.start_soon(keeper.run)
        made = House(gateway, keeper, await opener(gateway))
        made.told = told
        keeper.gateway_found(made.pinholes, external=HERE)
        yield made
        nursery.cancel_scope.cancel()
    journal.end(left=True)


async def test_opened_renewed_and_closed(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with house(tmp_path, autojump_clock) as made:
        assert await made.bind() == Mapped(3600, "1")
        assert made.asked == ["GetFirewallStatus", "AddPinhole"]
        assert made.firewall.open == OPEN
        await trio.sleep(14000)
        assert made.firewall.open == OPEN
        assert set(made.asked[2:]) == {"GetPinholePackets", "UpdatePinhole"}
        assert made.asked.count("UpdatePinhole") == 7  # at half time
        made.keeper.release(0)
        await made.settle(lambda: made.firewall.open == {})
        assert made.asked[-1] == "DeletePinhole"
        assert made.what == [What.MAPPED, What.REMOVED]


@pytest.mark.parametrize("absent", [704, 402])
async def test_what_the_router_forgot_is_opened_anew(
    tmp_path: Path, autojump_clock: MockClock, absent: int
) -> None:
    async with house(tmp_path, autojump_clock, FirewallQuirks(absent=absent)) as made:
        await made.bind()
        await trio.sleep(10)
        made.firewall.pinholes.clear()
        made.keeper.compare()
        await made.settle(lambda: made.what == [What.MAPPED, What.LOST, What.PUT_BACK], 60)
        assert made.firewall.open == OPEN
        made.keeper.release(0)
        await made.settle(lambda: made.firewall.open == {})


async def test_forgotten_without_being_looked_for(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A router that cannot be asked for a pinhole finds out at the renewal."""
    quirks = FirewallQuirks(faults={"GetPinholePackets": 401})
    async with house(tmp_path, autojump_clock, quirks) as made:
        await made.bind()
        await made.settle(lambda: made.asked.count("AddPinhole") == 2)  # it is asked again for it
        assert list(made.firewall.pinholes) == [1]
        made.firewall.pinholes.clear()
        await made.settle(lambda: made.firewall.open == OPEN)


@pytest.mark.parametrize(
    ("quirks", "asked"),
    [
        (FirewallQuirks(allowed="0"), ["GetFirewallStatus"]),
        (FirewallQuirks(room=0), ["GetFirewallStatus", "AddPinhole"]),
        (FirewallQuirks(faults={"AddPinhole": 606}), ["GetFirewallStatus", "AddPinhole"]),
        (FirewallQuirks(faults={"AddPinhole": 708}), ["GetFirewallStatus", "AddPinhole"]),
        (FirewallQuirks(faults={"AddPinhole": 729}), ["GetFirewallStatus", "AddPinhole"]),
    ],
)
async def test_a_refusal_is_no_conflict(
    tmp_path: Path, autojump_clock: MockClock, quirks: FirewallQuirks, asked: list[str]
) -> None:
    async with house(tmp_path, autojump_clock, quirks) as made:
        assert isinstance(await made.bind(), Ignored)
        assert made.asked == asked
        assert made.what == [What.IGNORED]
        made.firewall.quirks = FirewallQuirks()
        await made.settle(lambda: made.firewall.open == OPEN)


async def test_without_a_firewall_nothing_is_opened(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with house(tmp_path, autojump_clock, FirewallQuirks(enabled="0")) as made:
        assert isinstance(await made.bind(), Mapped)
        assert made.asked == ["GetFirewallStatus"]
        made.firewall.quirks = FirewallQuirks()
        await made.settle(lambda: made.firewall.open == OPEN, 600)


async def test_a_full_table_has_room_again(tmp_path: Path, autojump_clock: MockClock) -> None:
    other = Port(Protocol.TCP, 7000, ipv6=True)
    async with house(tmp_path, autojump_clock, FirewallQuirks(room=1)) as made:
        await made.bind()
        assert isinstance(await made.bind(other, 1), Ignored)
        made.keeper.release(0)
        await made.settle(lambda: made.firewall.open == {"6 7000": HERE}, 5)


async def test_a_number_that_was_not_told(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with house(tmp_path, autojump_clock, FirewallQuirks(numbers=False)) as made:
        assert await made.bind() == Mapped(3600)
        made.firewall.quirks.numbers = True
        made.keeper.release(0)
        await made.settle(lambda: made.firewall.open == {}, 60)


async def test_an_answer_that_is_lost(tmp_path: Path, autojump_clock: MockClock) -> None:
    """It may be open: it is closed in the end, for which its number is learned."""
    async with house(tmp_path, autojump_clock) as made:
        made.gateway.quirks.manners = {"AddPinhole": "silent"}
        with made.keeper.wish(PORT) as wish:
            assert isinstance(await wish.outcome(0.5), Ignored)
        assert made.firewall.open == OPEN
        made.gateway.quirks.manners = {}
        await made.settle(lambda: made.firewall.open == {}, 600)


async def test_closed_after_a_crash_by_the_number_in_the_journal(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with house(tmp_path, autojump_clock) as made:
        await made.bind()
        gateway = made.gateway
        (record,) = sessions(tmp_path)
        assert record.ports[PORT].handle == "1"
    async with trio.open_nursery() as nursery:
        await nursery.start(gateway.serve, gateway.port)
        fresh = await opener(gateway)

        async def found(protocol: str) -> Pinholes:
            return fresh

        # trio's clock is not the wall's, which the lease ends by
        report = await sweep(tmp_path, None, wall=lambda: 0.0, neighbours=Alone(), pinholes=found)
        assert gateway.firewall.open == {}
        assert gateway.asked == ["DeletePinhole"]
        assert report.left == []
        assert sessions(tmp_path) == []
        nursery.cancel_scope.cancel()


async def test_a_router_without_the_service(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with house(tmp_path, autojump_clock) as made:
        igd = await open_igd(made.gateway)
        made.gateway.documents["/d.xml"] = (DESCRIPTIONS / "plain.xml").read_text()
        network = Network("lo", HERE, HERE)
        for protocols in (["upnp"], ["natpmp"]):
            found = await find(network, igd, protocols=protocols, secret=lambda: bytes(32))
            assert isinstance(found, NoGateway)
            assert found.reason.startswith("the router opens no pinholes")
