"""The small gateway on loopback: what is mapped arrives, by natsup's own client and by upnpc."""

import logging
import socket
import struct
from ipaddress import IPv4Address
from urllib.parse import urlsplit

import pytest
import trio

from natsup.state.model import Mapped, Port, Protocol, Removal
from natsup.upnp.adding import Kind
from natsup.upnp.discovery import find_gateway, network_of
from natsup.upnp.igd import Igd
from natsup.upnp.network import Network
from natsup.upnp.router import forward, soap
from natsup.upnp.router.server import Router

INSIDE, OUTSIDE = "127.0.0.1", "127.0.33.1"


class Running:
    def __init__(self) -> None:
        self.location = ""
        self.told: list[str] = []
        self._more = trio.Event()

    def tell(self, line: str) -> None:
        self.told.append(line)
        self._more.set()
        self._more = trio.Event()

    async def hear(self, line: str) -> None:
        """Wait until it has told this."""
        with trio.fail_after(20):
            while line not in self.told:
                await self._more.wait()


@pytest.fixture
async def router(nursery: trio.Nursery) -> Running:
    running = Running()
    made = Router(IPv4Address(INSIDE), IPv4Address(OUTSIDE), running.tell)
    running.location = await nursery.start(made.serve)
    return running


async def client(router: Running) -> Igd:
    network = await network_of(interface=None, url=router.location)
    assert isinstance(network, Network)
    found = await find_gateway(network, url=router.location)
    assert isinstance(found, Igd)
    return found


async def free_port(kind: int) -> int:
    with trio.socket.socket(trio.socket.AF_INET, kind) as sock:
        await sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def test_tcp_arrives(router: Running, nursery: trio.Nursery) -> None:
    async def shout(stream: trio.SocketStream) -> None:
        async for data in stream:
            await stream.send_all(data.upper())

    listeners = await trio.open_tcp_listeners(0, host=INSIDE)
    nursery.start_soon(trio.serve_listeners, shout, listeners)
    port = Port(Protocol.TCP, listeners[0].socket.getsockname()[1])
    igd = await client(router)
    assert await igd.add(port, lease=600) == Mapped(600)
    async with await trio.open_tcp_stream(OUTSIDE, port.number) as stream:
        await stream.send_all(b"hello")
        assert await stream.receive_some() == b"HELLO"
    assert await igd.remove(port) is Removal.GONE
    with pytest.raises(OSError, match=r"all attempts|refused"):
        await trio.open_tcp_stream(OUTSIDE, port.number)
    assert router.told[0] == f"{port} → {INSIDE}:{port.number}"
    assert router.told[-1] == f"{port} → {INSIDE} removed"


async def test_udp_arrives_and_is_answered(router: Running) -> None:
    with (
        trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as server,
        trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as one,
        trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as other,
    ):
        await server.bind((INSIDE, 0))
        port = Port(Protocol.UDP, server.getsockname()[1])
        igd = await client(router)
        assert await igd.add(port, lease=600) == Mapped(600)
        for peer, text in ((one, b"one"), (other, b"other"), (one, b"again")):
            await peer.sendto(text, (OUTSIDE, port.number))
            data, sender = await server.recvfrom(100)
            assert data == text
            await server.sendto(data.upper(), sender)
            assert await peer.recvfrom(100) == (text.upper(), (OUTSIDE, port.number))


async def test_a_port_that_the_router_uses_itself(router: Running) -> None:
    with trio.socket.socket() as taken:
        await taken.bind((OUTSIDE, 0))
        await trio.lowlevel.checkpoint()
        port = Port(Protocol.TCP, taken.getsockname()[1])
        taken.listen()
        outcome = await (await client(router)).add(port, lease=600)
    assert "the router itself" in str(outcome)


async def test_it_says_who_it_is(router: Running) -> None:
    igd = await client(router)
    assert await igd.external_address() == OUTSIDE
    assert (await igd.condition()).connected


async def test_upnpc_works_with_it(router: Running) -> None:
    port = await free_port(trio.socket.SOCK_STREAM)

    async def upnpc(*words: str) -> str:
        command = ["upnpc", "-m", "lo", "-u", router.location, *words]
        done = await trio.run_process(command, capture_stdout=True, check=False)
        return done.stdout.decode()

    added = await upnpc("-e", "mine", "-a", INSIDE, str(port), str(port), "TCP", "600")
    assert "is redirected to internal" in added
    assert (
        f"TCP {port}->{INSIDE}:{port}".encode() in (await upnpc("-l")).replace("  ", " ").encode()
    )
    assert "returned : 0" in await upnpc("-d", str(port), "TCP")


async def test_a_lease_that_ends_is_forwarded_no_more(router: Running) -> None:
    port = Port(Protocol.TCP, await free_port(trio.socket.SOCK_STREAM))
    igd = await client(router)
    await igd.add(port, lease=1)
    await router.hear(f"{port} → {INSIDE} ended with its lease")
    assert (await igd.look(port)).kind is Kind.NOBODY


