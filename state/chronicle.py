"""What `natsup log` says: the history as JSON, and as a table. Pure."""

from collections.abc import Iterable
from datetime import UTC, datetime, tzinfo
from typing import Any

from natsup.state.happenings import Event, What
from natsup.state.history import Entry
from natsup.state.report import aligned, endpoint, printable

NOTHING = (
    "Nothing has happened yet. Start a program with:  natsup exec -- COMMAND\n"
    "What becomes of its ports is written down, and shown here."
)


def as_json(entry: Entry) -> dict[str, Any]:
    """A line of `natsup log --json`; the time is ISO 8601 in UTC."""
    event = entry.event
    return {
        "time": datetime.fromtimestamp(round(entry.time, 3), UTC).isoformat(
            timespec="milliseconds"
        ),
        "what": event.what.value,
        "protocol": event.port and event.port.protocol.value,
        "port": event.port and event.port.number,
        "family": event.port and event.port.family,
        "reason": event.reason,
        "program": event.caller and event.caller.name,
        "pid": event.caller and event.caller.pid,
        "session": entry.session,
        "command": list(entry.command),
        "external_address": event.external_address,
        "lease": event.lease,
        "holder": event.holder,
    }


def as_text(entries: Iterable[Entry], *, zone: tzinfo | None = None) -> str:
    """The table for people, the newest last. ``zone``: theirs by default."""
    return "\n".join(aligned([_plain(*row(entry, zone)) for entry in entries]))


def _plain(when: str, program: str, pid: str, *rest: str) -> list[str]:
    return [when, f"{program} ({pid})" if pid else program, *rest]


def row(entry: Entry, zone: tzinfo | None = None) -> tuple[str, str, str, str, str, str]:
    """When, the program and its pid if one is known, the port if it is of one, what happened, and
    why. All of it is printable."""
    event = entry.event
    moment = datetime.fromtimestamp(entry.time, UTC).astimezone(zone)
    return (
        moment.strftime("%Y-%m-%d %H:%M:%S"),
        printable(program_of(entry)),
        "" if event.caller is None else str(event.caller.pid),
        "" if event.port is None else f"{event.port.kind} {event.port.number}",
        event.what.value,
        printable(_why(event)),
    )


def program_of(entry: Entry) -> str:
    """The program's name, or that of what its session runs."""
    if entry.event.caller is not None:
        return entry.event.caller.name
    return entry.command[0].rpartition("/")[2] if entry.command else "?"


def _why(event: Event) -> str:
    parts = [event.reason] if event.reason else []
    if event.what in (What.MAPPED, What.PUT_BACK):
        if event.external_address is not None and event.port is not None:
            parts.append(f"at {endpoint(event.external_address, event.port.number)}")
        parts.append("no lease" if event.lease is None else f"lease {event.lease} s")
    elif event.what is What.ROUTER:
        parts.append(event.external_address or "unknown")
    return ", ".join(parts)
