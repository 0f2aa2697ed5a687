"""What dead sessions left is removed, and only that."""

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from natsup.state.journal import GatewayRecord, Header, Journal, SessionRecord, sessions
from natsup.state.ledger import Note, State
from natsup.state.model import Mapped, Outcome, Port, Protocol, Removal
from natsup.state.sweep import SweepReport, forget, sweep

TCP, UDP = Port(Protocol.TCP, 7000), Port(Protocol.UDP, 7000)
LOCATION, HERE = "http://192.168.77.1:5555/rootDesc.xml", "192.168.77.2"


class Router:
    protocol = "upnp"
    location = LOCATION
    internal_address = HERE

    def __init__(self) -> None:
        self.removals: dict[Port, Removal] = {}
        self.asked: list[Port] = []

    async def add(self, port: Port, *, lease: int) -> Outcome:
        raise AssertionError("a sweep adds nothing")

    async def check(self, port: Port) -> Outcome:
        return Mapped(0)

    async def remove(self, port: Port) -> Removal:
        self.asked.append(port)
        return self.removals.get(port, Removal.GONE)

    async def external_address(self) -> str | None:
        return None


class Others:
    def __init__(self, *wanted: Port) -> None:
        self.wanted = wanted

    def announce(self, port: Port) -> None:
        raise AssertionError("a sweep wants nothing")

    def withdraw(self, port: Port) -> None:
        raise AssertionError("a sweep has nothing")

    def removing(self, port: Port) -> AbstractContextManager[bool]:
        return nullcontext(port not in self.wanted)

    async def removed(self, port: Port) -> None:
        raise AssertionError("a sweep wants nothing")


@pytest.fixture
def router() -> Router:
    return Router()


def session(
    folder: Path, name: str, *ports: Port, location: str = LOCATION, expires: float | None = 3600.0
) -> Journal:
    journal = Journal.create(folder, Header(name, pid=1, command=["/bin/x"], started=0.0))
    journal.gateway(GatewayRecord("upnp", location, HERE, None))
    for port in ports:
        journal.note(Note(port, State.MAPPED, "", expires, 1, exists=True), now=0.0, wall=1000.0)
    return journal


@pytest.fixture
def living(tmp_path: Path) -> Iterator[Journal]:
    journal = session(tmp_path, "living", UDP)
    yield journal
    journal.end(left=False)


async def swept(folder: Path, router: Router, *wanted: Port, wall: float = 1000.0) -> SweepReport:
    return await sweep(folder, router, wall=lambda: wall, neighbours=Others(*wanted))


def names(folder: Path) -> list[str]:
    return [record.header.session for record in sessions(folder)]


async def test_a_dead_sessions_ports_are_removed(
    tmp_path: Path, router: Router, living: Journal
) -> None:
    session(tmp_path, "dead", TCP, UDP).end(left=True)
    report = await swept(tmp_path, router)
    assert router.asked == [TCP]  # the other one is a living session's
    assert report.lines() == ["tcp/7000 of x (session dead) removed"]
    assert names(tmp_path) == ["living"]


