"""Removing from the gateway what dead sessions left there, and only that.

A mapping is taken back if a dead session's journal says that it may exist, on this gateway and for
this address of ours, and no living session has the port. A session can be dead and its program live
on: while a socket that the journal names is there, its port is kept, and its lease renewed.

Whether a mapping still leads to this host the gateway's own table says, at the removal. It is
removed by the protocol that made it: routers let no other one do so, or say that they have, and
have not.
"""

import contextlib
import fcntl
import os
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import trio

from natsup.state.gateway import Gateway, Neighbours, host, protocol_of
from natsup.state.happenings import Caller, removal
from natsup.state.history import Entry
from natsup.state.journal import (
    SessionRecord,
    SocketRecord,
    boot,
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


def leftovers(
    records: Iterable[SessionRecord],
    *,
    location: str,
    internal_address: str,
    wall: float,
    living: Collection[int] = (),
) -> list[Leftover]:
    """What is to be done about each dead session, on the gateway at ``location``. Pure.

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
        used = {known.port for known in record.sockets.values() if known.cookie in living}
        for port, known in sorted(record.ports.items()):
            over = known.expires is not None and known.expires <= wall
            if not known.exists or port in held or (over and str(port) not in used):
                continue
            gateway = record.gateway
            if gateway is None or host(known.location) != host(location):
                keep.append((port, f"it is on another gateway ({known.location})"))
            elif gateway.internal_address != internal_address:
                keep.append((port, f"it leads to {gateway.internal_address}, not to this host now"))
            elif str(port) in used:
                renew.append(port)
            else:
                remove.append(port)
        found.append(Leftover(record, tuple(remove), tuple(renew), tuple(keep)))
    return found


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


async def sweep(
    directory: Path,
    gateway: Gateway,
    *,
    wall: Callable[[], float],
    neighbours: Neighbours,
    lives: Callable[[SocketRecord], bool] = lambda record: False,
    lease: int = _LEASE,
    reopen: Callable[[str], Awaitable[Gateway | None]] = _nobody,
) -> SweepReport:
    """Sweep the state folder. A journal of which nothing is left is removed as well.

    ``lives``: is a socket there that a journal names? ``lease``: seconds, for the ports of those.
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
        records, living = await trio.to_thread.run_sync(
            _read, directory, lives, abandon_on_cancel=True
        )
    except BlockingIOError:
        report.left.append("another natsup is cleaning up just now")
        return report
    except OSError as error:
        report.left.append(f"the state folder {directory} cannot be used: {error.strerror}")
        return report
    else:
        with contextlib.suppress(OSError):
            remove_unread(directory, wall=wall())
        plan = leftovers(
            records,
            location=gateway.location,
            internal_address=gateway.internal_address,
            wall=wall(),
            living=living,
        )
        gateways: dict[str, Gateway | None] = {}

        async def gateway_at(location: str) -> Gateway | None:
            if protocol_of(location) == gateway.protocol:
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
    gateway_at: Callable[[str], Awaitable[Gateway | None]],
    report: SweepReport,
    lease: int,
    wall: Callable[[], float],
) -> None:
    """Keep the ports of a dead session whose program lives on."""
    record = leftover.session
    for port in leftover.renew:
        gateway = await gateway_at(record.ports[port].location)
        outcome = await gateway.add(port, lease=lease) if gateway is not None else None
        name = f"{port} of {record.header.command[0].rpartition('/')[2]}"
        if not isinstance(outcome, Mapped):
            report.left.append(f"{name}, which lives on without natsup, could not be renewed")
            continue
        report.kept.append(f"{name} is kept: the program lives on without natsup")
        assert record.path is not None
        expires = wall() + outcome.lease if outcome.lease else None
        extend(record.path, port, record.ports[port], expires=expires, wall=wall())


async def _sweep_one(
    leftover: Leftover,
    gateway_at: Callable[[str], Awaitable[Gateway | None]],
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
        gateway = await gateway_at(location)
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
