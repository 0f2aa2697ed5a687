"""What `natsup status` says: sessions as JSON, and as a table. Pure."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, tzinfo
from typing import Any

from natsup.state.journal import ClientRecord, GatewayRecord, PortRecord, SessionRecord
from natsup.state.model import Port
from natsup.state.outside import warning

_NOTHING = (
    "No session. Start a program with:  natsup exec -- COMMAND\n"
    "To see what natsup does, without a router:  natsup demo"
)


def as_json(sessions: Iterable[SessionRecord]) -> dict[str, Any]:
    """The document of `natsup status --json`; times are ISO 8601 in UTC."""
    return {"sessions": [_session(record) for record in sessions]}


def _session(record: SessionRecord) -> dict[str, Any]:
    gateway = record.gateway
    return {
        "id": record.header.session,
        "pid": record.header.pid,
        "command": record.header.command,
        "started": _iso(record.header.started),
        "alive": record.alive,
        "supervisor": record.supervisor,
        "given_up": record.given_up,
        "gateway": gateway
        and {
            "protocol": gateway.protocol,
            "location": gateway.location,
            "external_address": gateway.external_address or None,
            "note": _note(gateway),
        },
        "mappings": [
            {
                "protocol": port.protocol.value,
                "port": port.number,
                "family": port.family,
                "external_port": port.number,
                "internal_address": _inside(port, known, record),
                "state": known.state.value,
                "reason": known.reason,
                "expires": None if known.expires is None else _iso(known.expires),
                "claims": known.claims,
            }
            for port, known in sorted(record.ports.items())
        ],
        "clients": [
            {
                "program": client.name,
                "pid": client.pid,
                "reason": client.reason,
                "since": _iso(client.since),
            }
            for client in _clients(record)
        ],
        "io_uring": [{"program": name, "pid": pid} for pid, name in record.io_uring.items()],
    }


def _note(gateway: GatewayRecord) -> str:
    """What is wrong with its external address; "" if nothing is, or it is not known yet."""
    return "" if gateway.external_address is None else warning(gateway.external_address)


def _inside(port: Port, known: PortRecord, record: SessionRecord) -> str | None:
    """This host's address that it leads to."""
    if port.ipv6:
        return known.internal_address
    return None if record.gateway is None else record.gateway.internal_address


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def as_text(sessions: Iterable[SessionRecord], *, now: float, zone: tzinfo | None = None) -> str:
    """The table for people. ``now``: seconds of the wall clock; ``zone``: theirs by default."""
    blocks = [_block(record, now, zone) for record in sessions]
    return "\n\n".join(blocks) if blocks else _NOTHING


def _block(record: SessionRecord, now: float, zone: tzinfo | None) -> str:
    header, gateway = record.header, record.gateway
    program, *words = header.command
    name = printable(" ".join([program.rpartition("/")[2], *words]))
    if len(name) > 60:
        name = name[:59] + "…"
    if record.alive:
        life = f"pid {header.pid}, since {_clock(header.started, now, zone)}"
    else:
        life = "ended without cleaning up; natsup clean removes what it left"
    lines = [f"{name}  ({life})"]
    if record.given_up and record.alive:
        lines.append("  not supervised any more: one supervisor after the other ended; see the log")
    if gateway is None:
        lines.append("  no router found yet")
    else:
        outside = gateway.external_address or "address unknown"
        lines.append(f"  router {printable(f'{gateway.location}, external address {outside}')}")
        if _note(gateway):
            lines.append(f"  not reachable from the Internet: {_note(gateway)}")
    rows = [_row(port, known, record, now, zone) for port, known in sorted(record.ports.items())]
    lines += [f"  {line}" for line in aligned(rows)]
    if not rows:
        lines.append("  no ports")
    for client in _clients(record):
        name, why = printable(client.name), printable(client.reason)
        since = _clock(client.since, now, zone)
        lines.append(
            f"  {name} (pid {client.pid}): UDP ports passed since {since}: a client ({why})"
        )
    for pid, name in record.io_uring.items():
        lines.append(f"  {printable(name)} (pid {pid}): uses io_uring: such binds are not seen")
    return "\n".join(lines)


def _clients(record: SessionRecord) -> list[ClientRecord]:
    """Those of a session that is dead are nobody's any more."""
    return list(record.clients.values()) if record.alive else []


def _row(
    port: Port, known: PortRecord, record: SessionRecord, now: float, zone: tzinfo | None
) -> list[str]:
    inside = _inside(port, known, record) or "?"
    sockets = "1 socket" if known.claims == 1 else f"{known.claims} sockets"
    until = "" if known.expires is None else f"until {_clock(known.expires, now, zone)}"
    return [
        f"{port.kind} {port.number}",
        f"→ {endpoint(printable(inside), port.number)}",
        known.state.value,
        sockets,
        printable(known.reason or until),
    ]


def _clock(seconds: float, now: float, zone: tzinfo | None) -> str:
    """A time of day, with the date where it is not within twelve hours."""
    moment = datetime.fromtimestamp(seconds, UTC).astimezone(zone)
    return moment.strftime("%H:%M" if abs(seconds - now) < 12 * 3600 else "%Y-%m-%d %H:%M")


def endpoint(address: str, number: int) -> str:
    """RFC 5952, section 6: brackets around an IPv6 address."""
    return f"[{address}]:{number}" if ":" in address else f"{address}:{number}"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table, its columns two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    widths[-1:] = [0]  # nothing follows the last one
    cells = ((cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return ["  ".join(row).rstrip() for row in cells]


def printable(text: str) -> str:
    """Without what would move a terminal's cursor: a command's words are anybody's."""
    return "".join(char if char.isprintable() else "?" for char in text)
