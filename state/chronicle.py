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
    return "\n".join(aligned([_row(entry, zone) for entry in entries]))


def _row(entry: Entry, zone: tzinfo | None) -> list[str]:
    event = entry.event
    moment = datetime.fromtimestamp(entry.time, UTC).astimezone(zone)
    if event.caller is not None:
        who = f"{event.caller.name} ({event.caller.pid})"
    else:
        who = entry.command[0].rpartition("/")[2] if entry.command else "?"
    port = "" if event.port is None else f"{event.port.kind} {event.port.number}"
    cells = [moment.strftime("%Y-%m-%d %H:%M:%S"), who, port, event.what.value, _why(event)]
    return [printable(cell) for cell in cells]


def _why(event: Event) -> str:
    parts = [event.reason] if event.reason else []
    if event.what in (What.MAPPED, What.PUT_BACK):
        if event.external_address is not None and event.port is not None:
            parts.append(f"at {endpoint(event.external_address, event.port.number)}")
        parts.append("no lease" if event.lease is None else f"lease {event.lease} s")
    elif event.what is What.ROUTER:
        parts.append(event.external_address or "unknown")
    return ", ".join(parts)
