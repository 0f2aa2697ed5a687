"""Sessions and their history as somebody may have them, the same at every time."""

from dataclasses import replace

from natsup.state.happenings import Caller, Event, What
from natsup.state.history import Entry
from natsup.state.journal import (
    ClientRecord,
    GatewayRecord,
    Header,
    PortRecord,
    SessionRecord,
    SocketRecord,
)
from natsup.state.ledger import RELEASED, State
from natsup.state.model import Port, Protocol

NOW = 1_767_268_800.0  # 2026-01-01 12:00 UTC
ROUTER = "http://192.168.178.1:49000/igddesc.xml"
HERE, OUTSIDE, HERE_6 = "192.168.178.24", "11.22.33.1", "2001:db8:17::24"

TCP, UDP = Port(Protocol.TCP, 6881), Port(Protocol.UDP, 6881)
GAME, QUERY = Port(Protocol.UDP, 27960), Port(Protocol.TCP, 27960)
SYNC = Port(Protocol.TCP, 22000)


def _session(name: str, pid: int, command: list[str], minutes: float) -> SessionRecord:
    header = Header(name, pid, command, NOW - 60 * minutes)
    return SessionRecord(header, GatewayRecord("upnp", ROUTER, HERE, OUTSIDE), alive=True)


def _port(
    record: SessionRecord,
    port: Port,
    state: State = State.MAPPED,
    reason: str = "",
    *,
    minutes: float,
    lease: float | None = None,
) -> None:
    pid, name = record.header.pid, record.header.command[0].rpartition("/")[2][:15]  # TASK_COMM_LEN
    mapped = state is State.MAPPED
    record.ports[port] = PortRecord(
        state,
        reason,
        NOW + 60 * lease if lease else None,
        1,
        mapped,
        ROUTER,
        HERE_6 if port.ipv6 else None,
        since=NOW - 60 * minutes,
    )
    number = len(record.sockets)
    record.sockets[number] = SocketRecord(number, [str(port)], "00000000", 2, 6, 1, pid, name)


def records() -> list[SessionRecord]:
    torrent = _session("5f21-0b1c2d", 24353, ["/usr/bin/rtorrent", "-n"], 134)
    _port(torrent, TCP, minutes=134, lease=46)
    _port(torrent, TCP.pinhole, minutes=134, lease=46)
    _port(torrent, UDP, State.CONFLICT, "held by 192.168.178.31", minutes=12)
    torrent.clients[24360] = ClientRecord("unbound", 24360, "a known resolver", NOW - 7000)
    game = _session("61b0-77aa01", 25008, ["/usr/games/openarena-server"], 41)
    _port(game, GAME, minutes=41, lease=59)
    _port(game, QUERY, State.IGNORED, "the router's table is full", minutes=3)
    sync = _session("3a90-c0ffee", 14992, ["/usr/bin/syncthing", "serve"], 5000)
    _port(sync, SYNC, State.RELEASED, RELEASED, minutes=25)
    return [torrent, game, sync]


def history() -> list[Entry]:
    torrent, game, sync = (
        (one.header.session, tuple(one.header.command), Caller(name, one.header.pid))
        for one, name in zip(records(), ("rtorrent", "openarena-serve", "syncthing"), strict=True)
    )
    happened = [
        (5000, sync, Event(What.MAPPED, SYNC, None, "", OUTSIDE, 3600)),
        (134, torrent, Event(What.MAPPED, TCP, None, "", OUTSIDE, 3600)),
        (134, torrent, Event(What.MAPPED, UDP, None, "", OUTSIDE, 3600)),
        (98, torrent, Event(What.LOST, TCP, None, "the router has no such mapping any more")),
        (98, torrent, Event(What.PUT_BACK, TCP, None, "", OUTSIDE, 3600)),
        (41, game, Event(What.MAPPED, GAME, None, "", OUTSIDE, 3600)),
        (25, sync, Event(What.RELEASED, SYNC, None, RELEASED)),
        (25, sync, Event(What.REMOVED, SYNC, None, RELEASED)),
        (12, torrent, Event(What.LOST, UDP, None, "held by 192.168.178.31")),
        (3, game, Event(What.IGNORED, QUERY, None, "the router's table is full")),
    ]
    return [
        Entry(NOW - 60 * minutes, session, command, replace(event, caller=caller))
        for minutes, (session, command, caller), event in happened
    ]