def request(action: str, **values: object) -> bytes:
    inside = "".join(f"<{name}>{value}</{name}>" for name, value in values.items())
    body = (
        '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>'
        f'<u:{action} xmlns:u="{soap.SERVICE}">{inside}</u:{action}></s:Body></s:Envelope>'
    )
    head = f"POST /control HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body.encode()


def adding(number: object, internal_port: int, protocol: str = "TCP") -> bytes:
    return request(
        "AddPortMapping",
        NewRemoteHost="",
        NewExternalPort=number,
        NewProtocol=protocol,
        NewInternalPort=internal_port,
        NewInternalClient=INSIDE,
        NewEnabled="1",
        NewPortMappingDescription="x",
        NewLeaseDuration="60",
    )


async def say(router: Running, *parts: bytes) -> list[bytes]:
    """What it answers to each of these on one connection; b"" when it closes that."""
    answers = []
    async with await trio.open_tcp_stream(INSIDE, urlsplit(router.location).port or 0) as stream:
        for part in parts:
            await stream.send_all(part)
            answers.append(bytes(await stream.receive_some(65536)))
    return answers


LEAVE = b"Host: x\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (b"HEAD /description.xml HTTP/1.1\r\n" + LEAVE, b"HTTP/1.1 200 "),
        (b"HEAD /nothing HTTP/1.1\r\n" + LEAVE, b"HTTP/1.1 404 "),
        (b"CONNECT x:1 HTTP/1.1\r\n" + LEAVE, b"HTTP/1.1 404 "),
        (b"GET /description.xml HTTP/1.1\r\nUpgrade: x\r\n" + LEAVE, b"HTTP/1.1 200 "),
        (b"GET /description.xml HTTP/1.0\r\n\r\n", b"HTTP/1.1 200 "),
        (b"\0\r\n\r\n", b""),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", b""),
        (b"x" * 100_000, b""),
        (b"POST /control HTTP/1.1\r\nContent-Length: 1\r\n" + LEAVE + b"<", b"HTTP/1.1 500 "),
        (adding("1" * 5000, 7000), b"HTTP/1.1 500 "),
        (adding(7000, 0), b"HTTP/1.1 500 "),
        (request("GetGenericPortMappingEntry"), b"HTTP/1.1 500 "),
        (request("Nonsense"), b"HTTP/1.1 500 "),
    ],
)
async def test_nothing_that_is_sent_ends_it(router: Running, said: bytes, answer: bytes) -> None:
    try:
        (found,) = await say(router, said)
    except trio.BrokenResourceError:  # it closed before it had read all
        found = b""
    assert found.startswith(answer)
    assert bool(found) == bool(answer)
    assert await (await client(router)).external_address() == OUTSIDE


async def test_a_connection_that_is_reset_at_once(router: Running) -> None:
    """All of it before the router can look: its kernel accepts by itself."""
    peer = (INSIDE, urlsplit(router.location).port)
    with socket.socket() as sock:
        sock.connect(peer)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert await (await client(router)).external_address() == OUTSIDE


async def test_an_error_of_its_own_ends_one_connection_alone(
    router: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: object, **options: object) -> dict[str, str]:
        raise RuntimeError("a mistake")

    with monkeypatch.context() as patch:
        patch.setattr(soap, "look_up", fail)
        assert await say(router, request("GetExternalIPAddress")) == [b""]
    assert await (await client(router)).external_address() == OUTSIDE
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


@pytest.mark.parametrize("protocol", list(Protocol))
async def test_a_mapping_is_replaced_every_time(router: Running, protocol: Protocol) -> None:
    """The new one needs the socket's port that the old one has."""
    kind = trio.socket.SOCK_DGRAM if protocol is Protocol.UDP else trio.socket.SOCK_STREAM
    port = Port(protocol, await free_port(kind))
    parts = [adding(port.number, 7000 + turn, protocol.upper()) for turn in range(40)]
    for answer in await say(router, *parts):
        assert answer.startswith(b"HTTP/1.1 200 ")
    assert router.told[-1] == f"{port} → {INSIDE}:7039"


async def test_what_is_removed_is_free(router: Running) -> None:
    port = Port(Protocol.TCP, await free_port(trio.socket.SOCK_STREAM))
    igd = await client(router)
    for _ in range(20):
        assert await igd.add(port, lease=60) == Mapped(60)
        assert await igd.remove(port) is Removal.GONE
        with socket.socket() as other:
            other.bind((OUTSIDE, port.number))


async def test_a_way_that_is_missing_for_a_while(
    router: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = trio.Event()

    async def fail(mapping: object) -> trio.socket.SocketType:
        tried.set()
        raise OSError("no way")

    with (
        trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as server,
        trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as peer,
    ):
        await server.bind((INSIDE, 0))
        port = Port(Protocol.UDP, server.getsockname()[1])
        await (await client(router)).add(port, lease=600)
        with monkeypatch.context() as patch:
            patch.setattr(forward, "_towards", fail)
            await peer.sendto(b"lost", (OUTSIDE, port.number))
            await tried.wait()
        await peer.sendto(b"found", (OUTSIDE, port.number))
        assert (await server.recvfrom(100))[0] == b"found"
