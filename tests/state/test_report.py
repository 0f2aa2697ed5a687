"""What people and programs are shown, and what a sweep decides."""

from dataclasses import replace
from datetime import UTC

import pytest

from natsup.state.journal import (
    ClientRecord,
    GatewayRecord,
    Header,
    PortRecord,
    SessionRecord,
    SocketRecord,
)
from natsup.state.ledger import State
from natsup.state.model import Port, Protocol
from natsup.state.report import Row, as_json, as_text, lasts, rows
from natsup.state.sweep import Place, leftovers

HERE, ROUTER = "192.168.77.2", "http://192.168.77.1:5000/x"
TCP, UDP = Port(Protocol.TCP, 6881), Port(Protocol.UDP, 51413)


def port(
    state: State = State.MAPPED,
    *,
    reason: str = "",
    expires: float | None = 7200.0,
    exists: bool = True,
    location: str = ROUTER,
) -> PortRecord:
    return PortRecord(state, reason, expires, 1, exists, location)


def holder(pid: int, name: str, *ports: Port) -> SocketRecord:
    return SocketRecord(pid, [str(one) for one in ports], "00000000", 2, 6, 1, pid, name)


def session(
    ports: dict[Port, PortRecord], *, alive: bool = True, inside: str = HERE
) -> SessionRecord:
    header = Header("4f2a-1", pid=1234, command=["/usr/bin/rtorrent", "-n"], started=3600.0)
    gateway = GatewayRecord("upnp", ROUTER, inside, "11.22.33.1")
    return SessionRecord(header, gateway, ports, alive)


def test_the_table() -> None:
    records = [
        session({UDP: port(State.IGNORED, reason="the router's table is full"), TCP: port()})
    ]
    assert as_text(records, now=3600.0, zone=UTC) == (
        "rtorrent -n  (pid 1234, since 01:00)\n"
        "  router http://192.168.77.1:5000/x, external address 11.22.33.1\n"
        "  tcp 6881   → 192.168.77.2:6881   mapped   1 socket  until 02:00\n"
        "  udp 51413  → 192.168.77.2:51413  ignored  1 socket  the router's table is full"
    )


def test_an_address_that_nobody_reaches_has_a_note() -> None:
    record = session({})
    for address, said in (
        ("100.64.0.7", "carrier NAT"),
        ("10.0.0.1", "another router"),
        ("", "non"),
    ):
        record.gateway = GatewayRecord("upnp", ROUTER, HERE, address)
        (gateway,) = (shown["gateway"] for shown in as_json([record])["sessions"])
        assert said in gateway["note"]
        assert gateway["external_address"] == (address or None)
        note = as_text([record], now=0.0, zone=UTC).splitlines()[2]
        assert note == f"  not reachable from the Internet: {gateway['note']}"
    record.gateway = GatewayRecord("upnp", ROUTER, HERE, None)  # it is not known yet
    assert "not reachable" not in as_text([record], now=0.0, zone=UTC)


def test_nothing_says_what_to_type() -> None:
    assert "natsup exec -- COMMAND" in as_text([], now=0.0)


def test_a_dead_session_says_what_to_do() -> None:
    assert "natsup clean" in as_text([session({TCP: port()}, alive=False)], now=0.0, zone=UTC)


def test_a_session_without_a_supervisor_says_so() -> None:
    record = session({TCP: port()})
    record.given_up = True
    text = as_text([record], now=3600.0, zone=UTC)
    assert "  not supervised any more" in text
    assert "not supervised" not in as_text([session({TCP: port()})], now=3600.0, zone=UTC)


def test_nothing_moves_the_cursor() -> None:
    record = session({TCP: port(State.IGNORED, reason="\x1b[2Jboo")})
    record.header.command[:] = ["x\x1b]0;title\x07", "a\nb"]
    text = as_text([record], now=0.0, zone=UTC)
    assert all(char.isprintable() or char == "\n" for char in text)
    assert text.count("\n") == 2


def test_json() -> None:
    record = session({TCP: replace(port(), since=3700.0)})
    record.sockets[1] = holder(1234, "rtorrent", TCP)
    record.sockets[2] = holder(1235, "other", UDP)
    assert as_json([record]) == {
        "sessions": [
            {
                "id": "4f2a-1",
                "pid": 1234,
                "command": ["/usr/bin/rtorrent", "-n"],
                "started": "1970-01-01T01:00:00+00:00",
                "alive": True,
                "supervisor": 0,
                "given_up": False,
                "gateway": {
                    "protocol": "upnp",
                    "location": ROUTER,
                    "external_address": "11.22.33.1",
                    "note": "",
                },
                "mappings": [
                    {
                        "protocol": "tcp",
                        "port": 6881,
                        "family": "ipv4",
                        "external_port": 6881,
                        "internal_address": HERE,
                        "state": "mapped",
                        "reason": "",
                        "expires": "1970-01-01T02:00:00+00:00",
                        "claims": 1,
                        "since": "1970-01-01T01:01:40+00:00",
                        "programs": [{"program": "rtorrent", "pid": 1234}],
                    }
                ],
                "clients": [],
                "io_uring": [],
            }
        ]
    }


