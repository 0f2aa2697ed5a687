"""Removing from the gateway what dead sessions left there, and only that.

A mapping is taken back if a dead session's journal says that it may exist, on this gateway and for
this address of ours, and no living session has the port. A session can be dead and its program live
on: while a socket that the journal names is there, its port is kept, and its lease renewed.

Whether a mapping still leads to this host the gateway's own table says, at the removal. It is
removed by the protocol that made it: routers let no other one do so, or say that they have, and
have not. Pinholes lead to an address of their own, and are closed where they were opened, too.
"""

import contextlib
import fcntl
import os
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from natsup.state import aside
from natsup.state.files import open_regular
from natsup.state.gateway import Gateway, Neighbours, Pinholes, host, protocol_of
from natsup.state.happenings import Caller, removal
from natsup.state.history import Entry
from natsup.state.journal import (
    PortRecord,
    SessionRecord,
    SocketRecord,
    boot,
    check_folder,
    extend,
    remove,
    remove_unread,
    sessions,
)
from natsup.state.ledger import Policy
from natsup.state.model import Mapped, Port, Removal

_LEASE = Policy().lease


@dataclass(slots=True)
class SweepReport:
    """What a sweep did, a line for each port."""

    settled: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)  # for another time
    kept: list[str] = field(default_factory=list)  # for programs that live on
    entries: list[Entry] = field(default_factory=list)  # for the history

    def lines(self) -> list[str]:
        return [*self.settled, *self.kept, *self.left]


@dataclass(frozen=True, slots=True)
class Leftover:
    """What one dead session may have left, sorted by what is to become of it."""

    session: SessionRecord
    remove: tuple[Port, ...]
    renew: tuple[Port, ...]
    keep: tuple[tuple[Port, str], ...]  # with the reason


@dataclass(frozen=True, slots=True)
class Place:
    """A gateway at ``location``, on which ports lead to ``internal_address``."""

    location: str
    internal_address: str

    @classmethod
    def of(cls, gateway: Gateway | None) -> "Place | None":
        return None if gateway is None else cls(gateway.location, gateway.internal_address)


def leftovers(
    records: Iterable[SessionRecord],
    *,
    mappings: Place | None,
    pinholes: Mapping[str, Place],
    wall: float,
    living: Collection[int] = (),
) -> list[Leftover]:
    """What is to be done about each dead session, on the gateway for ``mappings``, and on those for
    ``pinholes``, one for each protocol, as far as they answer. Pure.

    ``wall``: seconds of the wall clock, by which leases end. ``living``: the cookies of sockets
    that are there.
    """
    everything = list(records)
    held = {port for record in everything if record.alive for port in record.ports}
    found = []
    for record in everything:
        if record.alive:
            continue
        remove, renew, keep = [], [], []
        sockets = (known for known in record.sockets.values() if known.cookie in living)
        used = {port for known in sockets for port in known.ports}
        for port, known in sorted(record.ports.items()):
            over = known.expires is not None and known.expires <= wall
            if not known.exists or port in held or (over and str(port) not in used):
                continue
            place = pinholes.get(protocol_of(known.location)) if port.ipv6 else mappings
            why = _why_not(port, known, record, place)
            if why:
                keep.append((port, why))
            elif str(port) in used:
                renew.append(port)
            else:
                remove.append(port)
        found.append(Leftover(record, tuple(remove), tuple(renew), tuple(keep)))
    return found


def _openers(records: Iterable[SessionRecord], wall: float) -> set[str]:
    """By which protocols the pinholes were opened that dead sessions have left."""
    return {
        protocol_of(known.location)
        for record in records
        if not record.alive
        for port, known in record.ports.items()
        if port.ipv6 and known.exists and (known.expires is None or known.expires > wall)
    }


def _why_not(port: Port, known: PortRecord, record: SessionRecord, place: Place | None) -> str:
    """Why a port cannot be removed now; "" if it can."""
    address = known.internal_address
    if not port.ipv6:
        address = None if record.gateway is None else record.gateway.internal_address
    if place is None and port.ipv6:
        by = protocol_of(known.location)
        return f"it was opened by {by}, which no router for IPv6 answers to"
    if place is None:
        return "no router that maps ports answers"
    if address is None or host(known.location) != host(place.location):
        return f"it is on another gateway ({known.location})"
    if address != place.internal_address:
        return f"it leads to {address}, not to this host now"
    return ""


def forget(dead: Iterable[SessionRecord], *, wall: float) -> list[SessionRecord]:
    """Remove the journals of dead sessions of which nothing can be left, on any gateway: nothing
    was mapped, or every lease is over. Returns the others. Raises OSError."""
    others = []
    for record in dead:
        known = record.ports.values()
        if any(k.exists and (k.expires is None or k.expires > wall) for k in known):
            others.append(record)
        elif record.path is not None:
            remove(record.path)
    return others


async def _nobody(location: str) -> Gateway | None:
    return None


async def _no_pinholes(protocol: str) -> Pinholes | None:
    return None


