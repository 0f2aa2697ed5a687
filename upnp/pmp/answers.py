"""What NAT-PMP and PCP say, in words that both share. Pure.

Their numbers differ, and so do the bytes; what a router means by them does not.
"""

from dataclasses import dataclass
from enum import Enum

from natsup.state.model import Ignored, Port

PORT = 5351  # of the router: RFC 6886, section 3.1; RFC 6887, section 19
ANNOUNCED_TO, ANNOUNCED_PORT = "224.0.0.1", 5350  # how routers announce themselves

OFF = "the router has switched off"  # how a clause begins that says so of a protocol

# What to ask


@dataclass(frozen=True, slots=True)
class Query:
    """What costs nothing: is it there, and since when?"""


@dataclass(frozen=True, slots=True)
class Map:
    """Forward a port to the same one of this host, or renew that."""

    port: Port
    lifetime: int  # seconds
    insist: bool = False  # this external port or none


@dataclass(frozen=True, slots=True)
class Unmap:
    """Forward no port to this one of this host's any more."""

    port: Port


Step = Query | Map | Unmap


class Refusal(Enum):
    """Result codes. The value is the clause for people."""

    VERSION = "the router speaks another version of the protocol"
    NOT_AUTHORIZED = "the router does not permit this host to map the port"
    MALFORMED = "the router rejects the request as invalid"
    OPCODE = "the router cannot map ports by this protocol"
    OPTION = "the router does not know an option of the request"
    NETWORK = "the router has no connection to the Internet"
    RESOURCES = "the router has no room for another port mapping"
    TRANSPORT = "the router does not map ports of this kind"
    QUOTA = "the router permits this host no more port mappings"
    CANNOT_PROVIDE = "the router cannot give the port"
    MISMATCH = "another router is between this host and the one that was asked"
    PEERS = "the router rejects the request as too large"
    OTHER = "the router refuses, and its reason is not known"

    def outcome(self) -> Ignored:
        """What a refusal to add a mapping comes to, unless another host has the port."""
        reason = f"{self.value} (natsup explain {self.topic})"
        return Ignored(reason, slow=self in _SLOW, full=self in _FULL)

    @property
    def topic(self) -> str:
        """By which `natsup explain` knows it."""
        return self.name.lower().replace("_", "-")


# Only the user can change it
_SLOW = frozenset({Refusal.NOT_AUTHORIZED, Refusal.OPCODE, Refusal.TRANSPORT, Refusal.MISMATCH})
_FULL = frozenset({Refusal.RESOURCES, Refusal.QUOTA})

# What is answered


@dataclass(frozen=True, slots=True)
class Told:
    """The answer to `Query`."""

    external_address: str | None = None


@dataclass(frozen=True, slots=True)
class Granted:
    """It was done. ``lifetime``: in seconds, 0 for what was removed."""

    external_port: int
    lifetime: int
    external_address: str | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    refusal: Refusal
    lifetime: int = 0  # seconds for which it will be the same (RFC 6887, section 7.4); 0: not said


@dataclass(frozen=True, slots=True)
class Silent:
    """No answer. ``sent``: the request may have been carried out."""

    reason: str
    sent: bool


Answer = Told | Granted | Refused | Silent


@dataclass(frozen=True, slots=True)
class Heard:
    """An answer out of a datagram, and the router's clock in it, in seconds; None: it had none."""

    answer: Told | Granted | Refused
    epoch: int | None
