"""What has become of a bind() that was left to the kernel."""

import os
import random
import socket
import threading
from collections.abc import Callable
from functools import partial

import pytest
import trio

from natsup.state.model import Port, Protocol
from natsup.supervisor import afterwards, destroyed, takeover
from natsup.supervisor.afterwards import Sought
from natsup.supervisor.glimpse import kind_of
from natsup.supervisor.takeover import record_of
from natsup.supervisor.target import cookie

WAYS = pytest.mark.parametrize("events", [True, False], ids=["events", "proc"])
KINDS = pytest.mark.parametrize(
    ("family", "kind"),
    [
        (socket.AF_INET, socket.SOCK_STREAM),
        (socket.AF_INET, socket.SOCK_DGRAM),
        (socket.AF_INET6, socket.SOCK_STREAM),
        (socket.AF_INET6, socket.SOCK_DGRAM),
    ],
)


def sought(sock: socket.socket, number: int, address: bytes | None = None) -> Sought:
    protocol = Protocol.UDP if sock.type == socket.SOCK_DGRAM else Protocol.TCP
    anywhere = bytes(4 if sock.family == socket.AF_INET else 16)
    kind = kind_of(sock)
    return Sought(kind, os.getpid(), Port(protocol, number), address or anywhere, None)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("", 0))
        return int(sock.getsockname()[1])


@WAYS
@KINDS
async def test_what_is_bound_is_seen(family: int, kind: int, events: bool) -> None:
    with socket.socket(family, kind) as sock:
        number = free_port()
        wanted = sought(sock, number)
        assert await afterwards.look(wanted, events=events) is None
        sock.bind(("", number))
        if kind == socket.SOCK_STREAM:
            sock.listen()
        seen = await afterwards.bound(wanted, events=events)
        assert seen is not None
        assert seen.cookie == (cookie(sock) if events else -os.fstat(sock.fileno()).st_ino)
        assert await afterwards.alive(wanted, events=events)
        known = wanted._replace(cookie=5)
        assert (await afterwards.look(known, events=events) or seen).cookie == 5
    assert await afterwards.look(wanted, events=events) is None
    assert not await afterwards.alive(wanted, events=events)


@WAYS
async def test_another_address_or_port_is_not_what_was_asked_for(events: bool) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        number = sock.getsockname()[1]
        assert await afterwards.look(sought(sock, number), events=events) is None
        here = socket.inet_aton("127.0.0.1")
        assert await afterwards.look(sought(sock, number, here), events=events) is not None
        other = sought(sock, number ^ 1, here)
        assert await afterwards.look(other, events=events) is None


@pytest.mark.parametrize("alone", [0, 1])
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
async def test_ipv6_alone_is_told_by_events(kind: int, alone: int) -> None:
    with socket.socket(socket.AF_INET6, kind) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, alone)
        sock.bind(("", 0))
        wanted = sought(sock, sock.getsockname()[1])
        for _ in range(2):
            seen = await afterwards.look(wanted, events=True)
            assert seen is not None
            assert seen.v6only == bool(alone)
            if kind == socket.SOCK_STREAM:
                sock.listen()


@WAYS
@KINDS
async def test_what_is_not_bound_is_given_up(family: int, kind: int, events: bool) -> None:
    with socket.socket(family, kind) as sock, trio.fail_after(20):
        assert await afterwards.bound(sought(sock, free_port()), events=events) is None


async def test_a_server_that_does_not_listen_yet_is_waited_for() -> None:
    """/proc/net does not show it; its port cannot be had."""
    with socket.socket() as sock:
        sock.bind(("", 0))
        wanted = sought(sock, sock.getsockname()[1])
        with trio.move_on_after(2.5) as patience:
            await afterwards.bound(wanted, events=False)
        assert patience.cancelled_caught
        sock.listen()
        with trio.fail_after(10):
            assert await afterwards.bound(wanted, events=False) is not None


def test_who_begins_to_listen_meanwhile_is_seen() -> None:
    """In one listing of the kernel's such a socket is missing, now and then: of those that begin
    to listen at this time, some three in a hundred."""
    number, rounds = free_port(), 1500
    begin, end = threading.Barrier(2), threading.Barrier(2)
    held: list[socket.socket] = []

    def listen() -> None:
        for _ in range(rounds):
            begin.wait()
            for _ in range(random.randrange(60)):
                pass
            held[-1].listen()
            end.wait()

    missed: dict[str, int] = {}
    looks: dict[str, Callable[[Sought, socket.socket], object]] = {
        "look": lambda wanted, sock: trio.run(partial(afterwards.look, wanted, events=True)),
        "lives": lambda wanted, sock: takeover.lives(
            record_of(wanted, cookie(sock), "x", [str(wanted.port)])
        ),
        "unlisted": lambda wanted, sock: not destroyed.unlisted([wanted.watched(cookie(sock))]),
    }
    thread = threading.Thread(target=listen)
    thread.start()
    for turn in range(rounds):
        with socket.socket() as sock:
            sock.bind(("", number))
            held.append(sock)
            wanted = sought(sock, number)
            name = list(looks)[turn % 3]
            begin.wait()
            if not looks[name](wanted, sock):
                missed[name] = missed.get(name, 0) + 1
            end.wait()
            held.clear()
    thread.join()
    assert missed == {}
