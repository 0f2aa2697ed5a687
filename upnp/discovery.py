"""Finding the router: a search by SSDP, its description, its best service.

The search goes to the default gateway's own address and to the multicast group at once: some
routers answer only one of the two. Only the default gateway's answer is taken, whoever else calls
himself a router, because whoever is believed can deny ports to local programs.
"""

import contextlib
import logging
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

import trio

from natsup.state import aside
from natsup.upnp import ssdp, trust
from natsup.upnp.description import Condition, Service, Unreadable, best, services
from natsup.upnp.network import Network, NoGateway, look, tie, towards

if TYPE_CHECKING:
    from natsup.upnp.igd import Igd

log = logging.getLogger("natsup.upnp")

_DESCRIPTION_AT_MOST = 256 * 1024
_DESCRIPTION_SECONDS = 10.0
_CONDITIONS_SECONDS = 2.0  # for all services together: what they say is a preference, no veto
_MOST_LOCATIONS = 4  # of one router: some have a description for each version
_HEAD_START = 1.0  # seconds of one description before the next
KNOWN_FIRST = 0.3  # seconds for where it was known to be, before the LAN is searched
_AGAIN_AFTER, _LONGEST_PAUSE = 0.5, 4.0  # seconds, doubling; the search is UDP


async def network_of(*, interface: str | None, url: str | None) -> Network | NoGateway:
    """The network of the default gateway, or of the router whose description is at ``url``.

    ``interface``: by which it is to be reached.
    """
    if url is None:
        return await look(interface)
    try:
        return await towards(trust.read(url).host, interface)
    except trust.Refused as error:
        return NoGateway(f"--gateway is of no use: {error}")


async def find_gateway(
    network: Network,
    *,
    url: str | None = None,
    known: str | None = None,
    seconds: float = 2.0,
    heard: Callable[[], None] = lambda: None,
) -> "Igd | NoGateway":
    """The gateway of ``network``, or the router whose description is at ``url``.

    ``known``: where the gateway's description was at another time, which is tried first: if it is
    there at once, nothing is searched for. ``seconds``: how long an answer to the search is waited
    for. A description that was found has patience of its own, because there are routers that take
    long to give it: 10 s.
    ``heard``: called when the router has said where its description is.
    Raises nothing for what a network or a router does.
    """
    if url is not None:
        return await _open(trust.read(url), network)
    return await _first(network, known, seconds, heard)


async def _first(
    network: Network, known: str | None, seconds: float, heard: Callable[[], None]
) -> "Igd | NoGateway":
    """Search, and open what is found until something can be opened.

    The next description is tried when one is of no use, or takes long: not all at once, for the
    routers that take a single connection.
    """
    result: Igd | NoGateway = NoGateway(silence(network))
    failed = trio.Event()  # what was known
    async with trio.open_nursery() as nursery:

        async def attempt(location: trust.Url, over: trio.Event) -> None:
            nonlocal result
            result = await _open(location, network)
            if isinstance(result, NoGateway):
                over.set()
                failed.set()
            else:
                nursery.cancel_scope.cancel()

        async def search() -> None:
            if told is not None:
                with trio.move_on_after(KNOWN_FIRST):
                    await failed.wait()
            await _search(network, send, seconds)

        send, receive = trio.open_memory_channel[trust.Url](_MOST_LOCATIONS + 1)
        told = None
        with contextlib.suppress(trust.Refused):
            if known is not None:
                told = trust.location(known, sender=network.gateway, own=network.address)
                send.send_nowait(told)
        nursery.start_soon(search)
        async for location in receive:
            if location is not told:
                heard()
            over = trio.Event()
            nursery.start_soon(attempt, location, over)
            with trio.move_on_after(_HEAD_START):
                await over.wait()
    return result


def silence(network: Network) -> str:
    """What is said of a router that does not answer."""
    return f"the router at {network.gateway} does not answer to UPnP; is it switched on there?"


async def _search(
    network: Network, found: "trio.MemorySendChannel[trust.Url]", seconds: float
) -> None:
    """Send the search, and pass on where the gateway says its descriptions are, each once."""
    with found, trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as sock:
        try:
            await search_from(sock, network.address, network.interface)
        except OSError as error:  # the address has gone since the routes were read
            log.debug("the search has no address to start from: %s", error.strerror)
            return
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_send, sock, network)
                passed: set[trust.Url] = set()
                while len(passed) < _MOST_LOCATIONS:
                    url = await _answer(sock, network)
                    if url is not None and url not in passed:
                        passed.add(url)
                        found.send_nowait(url)  # there is room for as many
                nursery.cancel_scope.cancel()


async def search_from(sock: trio.socket.SocketType, address: str, interface: str) -> None:
    """Have a UDP socket send its searches from this address of the host, and hear answers by
    ``interface`` alone. Raises OSError."""
    tie(sock, interface)
    await sock.bind((address, 0))
    sock.setsockopt(trio.socket.IPPROTO_IP, trio.socket.IP_MULTICAST_TTL, 2)
    own = trio.socket.inet_aton(address)  # with --interface not the default's
    sock.setsockopt(trio.socket.IPPROTO_IP, trio.socket.IP_MULTICAST_IF, own)


async def _answer(sock: trio.socket.SocketType, network: Network) -> trust.Url | None:
    """Receive a datagram; where the description is, if it is the gateway's answer."""
    try:
        data, (sender, _) = await sock.recvfrom(8192)
    except OSError:  # an ICMP error for one of the datagrams
        return None
    said = ssdp.answer(data) if sender == network.gateway else None
    if said is None:
        return None
    try:
        return trust.location(said.location, sender=sender, own=network.address)
    except trust.Refused as error:
        log.debug("the router's answer to the search is of no use: %s", error)
        return None


async def _send(sock: trio.socket.SocketType, network: Network) -> None:
    pause = _AGAIN_AFTER
    while True:
        for target in ssdp.TARGETS:
            for host in (network.gateway, ssdp.MULTICAST):
                try:
                    await sock.sendto(ssdp.search(target, host=host), (host, ssdp.PORT))
                except OSError as error:
                    log.debug("the search cannot be sent: %s", error.strerror)
        await trio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)


async def _open(location: trust.Url, network: Network) -> "Igd | NoGateway":
    """Fetch a description and make a gateway of its best service."""
    # Slow, and not needed before a router has answered; calls are served meanwhile.
    await aside.run(import_module, "natsup.upnp.igd")
    from natsup.upnp.igd import Igd
    from natsup.upnp.requester import Requester, RequestFailed

    requester = Requester(network.address, at_most=_DESCRIPTION_AT_MOST)
    try:
        status, body = await requester.get(location, seconds=_DESCRIPTION_SECONDS)
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
    for service in dict.fromkeys(candidates):
        opened[service] = await Igd.open(
            service,
            location=str(location),
            internal_address=network.address,
            lan=network.prefix,
            own=network.own,
        )
    conditions: dict[Service, Condition] = {}
    if len(opened) > 1:
        for service, igd in opened.items():
            conditions[service] = await igd.condition(seconds=_CONDITIONS_SECONDS / len(opened))
    return opened[best(list(opened), conditions)]
