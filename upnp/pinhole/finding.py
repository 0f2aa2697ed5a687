"""Finding out who opens pinholes: the router of the default route for IPv6.

It is not searched for by SSDP: over IPv6 routers answer from addresses that do not show that they
are the router, and everybody on the LAN can answer. A router that opens pinholes by UPnP maps ports
as well, so that it has been found already, by IPv4; it is asked for the same description at its
IPv6 address.
"""

import logging
from collections.abc import Callable, Sequence

from natsup.state.gateway import Gateway, Pinholes, protocol_of
from natsup.upnp import trust
from natsup.upnp.description import Unreadable, firewall
from natsup.upnp.network import NoGateway
from natsup.upnp.pinhole.address import Network
from natsup.upnp.pinhole.kernel import look

log = logging.getLogger("natsup.upnp")

_DESCRIPTION_AT_MOST = 256 * 1024
_SECONDS = 2.0  # for each way
_NONE = "the router opens no pinholes"


async def find(
    network: Network,
    mapper: Gateway | None,
    *,
    protocols: Sequence[str],
    secret: Callable[[], bytes],
) -> Pinholes | NoGateway:
    """By which of ``protocols`` the router opens pinholes, the preferred one first. NAT-PMP knows
    none. ``mapper``: by which it maps ports. Raises nothing for what a network or a router does.
    """
    reasons = []
    for protocol in protocols:
        found: Pinholes | NoGateway
        if protocol == "upnp" and mapper is not None and protocol_of(mapper.location) == "upnp":
            found = await _by_upnp(network, mapper)
        elif protocol == "pcp":
            found = await _by_pcp(network, secret)
        else:
            continue
        if not isinstance(found, NoGateway):
            return found
        reasons.append(found.reason)
    return NoGateway(f"{_NONE} ({'; '.join(reasons)})" if reasons else _NONE)


async def find_here(
    interface: str | None, mapper: Gateway | None, protocol: str, secret: Callable[[], bytes]
) -> Pinholes | None:
    """Who opens pinholes by this protocol on the network as it is now, if anybody does."""
    network = await look(interface)
    if isinstance(network, NoGateway):
        return None
    found = await find(network, mapper, protocols=(protocol,), secret=secret)
    return None if isinstance(found, NoGateway) else found


async def _by_pcp(network: Network, secret: Callable[[], bytes]) -> Pinholes | NoGateway:
    from natsup.upnp.pinhole.pcp import PcpPinholes

    gateway = PcpPinholes(network.gateway, network.address, secret=secret)
    reason = await gateway.probe(_SECONDS)
    return gateway if reason is None else NoGateway(_briefly(reason))


async def _by_upnp(network: Network, mapper: Gateway) -> Pinholes | NoGateway:
    # The library that this needs was imported to find the mapper.
    from natsup.upnp.igd import Igd
    from natsup.upnp.pinhole.firewall import Firewall
    from natsup.upnp.requester import Requester, RequestFailed

    there = trust.read(mapper.location)
    location = trust.Url(network.gateway, there.port, there.target)
    requester = Requester(network.address, at_most=_DESCRIPTION_AT_MOST)
    try:
        status, body = await requester.get(location, seconds=_SECONDS)
    except RequestFailed as error:
        return NoGateway(f"by UPnP {_briefly(str(error))} at its IPv6 address")
    finally:
        requester.close()
    if status != 200:
        return NoGateway(f"UPnP: HTTP status {status} at its IPv6 address")
    try:
        control = firewall(body.decode("utf-8", "replace"), url=location)
    except Unreadable as error:
        return NoGateway(_briefly(str(error)))
    turn = mapper.turn if isinstance(mapper, Igd) else None
    return Firewall(location, control, network.address, turn=turn)


def _briefly(reason: str) -> str:
    return reason.removeprefix("the router ")
