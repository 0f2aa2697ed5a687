"""Asking by every protocol at once, on every interface that may lead to a router."""

import os
import time
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import trio

from natsup.state.gateway import Gateway, protocol_of
from natsup.state.known import recall
from natsup.state.secret import secret
from natsup.supervisor.doctor_facts import Answer, Asked
from natsup.upnp import choosing, discovery, ssdp, trust
from natsup.upnp.description import Device, device
from natsup.upnp.network import Network, NoGateway, is_tunnel, read
from natsup.upnp.procnet import by_interface
from natsup.upnp.requester import Requester, RequestFailed
from natsup.upnp.rtnetlink import EVERYTHING

_SECONDS = 2.0  # for an answer
_ALL_SECONDS = 8.0  # with what a router that has answered takes to describe itself
_MOST_INTERFACES = 8
_DESCRIPTION_AT_MOST = 256 * 1024
_LATE = "it takes too long to answer"

Found = dict[str, Gateway | NoGateway]


class Survey:
    """``asked``: what was found out, the interface in use first. ``gateway``: the router to use, or
    why there is none; None without a network."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.gateway: Gateway | NoGateway | None = None


async def look_around(
    survey: Survey, folder: Path, *, interface: str | None = None, url: str | None = None
) -> None:
    """Ask everywhere, and note it in ``survey``; where the user says which interface or which
    router, there alone.

    Every protocol is waited for, since what answers is what is to be told. Raises nothing for what
    a network does.
    """
    speakers = choosing.Speakers(lambda: secret(folder))
    used = await discovery.network_of(interface=interface, url=url)
    main: Network | None = None if isinstance(used, NoGateway) else used
    others = [] if interface or url else await trio.to_thread.run_sync(_others, main)
    found: dict[int, Asked] = {}
    async with trio.open_nursery() as nursery:

        async def first(network: Network) -> None:
            known = recall(folder, network.name, wall=time.time()) if network.name else None
            place = known.location if known is not None else None
            where = place if place is not None and protocol_of(place) == choosing.UPNP else None
            answers = await _ask(network, speakers, url=url, known=where)
            survey.gateway = _chosen(network, answers)
            found[-1] = _told(network.interface, network.gateway, network.address, answers, True)

        async def other(number: int, name: str, own: str, routed: bool) -> None:
            network = await _network(name, own, routed)
            answers: Found = {}
            gateway = ""
            if network is not None:
                answers, gateway = await _ask(network, speakers), network.gateway
            found[number] = _told(name, gateway, own, answers, False)

        if main is not None:
            nursery.start_soon(first, main)
        for number, (name, own, routed) in enumerate(others):
            nursery.start_soon(other, number, name, own, routed)
    survey.asked = [found[number] for number in sorted(found)]


async def describe(location: str, source: str) -> Device | None:
    """Which router it is that has its description at ``location``; None if it does not say."""
    if protocol_of(location) != choosing.UPNP:
        return None
    requester = Requester(source, at_most=_DESCRIPTION_AT_MOST)
    try:
        status, body = await requester.get(trust.read(location), seconds=_SECONDS)
    except (RequestFailed, trust.Refused):
        return None
    finally:
        requester.close()
    said = device(body.decode("utf-8", "replace"))
    return said if status == 200 and said.names else None


def _others(used: Network | None) -> list[tuple[str, str, bool]]:
    """The other interfaces with a default route, or at least with an address on a LAN: their names,
    our addresses there, and whether there is a route. Bridges of this host's own lead to guests."""
    try:
        here = by_interface()
        routes = read(lambda kernel: kernel.wide_routes())
    except OSError:
        return []
    routed = {path.interface for path in routes if path.destination == EVERYTHING}
    found: dict[str, tuple[str, str, bool]] = {}
    for name, address in here:
        lan = not is_tunnel(name) and not os.path.exists(f"/sys/class/net/{name}/bridge")
        local = IPv4Address(address.own).is_loopback
        if name != (used and used.interface) and not local and (lan or name in routed):
            found.setdefault(name, (name, address.own, name in routed))
    return list(found.values())[:_MOST_INTERFACES]


async def _network(interface: str, own: str, routed: bool) -> Network | None:
    """The network behind an interface: that of its default route, or of who answers a search."""
    if routed:
        network = await discovery.network_of(interface=interface, url=None)
        return None if isinstance(network, NoGateway) else network
    sender = None
    with trio.move_on_after(_SECONDS):
        sender = await _somebody(interface, own)
    return None if sender is None else Network(interface, sender, own)


async def _somebody(interface: str, own: str) -> str | None:
    """Who on the LAN of ``own`` says first that it is a router. To be told of, and no more: anybody
    can say so."""
    prefixes = [one.prefix for _, one in by_interface() if one.own == own]
    lan = IPv4Network((own, min(prefixes, default=32)), strict=False)
    try:
        with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as sock:
            await discovery.search_from(sock, own, interface)
            for target in ssdp.TARGETS:
                message = ssdp.search(target, host=ssdp.MULTICAST)
                await sock.sendto(message, (ssdp.MULTICAST, ssdp.PORT))
            while True:
                data, (sender, _) = await sock.recvfrom(8192)
                said = ssdp.answer(data)
                if said is not None and ssdp.ROUTER in said.target and IPv4Address(sender) in lan:
                    return str(sender)
    except OSError:
        return None


async def _ask(
    network: Network,
    speakers: choosing.Speakers,
    *,
    url: str | None = None,
    known: str | None = None,
) -> Found:
    """By every protocol at once."""
    found: Found = {protocol: NoGateway(_LATE) for protocol in choosing.PROTOCOLS}

    async def by_upnp() -> None:
        found[choosing.UPNP] = await discovery.find_gateway(
            network, url=url, known=known, seconds=_SECONDS
        )

    async def by(protocol: str) -> None:
        gateway = speakers.get(protocol, network)
        reason = await gateway.probe(_SECONDS)
        found[protocol] = gateway if reason is None else NoGateway(reason)

    with trio.move_on_after(_ALL_SECONDS):
        async with trio.open_nursery() as nursery:
            for protocol in found:
                if protocol == choosing.UPNP:
                    nursery.start_soon(by_upnp)
                else:
                    nursery.start_soon(by, protocol)
    return found


def _chosen(network: Network, found: Found) -> Gateway | NoGateway:
    for gateway in found.values():
        if not isinstance(gateway, NoGateway):
            return gateway
    reasons = {name: no.reason for name, no in found.items() if isinstance(no, NoGateway)}
    if reasons.get(choosing.UPNP) == _LATE:
        return NoGateway(f"the router at {network.gateway} takes too long to answer")
    return NoGateway(choosing.why(network, list(found), reasons))


def _told(interface: str, gateway: str, address: str, found: Found, used: bool) -> Asked:
    answers = tuple(
        Answer(name, "", one.reason) if isinstance(one, NoGateway) else Answer(name, one.location)
        for name, one in found.items()
    )
    return Asked(interface, gateway, address, used, answers)
