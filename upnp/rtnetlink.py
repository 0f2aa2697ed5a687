"""What the kernel knows of addresses, routes and neighbours: rtnetlink(7), IPv4.

pyroute2 knows all of rtnetlink, and takes 0.15 s and 10 MB to import: too much for the few things
that a session has to know before it can answer a program's first bind().
"""

import errno
import os
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass

# linux/netlink.h, linux/rtnetlink.h, linux/if_addr.h, linux/neighbour.h
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_ROUTE = struct.Struct("=BBBBBBBBI")  # struct rtmsg: family, dst_len, src_len, tos, table, ...
_ADDRESS = struct.Struct("=BBBBI")  # struct ifaddrmsg: family, prefixlen, flags, scope, index
_NEIGHBOUR = struct.Struct("=BxxxiHBB")  # struct ndmsg: family, ifindex, state, flags, type
_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, change
_NEXT_HOP = struct.Struct("=HBBi")  # struct rtnexthop: length, flags, hops, ifindex
_ATTRIBUTE = struct.Struct("=HH")  # struct rtattr: length, type
_REQUEST, _DUMP = 0x1, 0x300
_INTERRUPTED = 0x10  # NLM_F_DUMP_INTR: what is listed was changed meanwhile
_ERROR, _DONE = 2, 3
_GET_ADDRESS, _GET_ROUTE, _GET_NEIGHBOUR = 22, 26, 30
_TABLE_MAIN = 254
_UNICAST = 1
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC, _RTA_MULTIPATH = 1, 4, 5, 6, 7, 9
_RTA_TABLE = 15
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_NDA_DST, _NDA_LLADDR = 1, 2
_IFLA_IFNAME = 3
_NEW_LINK, _DELETE_LINK = 16, 17
_RUNNING = 0x40  # IFF_RUNNING: it is up, and so is what it hangs on
_KIND = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER
_TRIES = 5  # of a list that is changed while it is read

# Destinations: a default route, and the halves of one that VPNs put before it.
EVERYTHING = "0.0.0.0/0"
HALVES = ("0.0.0.0/1", "128.0.0.0/1")

Attributes = dict[int, bytes]
_avoided = False


def avoid() -> None:
    """Let nobody use netlink in this process: a sandbox kills whoever does."""
    global _avoided
    _avoided = True


def avoided() -> bool:
    """Has `avoid` been called?"""
    return _avoided


def opened() -> socket.socket:
    """A socket of rtnetlink's. Raises OSError."""
    if _avoided:
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
    return socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
    )


@dataclass(frozen=True, slots=True)
class Path:
    """A route. "" and 0 stand for what it does not say."""

    interface: str
    gateway: str
    source: str  # the address of ours that it prefers
    metric: int = 0
    destination: str = EVERYTHING


@dataclass(frozen=True, slots=True)
class Address:
    """One of this host's addresses. ``own`` is its own, ``shown`` a point-to-point peer's."""

    own: str
    shown: str
    prefix: int


@dataclass(frozen=True, slots=True)
class Link:
    """The kernel tells of a link. ``running``: it is usable, cable or air included. ``gone``: there
    is no such link any more."""

    name: str
    running: bool
    gone: bool = False


