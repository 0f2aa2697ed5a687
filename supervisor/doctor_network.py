"""What `natsup doctor` asks of the network and of its router, in a time that is bounded."""

import os
import random
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import trio

from natsup.state.gateway import Gateway
from natsup.state.journal import GatewayRecord, Header, Journal
from natsup.state.ledger import Note, State
from natsup.state.model import Conflict, Ignored, Mapped, Outcome, Port, Protocol, Removal, Unknown
from natsup.state.secret import secret
from natsup.supervisor import clock, container
from natsup.supervisor.doctor_facts import (
    Hairpin,
    Network,
    PassedOver,
    Pinholes,
    Router,
    TrialMapping,
    Way,
)
from natsup.supervisor.doctor_hairpin import hairpin, worth_trying
from natsup.supervisor.doctor_survey import Survey, describe
from natsup.upnp import choosing, discovery
from natsup.upnp.endpoint import family
from natsup.upnp.network import NoGateway, read
from natsup.upnp.pinhole.finding import find
from natsup.upnp.pinhole.kernel import look
from natsup.upnp.procnet import Files
from natsup.upnp.rtnetlink import EVERYTHING, Kernel

_ALL_SECONDS = 6.0  # for everything but the removal of the mapping
_REMOVAL_SECONDS = 3.0
_LEASE = 120  # seconds: the shortest that every router takes
_DYNAMIC = (49152, 65535)  # RFC 6335, section 6: ports that nobody is assigned
_TRIES = 8

WayIn = Callable[[socket.socket, Port], Awaitable[Hairpin | None]]

# A host of the Internet for the kernel to say how it would be reached (a.root-servers.net). Nothing
# is sent to it.
_SOMEWHERE = "198.41.0.4"


async def look_at_network(
    folder: Path,
    survey: Survey,
    *,
    interface: str | None,
    url: str | None,
    wanted: Port | None = None,
) -> tuple[Network, Router | None]:
    """The network, and the router that was found in it. Raises nothing for what they do.

    ``folder``: the state folder. A test mapping is made, of ``wanted`` if that is free here; it is
    removed whatever happens.
    """
    until = trio.current_time() + _ALL_SECONDS
    ways, traffic, traffic_address = await trio.to_thread.run_sync(_routes)
    engine = container.engine(os.environ)
    network = await discovery.network_of(interface=interface, url=url)
    if isinstance(network, NoGateway):
        nowhere = Network(ways, network.reason, None, "", traffic, traffic_address, engine)
        return nowhere, None
    used = Way(network.interface, network.gateway)
    found = survey.gateway or NoGateway("the network has just changed")
    if isinstance(found, NoGateway):
        pinholes = await _try_pinholes(None, folder, interface, until)
        router = Router(url or "", found.reason, url is not None, pinholes=pinholes)
    else:
        device = await describe(found.location, network.address)
        external = await found.external_address()
        way_in = partial(_come_in, external, used.interface)
        mapping = await try_mapping(found, folder, until, wanted=wanted, way_in=way_in)
        pinholes = await _try_pinholes(found, folder, interface, until)
        router = Router(found.location, "", url is not None, external, mapping, pinholes, device)
    behind = container.behind_host(os.environ, used.interface)
    around = (network.address, traffic, traffic_address, engine, behind)
    return Network(ways, "", used, *around), router


async def _come_in(
    external: str | None, interface: str, holder: socket.socket, port: Port
) -> Hairpin | None:
    if port.protocol is not Protocol.TCP or external is None or not worth_trying(external):
        return None
    return await hairpin(holder, external, port.number, interface)


async def try_mapping(
    gateway: Gateway,
    folder: Path,
    until: float,
    *,
    wanted: Port | None = None,
    way_in: WayIn | None = None,
) -> TrialMapping:
    """Map a port that is free here and on the router, see it in the router's table, remove it.

    ``wanted`` is that port, if it is free here; the router is asked about it in any case, for
    another host may have it there. ``way_in``: tries it while it is mapped. ``until``:
    on trio's clock, when to give up; the removal has some seconds of its own. A socket holds the
    port meanwhile, bound to the LAN address alone, which an outer natsup leaves alone. The same for
    a pinhole, where the address is one of IPv6.
    """
    address = gateway.internal_address
    over: PassedOver | None = None
    for trial in range(_TRIES):
        port = Port(Protocol.TCP, random.randint(*_DYNAMIC), ":" in address)
        if wanted is not None and trial == 0:
            port = wanted
        kind = socket.SOCK_STREAM if port.protocol is Protocol.TCP else socket.SOCK_DGRAM
        with socket.socket(family(address), kind) as holder:
            free = _bound(holder, address, port)
            if not free and port is not wanted:
                continue
            there: Outcome = Unknown("the router takes too long", silent=True)
            with trio.move_on_at(until):
                there = await gateway.check(port)
            if isinstance(there, Conflict) and port is wanted:
                return TrialMapping(str(port), there, 0.0, None, None)
            if not free or isinstance(there, Mapped | Conflict):
                over = PassedOver(str(port), there) if port is wanted else over
                continue
            come = None if way_in is None else partial(way_in, holder, port)
            return replace(await _map(gateway, port, folder, until, come), instead_of=over)
    return TrialMapping("", Ignored("no port is free"), 0.0, None, None, instead_of=over)


def _bound(holder: socket.socket, address: str, port: Port) -> bool:
    try:
        holder.bind((address, port.number))
    except OSError:
        return False
    return True


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


async def _map(
    gateway: Gateway,
    port: Port,
    folder: Path,
    until: float,
    come: Callable[[], Awaitable[Hairpin | None]] | None,
) -> TrialMapping:
    """The journal is for the case that nothing can be removed any more: natsup clean reads it."""
    journal = _journal(gateway, folder)
    note = Note(port, State.PENDING, "natsup doctor tries the router", None, 0, exists=True)
    journal.note(note, now=clock.now(), wall=time.time())
    outcome: Outcome = Unknown("the router takes too long", silent=True)
    seen: Outcome | None = None
    removal: Removal | None = Removal.FAILED
    came: Hairpin | None = None
    begun = trio.current_time()
    ended = until
    try:
        with trio.move_on_at(until):
            outcome = await gateway.add(port, lease=_LEASE)
            ended = trio.current_time()
            if isinstance(outcome, Mapped):
                seen = Unknown("the router takes too long", silent=True)
                seen = await gateway.check(port)
                if come is not None:
                    came = await come()
    finally:
        if isinstance(outcome, Conflict | Ignored):  # nothing was made
            removal = None
        else:
            with trio.move_on_after(_REMOVAL_SECONDS, shield=True):
                removal = await gateway.remove(port)
        journal.end(left=removal is Removal.FAILED)
    return TrialMapping(str(port), outcome, ended - begun, seen, removal, came)


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
