"""The kernel says when a socket ends, whichever way it ends."""

import contextlib
import os
import select
import socket
import struct
import sys
from collections.abc import Iterator

import pytest
import trio

from natsup.state.model import Port, Protocol
from natsup.supervisor.abi import IPPROTO_MPTCP
from natsup.supervisor.endings import (
    Endings,
    Overflow,
    Watched,
    ended,
    filter_program,
    messages,
    read_diag,
)
from natsup.supervisor.target import cookie

KINDS = [
    pytest.param(socket.AF_INET, socket.SOCK_STREAM, 0, id="tcp4"),
    pytest.param(socket.AF_INET, socket.SOCK_DGRAM, 0, id="udp4"),
    pytest.param(socket.AF_INET6, socket.SOCK_STREAM, 0, id="tcp6"),
    pytest.param(socket.AF_INET6, socket.SOCK_DGRAM, 0, id="udp6"),
]


@contextlib.contextmanager
def watching() -> Iterator[Endings]:
    source = Endings()
    try:
        yield source
    finally:
        source.close()


def bound(family: int, kind: int, protocol: int = 0, port: int = 0) -> socket.socket:
    sock = socket.socket(family, kind, protocol)
    sock.bind(("", port))
    return sock


def watched(sock: socket.socket) -> Watched:
    protocol = Protocol.UDP if sock.type == socket.SOCK_DGRAM else Protocol.TCP
    port = Port(protocol, sock.getsockname()[1])
    return Watched(cookie(sock), port, sock.family, sock.proto)


async def next_end(source: Endings) -> list[Watched]:
    with trio.fail_after(10):
        return await source.next()


@pytest.mark.parametrize(("family", "kind", "protocol"), KINDS)
async def test_the_last_copy_is_the_end(family: int, kind: int, protocol: int) -> None:
    with watching() as source:
        sock = bound(family, kind, protocol)
        one = watched(sock)
        source.watch(one)
        copy = socket.socket(fileno=os.dup(sock.fileno()))
        sock.close()
        assert ended([one]) == []
        copy.close()
        assert await next_end(source) == [one]
        assert ended([one]) == [one]


@pytest.mark.parametrize(("family", "kind", "protocol"), KINDS)
async def test_a_killed_process_ends_its_sockets(family: int, kind: int, protocol: int) -> None:
    with watching() as source:
        sock = bound(family, kind, protocol)
        if kind == socket.SOCK_STREAM:
            sock.listen()
        one = watched(sock)
        source.watch(one)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.read(read, 1)
            os._exit(0)
        sock.close()
        assert ended([one]) == []
        os.kill(pid, 9)
        await trio.to_thread.run_sync(os.waitpid, pid, 0)
        os.close(read)
        os.close(write)
        assert await next_end(source) == [one]


async def test_the_kernel_drops_what_is_not_ours() -> None:
    with watching() as source:
        ours = bound(socket.AF_INET, socket.SOCK_DGRAM)
        one = watched(ours)
        source.watch(one)
        for _ in range(2000):  # enough to overflow the queue, did they reach it
            bound(socket.AF_INET, socket.SOCK_DGRAM).close()
        ours.close()
        assert await next_end(source) == [one]


async def test_an_unwatched_socket_is_not_reported() -> None:
    with watching() as source:
        first, second = (bound(socket.AF_INET, socket.SOCK_STREAM) for _ in range(2))
        source.watch(watched(first))
        source.watch(watched(second))
        source.unwatch(cookie(first))
        other = watched(second)
        first.close()
        second.close()
        assert await next_end(source) == [other]


async def test_multipath_is_recognised_by_its_port() -> None:
    with watching() as source:
        sock = bound(socket.AF_INET6, socket.SOCK_STREAM, IPPROTO_MPTCP)
        sock.listen()
        one = watched(sock)
        source.watch(one)
        # The connections that it accepts end all the time: of them nothing is heard.
        for _ in range(20):
            client = socket.create_connection(("127.0.0.1", one.port.number))
            server, _ = sock.accept()
            server.close()
            client.close()
        with trio.move_on_after(0.2) as quiet:
            await source.next()
        assert quiet.cancelled_caught
        assert ended([one]) == []
        sock.close()
        with trio.fail_after(10):
            while ended([one]) != [one]:
                assert await source.next() == [one]


async def test_lost_events_are_noticed() -> None:
    with watching() as source:
        source._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        socks = [bound(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(1000)]
        # More than the filter lists, so that everything comes through
        for sock in socks:
            source.watch(watched(sock))
        survivor = watched(socks[0])
        gone = [watched(sock) for sock in socks[1:]]
        for sock in socks[1:]:
            sock.close()
        poll = select.poll()
        poll.register(source._socket, 0)
        assert poll.poll(10_000)[0][1] & select.POLLERR

        async def read_on() -> None:
            while True:
                await source.next()

        with trio.fail_after(10), pytest.raises(Overflow):
            await read_on()
        assert ended([survivor, *gone]) == gone
        socks[0].close()


def test_a_bound_tcp_socket_is_not_in_proc() -> None:
    with socket.socket() as sock:
        sock.bind(("", 0))
        number = sock.getsockname()[1]
        with open("/proc/net/tcp") as file:
            assert f":{number:04X} " not in file.read()


# --- reading, without a kernel ------------------------------------------------------------------


def instructions(program: bytes) -> list[tuple[int, int, int, int]]:
    return list(struct.iter_unpack("=HBBI", program))


def test_the_filter_compares_cookies() -> None:
    port = Port(Protocol.TCP, 7000)
    one = Watched(0x1_0000_0002, port, socket.AF_INET, 0)
    low = int.from_bytes((2).to_bytes(4, sys.byteorder), "big")
    assert instructions(filter_program([one])) == [
        (0x20, 0, 0, 60),
        (0x15, 0, 1, low),
        (0x06, 0, 0, 0xFFFFFFFF),
        (0x06, 0, 0, 0),
    ]
    assert instructions(filter_program([])) == [(0x20, 0, 0, 60), (0x06, 0, 0, 0)]


def test_the_filter_of_multipath_compares_ports() -> None:
    one = Watched(5, Port(Protocol.TCP, 7000), socket.AF_INET, IPPROTO_MPTCP)
    assert instructions(filter_program([one]))[1:] == [
        (0x28, 0, 0, 22),  # the peer's port
        (0x15, 1, 0, 0),
        (0x06, 0, 0, 0),
        (0x28, 0, 0, 20),
        (0x15, 0, 1, 7000),
        (0x06, 0, 0, 0xFFFFFFFF),
        (0x06, 0, 0, 0),
    ]


@pytest.mark.parametrize(
    "data", [b"", b"\1", bytes(16), b"\xff" * 40, struct.pack("=IHHII", 8, 0, 0, 0, 0)]
)
def test_broken_messages_are_passed_over(data: bytes) -> None:
    assert [read_diag(message) for _, message in messages(data) if read_diag(message)] == []
