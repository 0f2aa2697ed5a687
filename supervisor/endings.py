"""When sockets end: sock_diag(7)'s destroy events, and a look at what is alive.

close() does not tell: a socket lives on in forks, in copies, in messages under way. The kernel
does, when the last copy has gone: it sends the dying socket's cookie to whoever joined the group
of its family and protocol. Some facts about that:

* It needs no privilege and covers the network namespace that the netlink socket was made in.
* While a group has a member, the end of *every* socket of that kind costs the namespace some
  microseconds. So a group is joined only while a socket of its kind is watched, and a classic BPF
  filter drops in the kernel what is not ours.
* The queue can overflow (ENOBUFS); then events are lost, and only a look tells what has ended.
* A multipath TCP socket has a cookie that no event carries: what ends there is its subflow. Its
  events are recognised by the port, and by having no peer, unlike the connections that it accepts.
  Each is a reason to look.
* A TCP socket that is bound and not listening is listed by inet_diag only since Linux 6.8
  (TCPF_BOUND_INACTIVE).
"""

import contextlib
import ctypes
import errno
import os
import socket
import struct
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import trio

from natsup.state.model import Port, Protocol
from natsup.supervisor.abi import IPPROTO_MPTCP

_NETLINK_SOCK_DIAG = 4  # linux/netlink.h
_SOL_NETLINK, _ADD_MEMBERSHIP, _DROP_MEMBERSHIP = 270, 1, 2
_SO_ATTACH_FILTER = 26

# enum sknetlink_groups, linux/sock_diag.h
_GROUPS: dict[tuple[int, Protocol], int] = {
    (socket.AF_INET, Protocol.TCP): 1,
    (socket.AF_INET, Protocol.UDP): 2,
    (socket.AF_INET6, Protocol.TCP): 3,
    (socket.AF_INET6, Protocol.UDP): 4,
}

# A message: struct nlmsghdr (16 bytes), then struct inet_diag_msg, linux/inet_diag.h.
_HEADER = struct.Struct("=IHHII")
_STATE = 17
_PORT = struct.Struct("!H")
_PORT_AT, _PEER_PORT_AT = 20, 22
_COOKIE = struct.Struct("=II")  # the low half first, whatever the byte order
_COOKIE_AT = 60
_LONG_ENOUGH = _COOKIE_AT + _COOKIE.size

# A request: struct nlmsghdr, then struct inet_diag_req_v2 with an empty struct inet_diag_sockid.
_REQUEST = struct.Struct("=BBBBI48x")
_SOCK_DIAG_BY_FAMILY = 20
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQUEST_AND_DUMP = 0x301
_EVERY_STATE = 0xFFFFFFFF
_LISTEN, _BOUND_INACTIVE = 10, 13
_STATES_OF_A_SERVER = 1 << _LISTEN | 1 << _BOUND_INACTIVE

# Beyond this many the filter lets everything through and Python sorts it out: a longer one would
# have to be rebuilt at every change.
_MOST_FILTERED = 400
_LD_WORD, _LD_HALF, _JEQ, _RET = 0x20, 0x28, 0x15, 0x06
_WHOLE_MESSAGE = 0xFFFFFFFF


class Watched(NamedTuple):
    """A socket whose end is waited for."""

    cookie: int
    port: Port
    domain: int  # AF_INET or AF_INET6
    kernel_protocol: int  # IPPROTO_TCP, IPPROTO_UDP or IPPROTO_MPTCP

    @property
    def multipath(self) -> bool:
        return self.kernel_protocol == IPPROTO_MPTCP


class Overflow(Exception):
    """Events were lost."""


def filter_program(watched: Iterable[Watched]) -> bytes:
    """The BPF program that lets the events of these sockets through, and no others.

    Words are loaded in network order, while a cookie lies in the machine's own. The low half of
    the cookie is enough: what else has it costs a look in a table.
    """
    singles = [w for w in watched if not w.multipath]
    ports = sorted({w.port.number for w in watched if w.multipath})
    lows = sorted({(w.cookie & 0xFFFFFFFF).to_bytes(4, sys.byteorder) for w in singles})
    if len(lows) + len(ports) > _MOST_FILTERED:
        return _instruction(_RET, _WHOLE_MESSAGE)
    program = _instruction(_LD_WORD, _COOKIE_AT)
    for low in lows:
        program += _instruction(_JEQ, int.from_bytes(low, "big"), 0, 1)
        program += _instruction(_RET, _WHOLE_MESSAGE)
    if ports:
        program += _instruction(_LD_HALF, _PEER_PORT_AT)
        program += _instruction(_JEQ, 0, 1, 0)
        program += _instruction(_RET, 0)
        program += _instruction(_LD_HALF, _PORT_AT)
    for port in ports:
        program += _instruction(_JEQ, port, 0, 1)
        program += _instruction(_RET, _WHOLE_MESSAGE)
    return program + _instruction(_RET, 0)


def _instruction(code: int, k: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, k)


