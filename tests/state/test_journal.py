"""The journal on a real disk."""

import fcntl
import json
import logging
import os
from dataclasses import replace
from pathlib import Path

import pytest

from natsup.state.journal import (
    ClientRecord,
    GatewayRecord,
    Header,
    Journal,
    default_directory,
    read,
    remove,
    replay,
    sessions,
    unread,
)
from natsup.state.ledger import Note, State
from natsup.state.model import Port, Protocol

HEADER = Header("4f2a-1", pid=1234, command=["rtorrent", "-n"], started=1000.0)
GATEWAY = GatewayRecord("upnp", "http://192.168.77.1:5000/x", "192.168.77.2", "11.22.33.1")
PORT = Port(Protocol.TCP, 6881)


def note(state: State = State.MAPPED, *, exists: bool = True, port: Port = PORT) -> Note:
    return Note(port, state, "", 1800.0, 1, exists)


def written(directory: Path) -> Journal:
    journal = Journal.create(directory, HEADER)
    journal.gateway(GATEWAY)
    journal.note(note(), now=0.0, wall=2000.0)
    return journal


def test_what_is_written_is_read(tmp_path: Path) -> None:
    journal = written(tmp_path)
    (session,) = sessions(tmp_path)
    assert session.header == HEADER
    assert session.gateway == GATEWAY
    assert session.alive
    record = session.ports[PORT]
    assert (record.state, record.expires, record.claims) == (State.MAPPED, 3800.0, 1)
    assert record.location == GATEWAY.location
    journal.end(left=False)
    assert sessions(tmp_path) == []


def test_what_is_left_on_the_router_keeps_the_journal(tmp_path: Path) -> None:
    written(tmp_path).end(left=True)
    (session,) = sessions(tmp_path)
    assert not session.alive
    assert session.ports[PORT].exists


def test_the_lock_lives_as_long_as_its_last_holder(tmp_path: Path) -> None:
    journal = written(tmp_path)
    pid = os.fork()
    if pid == 0:
        os.kill(os.getpid(), 19)  # SIGSTOP: stays, with its copy of the descriptor
        os._exit(0)
    os.waitpid(pid, os.WUNTRACED)
    journal.end(left=True)
    assert sessions(tmp_path)[0].alive
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    assert not sessions(tmp_path)[0].alive


def test_a_line_cut_off_anywhere_loses_only_itself(tmp_path: Path) -> None:
    journal = written(tmp_path)
    journal.note(note(port=Port(Protocol.UDP, 7000)), now=0.0, wall=2000.0)
    journal.end(left=True)
    (path,) = (tmp_path / "sessions").iterdir()
    data = path.read_bytes()
    last = data[:-1].rindex(b"\n") + 1
    for end in range(last, len(data) - 1):
        path.write_bytes(data[:end])
        session = read(path)
        assert session is not None
        assert list(session.ports) == [PORT]


def test_a_port_that_is_gone_is_forgotten(tmp_path: Path) -> None:
    journal = written(tmp_path)
    journal.note(note(State.GONE, exists=False), now=0.0, wall=2000.0)
    assert sessions(tmp_path)[0].ports == {}
    journal.end(left=False)


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [b""],
        [b"{"],
        [b"[]"],
        [b"null"],
        [b'{"natsup": 2}'],
        [b'{"natsup": 1, "session": "x"}'],
        [b"\xff\xfe"],
        [b"[" * 100_000],
        [b'{"natsup": 1, "session": "x", "pid": 1e999, "command": [], "started": 1}'],
        [b'{"natsup": 1, "session": "x", "pid": 1, "command": [], "started": NaN}'],
    ],
)
def test_what_is_no_journal_is_passed_over(lines: list[bytes]) -> None:
    assert replay(lines) is None


def test_unknown_records_are_passed_over() -> None:
    header = json.dumps({"natsup": 1, "session": "x", "pid": 1, "command": ["a"], "started": 1})
    session = replay(
        [
            header.encode(),
            b'{"weather": "fine"}',
            b'{"port": "sctp/5"}',
            b"7",
            b"{",
            b"[" * 100_000,
            b'{"gateway": []}',
            b'{"client": {"pid": Infinity}}',
        ]
    )
    assert session is not None
    assert session.ports == {}


def test_who_uses_io_uring_is_read(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path, HEADER)
    journal.io_uring("node", 7, wall=1.0)
    journal.io_uring("node", 7, wall=2.0)
    [session] = sessions(tmp_path)
    assert session.io_uring == {7: "node"}
    journal.end(left=False)


