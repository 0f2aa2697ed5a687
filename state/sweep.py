"""Removing from the gateway what dead sessions left there, and only that.

A mapping is taken back if a dead session's journal says that it may exist, on this gateway and for
this address of ours, and no living session has the port. Whether it still leads to this host the
gateway's own table says, at the removal. It is removed by the protocol that made it: routers let no
other one do so, or say that they have, and have not. Pinholes lead to an address of their own, and
are closed where they were opened, too.
"""

import fcntl
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import trio

from natsup.state.gateway import Gateway, Neighbours, Pinholes, host, protocol_of
from natsup.state.happenings import Caller, removal
from natsup.state.history import Entry
from natsup.state.journal import PortRecord, SessionRecord, remove, sessions
from natsup.state.model import Port, Removal


@dataclass(slots=True)
class SweepReport:
    """What a sweep did, a line for each port."""

    settled: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)  # for another time
    entries: list[Entry] = field(default_factory=list)  # for the history

    def lines(self) -> list[str]:
        return [*self.settled, *self.left]


@dataclass(frozen=True, slots=True)
class Leftover:
    """What one dead session may have left, sorted by what is to become of it."""

    session: SessionRecord
    remove: tuple[Port, ...]
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
) -> list[Leftover]:
    """What is to be done about each dead session, on the gateway for ``mappings``, and on those for
    ``pinholes``, one for each protocol, as far as they answer. Pure.

    ``wall``: seconds of the wall clock, by which leases end.
    """
    everything = list(records)
    held = {port for record in everything if record.alive for port in record.ports}
    found = []
    for record in everything:
        if record.alive:
            continue
        remove, keep = [], []
        for port, known in sorted(record.ports.items()):
            over = known.expires is not None and known.expires <= wall
            if not known.exists or over or port in held:
                continue
            place = pinholes.get(protocol_of(known.location)) if port.ipv6 else mappings
            why = _why_not(port, known, record, place)
            if why:
                keep.append((port, why))
            else:
                remove.append(port)
        found.append(Leftover(record, tuple(remove), tuple(keep)))
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
    reopen: Callable[[str], Awaitable[Gateway | None]] = _nobody,
    pinholes: Callable[[str], Awaitable[Pinholes | None]] = _no_pinholes,
) -> SweepReport:
    """Sweep the state folder. A journal of which nothing is left is removed as well.

    ``gateway``: by which mappings are removed; None: they are left. ``pinholes``: who opens those
    by a protocol, None if nobody does; asked for only if some are left.
    ``reopen``: the same router by another protocol, as it was at a location; None if it does not
    answer. What one of the ``neighbours`` wants is left to it. Raises nothing for a folder that
    cannot be read, nor for one that somebody else is sweeping.
    """
    report = SweepReport()
    try:
        fd = os.open(directory / "sweep.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return report
    except OSError as error:
        report.left.append(f"the state folder {directory} cannot be used: {error.strerror}")
        return report
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # In a thread: journals may be large, and a bind() must not wait for them to be read. Should
        # this task be cancelled, the thread does nothing that the lock is needed for.
        records = await trio.to_thread.run_sync(sessions, directory, abandon_on_cancel=True)
    except BlockingIOError:
        report.left.append("another natsup is cleaning up just now")
        return report
    except OSError as error:
        report.left.append(f"the state folder {directory} cannot be used: {error.strerror}")
        return report
    else:
        openers = {name: await pinholes(name) for name in sorted(_openers(records, wall()))}
        places = {name: place for name, one in openers.items() if (place := Place.of(one))}
        plan = leftovers(records, mappings=Place.of(gateway), pinholes=places, wall=wall())
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
            await _sweep_one(leftover, gateway_at, report, neighbours, wall)
        return report
    finally:
        os.close(fd)


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
    left = bool(leftover.keep)
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
