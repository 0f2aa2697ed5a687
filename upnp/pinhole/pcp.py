"""A router that opens pinholes by PCP (RFC 6887, section 11): the `Pinholes` of natsup.state."""

from collections.abc import Callable

from natsup.state.model import Conflict, Ignored, Outcome, Port
from natsup.upnp.pmp.answers import PORT
from natsup.upnp.pmp.gateway import PmpGateway
from natsup.upnp.pmp.languages import Pcp


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

    def recall(self, port: Port, handle: str) -> None:
        """See `Pinholes.recall`: the secret is enough."""
