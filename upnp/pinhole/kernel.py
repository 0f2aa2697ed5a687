"""What the kernel knows of IPv6: by rtnetlink(7), or where that is forbidden by /proc/net.

And when it changes: a netlink socket that hears of addresses and routes, and costs nothing while
there is nothing to hear.
"""

import contextlib
import socket
import struct
from collections.abc import AsyncGenerator
from pathlib import Path

import trio

from natsup.upnp import rtnetlink
from natsup.upnp.network import NoGateway
from natsup.upnp.pinhole.address import Address, Network, Route, choose

_ROUTE = struct.Struct("=BBBBBBBBI")  # struct rtmsg
_ADDRESS = struct.Struct("=BBBBI")  # struct ifaddrmsg
_ATTRIBUTE = struct.Struct("=HH")  # struct rtattr
_NEXT_HOP = struct.Struct("=HBBi")  # struct rtnexthop
_GET_ADDRESS, _GET_ROUTE, _DUMP = 22, 26, 0x300
_TABLE_MAIN, _UNICAST = 254, 1
_OIF, _GATEWAY, _PRIORITY, _MULTIPATH, _TABLE = 4, 5, 6, 9, 15  # RTA_*
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_GROUPS = 0x100 | 0x400  # RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE: linux/rtnetlink.h
_SETTLING = 0.3  # seconds: a router's advertisement changes several things
_EVERY = 30.0  # seconds between looks where changes cannot be heard of

_NET = Path("/proc/self/net")
_RTF_UP, _RTF_REJECT = 0x1, 0x200  # linux/route.h


async def look(interface: str | None, current: str | None = None) -> Network | NoGateway:
    """See `natsup.upnp.pinhole.address.choose`."""
    return await trio.to_thread.run_sync(_look, interface, current)


def _look(interface: str | None, current: str | None) -> Network | NoGateway:
    try:
        try:
            kernel = Kernel()
            with kernel:
                routes, addresses = kernel.default_routes(), kernel.own_addresses()
        except OSError:
            routes, addresses = listed_routes(), listed_addresses()
    except OSError as error:
        return NoGateway(f"the kernel's IPv6 routes cannot be read: {error.strerror}")
    return choose(routes, addresses, interface=interface, current=current)


class Kernel(rtnetlink.Kernel):
    """Every method may raise OSError."""

    def default_routes(self) -> list[Route]:
        found = []
        request = _ROUTE.pack(socket.AF_INET6, 0, 0, 0, 0, 0, 0, 0, 0)
        for body in self._ask(_GET_ROUTE, _DUMP, request):
            _, bits, _, _, table, _, _, kind, _ = _ROUTE.unpack_from(body)
            known = _attributes(body[_ROUTE.size :])
            if bits or kind != _UNICAST or _number(known.get(_TABLE), table) != _TABLE_MAIN:
                continue
            index, gateway = _number(known.get(_OIF)), known.get(_GATEWAY)
            hops = known.get(_MULTIPATH, b"")
            if len(hops) >= _NEXT_HOP.size:  # the first one counts
                length, _, _, index = _NEXT_HOP.unpack_from(hops)
                gateway = _attributes(hops[_NEXT_HOP.size : length]).get(_GATEWAY)
            found.append(Route(_name(index), _text(gateway), _number(known.get(_PRIORITY))))
        return found

    def own_addresses(self) -> list[Address]:
        found = []
        request = _ADDRESS.pack(socket.AF_INET6, 0, 0, 0, 0)
        for body in self._ask(_GET_ADDRESS, _DUMP, request):
            _, _, flags, _, index = _ADDRESS.unpack_from(body)
            known = _attributes(body[_ADDRESS.size :])
            text = _text(known.get(_IFA_LOCAL) or known.get(_IFA_ADDRESS))
            if text:
                found.append(Address(text, _name(index), _number(known.get(_IFA_FLAGS), flags)))
        return found


def _attributes(data: bytes) -> dict[int, bytes]:
    found = {}
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if not _ATTRIBUTE.size <= length <= len(data):
            break
        found[kind & 0x3FFF] = data[_ATTRIBUTE.size : length]
        data = data[(length + 3) & ~3 :]
    return found


def _number(data: bytes | None, default: int = 0) -> int:
    (number,) = struct.unpack("=I", data) if data is not None and len(data) == 4 else (default,)
    return int(number)


def _text(data: bytes | None) -> str:
    return socket.inet_ntop(socket.AF_INET6, data) if data is not None and len(data) == 16 else ""


def _name(index: int) -> str:
    with contextlib.suppress(OSError):  # there is none, or it has just gone
        return socket.if_indextoname(index)
    return ""


def listed_routes(folder: Path = _NET) -> list[Route]:
    """The default routes in /proc/net/ipv6_route. Raises OSError."""
    found = []
    for line in (folder / "ipv6_route").read_text().splitlines():
        to, bits, _, _, gateway, metric, _, _, flags, interface = line.split()
        usable = int(flags, 16) & (_RTF_UP | _RTF_REJECT) == _RTF_UP
        if usable and not int(to, 16) and not int(bits, 16) and interface != "lo":
            hop = _text(bytes.fromhex(gateway)) if int(gateway, 16) else ""
            found.append(Route(interface, hop, int(metric, 16)))
    return found


def listed_addresses(folder: Path = _NET) -> list[Address]:
    """The addresses in /proc/net/if_inet6. Raises OSError."""
    found = []
    for line in (folder / "if_inet6").read_text().splitlines():
        number, _, _, _, flags, interface = line.split()
        found.append(Address(_text(bytes.fromhex(number)), interface, int(flags, 16)))
    return found


async def changes() -> AsyncGenerator[None, None]:
    """An item whenever addresses or routes of IPv6 may have changed, once that has settled."""
    try:
        with Kernel():  # may it be used here?
            sock = socket.socket(
                socket.AF_NETLINK,
                socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
                socket.NETLINK_ROUTE,
            )
    except OSError:
        while True:
            await trio.sleep(_EVERY)
            yield
    with sock:
        sock.bind((0, _GROUPS))
        while True:
            await trio.lowlevel.wait_readable(sock)
            await trio.sleep(_SETTLING)
            try:
                while sock.recv(1 << 16):
                    pass
            except BlockingIOError:
                pass
            except OSError:  # ENOBUFS: there was too much of it
                continue
            yield
