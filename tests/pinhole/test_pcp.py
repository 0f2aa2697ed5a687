"""Pinholes by PCP: the bytes, and a router that would rather translate."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from ipaddress import IPv6Address

import trio

from natsup.state.model import Ignored, Mapped, Port, Protocol, Removal
from natsup.upnp.pinhole.pcp import PcpPinholes
from natsup.upnp.pmp import pcp
from natsup.upnp.pmp.answers import Map, Query, Unmap

PORT = Port(Protocol.UDP, 6881, ipv6=True)
HERE = "::1"


def secret() -> bytes:
    return bytes(32)


@dataclass
class Router:
    """Opens what it is asked to, at a port that is ``off`` by so many."""

    off: int = 0
    port: int = 0
    asked: list[pcp.Request] = field(default_factory=list)

    def answer(self, data: bytes) -> bytes:
        asked = pcp.decode_request(data)
        assert asked is not None
        self.asked.append(asked)
        one = asked.mapping
        if one is not None:
            given = one.internal_port + self.off
            one = replace(one, external_port=given, external=asked.client)
        return pcp.encode_response(pcp.Response(asked.opcode, 0, asked.lifetime, 100, one))


@asynccontextmanager
async def running(router: Router) -> AsyncIterator[PcpPinholes]:
    with trio.socket.socket(trio.socket.AF_INET6, trio.socket.SOCK_DGRAM) as sock:
        await sock.bind((HERE, 0))

        async def serve() -> None:
            while True:
                data, source = await sock.recvfrom(2048)
                await sock.sendto(router.answer(data), source)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            number = sock.getsockname()[1]
            yield PcpPinholes(HERE, HERE, secret=secret, port=number, seconds=5)
            nursery.cancel_scope.cancel()


def test_the_bytes() -> None:
    data = pcp.encode(Map(PORT, 3600, insist=True), client="2001:db8::2", proof=b"n" * 12)
    assert data[:8] == bytes((2, 1, 0, 0)) + (3600).to_bytes(4, "big")
    assert data[8:24] == IPv6Address("2001:db8::2").packed
    assert data[24:36] == b"n" * 12
    assert data[36:44] == bytes((17, 0, 0, 0)) + (6881).to_bytes(2, "big") * 2
    assert data[44:60] == bytes(16)  # any address, and of IPv6
    assert data[60:] == bytes((2, 0, 0, 0))
    request = pcp.decode_request(pcp.encode(Unmap(PORT), client=HERE, proof=b"n" * 12))
    assert request is not None
    assert (request.client, request.lifetime) == (IPv6Address(HERE), 0)
    assert pcp.encode(Query(), client="192.168.1.2", proof=b"")[8:24] == (
        IPv6Address("::ffff:192.168.1.2").packed
    )


async def test_opened_and_closed() -> None:
    router = Router()
    async with running(router) as pinholes:
        assert pinholes.location.startswith("pcp://[::1]:")
        assert await pinholes.probe(5) is None
        assert await pinholes.add(PORT, lease=3600) == Mapped(3600)
        assert isinstance(await pinholes.check(PORT), Mapped)
        pinholes.recall(PORT, "")
        assert await pinholes.remove(PORT) is Removal.GONE
    nonces = {one.mapping.nonce for one in router.asked if one.mapping is not None}
    assert nonces == {pcp.nonce(secret(), HERE, HERE, PORT)}
    mapping = Port(PORT.protocol, PORT.number)
    assert nonces != {pcp.nonce(secret(), HERE, HERE, mapping)}


async def test_another_port_is_of_no_use_and_no_conflict() -> None:
    router = Router()
    async with running(router) as pinholes:
        await pinholes.add(PORT, lease=3600)  # it gives what it is asked for
        router.off = 1
        other = Port(Protocol.TCP, 7000, ipv6=True)
        assert isinstance(await pinholes.add(other, lease=3600), Ignored)
        assert [one.lifetime for one in router.asked] == [3600, 3600, 0]
