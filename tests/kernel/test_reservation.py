"""Holding a port and handing it over: no gap, and no trace on the program's socket."""

import errno
import os
import socket
import struct

import pytest

from natsup.supervisor.abi import IPPROTO_MPTCP
from natsup.supervisor.reservation import reserve
from natsup.supervisor.target import cookie

KINDS = [
    pytest.param(socket.AF_INET, socket.SOCK_STREAM, 0, id="tcp4"),
    pytest.param(socket.AF_INET, socket.SOCK_DGRAM, 0, id="udp4"),
    pytest.param(socket.AF_INET6, socket.SOCK_STREAM, 0, id="tcp6"),
    pytest.param(socket.AF_INET6, socket.SOCK_DGRAM, 0, id="udp6"),
    pytest.param(socket.AF_INET6, socket.SOCK_STREAM, IPPROTO_MPTCP, id="mptcp6"),
]
REUSE = [pytest.param(a, p, id=f"addr{a}-port{p}") for a in (0, 1) for p in (0, 1)]


def make(
    family: int, kind: int, protocol: int, reuseaddr: int = 0, reuseport: int = 0
) -> socket.socket:
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuseaddr)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, reuseport)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    return sock


def address(family: int, port: int) -> bytes:
    head = family.to_bytes(2, "little") + port.to_bytes(2, "big")
    return head + bytes(12 if family == socket.AF_INET else 24)


@pytest.fixture
def port() -> int:
    """A port free in every family and protocol."""
    with socket.socket(socket.AF_INET6) as tcp:
        tcp.bind(("::", 0))
        return int(tcp.getsockname()[1])


def newcomers(family: int, kind: int, protocol: int, port: int) -> dict[str, int]:
    """What bind() says to others who want the port, by their options."""
    found = {}
    for reuseaddr in (0, 1):
        for reuseport in (0, 1):
            with make(family, kind, protocol, reuseaddr, reuseport) as other:
                try:
                    other.bind(("", port))
                    number = 0
                except OSError as error:
                    number = error.errno or -1
            found[f"addr{reuseaddr} port{reuseport}"] = number
    return found


def options(sock: socket.socket) -> dict[str, int]:
    """Every option that getsockopt gives, on three levels."""
    found = {}
    for level in (socket.SOL_SOCKET, socket.IPPROTO_IP, socket.IPPROTO_IPV6):
        for option in range(1, 90):
            try:
                value = sock.getsockopt(level, option)
            except OSError:
                continue
            if (level, option) not in ((socket.SOL_SOCKET, 57), (socket.SOL_SOCKET, 56)):
                found[f"{level}/{option}"] = value
    return found


@pytest.mark.parametrize(("family", "kind", "protocol"), KINDS)
@pytest.mark.parametrize(("reuseaddr", "reuseport"), REUSE)
@pytest.mark.parametrize("listening", [False, True])
def test_a_socket_handed_its_port_is_like_any_other(
    family: int,
    kind: int,
    protocol: int,
    reuseaddr: int,
    reuseport: int,
    listening: bool,
    port: int,
) -> None:
    """Its options, and what the kernel says to others, are those of a socket that bound itself."""
    seen = []
    for by_natsup in (True, False):
        with make(family, kind, protocol, reuseaddr, reuseport) as sock:
            before = options(sock)
            if by_natsup:
                with reserve(sock, address(family, port)) as reservation:
                    assert reservation.port == port
                    assert sock.getsockname()[1] == 0
                    assert reservation.hand_over(sock) == 0
            else:
                sock.bind(("", port))
            assert sock.getsockname()[1] == port
            if listening and kind == socket.SOCK_STREAM:
                sock.listen()
            assert options(sock)["1/2"] == before["1/2"] == reuseaddr
            seen.append((options(sock), newcomers(family, kind, protocol, port)))
    assert seen[0] == seen[1]


@pytest.mark.parametrize(("family", "kind", "protocol"), KINDS)
def test_a_taken_port_is_refused_before_anybody_is_asked(
    family: int, kind: int, protocol: int, port: int
) -> None:
    with make(family, kind, protocol) as owner, make(family, kind, protocol) as sock:
        owner.bind(("", port))
        with pytest.raises(OSError, match="in use") as caught:
            reserve(sock, address(family, port))
        assert caught.value.errno == errno.EADDRINUSE
        assert sock.getsockname()[1] == 0


