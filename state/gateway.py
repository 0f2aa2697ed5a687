"""What the keeper of the ledger needs: a gateway (``natsup.upnp`` has the real one), and to know of
the other sessions on this host (``natsup.supervisor.neighbours``)."""

from contextlib import AbstractContextManager
from typing import Protocol
from urllib.parse import urlsplit

from natsup.state.model import Outcome, Port, Removal


class Gateway(Protocol):
    """A router that forwards ports to this host.

    No method raises for anything a router or a network does: that is what the outcomes are for.
    One request is on its way to a router at a time; the rest queue inside. Every method ends by
    itself: within the gateway's own deadline (10 s by default) from when its turn has come, and
    with the one before it if that was not answered. So a caller that cannot wait so long leaves the
    call running and goes on without its answer.
    """

    @property
    def protocol(self) -> str:
        """``"upnp"``, ``"pcp"`` or ``"natpmp"``."""

    @property
    def location(self) -> str:
        """The URL of the gateway's description, or one made of the protocol's name and the router's
        address: which gateway this is."""

    @property
    def internal_address(self) -> str:
        """This host's address as the gateway sees it, which mappings lead to."""

    async def add(self, port: Port, *, lease: int) -> Outcome:
        """Forward ``port`` to this host, or renew that. ``lease`` in seconds.

        A mapping of another host is never taken over: the table is read first, where it can be.
        """

    async def check(self, port: Port) -> Outcome:
        """Is ``port`` forwarded to this host? Changes nothing.

        `Mapped` if it is, `Conflict` or `Ignored` if not, `Unknown` if the gateway will not say.
        """

    async def remove(self, port: Port) -> Removal:
        """Stop forwarding ``port``, if it leads to this host."""

    async def external_address(self) -> str | None:
        """The address the Internet knows the gateway by; None if it will not say."""


class Pinholes(Gateway, Protocol):
    """A router that lets ports of IPv6 through to this host. There is no `Conflict`: nobody else
    can have a port of this host's address."""

    def recall(self, port: Port, handle: str) -> None:
        """Another session opened this one, and was given ``handle`` for it; "": not known."""


class Neighbours(Protocol):
    """The sessions on this host, of whichever user: they share its ports on the gateway."""

    def announce(self, port: Port) -> None:
        """This session wants the port. More than once is once."""

    def withdraw(self, port: Port) -> None:
        """It does not want it any more."""

    def removing(self, port: Port) -> AbstractContextManager[bool]:
        """While the block lasts this session removes the port from the gateway, and those that come
        to want it wait. False: it is not to be removed, because another session wants it, or is
        removing it already."""

    async def removed(self, port: Port) -> None:
        """Wait until no session is removing the port, which this one has announced."""


def host(location: str) -> str:
    """The host in a gateway's location. A router that was restarted has another path or port."""
    return urlsplit(location).hostname or location


def protocol_of(location: str) -> str:
    """The protocol that a gateway at this location speaks."""
    scheme = urlsplit(location).scheme
    return scheme if scheme in ("pcp", "natpmp") else "upnp"
