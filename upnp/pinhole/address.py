"""Which of this host's IPv6 addresses a pinhole is to lead to, and which router to ask. Pure.

A program on the wildcard address can be reached by all of them, and tells others one that lasts. So
it has to be one that strangers can route to, and that is there tomorrow: no temporary one (RFC
8981), which is given up within a day, no deprecated one (RFC 4862), none whose uniqueness is still
being tried.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network

from natsup.upnp.network import NoGateway

# linux/if_addr.h
TEMPORARY, DAD_FAILED, DEPRECATED, TENTATIVE, PERMANENT = 0x01, 0x08, 0x20, 0x40, 0x80

_GLOBAL_UNICAST = IPv6Network("2000::/3")  # RFC 4291, section 2.4; all that is assigned of it
_TUNNELS = (IPv6Network("2001::/32"), IPv6Network("2002::/16"))  # Teredo, 6to4
_UNSUITED = TEMPORARY | DAD_FAILED | DEPRECATED | TENTATIVE


@dataclass(frozen=True, slots=True)
class Address:
    """One of this host's. ``flags``: IFA_FLAGS."""

    address: str
    interface: str
    flags: int


@dataclass(frozen=True, slots=True)
class Route:
    """A default route; ``gateway`` is "" where it has none."""

    interface: str
    gateway: str
    metric: int


@dataclass(frozen=True, slots=True)
class Network:
    """The way to the Internet by IPv6. ``gateway``: the router's address, with its interface where
    it is link-local; ``address``: ours."""

    interface: str
    gateway: str
    address: str


def lasting(address: Address) -> bool:
    """Is it one that a pinhole may lead to?"""
    number = IPv6Address(address.address)
    if number not in _GLOBAL_UNICAST or any(number in tunnel for tunnel in _TUNNELS):
        return False
    return not address.flags & _UNSUITED


def choose(
    routes: Iterable[Route],
    addresses: Iterable[Address],
    *,
    interface: str | None = None,
    current: str | None = None,
) -> Network | NoGateway:
    """The default route that the kernel prefers, of those by ``interface`` if that is named, and an
    address there. ``current``: the one in use, which is kept as long as it will do.

    One that somebody has given the host comes before one that a router has told it to make.
    """
    wide = [route for route in routes if interface in (None, route.interface)]
    usable = sorted((route for route in wide if route.gateway), key=lambda route: route.metric)
    if not usable:
        why = "leads to no router" if wide else "is missing"
        return NoGateway(f"the default route for IPv6 {why}")
    route = usable[0]
    found = [one for one in addresses if one.interface == route.interface and lasting(one)]
    if not found:
        return NoGateway(f"{route.interface} has no lasting global IPv6 address")

    def order(one: Address) -> tuple[bool, bool, IPv6Address]:
        return (
            one.address != current,
            not one.flags & PERMANENT,
            IPv6Address(one.address),
        )

    best = min(found, key=order)
    gateway = route.gateway
    if IPv6Address(gateway).is_link_local:
        gateway = f"{gateway}%{route.interface}"
    return Network(route.interface, gateway, best.address)
