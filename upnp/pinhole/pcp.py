"""A router that opens pinholes by PCP (RFC 6887, section 11): the `Pinholes` of natsup.state."""

import logging
from collections.abc import Callable

from natsup.state.model import Conflict, Ignored, Mapped, Outcome, Port, Removal
from natsup.upnp.pmp.answers import PORT
from natsup.upnp.pmp.gateway import PmpGateway
from natsup.upnp.pmp.languages import Pcp

log = logging.getLogger("natsup.upnp")

_SHORTEST = 1  # seconds; the router raises it to the least that it grants


class PcpPinholes(PmpGateway):
    """A MAP with an IPv6 address translates nothing, so the port outside has to be the same.
    Whether it is a pinhole by its own name or a mapping is the router's affair."""

    def __init__(
        self,
        router: str,
        internal_address: str,
        *,
        secret: Callable[[], bytes],
        port: int = PORT,
        seconds: float = 10.0,
    ) -> None:
        language = Pcp(secret, router, internal_address)
        super().__init__(language, router, internal_address, port=port, seconds=seconds)

    async def add(self, port: Port, *, lease: int) -> Outcome:
        """See `Gateway.add`."""
        outcome = await super().add(port, lease=lease)
        if isinstance(outcome, Conflict):
            return Ignored("the router would translate the port, and has not got it")
        return outcome

    async def remove(self, port: Port) -> Removal:
        """See `Gateway.remove`.

        miniupnpd 2.3.1 (Debian 12) refuses to remove a pinhole that was renewed. It does renew it
        once more, and for as short a time as it allows: then it ends by itself.
        """
        removal = await super().remove(port)
        if removal is Removal.NOT_OURS:
            outcome = await self.add(port, lease=_SHORTEST)
            if isinstance(outcome, Mapped):
                log.info("%s: the router ends it in %d s by itself", port, outcome.lease)
                return Removal.GONE
        return removal

    def recall(self, port: Port, handle: str) -> None:
        """See `Pinholes.recall`: the secret is enough."""
