"""A host with the fake gateway: what decides and keeps ports in natsup, without its kernel part.

The clock jumps when nothing is left to do, so that hours pass in no time.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from natsup.state.happenings import Event
from natsup.state.journal import Header, Journal
from natsup.state.keeper import Keeper
from natsup.state.ledger import Ledger
from natsup.state.model import Conflict, Mapped, Outcome, Port, Protocol
from natsup.upnp import trust
from natsup.upnp.description import services
from natsup.upnp.igd import Igd
from natsup.upnp.pmp.gateway import PmpGateway, speak
from tests.gateway.gateway import HERE, IMPOSTOR, ROUTER, Gateway
from tests.gateway.quirks import Quirks
from tests.gateway.table import Entry

PORT = Port(Protocol.TCP, 6881)
KEY = ("TCP", 6881)
_PATIENCE = 60.0  # of a bind that wants to know


class Alone:
    """No other session on this host."""

    def announce(self, port: Port) -> None: ...

    def withdraw(self, port: Port) -> None: ...

    def removing(self, port: Port) -> AbstractContextManager[bool]:
        return nullcontext(True)

    async def removed(self, port: Port) -> None: ...


class House:
    def __init__(
        self, gateway: Gateway, keeper: Keeper, ledger: Ledger, nursery: trio.Nursery
    ) -> None:
        self.gateway = gateway
        self.keeper = keeper
        self.nursery = nursery
        self.told: list[Event] = []
        self.signs: list[str] = []
        self._ledger = ledger
        self._sockets = 0

    async def bind(self, port: Port = PORT, budget: float = _PATIENCE) -> Outcome:
        """What becomes of a bind(). But for a conflict it gets its socket, whose number is how
        many there were before."""
        with self.keeper.wish(port) as wish:
            outcome = await wish.outcome(budget)
            if not isinstance(outcome, Conflict):
                wish.claim(self._sockets)
                self._sockets += 1
        return outcome

    def close(self, socket: int = 0) -> None:
        self.keeper.release(socket)

    def state(self, port: Port = PORT) -> str:
        entry = self._ledger.entry(port)
        return "gone" if entry is None else str(entry.state)

    def reason(self, port: Port = PORT) -> str:
        entry = self._ledger.entry(port)
        return "" if entry is None else entry.reason

    async def use(self, *, address: str = HERE) -> Igd:
        """Find the gateway, and keep the ports on it."""
        igd = await open_igd(self.gateway, address=address)
        igd.inherit(self.keeper.former(igd))
        self.keeper.gateway_found(igd)
        return igd

    async def use_pmp(self, protocol: str, secret: bytes = b"s" * 32) -> PmpGateway:
        """Keep the ports on it by NAT-PMP or PCP, and watch its clock, as a session does."""
        gateway = open_pmp(self.gateway, protocol, secret)
        self.keeper.gateway_found(gateway)
        send, signs = trio.open_memory_channel[str](1)
        self.nursery.start_soon(gateway.watch, send)
        self.nursery.start_soon(self._follow, signs)
        return gateway

    async def _follow(self, signs: "trio.MemoryReceiveChannel[str]") -> None:
        async for sign in signs:
            self.signs.append(sign)
            self.keeper.compare()


def open_pmp(gateway: Gateway, protocol: str, secret: bytes = b"s" * 32) -> PmpGateway:
    return speak(protocol, gateway.address, HERE, secret=lambda: secret)


async def open_igd(gateway: Gateway, *, address: str = HERE, seconds: float = 10.0) -> Igd:
    document = gateway.documents["/d.xml"]
    assert isinstance(document, str)
    service, *_ = services(document, url=trust.read(gateway.url))
    return await Igd.open(service, location=gateway.url, internal_address=address, seconds=seconds)


def trust_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a description from there, which is refused elsewhere because it is this host."""
    genuine = trust.location

    def location(text: str, *, sender: str, own: str) -> trust.Url:
        url = trust.read(text)
        if url.host in (ROUTER, IMPOSTOR) and url.host == sender:
            return url
        return genuine(text, sender=sender, own=own)

    monkeypatch.setattr(trust, "location", location)


@asynccontextmanager
async def house(
    folder: Path,
    clock: MockClock,
    quirks: Quirks | None = None,
    table: dict[tuple[str, int], Entry] | None = None,
    protocol: str = "upnp",
    version: int = 1,
) -> AsyncIterator[House]:
    """``table``: what the gateway holds at the beginning. ``protocol``: to speak to it by;
    ``version``: of WANIPConnection."""
    clock.autojump_threshold = 0.005  # sockets are real: leave the kernel a moment
    ledger = Ledger()
    gateway = Gateway(ROUTER, quirks)
    gateway.table.entries.update(table or {})
    kind = "service:WANIPConnection:"
    document = str(gateway.documents["/d.xml"])
    gateway.documents["/d.xml"] = document.replace(f"{kind}1", f"{kind}{version}")
    journal = Journal.create(folder, Header("s", pid=1, command=["x"], started=0.0))
    told: list[Event] = []
    keeper = Keeper(
        ledger,
        journal,
        clock=trio.current_time,
        sleep_until=trio.sleep_until,
        neighbours=Alone(),
        tell=told.append,
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(gateway.serve)
        nursery.start_soon(keeper.run)
        made = House(gateway, keeper, ledger, nursery)
        made.told = told
        await (made.use() if protocol == "upnp" else made.use_pmp(protocol))
        yield made
        nursery.cancel_scope.cancel()


def short(outcome: Outcome) -> str:
    """S, C or I: whether a bind() succeeds with its port open, fails, or goes on without."""
    if isinstance(outcome, Mapped):
        return "S"
    return "C" if isinstance(outcome, Conflict) else "I"
