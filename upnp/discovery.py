"""Finding the router: a search by SSDP, its description, its best service.

The search goes to the default gateway's own address and to the multicast group at once: some
routers answer only one of the two. Only the default gateway's answer is taken, whoever else calls
himself a router, because whoever is believed can deny ports to local programs.
"""

import logging
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

import trio

from natsup.upnp import ssdp, trust
from natsup.upnp.description import Condition, Service, Unreadable, best, services
from natsup.upnp.network import Network, NoNetwork, address_towards, look

if TYPE_CHECKING:
    from natsup.upnp.igd import Igd

log = logging.getLogger("natsup.upnp")

_DESCRIPTION_AT_MOST = 256 * 1024
_MOST_LOCATIONS = 4  # of one router: some have a description for each version
_AGAIN_AFTER = 0.5  # seconds; the search is UDP


@dataclass(frozen=True, slots=True)
class NoGateway:
    """There is no router that maps ports; ``reason`` is a clause for people."""

    reason: str


async def find_gateway(
    *, interface: str | None = None, url: str | None = None, seconds: float = 2.0
) -> "Igd | NoGateway":
    """The default gateway, or the router whose description is at ``url``.

    ``seconds`` are for the search and again for the description. Raises nothing for what a
    network or a router does.
    """
    if url is not None:
        return await _at(url, seconds)
    network = await look(interface)
    if isinstance(network, NoNetwork):
        return NoGateway(network.reason)
    reason = f"the router at {network.gateway} does not answer to UPnP; is it switched on there?"
    with trio.move_on_after(seconds) as scope:
        async with trio.open_nursery() as nursery:
            send, receive = trio.open_memory_channel[trust.Url](_MOST_LOCATIONS)
            nursery.start_soon(_search, network, send)
            tried: set[trust.Url] = set()
            async for location in receive:
                if location in tried or len(tried) >= _MOST_LOCATIONS:
                    continue
                tried.add(location)
                scope.deadline = trio.current_time() + seconds
                found = await _open(location, network.address, seconds, lan=network.prefix)
                if not isinstance(found, NoGateway):
                    nursery.cancel_scope.cancel()
                    return found
                reason = found.reason
    return NoGateway(reason)


async def _at(text: str, seconds: float) -> "Igd | NoGateway":
    try:
        url = trust.read(text)
    except trust.Refused as error:
        return NoGateway(f"--gateway is of no use: {error}")
    address = await trio.to_thread.run_sync(address_towards, url.host)
    if address is None:
        return NoGateway(f"there is no way to {url.host}")
    return await _open(url, address, seconds)


async def _search(network: Network, found: "trio.MemorySendChannel[trust.Url]") -> None:
    """Send the search and pass on where the gateway says its description is, until cancelled."""
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as sock:
        try:
            await sock.bind((network.address, 0))
        except OSError as error:  # the address has gone since the routes were read
            log.debug("the search has no address to start from: %s", error.strerror)
            return
        sock.setsockopt(trio.socket.IPPROTO_IP, trio.socket.IP_MULTICAST_TTL, 2)
        own = trio.socket.inet_aton(network.address)  # with --interface not the default's
        sock.setsockopt(trio.socket.IPPROTO_IP, trio.socket.IP_MULTICAST_IF, own)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_send, sock, network)
            while True:
                try:
                    data, (sender, _) = await sock.recvfrom(8192)
                except OSError:  # an ICMP error for one of the datagrams
                    continue
                if sender != network.gateway:
                    continue
                text = ssdp.location(data)
                if text is None:
                    continue
                try:
                    url = trust.location(text, sender=sender, own=network.address)
                except trust.Refused as error:
                    log.debug("the router's answer to the search is of no use: %s", error)
                    continue
                try:
                    found.send_nowait(url)
                except trio.WouldBlock:
                    continue


async def _send(sock: trio.socket.SocketType, network: Network) -> None:
    while True:
        for target in ssdp.TARGETS:
            for host in (network.gateway, ssdp.MULTICAST):
                try:
                    await sock.sendto(ssdp.search(target, host=host), (host, ssdp.PORT))
                except OSError as error:
                    log.debug("the search cannot be sent: %s", error.strerror)
        await trio.sleep(_AGAIN_AFTER)


async def _open(
    location: trust.Url, address: str, seconds: float, *, lan: int = 0
) -> "Igd | NoGateway":
    """Fetch a description and make a gateway of its best service."""
    # Slow, and not needed before a router has answered; calls are served meanwhile.
    await trio.to_thread.run_sync(import_module, "natsup.upnp.igd")
    from natsup.upnp.igd import Igd
    from natsup.upnp.requester import Requester, RequestFailed

    requester = Requester(address, at_most=_DESCRIPTION_AT_MOST)
    try:
        status, body = await requester.get(location, seconds=seconds)
    except RequestFailed as error:
        return NoGateway(str(error))
    finally:
        requester.close()
    if status != 200:
        return NoGateway(f"the router has no description where it says (HTTP status {status})")
    try:
        candidates = services(body.decode("utf-8", "replace"), url=location)
    except Unreadable as error:
        return NoGateway(str(error))
    opened: dict[Service, Igd] = {}
    conditions: dict[Service, Condition] = {}
    for service in dict.fromkeys(candidates):
        opened[service] = await Igd.open(
            service, location=str(location), internal_address=address, lan=lan
        )
    if len(opened) > 1:
        with trio.move_on_after(seconds):
            for service, igd in opened.items():
                conditions[service] = await igd.condition()
    return opened[best(list(opened), conditions)]