async def sweep(
    directory: Path,
    gateway: Gateway | None,
    *,
    wall: Callable[[], float],
    neighbours: Neighbours,
    lives: Callable[[SocketRecord], bool] = lambda record: False,
    lease: int = _LEASE,
    reopen: Callable[[str], Awaitable[Gateway | None]] = _nobody,
    pinholes: Callable[[str], Awaitable[Pinholes | None]] = _no_pinholes,
) -> SweepReport:
    """Sweep the state folder. A journal of which nothing is left is removed as well.

    ``lives``: is a socket there that a journal names? ``lease``: seconds, for the ports of those.
    ``gateway``: by which mappings are removed; None: they are left. ``pinholes``: who opens those
    by a protocol, None if nobody does; asked for only if some are left.
    ``reopen``: the same router by another protocol, as it was at a location; None if it does not
    answer. What one of the ``neighbours`` wants is left to it. Raises nothing for a folder that
    cannot be read, nor for one that somebody else is sweeping.
    """
    report = SweepReport()
    try:
        check_folder(directory)
        fd = open_regular(directory / "sweep.lock", os.O_RDWR | os.O_CREAT)
    except FileNotFoundError:
        return report
    except OSError as error:
        report.left.append(f"the state folder {directory} cannot be used: {error.strerror}")
        return report
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # In a thread: journals may be large, and a bind() must not wait for them to be read. Should
        # this task be cancelled, the thread does nothing that the lock is needed for.
        records, living = await aside.run(_read, directory, lives, abandon_on_cancel=True)
    except BlockingIOError:
        report.left.append("another natsup is cleaning up just now")
        return report
    except OSError as error:
        report.left.append(f"the state folder {directory} cannot be used: {error.strerror}")
        return report
    else:
        with contextlib.suppress(OSError):
            remove_unread(directory, wall=wall())
        openers = {name: await pinholes(name) for name in sorted(_openers(records, wall()))}
        places = {name: place for name, one in openers.items() if (place := Place.of(one))}
        plan = leftovers(
            records, mappings=Place.of(gateway), pinholes=places, wall=wall(), living=living
        )
        gateways: dict[str, Gateway | None] = {}

        async def gateway_at(port: Port, known: PortRecord) -> Gateway | None:
            location = known.location
            if port.ipv6:
                opener = openers[protocol_of(location)]
                if opener is not None:
                    opener.recall(port, known.handle)
                return opener
            if gateway is not None and protocol_of(location) == gateway.protocol:
                return gateway  # wherever its description is by now
            if location not in gateways:
                gateways[location] = await reopen(location)
            return gateways[location]

        for leftover in plan:
            await _renew(leftover, gateway_at, report, lease, wall)
            await _sweep_one(leftover, gateway_at, report, neighbours, wall)
        return report
    finally:
        os.close(fd)


def _read(
    directory: Path, lives: Callable[[SocketRecord], bool]
) -> tuple[list[SessionRecord], set[int]]:
    """All sessions, and the cookies of those sockets of dead ones that are there. Raises OSError.

    A cookie names a socket for as long as the machine runs (socket(7), SO_COOKIE).
    """
    records = sessions(directory)
    living = {
        socket.cookie
        for record in records
        if not record.alive and record.header.boot == boot()
        for socket in record.sockets.values()
        if lives(socket)
    }
    return records, living


async def _renew(
    leftover: Leftover,
    gateway_at: Callable[[Port, PortRecord], Awaitable[Gateway | None]],
    report: SweepReport,
    lease: int,
    wall: Callable[[], float],
) -> None:
    """Keep the ports of a dead session whose program lives on."""
    record = leftover.session
    for port in leftover.renew:
        gateway = await gateway_at(port, record.ports[port])
        outcome = await gateway.add(port, lease=lease) if gateway is not None else None
        name = f"{port} of {record.header.command[0].rpartition('/')[2]}"
        if not isinstance(outcome, Mapped):
            report.left.append(f"{name}, which lives on without natsup, could not be renewed")
            continue
        report.kept.append(f"{name} is kept: the program lives on without natsup")
        assert record.path is not None
        expires = wall() + outcome.lease if outcome.lease else None
        known, handle = record.ports[port], outcome.handle
        extend(record.path, port, known, expires=expires, handle=handle, wall=wall())


async def _sweep_one(
    leftover: Leftover,
    gateway_at: Callable[[Port, PortRecord], Awaitable[Gateway | None]],
    report: SweepReport,
    neighbours: Neighbours,
    wall: Callable[[], float],
) -> None:
    record, header = leftover.session, leftover.session.header
    caller = Caller(header.command[0].rpartition("/")[2], header.pid)
    whose = f"{caller.name} (session {header.session})"
    left = bool(leftover.keep or leftover.renew)
    report.left += [f"{port} of {whose} is left: {why}" for port, why in leftover.keep]
    for port in leftover.remove:
        location = record.ports[port].location
        gateway = await gateway_at(port, record.ports[port])
        if gateway is None:
            left = True
            report.left.append(
                f"{port} of {whose} is left: it was mapped by {protocol_of(location)}, which the"
                " router does not answer to"
            )
            continue
        with neighbours.removing(port) as free:
            result = await gateway.remove(port) if free else Removal.HANDED_OVER
        event = removal(port, caller, result, "its session ended without cleaning up")
        report.entries.append(Entry(wall(), header.session, tuple(header.command), event))
        if result is Removal.FAILED:
            left = True
            report.left.append(f"{port} of {whose} is left: the router did not answer")
        else:
            report.settled.append(f"{port} of {whose} {_SETTLED[result]}")
    if not left:
        assert record.path is not None
        try:
            remove(record.path)
        except OSError as error:
            report.left.append(f"the journal {record.path} cannot be removed: {error.strerror}")


_SETTLED = {
    Removal.GONE: "removed",
    Removal.NOT_OURS: "belongs to another host by now",
    Removal.HANDED_OVER: "is another session's by now",
}
