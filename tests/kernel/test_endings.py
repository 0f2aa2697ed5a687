"""When a socket ends is seen, whichever way it ends, and both ways that there are to see it."""

import contextlib
import os
import select
import socket
import struct
import sys
import threading
from collections.abc import Iterator

import pytest
import trio

from natsup.state.model import Port, Protocol
from natsup.supervisor import diag
from natsup.supervisor.abi import IPPROTO_MPTCP
from natsup.supervisor.bell import Bell
from natsup.supervisor.closings import Closings, look, read_table
from natsup.supervisor.destroyed import DestroyEvents, Overflow, filter_program, unlisted
from natsup.supervisor.diag import available, dump, messages, read_diag
from natsup.supervisor.endings import Endings, Watched
from natsup.supervisor.target import cookie

KINDS = [
    pytest.param(socket.AF_INET, socket.SOCK_STREAM, 0, id="tcp4"),
    pytest.param(socket.AF_INET, socket.SOCK_DGRAM, 0, id="udp4"),
    pytest.param(socket.AF_INET6, socket.SOCK_STREAM, 0, id="tcp6"),
    pytest.param(socket.AF_INET6, socket.SOCK_DGRAM, 0, id="udp6"),
]


WAYS = ["events", "closes"]


@contextlib.contextmanager
def watching(way: str = "events") -> Iterator[Endings]:
    source = DestroyEvents() if way == "events" else Closings(Bell())
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
    inode = os.fstat(sock.fileno()).st_ino
    return Watched(cookie(sock), port, sock.family, sock.proto, inode, os.getpid())


async def next_end(source: Endings) -> list[Watched]:
    with trio.fail_after(10):
        return await source.next()


async def nothing_ends(source: Endings, seconds: float = 0.3) -> None:
    """Nothing is reported for long enough that it would be."""
    if isinstance(source, Closings):
        source._bell.ring()
    with trio.move_on_after(seconds) as quiet:
        await source.next()
    assert quiet.cancelled_caught


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("listening", [False, True])
@pytest.mark.parametrize(("family", "kind", "protocol"), KINDS)
async def test_the_last_copy_is_the_end(
    family: int, kind: int, protocol: int, listening: bool, way: str
) -> None:
    with watching(way) as source:
        sock = bound(family, kind, protocol)
        if kind == socket.SOCK_STREAM and listening:
            sock.listen()
        one = watched(sock)
        source.watch(one)
        copy = socket.socket(fileno=os.dup(sock.fileno()))
        sock.close()
        await nothing_ends(source)
        copy.close()
        assert await next_end(source) == [one]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("family", "kind", "protocol"), KINDS)
async def test_a_killed_process_ends_its_sockets(
    family: int, kind: int, protocol: int, way: str
) -> None:
    with watching(way) as source:
        sock = bound(family, kind, protocol)
        if kind == socket.SOCK_STREAM:
            sock.listen()
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.read(read, 1)
            os._exit(0)
        one = watched(sock)._replace(process=pid)
        source.watch(one)
        sock.close()
        await nothing_ends(source)
        os.kill(pid, 9)
        await trio.to_thread.run_sync(os.waitpid, pid, 0)
        os.close(read)
        os.close(write)
        assert await next_end(source) == [one]


@pytest.mark.parametrize("way", WAYS)
async def test_a_server_that_pauses_has_not_ended(way: str) -> None:
    """shutdown(2) takes a listener out of all lists, and listen(2) brings it back."""
    with watching(way) as source:
        sock = bound(socket.AF_INET, socket.SOCK_STREAM)
        sock.listen()
        one = watched(sock)
        source.watch(one)
        await nothing_ends(source)
        sock.shutdown(socket.SHUT_RDWR)
        await nothing_ends(source)
        sock.listen()
        await nothing_ends(source)
        sock.close()
        assert await next_end(source) == [one]


