"""The nouns that every room of natsup shares. They decide nothing and touch nothing.

A *port* is a protocol and a number in host order, the same inside and outside: natsup never maps
an external port to another internal one, because the program would announce the wrong number.

Where a port is one of IPv6, nothing is translated, and all a router does is let it through its
firewall: a *pinhole*. It is asked for, noted and given up just as a mapping is, and called
one wherever the difference does not matter.
"""

from dataclasses import dataclass
from enum import StrEnum


class Protocol(StrEnum):
    TCP = "tcp"
    UDP = "udp"


@dataclass(frozen=True, slots=True, order=True)
class Port:
    """A port as the program binds it and as the router forwards it: ``tcp/6881``; ``tcp6/6881``
    for a pinhole."""

    protocol: Protocol
    number: int  # host order, 1-65535
    ipv6: bool = False

    def __str__(self) -> str:
        return f"{self.kind}/{self.number}"

    @property
    def kind(self) -> str:
        """As netstat(8) calls it: ``tcp6``."""
        return f"{self.protocol.value}{'6' * self.ipv6}"

    @property
    def family(self) -> str:
        return "ipv6" if self.ipv6 else "ipv4"

    @property
    def pinhole(self) -> "Port":
        """The same for IPv6."""
        return Port(self.protocol, self.number, ipv6=True)

    @classmethod
    def read(cls, text: str) -> "Port":
        """What `str` gave. Raises ValueError."""
        protocol, _, number = text.partition("/")
        return cls(Protocol(protocol.removesuffix("6")), int(number), protocol.endswith("6"))


# What a gateway makes of a request for a port. The paper's SUCCEEDED, FAILED and IGNORED, and one
# more: a request that was sent and never answered may have been carried out.


@dataclass(frozen=True, slots=True)
class Mapped:
    """The gateway forwards the port to this host."""

    lease: int  # seconds from now; 0: until it is deleted
    handle: str = ""  # what the gateway wants to hear to remove it; "" for most: the port will do

    def __str__(self) -> str:
        return "mapped"


@dataclass(frozen=True, slots=True)
class Conflict:
    """Another host on the LAN owns the port on the gateway (seen in its table, not guessed)."""

    holder: str  # that host's address, "" where the gateway would not say

    def __str__(self) -> str:
        return f"held by {self.holder or 'another host'}"


@dataclass(frozen=True, slots=True)
class Ignored:
    """The gateway said no, but nobody else holds the port: the program goes on without it."""

    reason: str  # for people: one short clause, no full stop
    slow: bool = False  # True: only the user can change this, so ask again rarely
    silent: bool = False  # True: the gateway did not say so, it did not answer at all
    full: bool = False  # True: perhaps for want of room, so ask again once some has been made

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True, slots=True)
class Unknown:
    """No usable answer. The mapping may exist; only a look at the gateway's table can tell."""

    reason: str
    silent: bool = False  # True: there was no answer at all

    def __str__(self) -> str:
        return self.reason


Outcome = Mapped | Conflict | Ignored | Unknown


class Removal(StrEnum):
    """What became of a request to remove a mapping."""

    GONE = "gone"  # removed now, or not there any more
    NOT_OURS = "not ours"  # it belongs to another host now, or the gateway will not let us
    HANDED_OVER = "handed over"  # another session on this host has the port, and keeps the mapping
    FAILED = "failed"  # no usable answer: worth another try