def test_rows() -> None:
    pinhole = TCP.pinhole
    record = session(
        {
            TCP: replace(port(), since=3700.0),
            UDP: port(State.CONFLICT, reason="held by 192.168.77.3", expires=None, exists=False),
            pinhole: replace(port(), internal_address="2001:db8::1"),
        }
    )
    for pid in 7, 8, 9:
        record.sockets[pid] = holder(pid, f"w\x1b{pid}", TCP, pinhole)
    mapped = State.MAPPED
    assert rows(record) == [
        Row(TCP, "w?7", 7, 2, f"{HERE}:6881", "11.22.33.1:6881", mapped, "", 3700.0, 7200.0),
        Row(
            pinhole,
            "w?7",
            7,
            2,
            "[2001:db8::1]:6881",
            "[2001:db8::1]:6881",
            mapped,
            "",
            None,
            7200.0,
        ),
        Row(
            UDP,
            "rtorrent",
            None,
            0,
            f"{HERE}:51413",
            "",
            State.CONFLICT,
            "held by 192.168.77.3",
            None,
            None,
        ),
    ]
    record.gateway = None
    assert rows(record)[0].external == ""


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-1.0, "over"),
        (0.5, "0 s"),
        (119.0, "119 s"),
        (121.0, "2 min"),
        (7199.0, "119 min"),
        (7201.0, "2 h"),
        (49 * 3600.0, "2 d"),
        (None, ""),
    ],
)
def test_how_long_a_lease_lasts(seconds: float | None, words: str) -> None:
    assert lasts(seconds and 1000.0 + seconds, 1000.0) == words


def test_json_without_a_router() -> None:
    record = session({TCP: port(State.IGNORED, expires=None, exists=False)})
    record.gateway = None
    (shown,) = as_json([record])["sessions"]
    assert shown["gateway"] is None
    assert shown["mappings"][0]["expires"] is None


def planned(*records: SessionRecord) -> list[tuple[list[Port], list[Port]]]:
    plan = leftovers(records, mappings=Place(ROUTER, HERE), pinholes={}, wall=4000.0)
    return [(list(one.remove), [port for port, _ in one.keep]) for one in plan]


def test_who_uses_io_uring_is_shown() -> None:
    record = session({})
    record.io_uring[7] = "no\x1bde"
    assert "  no?de (pid 7): uses io_uring" in as_text([record], now=0.0, zone=UTC)
    [shown] = as_json([record])["sessions"]
    assert shown["io_uring"] == [{"program": "no\x1bde", "pid": 7}]


def test_clients_are_shown_with_the_reason() -> None:
    record = session({})
    record.clients[12] = ClientRecord("unb\x1bound", 12, "a known resolver", since=3600.0)
    assert as_text([record], now=3600.0, zone=UTC).splitlines()[2:] == [
        "  no ports",
        "  unb?ound (pid 12): UDP ports passed since 01:00: a client (a known resolver)",
    ]
    (shown,) = as_json([record])["sessions"]
    assert shown["clients"] == [
        {
            "program": "unb\x1bound",
            "pid": 12,
            "reason": "a known resolver",
            "since": "1970-01-01T01:00:00+00:00",
        }
    ]
    record.alive = False
    assert "client" not in as_text([record], now=3600.0, zone=UTC)
    assert as_json([record])["sessions"][0]["clients"] == []


def test_a_sweep_takes_what_the_dead_left() -> None:
    assert planned(session({TCP: port(), UDP: port()}, alive=False)) == [([TCP, UDP], [])]


def test_a_sweep_leaves_the_living_alone() -> None:
    assert planned(session({TCP: port()})) == []
    living, dead = session({TCP: port()}), session({TCP: port(), UDP: port()}, alive=False)
    assert planned(living, dead) == [([UDP], [])]


def test_a_sweep_knows_what_is_over() -> None:
    over = {TCP: port(expires=3999.0), UDP: port(exists=False)}
    assert planned(session(over, alive=False)) == [([], [])]


def test_a_sweep_keeps_to_its_router_and_address() -> None:
    elsewhere = session({TCP: port(location="http://10.0.0.1/x")}, alive=False)
    moved = session({TCP: port()}, alive=False, inside="192.168.77.9")
    assert planned(elsewhere, moved) == [([], [TCP]), ([], [TCP])]


def test_a_lease_without_end_is_taken_back() -> None:
    assert planned(session({TCP: port(expires=None)}, alive=False)) == [([TCP], [])]
