"""What `natsup doctor` asks of the network and of its router, in a time that is bounded."""

import os
import random
import socket
import time
from pathlib import Path
from typing import Any

import trio

from natsup.state.gateway import Gateway
from natsup.state.journal import GatewayRecord, Header, Journal
from natsup.state.known import recall
from natsup.state.ledger import Note, State
from natsup.state.model import Conflict, Ignored, Mapped, Outcome, Port, Protocol, Removal, Unknown
from natsup.state.secret import secret
from natsup.supervisor import clock, container
from natsup.supervisor.doctor_facts import Network, Pinholes, Router, TrialMapping, Way
from natsup.upnp import choosing, discovery
from natsup.upnp.endpoint import family
from natsup.upnp.network import NoGateway, read
from natsup.upnp.pinhole.finding import find
from natsup.upnp.pinhole.kernel import look
from natsup.upnp.procnet import Files
from natsup.upnp.rtnetlink import EVERYTHING, Kernel

_ALL_SECONDS = 11.0  # for everything but the removal of the mapping
_FOR_MAPPING = 3.0  # of them, kept back for it
_REMOVAL_SECONDS = 3.0
_LEASE = 120  # seconds: the shortest that every router takes
_DYNAMIC = (49152, 65535)  # RFC 6335, section 6: ports that nobody is assigned
_TRIES = 8

# A host of the Internet for the kernel to say how it would be reached (a.root-servers.net). Nothing
# is sent to it.
_SOMEWHERE = "198.41.0.4"


async def look_at_network(
    folder: Path, *, interface: str | None, url: str | None
) -> tuple[Network, Router | None]:
    """The network, and its router or the one whose description is at ``url``. Raises nothing for
    what they do.

    ``folder``: the state folder. A test mapping is made; it is removed whatever happens.
    """
    until = trio.current_time() + _ALL_SECONDS
    ways, traffic, traffic_address = await trio.to_thread.run_sync(_routes)
    engine = container.engine(os.environ)
    network = await discovery.network_of(interface=interface, url=url)
    if isinstance(network, NoGateway):
        nowhere = Network(ways, network.reason, None, "", traffic, traffic_address, engine)
        return nowhere, None
    used = Way(network.interface, network.gateway)
    known = recall(folder, network.name, wall=time.time()) if network.name else None
    location = known.location if known is not None else None
    found: Any = NoGateway(f"the router at {network.gateway} takes too long to answer")
    with trio.move_on_at(until - _FOR_MAPPING):
        speakers = choosing.Speakers(lambda: secret(folder))
        found = await choosing.find(network, speakers, url=url, known=location)
    if isinstance(found, NoGateway):
        pinholes = await _try_pinholes(None, folder, interface, until)
        router = Router(url or "", found.reason, url is not None, pinholes=pinholes)
    else:
        external = await found.external_address()
        mapping = await try_mapping(found, folder, until)
        pinholes = await _try_pinholes(found, folder, interface, until)
        router = Router(found.location, "", url is not None, external, mapping, pinholes)
    behind = container.behind_host(os.environ, used.interface)
    around = (network.address, traffic, traffic_address, engine, behind)
    return Network(ways, "", used, *around), router


async def try_mapping(gateway: Gateway, folder: Path, until: float) -> TrialMapping:
    """Map a port that is free here and on the router, see it in the router's table, remove it.

    ``until``: on trio's clock, when to give up; the removal has some seconds of its own. A socket
    holds the port meanwhile, bound to the LAN address alone, which an outer natsup leaves alone.
    The same for a pinhole, where the address is one of IPv6.
    """
    address = gateway.internal_address
    for _ in range(_TRIES):
        port = Port(Protocol.TCP, random.randint(*_DYNAMIC), ":" in address)
        with socket.socket(family(address), socket.SOCK_STREAM) as holder:
            try:
                holder.bind((address, port.number))
            except OSError:
                continue
            with trio.move_on_at(until):
                if isinstance(await gateway.check(port), Mapped | Conflict):
                    continue
            return await _map(gateway, port, folder, until)
    return TrialMapping("", Ignored("no port is free"), 0.0, None, None)


async def _try_pinholes(
    mapper: Gateway | None, folder: Path, interface: str | None, until: float
) -> Pinholes | None:
    """The same for a pinhole. None where there is no IPv6."""
    network = await look(interface)
    if isinstance(network, NoGateway):
        return None
    found: Any = NoGateway("the router takes too long to answer")
    with trio.move_on_at(until):
        found = await find(
            network, mapper, protocols=choosing.PROTOCOLS, secret=lambda: secret(folder)
        )
    if isinstance(found, NoGateway):
        return Pinholes(network.address, found.reason)
    trial = await try_mapping(found, folder, until)
    return Pinholes(network.address, "", found.location, trial)


async def _map(gateway: Gateway, port: Port, folder: Path, until: float) -> TrialMapping:
    """The journal is for the case that nothing can be removed any more: natsup clean reads it."""
    journal = _journal(gateway, folder)
    note = Note(port, State.PENDING, "natsup doctor tries the router", None, 0, exists=True)
    journal.note(note, now=clock.now(), wall=time.time())
    outcome: Outcome = Unknown("the router takes too long", silent=True)
    seen: Outcome | None = None
    removal: Removal | None = Removal.FAILED
    begun = trio.current_time()
    ended = until
    try:
        with trio.move_on_at(until):
            outcome = await gateway.add(port, lease=_LEASE)
            ended = trio.current_time()
            if isinstance(outcome, Mapped):
                seen = Unknown("the router takes too long", silent=True)
                seen = await gateway.check(port)
    finally:
        if isinstance(outcome, Conflict | Ignored):  # nothing was made
            removal = None
        else:
            with trio.move_on_after(_REMOVAL_SECONDS, shield=True):
                removal = await gateway.remove(port)
        journal.end(left=removal is Removal.FAILED)
    return TrialMapping(str(port), outcome, ended - begun, seen, removal)


def _journal(gateway: Gateway, folder: Path) -> Journal:
    name = f"doctor-{os.getpid():x}-{os.urandom(3).hex()}"
    journal = Journal.create(folder, Header(name, os.getpid(), ["natsup", "doctor"], time.time()))
    journal.gateway(
        GatewayRecord(gateway.protocol, gateway.location, gateway.internal_address, None)
    )
    return journal


def _routes() -> tuple[tuple[Way, ...], Way | None, str]:
    """The default routes, and how traffic for the Internet leaves; what cannot be read is left out.

    The two may differ: tunnels have rules and tables of their own, or cover everything by two
    routes that are no default routes.
    """

    def find(kernel: Kernel | Files) -> tuple[tuple[Way, ...], Way | None, str]:
        routes = [path for path in kernel.wide_routes() if path.destination == EVERYTHING]
        routes.sort(key=lambda route: route.metric)
        ways = tuple(Way(route.interface, route.gateway) for route in routes)
        try:
            taken = kernel.way_to(_SOMEWHERE)
        except OSError:
            return ways, None, ""
        return ways, Way(taken.interface, taken.gateway), taken.source

    try:
        return read(find)
    except OSError:
        return (), None, ""