@pytest.mark.parametrize(("family", "kind", "protocol"), KINDS)
def test_the_port_is_held_meanwhile_and_free_afterwards(
    family: int, kind: int, protocol: int, port: int
) -> None:
    with make(family, kind, protocol) as sock:
        with reserve(sock, address(family, port)):
            assert set(newcomers(family, kind, protocol, port).values()) == {errno.EADDRINUSE}
        assert sock.getsockname()[1] == 0
        sock.bind(("", port))  # the program can go on with the same descriptor


@pytest.mark.parametrize("option", [socket.SO_REUSEADDR, socket.SO_REUSEPORT])
def test_a_reservation_swallows_no_datagrams(port: int, option: int) -> None:
    """Workers share a UDP port: what comes in while one of them binds is for the others."""
    reuse = (1, 0) if option == socket.SO_REUSEADDR else (0, 1)
    with (
        make(socket.AF_INET, socket.SOCK_DGRAM, 0, *reuse) as first,
        make(socket.AF_INET, socket.SOCK_DGRAM, 0, *reuse) as second,
    ):
        first.bind(("", port))
        first.setblocking(False)
        with reserve(second, address(socket.AF_INET, port)) as reservation:
            for _ in range(50):  # each from a port of its own: the kernel spreads them by a hash
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                    client.sendto(b"x", ("127.0.0.1", port))
                    assert first.recv(1) == b"x"
            assert reservation.hand_over(second) == 0
        assert second.getsockname()[1] == port


def test_workers_of_another_user_share_their_port(port: int) -> None:
    """SO_REUSEPORT wants one owner: the reservation takes the program's."""
    with (
        make(socket.AF_INET, socket.SOCK_STREAM, 0, 0, 1) as first,
        make(socket.AF_INET, socket.SOCK_STREAM, 0, 0, 1) as second,
    ):
        for sock in (first, second):
            os.fchown(sock.fileno(), 65534, -1)
        first.bind(("", port))
        first.listen()
        with reserve(second, address(socket.AF_INET, port)) as reservation:
            assert reservation.hand_over(second) == 0
        second.listen()


def test_a_copy_keeps_the_port() -> None:
    """Why natsup closes its copy before it answers."""
    with socket.socket() as sock, socket.socket() as other:
        sock.bind(("", 0))
        number = sock.getsockname()[1]
        copy = socket.socket(fileno=os.dup(sock.fileno()))
        sock.close()
        with pytest.raises(OSError, match="in use"):
            other.bind(("", number))
        copy.close()
        other.bind(("", number))


def test_a_cookie_is_the_sockets_not_the_descriptors() -> None:
    with socket.socket() as sock, socket.socket() as other:
        with socket.socket(fileno=os.dup(sock.fileno())) as copy:
            assert cookie(copy) == cookie(sock)
        assert cookie(other) != cookie(sock)


def test_a_port_that_the_kernel_chooses_is_handed_over() -> None:
    with (
        make(socket.AF_INET, socket.SOCK_DGRAM, 0) as sock,
        reserve(sock, address(socket.AF_INET, 0)) as reservation,
    ):
        number = reservation.port
        assert number > 0
        assert reservation.hand_over(sock) == 0
        assert sock.getsockname() == ("0.0.0.0", number)


def test_a_port_is_chosen_from_the_programs_own_range() -> None:
    """IP_LOCAL_PORT_RANGE of ip(7), which Linux has since 6.3. The last one stands in the upper
    half of the number."""
    first, last = 32768, 32777  # inside of the system's own range, or it does not count
    both = struct.unpack("=i", struct.pack("=I", first | last << 16))[0]
    with make(socket.AF_INET, socket.SOCK_STREAM, 0) as sock:
        try:
            sock.setsockopt(socket.IPPROTO_IP, 51, both)
        except OSError:
            pytest.skip("this kernel has no such option")
        for _ in range(3):
            with reserve(sock, address(socket.AF_INET, 0)) as reservation:
                assert first <= reservation.port <= last
