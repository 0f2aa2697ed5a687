"""Removing from the gateway what dead sessions left there, and only that.

A mapping is taken back if a dead session's journal says that it may exist, on this gateway and for
this address of ours, and no living session has the port. Whether it still leads to this host the
gateway's own table says, at the removal.
"""

import fcntl
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from natsup.state.gateway import Gateway
from natsup.state.journal import SessionRecord, read, sessions
from natsup.state.model import Port, Removal


@dataclass(slots=True)
class SweepReport:
    """What a sweep did, a line for each port."""

    settled: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)  # for another time

    def lines(self) -> list[str]:
        return [*self.settled, *self.left]


@dataclass(frozen=True, slots=True)
class Leftover:
    """What one dead session may have left, sorted by what is to become of it."""

    session: SessionRecord
    remove: tuple[Port, ...]
    keep: tuple[tuple[Port, str], ...]  # with the reason


def leftovers(
    records: Iterable[SessionRecord], *, location: str, internal_address: str, wall: float
) -> list[Leftover]:
    """What is to be done about each dead session, on the gateway at ``location``. Pure.

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
            gateway = record.gateway
            if gateway is None or known.location != location:
                keep.append((port, f"it is on another gateway ({known.location})"))
            elif gateway.internal_address != internal_address:
                keep.append((port, f"it leads to {gateway.internal_address}, not to this host now"))
            else:
                remove.append(port)
        found.append(Leftover(record, tuple(remove), tuple(keep)))
    return found


async def sweep(directory: Path, gateway: Gateway, *, wall: Callable[[], float]) -> SweepReport:
    """Sweep the state folder. A journal of which nothing is left is removed as well.

    Raises nothing for a folder that cannot be read: then there is nothing to be swept.
    """
    report = SweepReport()
    try:
        records = sessions(directory)
    except OSError as error:
        report.left.append(f"the state folder {directory} cannot be read: {error.strerror}")
        return report
    plan = leftovers(
        records,
        location=gateway.location,
        internal_address=gateway.internal_address,
        wall=wall(),
    )
    for leftover in plan:
        await _sweep_one(leftover, gateway, report)
    return report


async def _sweep_one(leftover: Leftover, gateway: Gateway, report: SweepReport) -> None:
    record = leftover.session
    whose = f"{record.header.command[0].rpartition('/')[2]} (session {record.header.session})"
    assert record.path is not None
    try:
        fd = os.open(record.path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return  # another sweep is at it
        left = bool(leftover.keep)
        report.left += [f"{port} of {whose} is left: {why}" for port, why in leftover.keep]
        for port in leftover.remove:
            if _wanted_again(record.path, port):
                continue
            removal = await gateway.remove(port)
            if removal is Removal.FAILED:
                left = True
                report.left.append(f"{port} of {whose} is left: the router did not answer")
            elif removal is Removal.NOT_OURS:
                report.settled.append(f"{port} of {whose} belongs to another host by now")
            else:
                report.settled.append(f"{port} of {whose} removed")
        if not left:
            record.path.unlink(missing_ok=True)
    except OSError as error:
        report.left.append(f"the journal {record.path} cannot be removed: {error.strerror}")
    finally:
        os.close(fd)


def _wanted_again(swept: Path, port: Port) -> bool:
    """Has a living session taken the port since the sweep began? ``swept``: whose lock is ours."""
    try:
        paths = [path for path in swept.parent.glob("*.jsonl") if path != swept]
    except OSError:
        return True
    found = [record for record in map(read, paths) if record is not None]
    return any(record.alive and port in record.ports for record in found)