def test_clients_are_read_once_a_process_and_not_all_of_them(tmp_path: Path) -> None:
    journal = written(tmp_path)
    for number in range(1000):
        journal.client(ClientRecord("x", 1 + number % 900, "because"), wall=0.0)
    (session,) = sessions(tmp_path)
    assert list(session.clients) == list(range(1, 101))
    assert session.clients[7] == ClientRecord("x", 7, "because")


def test_a_client_that_is_one_no_more_is_forgotten(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path, HEADER, most=1000)
    client = ClientRecord("x", 7, "because", since=5.0)
    for number in range(20):
        other = ClientRecord("y", 8 + number, "because", since=6.0)
        journal.client(other, wall=6.0)
        journal.client(replace(other, until=9.0), wall=9.0)
        journal.client(client, wall=5.0)
        (session,) = sessions(tmp_path)
        assert session.clients == {7: client}
        journal.client(replace(client, until=9.0), wall=9.0)
        assert sessions(tmp_path)[0].clients == {}
    assert session.path is not None
    assert session.path.stat().st_size < 1500
    journal.end(left=False)


@pytest.mark.parametrize("record", [b"7", b"{}", b'{"name": "x", "pid": null, "reason": ""}'])
def test_a_client_that_cannot_be_read_is_passed_over(tmp_path: Path, record: bytes) -> None:
    written(tmp_path)
    (path,) = (tmp_path / "sessions").iterdir()
    lines = [*path.read_bytes().splitlines(), b'{"time": 1, "client": ' + record + b"}"]
    session = replay(lines)
    assert session is not None
    assert session.clients == {}
    assert PORT in session.ports


@pytest.mark.parametrize("obstacle", ["a file", "full"])
def test_a_folder_that_cannot_be_written_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, obstacle: str
) -> None:
    if obstacle == "a file":
        (tmp_path / "sessions").write_text("in the way")
        with caplog.at_level(logging.WARNING):
            journal = written(tmp_path)
        assert journal.fileno() is None
        assert [record.getMessage()[:10] for record in caplog.records] == ["no journal"]
    else:
        journal = written(tmp_path)
        full = os.open("/dev/full", os.O_WRONLY)
        fileno = journal.fileno()
        assert fileno is not None
        os.dup2(full, fileno)
        os.close(full)
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                journal.note(note(), now=0.0, wall=0.0)
        messages = [record.getMessage() for record in caplog.records]
        assert messages == ["the journal cannot be written: No space left on device"]
    journal.end(left=False)


def test_words_that_are_no_utf8_are_kept(tmp_path: Path) -> None:
    header = Header("s", pid=1, command=["x", os.fsdecode(b"caf\xe9"), "Zürich"], started=0.0)
    Journal.create(tmp_path, header).end(left=True)
    (session,) = sessions(tmp_path)
    assert session.header == header


def test_a_short_write_spoils_one_line_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = written(tmp_path)
    udp, third = Port(Protocol.UDP, 1), Port(Protocol.UDP, 2)
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: write(fd, data[:20]))  # the disk is full
        journal.note(note(port=udp), now=0.0, wall=0.0)
    journal.note(note(port=third), now=0.0, wall=0.0)
    (session,) = sessions(tmp_path)
    assert set(session.ports) == {PORT, third}
    journal.end(left=False)


def test_a_new_journal_is_there_with_its_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever looks at the folder at that moment cannot take the lock away from it."""
    seen: list[bool | None] = []
    lock = fcntl.flock

    def look_first(fd: int, operation: int) -> None:
        monkeypatch.undo()
        seen.extend(session.alive for session in sessions(tmp_path))
        lock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", look_first)
    journal = written(tmp_path)
    assert seen == []  # not there yet
    assert [session.alive for session in sessions(tmp_path)] == [True]
    journal.end(left=False)
    assert list((tmp_path / "sessions").iterdir()) == []


class Handing:
    """A guard that takes a journal's descriptors, or does not."""

    def __init__(self, answer: bool) -> None:
        self.answer = answer
        self.fds: list[int] = []

    def __call__(self, fd: int) -> bool:
        self.fds.append(fd)
        return self.answer


ROUTERS = [GATEWAY, GatewayRecord("upnp", "http://192.168.88.1/y", "192.168.88.2", None)]


def busy(journal: Journal, rounds: int) -> None:
    """Ports come and go, on one router and then on another; of each some stay."""
    for router in ROUTERS:
        for number in range(rounds):
            port = Port(Protocol.UDP, 7000 + number % 900 + 1000 * ROUTERS.index(router))
            if not number:
                journal.gateway(router)
            journal.note(note(port=port), now=0.0, wall=float(number))
            if number % 100:
                journal.note(note(State.GONE, port=port), now=0.0, wall=float(number))
        journal.client(ClientRecord("x", 7, "because"), wall=0.0)
        journal.io_uring("node", 8, wall=0.0)


