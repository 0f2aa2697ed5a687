"""A router for tests that speaks NAT-PMP and PCP on loopback, with whatever oddity a test wants.

It is at 127.0.0.1; tests speak to it from `HERE`.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address

import trio

from natsup.state.model import Port, Protocol
from natsup.upnp.pmp import natpmp, pcp
from natsup.upnp.pmp.answers import Map, Query, Step, Unmap

HERE, ROUTER, OTHER = "127.0.0.2", "127.0.0.1", "127.0.0.3"
OUTSIDE = IPv4Address("11.22.33.1")
_PROTOCOLS = {6: Protocol.TCP, 17: Protocol.UDP}

Oddity = Callable[[bytes], list[bytes] | None]


@dataclass(frozen=True, slots=True)
class Entry:
    client: str
    internal_port: int
    lifetime: int
    nonce: bytes = b""


@dataclass
class Router:
    """``odd``: what to send for a request instead, if anything; None from it: as usual.
    ``refuses``: the result of every mapping instead. ``random``: never the port that is asked for.
    ``lifetime``: of every mapping; None: as asked. ``versions``: that it speaks.
    ``error_lifetime``: of PCP's refusals."""

    table: dict[Port, Entry] = field(default_factory=dict)
    epoch: int = 1000
    outside: IPv4Address = OUTSIDE
    odd: Oddity | None = None
    refuses: int = 0
    error_lifetime: int = 30
    random: bool = False
    heeds_option: bool = True
    knows_option: bool = True
    lifetime: int | None = None
    versions: frozenset[int] = frozenset({natpmp.VERSION, pcp.VERSION})
    asked: list[bytes] = field(default_factory=list)
    sources: list[tuple[str, int]] = field(default_factory=list)
    port: int = 0

    def answer(self, data: bytes, client: str) -> bytes | None:
        """What a request comes to."""
        if data[0] not in self.versions:
            if natpmp.VERSION in self.versions:
                return natpmp.encode_response(natpmp.Response(data[1], 1, self.epoch))
            return pcp.encode_response(pcp.Response(data[1], 1, 0, self.epoch))
        if data[0] == natpmp.VERSION:
            step = natpmp.decode_request(data)
            assert step is not None
            return natpmp.encode_response(self._natpmp(step, client))
        asked = pcp.decode_request(data)
        assert asked is not None
        assert str(asked.client.ipv4_mapped) == client
        return pcp.encode_response(self._pcp(asked, client))

    def _natpmp(self, step: Step, client: str) -> natpmp.Response:
        if isinstance(step, Query):
            return natpmp.Response(0, self.refuses, self.epoch, self.outside)
        code, number = natpmp.opcode(step), step.port.number
        if isinstance(step, Unmap):
            self._remove(step.port, client)
            return natpmp.Response(code, 0, self.epoch, None, number, 0, 0)
        if self.refuses:
            return natpmp.Response(code, self.refuses, self.epoch, None, number, 0, 0)
        given = self._give(step.port, client, step.lifetime)
        lifetime = self.table[given].lifetime
        return natpmp.Response(code, 0, self.epoch, None, number, given.number, lifetime)

    def _pcp(self, asked: pcp.Request, client: str) -> pcp.Response:
        said = pcp.Response(asked.opcode, 0, 0, self.epoch, asked.mapping)
        one = asked.mapping
        if one is None:
            return said
        no = replace(said, lifetime=self.error_lifetime)
        port = Port(_PROTOCOLS[one.protocol], one.internal_port)
        if not asked.lifetime:
            own = [e for e in self.table.values() if e.client == client]
            if any(e.nonce != one.nonce for e in own if e.internal_port == port.number):
                return replace(no, result=2)
            self._remove(port, client)
            return said
        if asked.insist and not self.knows_option:
            return replace(no, result=5)
        if self.refuses:
            return replace(no, result=self.refuses)
        held = self.table.get(port)
        foreign = held is not None and held.client != client
        if asked.insist and self.heeds_option and (foreign or self.random):
            return replace(no, result=11)
        if held is not None and not foreign and held.nonce != one.nonce:
            return replace(no, result=2)
        given = self._give(port, client, asked.lifetime, one.nonce)
        mapping = replace(
            one, external_port=given.number, external=IPv6Address(f"::ffff:{self.outside}")
        )
        return replace(said, lifetime=self.table[given].lifetime, mapping=mapping)

    def _give(self, port: Port, client: str, lifetime: int, nonce: bytes = b"") -> Port:
        given = replace(port, number=port.number - 1) if self.random else port
        while given in self.table and self.table[given].client != client:
            given = replace(given, number=given.number + 1)
        granted = lifetime if self.lifetime is None else self.lifetime
        self.table[given] = Entry(client, port.number, granted, nonce)
        return given

    def _remove(self, port: Port, client: str) -> None:
        for other, entry in list(self.table.items()):
            same = (other.protocol, entry.internal_port) == (port.protocol, port.number)
            if same and entry.client == client:
                del self.table[other]

    @property
    def maps(self) -> list[Step]:
        """What NAT-PMP requests asked for, but for its clock."""
        read = [natpmp.decode_request(data) for data in self.asked]
        return [step for step in read if isinstance(step, Map | Unmap)]


@asynccontextmanager
async def running() -> AsyncIterator[Router]:
    router = Router()
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as sock:
        await sock.bind((ROUTER, 0))
        router.port = sock.getsockname()[1]

        async def serve() -> None:
            while True:
                data, source = await sock.recvfrom(2048)
                router.asked.append(data)
                router.sources.append(source)
                sent = router.odd(data) if router.odd is not None else None
                if sent is None:
                    answer = router.answer(data, source[0])
                    sent = [] if answer is None else [answer]
                for datagram in sent:
                    await sock.sendto(datagram, source)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            yield router
            nursery.cancel_scope.cancel()
