"""Finding the router by each of the protocols that it may speak, and taking one of them.

UPnP is asked for, and preferred, first unless the user says otherwise: it alone can be asked whose
a port is.
"""

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import trio

from natsup.state.gateway import Gateway, protocol_of
from natsup.upnp import discovery, trust
from natsup.upnp.network import Network, NoGateway
from natsup.upnp.pmp.answers import OFF
from natsup.upnp.race import HEAD_START, Race

if TYPE_CHECKING:
    from natsup.upnp.pmp.gateway import PmpGateway

log = logging.getLogger("natsup.upnp")

UPNP = "upnp"
PROTOCOLS = (UPNP, "pcp", "natpmp")
_TITLES = {UPNP: "UPnP", "pcp": "PCP", "natpmp": "NAT-PMP"}


class Speakers:
    """The gateways by NAT-PMP and PCP, each made once: what they have learned of a router is good
    for the next search, too. ``secret``: what PCP's nonces are derived from, asked for once."""

    def __init__(self, secret: Callable[[], bytes]) -> None:
        self._read = secret
        self._kept: bytes | None = None
        self._made: dict[tuple[str, str, str, str], PmpGateway] = {}

    def get(self, protocol: str, network: Network) -> "PmpGateway":
        from natsup.upnp.pmp.gateway import speak

        key = (protocol, network.gateway, network.address, network.interface)
        if key not in self._made:
            self._made[key] = speak(
                protocol,
                network.gateway,
                network.address,
                secret=self._secret,
                interface=network.interface,
            )
        return self._made[key]

    def _secret(self) -> bytes:
        if self._kept is None:
            self._kept = self._read()
        return self._kept


async def find(
    network: Network,
    speakers: Speakers,
    *,
    protocols: Sequence[str] = PROTOCOLS,
    prefer: str | None = None,
    url: str | None = None,
    known: str | None = None,
    seconds: float = 2.0,
) -> Gateway | NoGateway:
    """The gateway of ``network``, by one of ``protocols``, which are in the order of preference.

    ``prefer``: one that comes before all of them, if it is among them. If it is known where it
    spoke that, nothing else is tried as long as it may do so at once. ``url``, ``known``,
    ``seconds``: see `natsup.upnp.discovery.find_gateway`. Raises nothing for what a network or a
    router does.
    """
    order = sorted(protocols, key=lambda protocol: protocol != prefer)
    race = Race(order, min(HEAD_START, seconds / 2))
    found: dict[str, Gateway] = {}
    reasons: dict[str, str] = {}
    failed = trio.Event()  # one of them
    send, receive = trio.open_memory_channel[tuple[str, Gateway | NoGateway]](len(order))

    async def after_the_known(protocol: str) -> None:
        if protocol != order[0] == prefer and known is not None and protocol_of(known) == prefer:
            with trio.move_on_after(discovery.KNOWN_FIRST):
                await failed.wait()

    async def by_upnp() -> None:
        await after_the_known(UPNP)
        where = known if known is not None and protocol_of(known) == UPNP else None
        result = await discovery.find_gateway(
            network, url=url, known=where, seconds=seconds, heard=lambda: race.heard(UPNP)
        )
        send.send_nowait((UPNP, result))

    async def by(protocol: str) -> None:
        await after_the_known(protocol)
        gateway = speakers.get(protocol, network)
        reason = await gateway.probe(seconds)
        send.send_nowait((protocol, gateway if reason is None else NoGateway(reason)))

    winner = None
    async with trio.open_nursery() as nursery:
        for protocol in order:
            if protocol == UPNP:
                nursery.start_soon(by_upnp)
            else:
                nursery.start_soon(by, protocol)
        while not race.over:
            winner = race.winner(trio.current_time())
            if winner is not None:
                break
            with trio.move_on_at(race.next_deadline()):
                protocol, result = await receive.receive()
                if isinstance(result, NoGateway):
                    reasons[protocol] = result.reason
                    race.failed(protocol)
                    failed.set()
                else:
                    found[protocol] = result
                    race.arrived(protocol, trio.current_time())
        nursery.cancel_scope.cancel()
    if winner is None:
        return NoGateway(why(network, order, reasons))
    return found[winner]


async def reopen(location: str, network: Network, speakers: Speakers) -> Gateway | None:
    """The gateway that was at this place, by the protocol that it was spoken to; None if it is not
    there any more, or not the router of ``network``."""
    if protocol_of(location) == UPNP:
        try:
            if trust.read(location).host != network.gateway:
                return None
        except trust.Refused:
            return None
        found = await discovery.find_gateway(network, url=location)
        return None if isinstance(found, NoGateway) else found
    gateway = speakers.get(protocol_of(location), network)
    return gateway if gateway.location == location and await gateway.probe(2.0) is None else None


def why(network: Network, order: Sequence[str], reasons: dict[str, str]) -> str:
    """Why there is none: what is said of one of them, or that none of them answers."""
    silence = discovery.silence(network)
    if reasons.get(UPNP, silence) != silence:
        return reasons[UPNP]
    for reason in reasons.values():
        if reason.startswith(OFF):
            return reason
    *others, last = (_TITLES[protocol] for protocol in order)
    names = f"{', '.join(others)} or {last}" if others else last
    return f"the router at {network.gateway} does not answer to {names}; is it switched on there?"
