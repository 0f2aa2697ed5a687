"""Where the default gateway is, and which of our addresses faces it.

pyroute2 reads the kernel's routes, in a worker thread: it is synchronous and takes 0.2 s to import.
"""

from collections.abc import Iterable
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class NoNetwork:
    reason: str  # a clause for people


def choose(routes: Iterable[Route], interface: str | None) -> Route | NoNetwork:
    """The default route to use: the kernel's own choice, or the one of ``interface``. Pure."""
    found = sorted(routes, key=lambda route: route.metric)
    if interface is not None:
        found = [route for route in found if route.interface == interface]
    usable = [route for route in found if route.gateway]
    if usable:
        return usable[0]
    where = f" by {interface}" if interface is not None else ""
    if found:
        return NoNetwork(f"the default route{where} leads to no router")
    return NoNetwork(f"there is no default route{where}")


async def look(interface: str | None = None) -> Network | NoNetwork:
    """The network as it is now."""
    return await trio.to_thread.run_sync(_look, interface)


def _look(interface: str | None) -> Network | NoNetwork:
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        with IPRoute() as kernel:
            names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in kernel.get_links()}
            routes = [
                Route(
                    names.get(route.get_attr("RTA_OIF"), ""),
                    route.get_attr("RTA_GATEWAY") or "",
                    route.get_attr("RTA_PRIORITY") or 0,
                )
                for route in kernel.get_default_routes(family=2)
            ]
            chosen = choose(routes, interface)
            if isinstance(chosen, NoNetwork):
                return chosen
            (way,) = kernel.route("get", dst=chosen.gateway)
            address = way.get_attr("RTA_PREFSRC")
            if not address:
                return NoNetwork("this host has no address towards its router")
            prefixes = [
                entry["prefixlen"]
                for entry in kernel.get_addr(family=2, address=address)
                if entry.get_attr("IFA_ADDRESS") == address
            ]
            return Network(chosen.interface, chosen.gateway, address, min(prefixes, default=0))
    except (NetlinkError, OSError) as error:
        return NoNetwork(f"the kernel's routes cannot be read: {error}")


def address_towards(host: str) -> str | None:
    """This host's own address on the way to another; None if there is no way."""
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((host, 9))  # sends nothing: the kernel only looks the route up
        except OSError:
            return None
        return str(sock.getsockname()[0])
