"""What `natsup status` says: sessions as JSON, as plain text, and as rows of a table. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any

from natsup.state.journal import ClientRecord, GatewayRecord, PortRecord, SessionRecord
from natsup.state.ledger import State
from natsup.state.model import Port
from natsup.state.outside import warning

NOTHING = (
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
                "since": _iso(known.since) if known.since else None,
                "programs": [
                    {"program": name, "pid": pid} for pid, name in _holders(record, port).items()
                ],
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
    return "\n\n".join(blocks) if blocks else NOTHING


def _block(record: SessionRecord, now: float, zone: tzinfo | None) -> str:
    name, life = title(record, now, zone)
    rows = [_row(port, known, record, now, zone) for port, known in sorted(record.ports.items())]
    ports = aligned(rows) if rows else [NO_PORTS]
    told = [*(text for text, _ in circumstances(record)), *ports, *programs(record, now, zone)]
    return "\n".join([f"{name}  ({life})", *(f"  {line}" for line in told)])


NO_PORTS = "no ports"


def title(record: SessionRecord, now: float, zone: tzinfo | None = None) -> tuple[str, str]:
    """What a session runs, and whether it lives."""
    header = record.header
    program, *words = header.command
    name = printable(" ".join([program.rpartition("/")[2], *words]))
    if len(name) > 60:
        name = name[:59] + "…"
    if record.alive:
        return name, f"pid {header.pid}, since {clock(header.started, now, zone)}"
    return name, "ended without cleaning up; natsup clean removes what it left"


def circumstances(record: SessionRecord) -> list[tuple[str, bool]]:
    """What there is to say of a session's supervisor and router; True: it is bad news."""
    gateway, found = record.gateway, list[tuple[str, bool]]()
    if record.given_up and record.alive:
        why = "one supervisor after the other ended; see the log"
        found.append((f"not supervised any more: {why}", True))
    if gateway is None:
        return [*found, ("no router found yet", True)]
    outside = gateway.external_address or "address unknown"
    found.append((f"router {printable(f'{gateway.location}, external address {outside}')}", False))
    if _note(gateway):
        found.append((f"not reachable from the Internet: {_note(gateway)}", True))
    return found


def programs(record: SessionRecord, now: float, zone: tzinfo | None = None) -> list[str]:
    """Those whose binds are not published."""
    lines = []
    for client in _clients(record):
        name, why = printable(client.name), printable(client.reason)
        since = clock(client.since, now, zone)
        lines.append(f"{name} (pid {client.pid}): UDP ports passed since {since}: a client ({why})")
    for pid, name in record.io_uring.items():
        lines.append(f"{printable(name)} (pid {pid}): uses io_uring: such binds are not seen")
    return lines


@dataclass(frozen=True, slots=True)
class Row:
    """A port, as a table shows it. All of it is printable."""

    port: Port
    program: str
    pid: int | None  # None: nobody has it by now
    others: int  # how many more processes have it
    internal: str  # this host's end; "" where it is not known
    external: str  # where the Internet finds it; "" where it does not, or nobody knows
    state: State
    why: str
    since: float | None  # wall clock
    expires: float | None  # wall clock; None: no lease, not known, or nothing is mapped


def rows(record: SessionRecord) -> list[Row]:
    """A session's ports, in order."""
    return [_row_of(port, known, record) for port, known in sorted(record.ports.items())]


def _row_of(port: Port, known: PortRecord, record: SessionRecord) -> Row:
    holders = _holders(record, port)
    pid = next(iter(holders), None)
    name = record.header.command[0].rpartition("/")[2] if pid is None else holders[pid]
    outside = record.gateway.external_address if record.gateway and not port.ipv6 else None
    address = known.internal_address if port.ipv6 else outside
    mapped, inside = known.state is State.MAPPED, _inside(port, known, record)
    return Row(
        port,
        printable(name),
        pid,
        max(0, len(holders) - 1),
        printable(endpoint(inside, port.number)) if inside else "",
        printable(endpoint(address, port.number)) if address and mapped else "",
        known.state,
        printable(known.reason),
        known.since or None,
        known.expires,
    )


def _holders(record: SessionRecord, port: Port) -> dict[int, str]:
    """The names of the processes that bound a port, by pid."""
    sockets = record.sockets.values()
    return {one.process: one.name for one in sockets if str(port) in one.ports}


def lasts(expires: float | None, now: float) -> str:
    """How long a lease lasts yet."""
    if expires is None:
        return ""
    left = expires - now
    if left < 0:
        return "over"
    for unit, seconds, most in (("s", 1, 120), ("min", 60, 120), ("h", 3600, 48)):
        if left < most * seconds:
            return f"{left // seconds:.0f} {unit}"
    return f"{left // 86400:.0f} d"


def _clients(record: SessionRecord) -> list[ClientRecord]:
    """Those of a session that is dead are nobody's any more."""
    return list(record.clients.values()) if record.alive else []


def _row(
    port: Port, known: PortRecord, record: SessionRecord, now: float, zone: tzinfo | None
) -> list[str]:
    inside = _inside(port, known, record) or "?"
    sockets = "1 socket" if known.claims == 1 else f"{known.claims} sockets"
    until = "" if known.expires is None else f"until {clock(known.expires, now, zone)}"
    return [
        f"{port.kind} {port.number}",
        f"→ {endpoint(printable(inside), port.number)}",
        known.state.value,
        sockets,
        printable(known.reason or until),
    ]


def clock(seconds: float, now: float, zone: tzinfo | None) -> str:
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
