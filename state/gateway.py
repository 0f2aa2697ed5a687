"""What the keeper of the ledger needs of a gateway; ``natsup.upnp`` has the real one."""

from typing import Protocol

from natsup.state.model import Outcome, Port, Removal


class Gateway(Protocol):
    """A router that forwards ports to this host.

    No method raises for anything a router or a network does: that is what the outcomes are for.
    Every method ends by itself within the gateway's own deadline (10 s by default), so a caller
    that cannot wait so long leaves the call running and goes on without its answer. One request
    is on its way to a router at a time; the rest queue inside.
    """

    @property
    def protocol(self) -> str:
        """``"upnp"``."""

    @property
    def location(self) -> str:
        """The URL of the gateway's description: which gateway this is."""

    @property
    def internal_address(self) -> str:
        """This host's address as the gateway sees it, which mappings lead to."""

    async def add(self, port: Port, *, lease: int) -> Outcome:
        """Forward ``port`` to this host, or renew that. ``lease`` in seconds.

        A mapping of another host is never taken over: the table is read first.
        """

    async def check(self, port: Port) -> Outcome:
        """Is ``port`` forwarded to this host? Changes nothing.

        `Mapped` if it is, `Conflict` or `Ignored` if not, `Unknown` if the gateway will not say.
        """

    async def remove(self, port: Port) -> Removal:
        """Stop forwarding ``port``, if it leads to this host."""

    async def external_address(self) -> str | None:
        """The address the Internet knows the gateway by; None if it will not say."""
