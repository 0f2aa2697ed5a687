"""What the router's external address says of being reached from the Internet. Pure."""

from enum import Enum
from ipaddress import IPv4Address, IPv4Network

_CARRIER = IPv4Network("100.64.0.0/10")  # RFC 6598
_DS_LITE = IPv4Network("192.0.0.0/29")  # RFC 6333, section 5.7


class Reach(Enum):
    PUBLIC = "public"
    NONE = "none"  # the router names none: it is not connected, or will not say
    CARRIER = "carrier"  # the provider shares one address among many
    PRIVATE = "private"  # of another network, behind another router


def reach(address: str | None) -> Reach:
    """``address``: as the router named it."""
    try:
        external = IPv4Address(address or "")
    except ValueError:
        return Reach.NONE
    if external.is_unspecified:
        return Reach.NONE
    if external in _CARRIER or external in _DS_LITE:
        return Reach.CARRIER
    return Reach.PUBLIC if external.is_global else Reach.PRIVATE


_WHY = {
    Reach.CARRIER: "the provider shares it among many (carrier NAT)",
    Reach.PRIVATE: "it is a private one, so that the router is behind another router",
    Reach.NONE: "it names none: is it connected to the Internet?",
}


def warning(address: str | None) -> str:
    """Why nobody on the Internet reaches what is mapped, as a clause for people; "" if that can be
    done."""
    why = _WHY.get(reach(address))
    return "" if why is None else f"{why}; natsup doctor says more"
