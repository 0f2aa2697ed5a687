"""Pinholes beside mappings: in the journal, in what is shown, and when dead sessions are swept."""

from datetime import UTC
from pathlib import Path

from natsup.state.journal import GatewayRecord, Header, Journal, replay, sessions
from natsup.state.ledger import Add, Ledger, Note, State
from natsup.state.model import Mapped, Outcome, Port, Protocol, Removal
from natsup.state.report import as_json, as_text
from natsup.state.sweep import SweepReport, sweep
from tests.gateway.house import Alone

MAPPING = Port(Protocol.TCP, 6881)
PINHOLE = MAPPING.pinhole
ROUTER = GatewayRecord("upnp", "http://192.168.77.1:5555/d.xml", "192.168.77.2", None)
FIREWALL = GatewayRecord("upnp", "http://[fe80::1%eth0]:5555/d.xml", "2001:db8::2", None)


class Router:
    """For mappings or pinholes, as a record of the journal has it."""

    def __init__(self, record: GatewayRecord) -> None:
        self.protocol = record.protocol
        self.location = record.location
        self.internal_address = record.internal_address
        self.recalled: dict[Port, str] = {}
        self.removed: list[Port] = []

    def recall(self, port: Port, handle: str) -> None:
        self.recalled[port] = handle

    async def add(self, port: Port, *, lease: int) -> Outcome:
        raise AssertionError("a sweep adds nothing")

    async def check(self, port: Port) -> Outcome:
        raise AssertionError("a sweep looks at nothing")

    async def remove(self, port: Port) -> Removal:
        self.removed.append(port)
        return Removal.GONE

    async def external_address(self) -> str | None:
        return None


def dead(folder: Path) -> None:
    """A session that has left one of each."""
    journal = Journal.create(folder, Header("dead", pid=1, command=["/bin/x"], started=0.0))
    journal.gateway(FIREWALL)
    journal.gateway(ROUTER)
    for port, handle in ((MAPPING, ""), (PINHOLE, "7")):
        note = Note(port, State.MAPPED, "", 3600.0, 1, True, handle)
        journal.note(note, now=0.0, wall=1000.0)
    journal.end(left=True)


async def swept(folder: Path, gateway: Router | None, pinholes: Router | None) -> SweepReport:
    async def opener(protocol: str) -> Router | None:
        assert protocol == FIREWALL.protocol
        return pinholes

    return await sweep(folder, gateway, wall=lambda: 1000.0, neighbours=Alone(), pinholes=opener)


def test_a_pinhole_is_written_as_a_port_of_its_own() -> None:
    assert (str(MAPPING), str(PINHOLE)) == ("tcp/6881", "tcp6/6881")
    assert Port.read("tcp6/6881") == PINHOLE != MAPPING == Port.read("tcp/6881")


def test_the_number_that_the_router_gave_is_noted() -> None:
    ledger = Ledger()
    ledger.gateway_found(0.0)
    _, (before, asked) = ledger.ask(PINHOLE, 0.0)
    assert asked == Add(PINHOLE, 3600)
    assert isinstance(before, Note)
    assert before.handle == ""
    ledger.added(PINHOLE, Mapped(3600, "7"), 0.0)
    (note,) = ledger.claim(PINHOLE, 1, 0.0)
    assert isinstance(note, Note)
    assert note.handle == "7"


def test_the_journal_says_where_a_pinhole_is(tmp_path: Path) -> None:
    dead(tmp_path)
    (record,) = sessions(tmp_path)
    assert record.gateway == ROUTER
    assert record.ports[MAPPING].location == ROUTER.location
    known = record.ports[PINHOLE]
    assert (known.location, known.internal_address, known.handle) == (
        FIREWALL.location,
        FIREWALL.internal_address,
        "7",
    )


def test_a_journal_of_before_is_read() -> None:
    lines = [
        b'{"time": 1, "natsup": 1, "session": "s", "pid": 1, "command": ["x"], "started": 1}',
        b'{"time": 1, "gateway": {"protocol": "upnp", "location": "http://192.168.77.1:5555/",'
        b' "internal_address": "192.168.77.2", "external_address": null}}',
        b'{"time": 1, "port": "tcp/6881", "state": "mapped", "reason": "", "expires": 9,'
        b' "claims": 1, "exists": true}',
    ]
    record = replay(lines)
    assert record is not None
    known = record.ports[MAPPING]
    assert (known.location, known.internal_address, known.handle) == (
        "http://192.168.77.1:5555/",
        None,
        "",
    )


def test_both_are_shown(tmp_path: Path) -> None:
    dead(tmp_path)
    records = sessions(tmp_path)
    (session,) = as_json(records)["sessions"]
    assert [(one["family"], one["internal_address"]) for one in session["mappings"]] == [
        ("ipv4", "192.168.77.2"),
        ("ipv6", "2001:db8::2"),
    ]
    text = as_text(records, now=1000.0, zone=UTC)
    assert "tcp 6881   → 192.168.77.2:6881   mapped" in text
    assert "tcp6 6881  → [2001:db8::2]:6881  mapped" in text


async def test_both_are_swept(tmp_path: Path) -> None:
    dead(tmp_path)
    router, firewall = Router(ROUTER), Router(FIREWALL)
    report = await swept(tmp_path, router, firewall)
    assert (router.removed, firewall.removed) == ([MAPPING], [PINHOLE])
    assert firewall.recalled == {PINHOLE: "7"}
    assert report.left == []
    assert sessions(tmp_path) == []


async def test_a_pinhole_waits_for_a_router_that_opens_some(tmp_path: Path) -> None:
    dead(tmp_path)
    router = Router(ROUTER)
    report = await swept(tmp_path, router, None)
    assert router.removed == [MAPPING]
    assert [line.partition("left: ")[2] for line in report.left] == [
        "it was opened by upnp, which no router for IPv6 answers to"
    ]
    assert len(sessions(tmp_path)) == 1


async def test_another_address_of_ours_is_another_place(tmp_path: Path) -> None:
    dead(tmp_path)
    moved = Router(GatewayRecord("upnp", FIREWALL.location, "2001:db8::3", None))
    report = await swept(tmp_path, None, moved)
    assert moved.removed == []
    assert [line.partition("left: ")[2] for line in report.left] == [
        "no router that maps ports answers",
        "it leads to 2001:db8::2, not to this host now",
    ]
