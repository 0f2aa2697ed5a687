"""Where the default gateway is, and which of our addresses faces it.

pyroute2 reads the kernel's routes, in a worker thread: it is synchronous and takes 0.2 s to import.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import trio


@dataclass(frozen=True, slots=True)
class Route:
    """A default route, as the kernel lists it."""

    interface: str
    gateway: str  # an IPv4 address, "" for a route without one
    metric: int


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


def choose(routes: Iterable[Route], interface: str | None) -> Route | NoGateway:
    """The default route to use: the kernel's own choice, or the one of ``interface``. Pure."""
    found = sorted(routes, key=lambda route: route.metric)
    if interface is not None:
        found = [route for route in found if route.interface == interface]
    usable = [route for route in found if route.gateway]
    if usable:
        return usable[0]
    where = f" by {interface}" if interface is not None else ""
    if found:
        return NoGateway(f"the default route{where} leads to no router")
    return NoGateway(f"there is no default route{where}")


async def look(interface: str | None = None) -> Network | NoGateway:
    """The network as it is now."""
    return await trio.to_thread.run_sync(_read, lambda kernel: _default(kernel, interface))


async def towards(host: str) -> Network | NoGateway:
    """The network as it is now, with ``host``, an IPv4 address, for its gateway."""
    return await trio.to_thread.run_sync(_read, lambda kernel: _towards(kernel, host))


def _read(find: Callable[[Any], Network | NoGateway]) -> Network | NoGateway:
    """``find`` asks a pyroute2.IPRoute."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        with IPRoute() as kernel:
            return find(kernel)
    except (NetlinkError, OSError) as error:
        return NoGateway(f"the kernel's routes cannot be read: {error}")


def _default(kernel: Any, interface: str | None) -> Network | NoGateway:
    names = _names(kernel)
    routes = [
        Route(
            names.get(route.get_attr("RTA_OIF"), ""),
            route.get_attr("RTA_GATEWAY") or "",
            route.get_attr("RTA_PRIORITY") or 0,
        )
        for route in kernel.get_default_routes(family=2)
    ]
    chosen = choose(routes, interface)
    if isinstance(chosen, NoGateway):
        return chosen
    (way,) = kernel.route("get", dst=chosen.gateway)
    return _network(kernel, chosen.interface, chosen.gateway, way)


def _towards(kernel: Any, host: str) -> Network | NoGateway:
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        (way,) = kernel.route("get", dst=host)
    except NetlinkError:
        return NoGateway(f"there is no way to {host}")
    return _network(kernel, _names(kernel).get(way.get_attr("RTA_OIF"), ""), host, way)


def _names(kernel: Any) -> dict[int, str]:
    return {link["index"]: link.get_attr("IFLA_IFNAME") for link in kernel.get_links()}


def _network(kernel: Any, interface: str, gateway: str, way: Any) -> Network | NoGateway:
    """``way``: the kernel's route to the gateway."""
    address = way.get_attr("RTA_PREFSRC")
    if not address:
        return NoGateway("this host has no address towards its router")
    entries = list(kernel.get_addr(family=2))
    own = frozenset(entry.get_attr("IFA_LOCAL") or "" for entry in entries) - {""}
    prefixes = [entry["prefixlen"] for entry in entries if entry.get_attr("IFA_ADDRESS") == address]
    # A gateway that is itself behind another router has a LAN that our address does not tell.
    prefix = 0 if way.get_attr("RTA_GATEWAY") else min(prefixes, default=0)
    return Network(interface, gateway, address, prefix, own, _name(kernel, gateway))


def _name(kernel: Any, gateway: str) -> str:
    for entry in kernel.get_neighbours(family=2, dst=gateway):
        mac = entry.get_attr("NDA_LLADDR")
        if mac and entry.get_attr("NDA_DST") == gateway:
            return f"{gateway} {mac}"
    return ""  # nothing has been sent to it of late