async def test_the_living_are_not_missed_where_much_changes() -> None:
    """The lists are read piece by piece, and sockets can be passed over."""
    with watching("closes") as source:
        socks = [bound(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(10)]
        for sock in socks:
            source.watch(watched(sock))
        over = threading.Event()

        def churn() -> None:
            while not over.is_set():
                for sock in [bound(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(50)]:
                    sock.close()

        thread = threading.Thread(target=churn)
        thread.start()
        try:
            for _ in range(20):
                await nothing_ends(source, 0.1)
        finally:
            over.set()
            await trio.to_thread.run_sync(thread.join)
        for sock in socks:
            sock.close()


@pytest.mark.parametrize("way", WAYS)
async def test_a_socket_in_a_message_is_alive(way: str) -> None:
    with watching(way) as source:
        sock = bound(socket.AF_INET, socket.SOCK_DGRAM)
        one = watched(sock)
        source.watch(one)
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        socket.send_fds(here, [b"x"], [sock.fileno()])
        sock.close()
        await nothing_ends(source)
        _, [fd], _, _ = socket.recv_fds(there, 1, 1)
        await nothing_ends(source)
        os.close(fd)
        assert await next_end(source) == [one]
        here.close()
        there.close()


async def test_the_kernel_drops_what_is_not_ours() -> None:
    with watching() as source:
        ours = bound(socket.AF_INET, socket.SOCK_DGRAM)
        one = watched(ours)
        source.watch(one)
        for _ in range(2000):  # enough to overflow the queue, did they reach it
            bound(socket.AF_INET, socket.SOCK_DGRAM).close()
        ours.close()
        assert await next_end(source) == [one]


@pytest.mark.parametrize("way", WAYS)
async def test_an_unwatched_socket_is_not_reported(way: str) -> None:
    with watching(way) as source:
        first, second = (bound(socket.AF_INET, socket.SOCK_STREAM) for _ in range(2))
        source.watch(watched(first))
        source.watch(watched(second))
        source.unwatch(cookie(first))
        other = watched(second)
        first.close()
        second.close()
        assert await next_end(source) == [other]


@pytest.mark.parametrize("way", WAYS)
async def test_the_connections_of_a_multipath_server_are_not_its_end(way: str) -> None:
    with watching(way) as source:
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
        await nothing_ends(source)
        sock.close()
        assert await next_end(source) == [one]


async def test_lost_events_are_noticed() -> None:
    source = DestroyEvents()
    try:
        source._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        socks = [bound(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(1000)]
        # More than the filter lists, so that everything comes through
        for sock in socks:
            source.watch(watched(sock))
        gone = {watched(sock) for sock in socks[1:]}
        for sock in socks[1:]:
            sock.close()
        poll = select.poll()
        poll.register(source._socket, 0)
        assert poll.poll(10_000)[0][1] & select.POLLERR
        seen: set[Watched] = set()
        with trio.fail_after(10):
            while seen != gone:
                seen.update(await source.next())
        socks[0].close()
    finally:
        source.close()


async def test_the_queue_says_that_it_has_overflowed() -> None:
    source = DestroyEvents()
    try:
        source._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        socks = [bound(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(1000)]
        for sock in socks:
            source.watch(watched(sock))
        for sock in socks:
            sock.close()

        async def read_on() -> None:
            while True:
                await source._receive()

        with trio.fail_after(10), pytest.raises(Overflow):
            await read_on()
    finally:
        source.close()


@pytest.mark.parametrize(("family", "kind", "protocol"), KINDS)
def test_what_is_alive_is_listed(family: int, kind: int, protocol: int) -> None:
    with bound(family, kind, protocol) as sock:
        if kind == socket.SOCK_STREAM:
            sock.listen()
        one = watched(sock)
        assert unlisted([one]) == []
        assert look([one]) == {one.cookie}
    assert [found for found, _ in unlisted([one])] == [one]
    assert look([one]) == set()


def test_a_multipath_server_is_listed_by_its_inode() -> None:
    with bound(socket.AF_INET6, socket.SOCK_STREAM, IPPROTO_MPTCP) as sock:
        sock.listen()
        one = watched(sock)
        assert look([one]) == {one.cookie}


def test_inet_diag_answers_at_once_where_no_state_is_asked_for() -> None:
    with bound(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.listen()
        assert list(dump(socket.AF_INET, socket.IPPROTO_TCP, 0)) == []
        assert list(dump(socket.AF_INET, socket.IPPROTO_TCP))
        assert available()


def test_what_one_listing_passes_over_is_looked_for_once_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def one(number: int) -> diag.Diag:
        return diag.Diag(number, number, 7000, 0, 10, bytes(16), None)

    listings = [[one(1)], [one(2), one(3)], [one(1), one(2)]]
    monkeypatch.setattr(diag, "dump", lambda *_, **__: listings.pop(0))

    def find(*cookies: int) -> set[object]:
        return set(diag.find(2, 6, set(cookies), lambda found: [found.cookie]))

    assert find(1, 2, 4) == {1, 2}
    assert find(1, 2) == {1, 2}
    assert listings == []  # nothing was missing: one was enough


def test_inet_diag_refuses_what_the_kernel_lacks() -> None:
    """As it would refuse TCP, had it no part for it."""
    with pytest.raises(FileNotFoundError):
        list(dump(socket.AF_INET, 253))  # RFC 3692: for experiments


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
    one = Watched(0x1_0000_0002, port, socket.AF_INET, 0, 9, 1)
    low = int.from_bytes((2).to_bytes(4, sys.byteorder), "big")
    assert instructions(filter_program([one])) == [
        (0x20, 0, 0, 60),
        (0x15, 0, 1, low),
        (0x06, 0, 0, 0xFFFFFFFF),
        (0x06, 0, 0, 0),
    ]
    assert instructions(filter_program([])) == [(0x20, 0, 0, 60), (0x06, 0, 0, 0)]


def test_the_filter_of_multipath_compares_ports() -> None:
    one = Watched(5, Port(Protocol.TCP, 7000), socket.AF_INET, IPPROTO_MPTCP, 9, 1)
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


def test_a_table_is_read() -> None:
    heading = b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid"
    heading += b"  timeout inode\n"
    row = b"   0: 00000000:1B58 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0"
    row += b"        0 4242 1 0\n"
    assert read_table([heading, row]) == {4242: (bytes(4), 7000)}
    assert read_table([heading, b"   0: torn"]) == {}
    assert read_table([]) == {}