class Diag(NamedTuple):
    """What one message says of one socket."""

    cookie: int
    port: int  # host order
    peer_port: int  # 0: none
    state: int  # TCP_ESTABLISHED and so on, net/tcp_states.h


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The netlink messages in a datagram, as (type, whole message). Stops at a broken one."""
    while len(data) >= _HEADER.size:
        length, kind, *_ = _HEADER.unpack_from(data)
        if not _HEADER.size <= length <= len(data):
            return
        yield kind, data[:length]
        data = data[(length + 3) & ~3 :]


def read_diag(message: bytes) -> Diag | None:
    """A struct inet_diag_msg with its header, or None if it is too short to be one."""
    if len(message) < _LONG_ENOUGH:
        return None
    low, high = _COOKIE.unpack_from(message, _COOKIE_AT)
    (port,) = _PORT.unpack_from(message, _PORT_AT)
    (peer,) = _PORT.unpack_from(message, _PEER_PORT_AT)
    return Diag(high << 32 | low, port, peer, message[_STATE])


class Endings:
    """Watches sockets of this network namespace. Raises OSError where sock_diag is missing."""

    def __init__(self) -> None:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG)
        sock.bind((0, 0))  # without an address of its own it would get no multicasts
        self._socket = trio.socket.from_stdlib_socket(sock)
        self._watched: dict[int, Watched] = {}
        self._joined: set[int] = set()
        self._attached = b""

    def close(self) -> None:
        self._socket.close()

    def watch(self, watched: Watched) -> None:
        """From now on the end of this socket is reported. Raises OSError."""
        self._watched[watched.cookie] = watched
        self._adjust()

    def unwatch(self, cookie: int) -> None:
        if self._watched.pop(cookie, None) is not None:
            self._adjust()

    @property
    def watched(self) -> list[Watched]:
        return list(self._watched.values())

    def _adjust(self) -> None:
        """Make filter and groups what the watched sockets need, the filter first."""
        program = filter_program(self._watched.values())
        if program != self._attached:
            buffer = ctypes.create_string_buffer(program, len(program))
            fprog = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)
            self._attached = program
        wanted = {_GROUPS[w.domain, w.port.protocol] for w in self._watched.values()}
        for group in wanted - self._joined:
            self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
            self._joined.add(group)
        for group in self._joined - wanted:
            self._socket.setsockopt(_SOL_NETLINK, _DROP_MEMBERSHIP, group)
        self._joined = wanted

    async def next(self) -> list[Watched]:
        """Wait for events. Returns the sockets that ended; `multipath` ones only may have.

        Raises `Overflow`.
        """
        while True:
            try:
                data = await self._socket.recv(1 << 16)
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    raise Overflow from error
                raise
            found = self._concerned(data)
            if found:
                return found

    def _concerned(self, data: bytes) -> list[Watched]:
        found = []
        for _, message in messages(data):
            diag = read_diag(message)
            if diag is None:
                continue
            if diag.cookie in self._watched:
                found.append(self._watched[diag.cookie])
            elif diag.peer_port == 0:
                found += [
                    w for w in self._watched.values() if w.multipath and w.port.number == diag.port
                ]
        return found


def ended(watched: Sequence[Watched]) -> list[Watched]:
    """Look which of these sockets are no more. Blocks for some milliseconds; OSError.

    A socket of which the kernel will not tell counts as alive.
    """
    listings: dict[tuple[int, Protocol], list[Diag]] = {}
    for one in watched:
        key = (one.domain, one.port.protocol)
        if key not in listings:
            listings[key] = list(_dump(*key))
    missing = [one for one in watched if not _listed(one, listings[one.domain, one.port.protocol])]
    if any(one.port.protocol is Protocol.TCP for one in missing) and not _lists_bound():
        missing = [one for one in missing if one.port.protocol is Protocol.UDP or _free(one)]
    return missing


def _listed(one: Watched, listing: list[Diag]) -> bool:
    if not one.multipath:
        return any(diag.cookie == one.cookie for diag in listing)
    return any(
        diag.port == one.port.number and 1 << diag.state & _STATES_OF_A_SERVER for diag in listing
    )


def _lists_bound() -> bool:
    """Does this kernel list TCP sockets that are bound and do not listen (Linux 6.8)?"""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        return any(diag.port == port for diag in _dump(socket.AF_INET, Protocol.TCP))


def _dump(domain: int, protocol: Protocol) -> Iterator[Diag]:
    """Every socket of a family and protocol, by inet_diag."""
    number = socket.IPPROTO_TCP if protocol is Protocol.TCP else socket.IPPROTO_UDP
    request = _REQUEST.pack(domain, number, 0, 0, _EVERY_STATE)
    header = _HEADER.pack(
        _HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, _REQUEST_AND_DUMP, 1, 0
    )
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as sock:
        sock.send(header + request)
        while True:
            for kind, message in messages(sock.recv(1 << 17)):
                if kind == _NLMSG_DONE:
                    return
                if kind == _NLMSG_ERROR:
                    number = -int.from_bytes(message[16:20], sys.byteorder, signed=True)
                    raise OSError(number, os.strerror(number))
                diag = read_diag(message)
                if diag is not None:
                    yield diag


def _free(one: Watched) -> bool:
    """Can the port be bound here and now? Then nothing holds it, listed or not.

    What a multipath server has left in TIME_WAIT is no reason to wait a minute.
    """
    with contextlib.suppress(OSError), socket.socket(one.domain, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, one.multipath)
        if one.domain == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        probe.bind(("", one.port.number))
        return True
    return False