def test_it_is_written_anew_when_it_has_grown_large(tmp_path: Path) -> None:
    whole = Journal.create(tmp_path / "whole", HEADER)
    small = Journal.create(tmp_path / "small", HEADER, most=10000)
    for journal in (whole, small):
        journal.note(note(), now=0.0, wall=0.0)  # before there is any gateway
        busy(journal, 500)
    (expected,), (found,) = sessions(tmp_path / "whole"), sessions(tmp_path / "small")
    assert expected.path is not None
    assert found.path is not None
    assert expected.path.stat().st_size > 100000
    assert found.path.stat().st_size < 11000
    assert found.alive
    assert len(found.ports) == 11
    assert {record.location for record in found.ports.values()} == {
        "",
        *(router.location for router in ROUTERS),
    }
    found.path = expected.path
    assert found == expected
    assert [path.name for path in (tmp_path / "small/sessions").iterdir()] == ["4f2a-1.jsonl"]
    for journal in (whole, small):
        journal.end(left=False)


def test_what_stands_may_be_large_itself(tmp_path: Path) -> None:
    """It is not written anew at every line, then."""
    handed = Handing(True)
    journal = Journal.create(tmp_path, HEADER, most=1000)
    journal.hand_on = handed
    for number in range(1, 1001):
        journal.note(note(port=Port(Protocol.UDP, number)), now=0.0, wall=0.0)
    assert 0 < len(handed.fds) < 12
    assert len(sessions(tmp_path)[0].ports) == 1000
    journal.end(left=False)


def test_who_has_opened_the_old_file_looks_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal.create(tmp_path, HEADER, most=1000)
    lock, numbers = fcntl.flock, iter(range(1, 100))

    def late(file: object, operation: int) -> None:
        """Between the reader's open() and his try at the lock."""
        monkeypatch.undo()
        before = journal.fileno()
        while journal.fileno() == before:
            journal.note(note(port=Port(Protocol.UDP, next(numbers))), now=0.0, wall=0.0)
        monkeypatch.setattr(fcntl, "flock", lock)
        lock(file, operation)  # type: ignore[arg-type]

    journal.note(note(), now=0.0, wall=0.0)
    monkeypatch.setattr(fcntl, "flock", late)
    (session,) = sessions(tmp_path)
    assert session.alive
    assert len(session.ports) > 1
    journal.end(left=False)


def test_where_it_cannot_be_written_anew_it_goes_on(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path, HEADER, most=1000)
    tries = Handing(False)  # a guard that is stopped
    journal.hand_on = tries
    fileno = journal.fileno()
    for number in range(100):
        journal.note(note(), now=0.0, wall=float(number))
    assert journal.fileno() == fileno
    assert 1 < len(tries.fds) < 50
    (session,) = sessions(tmp_path)
    assert session.alive
    assert [path.suffix for path in (tmp_path / "sessions").iterdir()] == [".jsonl"]
    journal.hand_on = lambda fd: True
    for number in range(10):
        journal.note(note(), now=0.0, wall=float(number))
    assert session.path is not None
    assert session.path.stat().st_size < 2500
    journal.end(left=False)


def test_a_crash_leaves_nothing_beside_it(tmp_path: Path) -> None:
    written(tmp_path).end(left=True)
    (session,) = sessions(tmp_path)
    assert session.path is not None
    unread(session.path).touch()
    remove(session.path)
    assert list((tmp_path / "sessions").iterdir()) == []


def test_a_person_can_read_it(tmp_path: Path) -> None:
    journal = written(tmp_path)
    (path,) = (tmp_path / "sessions").iterdir()
    assert path.stat().st_mode & 0o077 == 0
    lines = path.read_text().splitlines()
    assert len(lines) == 3
    assert '"port": "tcp/6881", "state": "mapped"' in lines[2]
    journal.end(left=False)


@pytest.mark.parametrize(
    ("environ", "uid", "expected"),
    [
        ({"NATSUP_STATE_DIR": "/x", "HOME": "/home/u"}, 0, "/x"),
        ({"HOME": "/root", "XDG_STATE_HOME": "/s"}, 0, "/var/lib/natsup"),
        ({"HOME": "/home/u", "XDG_STATE_HOME": "/s"}, 1000, "/s/natsup"),
        ({"HOME": "/home/u", "XDG_STATE_HOME": "s"}, 1000, "/home/u/.local/state/natsup"),
        ({"HOME": "/home/u"}, 1000, "/home/u/.local/state/natsup"),
    ],
)
def test_where_it_is(environ: dict[str, str], uid: int, expected: str) -> None:
    assert default_directory(environ, uid) == Path(expected)