async def test_a_bind_does_not_wait_for_large_journals(
    tmp_path: Path, router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    session(tmp_path, "dead", TCP).end(left=True)
    readers: list[int] = []

    def read_late(directory: Path) -> list[SessionRecord]:
        readers.append(threading.get_ident())
        return sessions(directory)

    monkeypatch.setattr("natsup.state.sweep.sessions", read_late)
    await swept(tmp_path, router)
    assert router.asked == [TCP]
    (reader,) = readers
    assert reader != threading.get_ident()


async def test_another_users_session_keeps_its_port(tmp_path: Path, router: Router) -> None:
    """Its journal is elsewhere; it announces what it wants."""
    session(tmp_path, "dead", TCP, UDP).end(left=True)
    report = await swept(tmp_path, router, UDP)
    assert router.asked == [TCP]
    assert report.left == []
    assert "udp/7000 of x (session dead) is another session's by now" in report.settled
    assert names(tmp_path) == []


async def test_what_fails_is_kept_for_another_time(tmp_path: Path, router: Router) -> None:
    session(tmp_path, "dead", TCP).end(left=True)
    router.removals[TCP] = Removal.FAILED
    report = await swept(tmp_path, router)
    assert report.left == ["tcp/7000 of x (session dead) is left: the router did not answer"]
    assert names(tmp_path) == ["dead"]
    router.removals[TCP] = Removal.NOT_OURS
    report = await swept(tmp_path, router)
    assert report.settled == ["tcp/7000 of x (session dead) belongs to another host by now"]
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("location", "asked"),
    [
        ("http://192.168.77.1:4444/igd2desc.xml", [TCP]),  # restarted, or its other description
        ("http://192.168.88.1:5555/rootDesc.xml", []),
    ],
)
async def test_another_gateways_ports_wait(
    tmp_path: Path, router: Router, location: str, asked: list[Port]
) -> None:
    session(tmp_path, "dead", TCP, location=location).end(left=True)
    report = await swept(tmp_path, router)
    assert router.asked == asked
    assert names(tmp_path) == ([] if asked else ["dead"])
    assert ("another gateway" in str(report.left)) == (not asked)


async def test_a_lease_that_is_over_needs_no_removal(tmp_path: Path, router: Router) -> None:
    session(tmp_path, "dead", TCP).end(left=True)
    await swept(tmp_path, router, wall=1000.0 + 3601)
    assert router.asked == []
    assert names(tmp_path) == []


async def test_one_sweep_at_a_time(tmp_path: Path, router: Router) -> None:
    session(tmp_path, "dead", TCP).end(left=True)
    fd = os.open(tmp_path / "sweep.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        report = await swept(tmp_path, router)
        assert report.lines() == ["another natsup is cleaning up just now"]
        assert router.asked == []
    finally:
        os.close(fd)
    await swept(tmp_path, router)
    assert router.asked == [TCP]


async def test_a_folder_that_is_none_is_reported(tmp_path: Path, router: Router) -> None:
    path = tmp_path / "file"
    path.write_text("")
    report = await swept(path, router)
    assert "cannot be used" in report.left[0]
    assert (await swept(tmp_path / "missing", router)).lines() == []


def test_what_left_nothing_needs_no_router(tmp_path: Path, living: Journal) -> None:
    session(tmp_path, "empty").end(left=True)
    session(tmp_path, "over", TCP, expires=10.0).end(left=True)
    session(tmp_path, "full", TCP).end(left=True)
    session(tmp_path, "for-ever", TCP, expires=None).end(left=True)
    dead = [record for record in sessions(tmp_path) if not record.alive]
    left = forget(dead, wall=1011.0)
    assert sorted(record.header.session for record in left) == ["for-ever", "full"]
    assert sorted(names(tmp_path)) == ["for-ever", "full", "living"]


async def test_each_protocol_removes_what_it_has_made(tmp_path: Path, router: Router) -> None:
    session(tmp_path, "one", TCP, location="pcp://192.168.77.1:5351").end(left=True)
    session(tmp_path, "two", UDP, location="natpmp://192.168.77.1:5351").end(left=True)
    session(tmp_path, "three", Port(Protocol.TCP, 7001)).end(left=True)
    other = Router()
    other.protocol, other.location = "pcp", "pcp://192.168.77.1:5351"
    opened = []

    async def reopen(location: str) -> Router | None:
        opened.append(location)
        return other if location == other.location else None

    report = await sweep(tmp_path, router, wall=lambda: 1000.0, neighbours=Others(), reopen=reopen)
    assert other.asked == [TCP]
    assert router.asked == [Port(Protocol.TCP, 7001)]
    assert sorted(opened) == ["natpmp://192.168.77.1:5351", "pcp://192.168.77.1:5351"]
    assert report.left == [
        "udp/7000 of x (session two) is left: it was mapped by natpmp, which the router does not"
        " answer to"
    ]
    assert names(tmp_path) == ["two"]
