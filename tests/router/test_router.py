"""The small gateway on loopback: what is mapped arrives, by natsup's own client and by upnpc."""

from ipaddress import IPv4Address

import pytest
import trio

from natsup.state.model import Mapped, Port, Protocol, Removal
from natsup.upnp.adding import Kind
from natsup.upnp.discovery import NoGateway, find_gateway
from natsup.upnp.igd import Igd
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
    found = await find_gateway(url=router.location)
    assert not isinstance(found, NoGateway)
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
