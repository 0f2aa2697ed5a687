"""Where the default gateway is, and which of our addresses faces it.

The kernel's routes are read in a worker thread: there may be very many.
"""

import contextlib
import fcntl
import os
import socket
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import TypeVar

import trio

from natsup.state import aside
from natsup.upnp.procnet import Files
from natsup.upnp.rtnetlink import EVERYTHING, HALVES, Kernel, Path

_T = TypeVar("_T")
_GET_FLAGS, _POINT_TO_POINT = 0x8913, 0x10  # SIOCGIFFLAGS, IFF_POINTOPOINT: netdevice(7)
_REQUEST = struct.Struct("16sH22x")  # struct ifreq: the interface's name, its flags


@dataclass(frozen=True, slots=True)
class Route:
    """A default route, as the kernel lists it."""

    interface: str
    gateway: str  # an IPv4 address, "" for a route without one
    metric: int
    tunnel: bool = False  # its interface is a point-to-point link, as VPNs make them


@dataclass(frozen=True, slots=True)
class Network:
    """The way to the Internet."""

    interface: str
    gateway: str
    address: str  # ours, facing the gateway
    prefix: int = 0  # how many bits of it name the LAN; 0: not known
    own: frozenset[str] = frozenset()  # all of this host's IPv4 addresses
    name: str = ""  # which network it is: the gateway's address and MAC; "" if that is not known


@dataclass(frozen=True, slots=True)
class NoGateway:
    """There is no router that maps ports; ``reason`` is a clause for people."""

    reason: str


def choose(
    routes: Iterable[Route], interface: str | None, halves: Iterable[Route] = ()
) -> Route | NoGateway:
    """The default route to use: the kernel's own choice, or the one of ``interface``. Pure.

    ``halves``: see `halved`. They, and routes into tunnels, are used by who asks for their
    interface alone: the router behind a VPN is the VPN's, not the one at home.
    """
    found = sorted(routes, key=lambda route: route.metric)
    paired = list(halves)
    if interface is not None:
        found = [route for route in found if route.interface == interface]
        found = found or [route for route in paired if route.interface == interface]
    usable = [route for route in found if route.gateway]
    at_home = [route for route in usable if interface is not None or not route.tunnel]
    if at_home:
        return at_home[0]
    if usable:
        name = usable[0].interface
        return NoGateway(f"the default route goes into a tunnel, {name}, {_vpn(name)}")
    where = f" by {interface}" if interface is not None else ""
    if found:
        return NoGateway(f"the default route{where} leads to no router")
    if paired and interface is None:
        name = paired[0].interface
        return NoGateway(
            f"there is no default route, only the two halves of one ({' and '.join(HALVES)}) by"
            f" {name}, {_vpn(name)}"
        )
    return NoGateway(f"there is no default route{where}")


def _vpn(interface: str) -> str:
    return (
        "as a VPN makes them, and what is behind a VPN is not the router at home; name that one by"
        f" --gateway URL, or ask the VPN's by --interface {interface}"
    )


def is_tunnel(interface: str) -> bool:
    """Is an interface a point-to-point link (tun, WireGuard, ppp)? False if nobody knows."""
    request = _REQUEST.pack(os.fsencode(interface), 0)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            answer = fcntl.ioctl(sock, _GET_FLAGS, request)
    except OSError:
        return False
    flags: int = _REQUEST.unpack(answer)[1]
    return bool(flags & _POINT_TO_POINT)


def halved(paths: Iterable[Path]) -> list[Route]:
    """A route for each interface that everything leaves by because both `HALVES` do. Pure.

    VPNs make them to come before a default route without touching it.
    """
    first, second = (
        {path.interface: path for path in paths if path.destination == half} for half in HALVES
    )
    both = [path for name, path in first.items() if name in second]
    return [Route(path.interface, path.gateway, path.metric) for path in both]


def tie(sock: trio.socket.SocketType, interface: str) -> None:
    """Have a socket hear only what comes in by ``interface``; "": by any.

    Linux takes packets for any of its addresses by any interface, and believes who is said to have
    sent them (rp_filter in ip-sysctl is off, or loose, on most systems). So what is behind another
    interface, a container for example, could speak as the router.
    """
    if interface:
        name = interface.encode() + b"\0"
        with contextlib.suppress(OSError):  # where that is not to be had it goes on as without
            sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_BINDTODEVICE, name)


async def look(interface: str | None = None) -> Network | NoGateway:
    """The network as it is now."""
    return await aside.run(_look, interface)


async def towards(host: str, interface: str | None = None) -> Network | NoGateway:
    """The network as it is now, with ``host``, an IPv4 address, for its gateway, reached by
    ``interface``."""
    return await aside.run(_towards, host, interface)


def read(find: Callable[[Kernel | Files], _T]) -> _T:
    """Find something out from the kernel, by netlink or, where that is forbidden, without it.
    Raises OSError. Blocks."""
    try:
        with Kernel() as kernel:
            return find(kernel)
    except OSError:
        return find(Files())


def _look(interface: str | None) -> Network | NoGateway:
    try:
        return read(lambda kernel: _default(kernel, interface))
    except OSError as error:
        return NoGateway(f"the kernel's routes cannot be read: {error.strerror}")


def _towards(host: str, interface: str | None) -> Network | NoGateway:
    def find(kernel: Kernel | Files) -> Network | NoGateway:
        way = kernel.way_to(host, interface)
        return _network(kernel, way.interface, host, way)

    try:
        return read(find)
    except OSError:
        return NoGateway(f"there is no way to {host}")


def _default(kernel: Kernel | Files, interface: str | None) -> Network | NoGateway:
    paths = kernel.wide_routes()
    whole = [path for path in paths if path.destination == EVERYTHING]
    routes = [
        Route(path.interface, path.gateway, path.metric, is_tunnel(path.interface))
        for path in whole
    ]
    chosen = choose(routes, interface, halved(paths))
    if isinstance(chosen, NoGateway):
        return chosen
    # By its interface: another one may be in the same LAN, and the kernel's choice.
    way = kernel.way_to(chosen.gateway, chosen.interface)
    return _network(kernel, chosen.interface, chosen.gateway, way)


def _network(
    kernel: Kernel | Files, interface: str, gateway: str, way: Path
) -> Network | NoGateway:
    """``way``: the kernel's route to the gateway."""
    if not way.source:
        return NoGateway("this host has no address towards its router")
    addresses = kernel.addresses()
    own = frozenset(address.own for address in addresses) - {""}
    prefixes = [address.prefix for address in addresses if address.shown == way.source]
    prefix = min(prefixes, default=0)
    # A gateway that is itself behind another router has a LAN that our address does not tell.
    if way.gateway or IPv4Address(gateway) not in IPv4Network((way.source, prefix), strict=False):
        prefix = 0
    mac = kernel.mac_of(gateway, interface)  # not known where nothing has been sent to it of late
    name = f"{gateway} {mac}" if mac else ""
    return Network(interface, gateway, way.source, prefix, own, name)