class Kernel:
    """Asks the kernel of this network namespace. Every method may raise OSError."""

    def __init__(self) -> None:
        self._socket = opened()

    def __enter__(self) -> "Kernel":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def wide_routes(self) -> list[Path]:
        """The main table's routes to `EVERYTHING`, or to one of its `HALVES`, in the kernel's
        order."""
        found = []
        request = _ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)
        for body in self._ask(_GET_ROUTE, _DUMP, request):
            head = _ROUTE.unpack_from(body)
            if head[1] > 1 or head[7] != _UNICAST:
                continue
            attributes = _attributes(body[_ROUTE.size :])
            if (_number(attributes.get(_RTA_TABLE)) or head[4]) == _TABLE_MAIN:
                start = _text(attributes.get(_RTA_DST)) or "0.0.0.0"
                found.append(_path(attributes, f"{start}/{head[1]}"))
        return found

    def way_to(self, host: str, interface: str | None = None) -> Path:
        """How a packet to an address would leave, of those ways that go by ``interface``."""
        request = _ROUTE.pack(socket.AF_INET, 32, 0, 0, 0, 0, 0, 0, 0)
        request += _ATTRIBUTE.pack(8, _RTA_DST) + socket.inet_aton(host)
        if interface:
            index = socket.if_nametoindex(interface)
            request += _ATTRIBUTE.pack(8, _RTA_OIF) + struct.pack("=I", index)
        (body,) = self._ask(_GET_ROUTE, 0, request)
        return _path(_attributes(body[_ROUTE.size :]))

    def addresses(self) -> list[Address]:
        found = []
        request = _ADDRESS.pack(socket.AF_INET, 0, 0, 0, 0)
        for body in self._ask(_GET_ADDRESS, _DUMP, request):
            attributes = _attributes(body[_ADDRESS.size :])
            own, shown = attributes.get(_IFA_LOCAL), attributes.get(_IFA_ADDRESS)
            found.append(Address(_text(own or shown), _text(shown), _ADDRESS.unpack_from(body)[1]))
        return found

    def mac_of(self, host: str, interface: str) -> str:
        """The MAC address of a neighbour on an interface, "" if it is not known."""
        request = _NEIGHBOUR.pack(socket.AF_INET, 0, 0, 0, 0)
        for body in self._ask(_GET_NEIGHBOUR, _DUMP, request):
            attributes = _attributes(body[_NEIGHBOUR.size :])
            mac = attributes.get(_NDA_LLADDR)
            if (
                mac
                and _text(attributes.get(_NDA_DST)) == host
                and _interface(_NEIGHBOUR.unpack_from(body)[1]) == interface
            ):
                return mac.hex(":")
        return ""

    def _ask(self, kind: int, flags: int, request: bytes) -> list[bytes]:
        """What the kernel answers, each message without its header.

        A list that was changed while it was read may lack what was there all the time: it is asked
        for again, and taken as it is where it never stands still.
        """
        for _ in range(_TRIES):
            found, whole = self._ask_once(kind, flags, request)
            if whole:
                break
        return found

    def _ask_once(self, kind: int, flags: int, request: bytes) -> tuple[list[bytes], bool]:
        length = _HEADER.size + len(request)
        self._socket.send(_HEADER.pack(length, kind, _REQUEST | flags, 0, 0) + request)
        found: list[bytes] = []
        whole = True
        while True:
            data = self._socket.recv(1 << 16)
            while len(data) >= _HEADER.size:
                length, answer, marks, *_ = _HEADER.unpack_from(data)
                body = data[_HEADER.size : length]
                whole = whole and not marks & _INTERRUPTED
                if answer in (_DONE, _ERROR):  # both with an errno, negated
                    number = -int.from_bytes(body[:4], sys.byteorder, signed=True)
                    if number > 0 or answer == _ERROR:
                        raise OSError(number, os.strerror(number))
                    return found, whole
                found.append(body)
                data = data[(max(length, _HEADER.size) + 3) & ~3 :]
            if flags != _DUMP:
                return found, whole


def told(data: bytes) -> Iterator[Link | None]:
    """What one datagram tells unasked: of links; None for each address or route."""
    while len(data) >= _HEADER.size:
        length, kind, *_ = _HEADER.unpack_from(data)
        body = data[_HEADER.size : length]
        if kind not in (_NEW_LINK, _DELETE_LINK):
            yield None
        elif len(body) >= _LINK.size:
            flags = _LINK.unpack_from(body)[3]
            name = _attributes(body[_LINK.size :]).get(_IFLA_IFNAME, b"").rstrip(b"\0")
            gone = kind == _DELETE_LINK
            yield Link(os.fsdecode(name), not gone and bool(flags & _RUNNING), gone)
        data = data[(max(length, _HEADER.size) + 3) & ~3 :]


def _attributes(data: bytes) -> Attributes:
    """A row of struct rtattr, by their types."""
    found: Attributes = {}
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if not _ATTRIBUTE.size <= length <= len(data):
            break
        found[kind & _KIND] = data[_ATTRIBUTE.size : length]
        data = data[(length + 3) & ~3 :]
    return found


def _path(attributes: Attributes, destination: str = EVERYTHING) -> Path:
    """Of several next hops it is the first that counts."""
    index, gateway = _number(attributes.get(_RTA_OIF)), attributes.get(_RTA_GATEWAY)
    hops = attributes.get(_RTA_MULTIPATH, b"")
    if len(hops) >= _NEXT_HOP.size:
        length, _, _, index = _NEXT_HOP.unpack_from(hops)
        gateway = _attributes(hops[_NEXT_HOP.size : length]).get(_RTA_GATEWAY)
    return Path(
        _interface(index),
        _text(gateway),
        _text(attributes.get(_RTA_PREFSRC)),
        _number(attributes.get(_RTA_PRIORITY)),
        destination,
    )


def _interface(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:  # there is none, or it has just gone
        return ""


def _number(data: bytes | None) -> int:
    return int.from_bytes(data or b"", sys.byteorder)


def _text(data: bytes | None) -> str:
    return socket.inet_ntoa(data) if data is not None and len(data) == 4 else ""
