"""Where the default gateway is, and which of our addresses faces it.

The kernel's routes are read in a worker thread: there may be very many.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import trio

from natsup.upnp.rtnetlink import Kernel, Path


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


def _read(find: Callable[[Kernel], Network | NoGateway]) -> Network | NoGateway:
    try:
        with Kernel() as kernel:
            return find(kernel)
    except OSError as error:
        return NoGateway(f"the kernel's routes cannot be read: {error.strerror}")


def _default(kernel: Kernel, interface: str | None) -> Network | NoGateway:
    routes = [Route(path.interface, path.gateway, path.metric) for path in kernel.default_routes()]
    chosen = choose(routes, interface)
    if isinstance(chosen, NoGateway):
        return chosen
    return _network(kernel, chosen.interface, chosen.gateway, kernel.way_to(chosen.gateway))


def _towards(kernel: Kernel, host: str) -> Network | NoGateway:
    try:
        way = kernel.way_to(host)
    except OSError:
        return NoGateway(f"there is no way to {host}")
    return _network(kernel, way.interface, host, way)


def _network(kernel: Kernel, interface: str, gateway: str, way: Path) -> Network | NoGateway:
    """``way``: the kernel's route to the gateway."""
    if not way.source:
        return NoGateway("this host has no address towards its router")
    addresses = kernel.addresses()
    own = frozenset(address.own for address in addresses) - {""}
    prefixes = [address.prefix for address in addresses if address.shown == way.source]
    # A gateway that is itself behind another router has a LAN that our address does not tell.
    prefix = 0 if way.gateway else min(prefixes, default=0)
    mac = kernel.mac_of(gateway)  # not known where nothing has been sent to it of late
    name = f"{gateway} {mac}" if mac else ""
    return Network(interface, gateway, way.source, prefix, own, name)
