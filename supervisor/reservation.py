"""Holding a port while the gateway is asked, and giving it to the program without a gap.

A bound socket cannot be unbound, so the program's own must not be bound before the answer is
known. A socket of natsup's holds the port meanwhile: of the same family, protocol, options and
owner, so that the kernel allows or refuses it just as it would the program's.

To hand the port over, both sockets are bound to it for an instant. What lets them is SO_REUSEADDR,
set on both: it works for every owner and, other than SO_REUSEPORT, leaves nothing behind. (After
two sockets shared a TCP port by SO_REUSEPORT the kernel remembers the port itself as shareable,
net/ipv4/inet_connection_sock.c sk_reuseport_match(), and lets later ones in that it should not.)
"""

import contextlib
import errno
import os
import socket

from natsup.state import points
from natsup.supervisor import libc
from natsup.supervisor.glimpse import Kind

_ON, _OFF = 1, 0
_REUSEADDR = (socket.SOL_SOCKET, socket.SO_REUSEADDR)
_REUSEPORT = (socket.SOL_SOCKET, socket.SO_REUSEPORT)
_IP_FREEBIND, _IP_LOCAL_PORT_RANGE = 15, 51  # ip(7); Python has no names for them

# What bind() looks at, as (level, option), for both families and for IPv6 alone.
_OPTIONS = (
    _REUSEADDR,
    _REUSEPORT,
    (socket.IPPROTO_IP, _IP_FREEBIND),
    (socket.IPPROTO_IP, _IP_LOCAL_PORT_RANGE),  # from which the kernel chooses for port 0
)
_OPTIONS_INET6 = (*_OPTIONS, (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))


class Reservation:
    """A port held on behalf of a program's socket, from `reserve` until `hand_over` or `close`.

    ``port``: in host order; chosen by the kernel where 0 was asked for.
    """

    def __init__(self, sock: socket.socket | None, port: int, address: bytes) -> None:
        self._sock = sock
        self.port = port
        self._address = address[:2] + self.port.to_bytes(2, "big") + address[4:]

    def __enter__(self) -> "Reservation":
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go()

    def let_go(self) -> None:
        """Hold the port no longer: others have it as well, or the program is to bind it itself."""
        if self._sock is not None:
            self._sock.close()
        self._sock = None

    def lends(self, program: socket.socket) -> bool:
        """Will the program's socket have an SO_REUSEADDR that is not its own for an instant?"""
        return self._sock is not None and not program.getsockopt(*_REUSEADDR)

    def hand_over(self, program: socket.socket) -> int:
        """Bind the program's socket to the port and let go of it. Returns 0 or an errno.

        Between the two lines that open and shut the reservation another socket that has
        SO_REUSEADDR itself could come in; nothing else runs there.
        """
        if self._sock is None:
            return libc.bind(program.fileno(), self._address)
        lent = self.lends(program)
        if lent:
            program.setsockopt(*_REUSEADDR, _ON)
            self._sock.setsockopt(*_REUSEADDR, _ON)
        try:
            if points.STOP_AT:
                points.reached("lent")
            result = libc.bind(program.fileno(), self._address)
            if points.STOP_AT:
                points.reached("bound")
            return result
        finally:
            if lent:
                self._sock.setsockopt(*_REUSEADDR, _OFF)
                program.setsockopt(*_REUSEADDR, _OFF)
            self.let_go()


def reserve(program: socket.socket, address: bytes) -> Reservation:
    """Hold the port of ``address`` (a socket address as bytes) for the program's socket.

    Raises OSError with the errno that the program's own bind() would get.
    """
    shared = _in_a_group(program, address)
    sock = socket.socket(program.family, program.type, program.proto)
    try:
        _imitate(sock, program)
        _bind(sock, address)
        reservation = Reservation(sock, sock.getsockname()[1], address)
    except BaseException:
        sock.close()
        raise
    if shared:
        reservation.let_go()
    return reservation


def reserve_unseen(kind: Kind, address: bytes) -> Reservation:
    """Hold the port of ``address`` for a socket that cannot be copied, and whose options are not
    known; it is let go of before the program's own bind().

    For TCP with SO_REUSEADDR, as most servers have it: what is left in TIME_WAIT is no obstacle.
    Raises OSError.
    """
    sock = socket.socket(kind.domain, kind.kind, kind.protocol)
    try:
        sock.setsockopt(*_REUSEADDR, kind.kind == socket.SOCK_STREAM)
        _bind(sock, address)
        return Reservation(sock, sock.getsockname()[1], address)
    except BaseException:
        sock.close()
        raise


def unreserved(address: bytes) -> Reservation:
    """The same without holding the port of ``address``, because others of the program's sockets do.
    What the kernel makes of it is not known."""
    return Reservation(None, int.from_bytes(address[2:4], "big"), address)


def _bind(sock: socket.socket, address: bytes) -> None:
    number = libc.bind(sock.fileno(), address)
    if number:
        raise OSError(number, os.strerror(number))


def _in_a_group(program: socket.socket, address: bytes) -> bool:
    """Do others have the port whom this socket would share datagrams with?

    The kernel spreads them over all that have SO_REUSEPORT, and gives them to the last one that has
    SO_REUSEADDR: a reservation would swallow them. (A TCP socket gets nothing before it listens.)
    """
    if program.type != socket.SOCK_DGRAM or not (
        program.getsockopt(*_REUSEADDR) or program.getsockopt(*_REUSEPORT)
    ):
        return False
    with socket.socket(program.family, program.type, program.proto) as alone:
        _imitate(alone, program)
        alone.setsockopt(*_REUSEADDR, _OFF)
        alone.setsockopt(*_REUSEPORT, _OFF)
        return libc.bind(alone.fileno(), address) == errno.EADDRINUSE


def _imitate(sock: socket.socket, program: socket.socket) -> None:
    inet6 = program.family == socket.AF_INET6
    for level, option in _OPTIONS_INET6 if inet6 else _OPTIONS:
        with contextlib.suppress(OSError):  # an old kernel, or its MPTCP, lacks some
            value = program.getsockopt(level, option)
            if value != sock.getsockopt(level, option):
                sock.setsockopt(level, option, value)
    device = program.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16).rstrip(b"\0")
    if device:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)
    owner, own = os.fstat(program.fileno()), os.fstat(sock.fileno())
    if owner.st_uid != own.st_uid:
        # Sockets share a port by SO_REUSEPORT only if one user owns them all.
        with contextlib.suppress(PermissionError):
            os.fchown(sock.fileno(), owner.st_uid, -1)
