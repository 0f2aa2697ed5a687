"""The journal on a real disk."""

import fcntl
import json
import logging
import os
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from natsup.state.journal import (
    ClientRecord,
    GatewayRecord,
    Header,
    Journal,
    SocketRecord,
    check_folder,
    default_directory,
    extend,
    read,
    remove,
    remove_unread,
    replay,
    sessions,
    unread,
)
from natsup.state.ledger import Note, State
from natsup.state.model import Port, Protocol
from natsup.state.sweep import Place, leftovers

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


def test_what_somebody_else_has_put_there(tmp_path: Path) -> None:
    """Nobody waits for a FIFO's writer, nor follows a link."""
    folder = tmp_path / "state/sessions"
    folder.mkdir(parents=True)
    os.mkfifo(folder / "x.jsonl")
    os.mkfifo(folder / "x.new")
    journal = written(tmp_path / "another")
    (own,) = sessions(tmp_path / "another")
    assert own.path is not None
    link = folder / "y.jsonl"
    link.symlink_to(own.path)
    before = own.path.read_bytes()
    assert sessions(tmp_path / "state") == []
    remove_unread(tmp_path / "state", wall=4e9)
    extend(link, PORT, own.ports[PORT], expires=None, wall=2000.0)
    extend(folder / "x.jsonl", PORT, own.ports[PORT], expires=None, wall=2000.0)
    assert own.path.read_bytes() == before
    journal.end(left=False)


def test_a_folder_of_another_users(tmp_path: Path) -> None:
    """Root follows no link of his, and changes nothing that he could exchange meanwhile."""
    journal = written(tmp_path / "another")
    link = tmp_path / "sessions"
    link.symlink_to(tmp_path / "another/sessions")
    assert len(sessions(tmp_path)) == 1
    check_folder(tmp_path)
    os.lchown(link, 65534, 65534)
    with pytest.raises(OSError, match="link of uid 65534's"):
        sessions(tmp_path)
    with pytest.raises(PermissionError, match="sudo -u '#65534'"):
        check_folder(tmp_path)
    journal.end(left=False)


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


SOCKET = SocketRecord(77, ["tcp/6881", "tcp6/6881"], "00000000", 2, 6, 4711, 1234, "rtorrent")


def test_sockets_are_read_until_they_end(tmp_path: Path) -> None:
    journal = written(tmp_path)
    journal.socket(SOCKET)
    journal.socket(replace(SOCKET, cookie=78))
    journal.ended(78)
    journal.ended(79)  # was never there
    (session,) = sessions(tmp_path)
    assert session.sockets == {77: SOCKET}


@pytest.mark.parametrize("most", [1 << 20, 1], ids=["small", "written anew"])
def test_another_process_goes_on_with_it(tmp_path: Path, most: int) -> None:
    """What it writes anew says the same."""
    first = written(tmp_path)
    first.socket(SOCKET)
    first.supervisor(100, 1, 2)
    first.io_uring("node", 5, wall=0.0)
    fd = first.fileno()
    assert fd is not None
    resumed = Journal.resume([fd], most=most)
    assert resumed is not None
    journal, record = resumed
    assert (record.header, record.sockets, record.supervisor) == (HEADER, {77: SOCKET}, 100)
    before = sessions(tmp_path)[0]
    journal.supervisor(200, 2, 2)
    journal.note(note(port=Port(Protocol.UDP, 6881)), now=0.0, wall=2000.0)
    (after,) = sessions(tmp_path)
    assert (after.supervisor, after.supervisors, after.alive) == (200, 2, True)
    assert after.ports.keys() == {PORT, Port(Protocol.UDP, 6881)}
    assert after.ports[PORT] == before.ports[PORT]
    assert (after.sockets, after.io_uring) == (before.sockets, before.io_uring)
    journal.end(left=False)
    assert sessions(tmp_path) == []


def test_the_last_descriptor_that_is_the_journal_is_gone_on_with(tmp_path: Path) -> None:
    journal = written(tmp_path)
    fd = journal.fileno()
    assert fd is not None
    other = os.open(tmp_path / "other.jsonl", os.O_WRONLY | os.O_CREAT)
    removed = os.open(tmp_path / "removed.jsonl", os.O_WRONLY | os.O_CREAT)
    (tmp_path / "removed.jsonl").unlink()
    resumed = Journal.resume([fd, other, removed])
    assert resumed is not None
    assert resumed[0].fileno() == fd
    assert Journal.resume([other, removed]) is None
    os.close(other)
    os.close(removed)


def test_who_has_no_supervisor_any_more_says_so(tmp_path: Path) -> None:
    journal = written(tmp_path)
    journal.supervisor(100, 1, 2)
    assert sessions(tmp_path)[0].given_up is False
    fd = journal.fileno()
    assert fd is not None
    os.write(fd, b'\n{"time": 1.0, "given_up": true}\n')
    assert sessions(tmp_path)[0].given_up is True


@pytest.mark.parametrize(
    "wrong", [{"cookie": "x"}, {"ports": [5]}, {"ports": []}, {"address": "zz"}, {"domain": None}]
)
def test_a_socket_that_cannot_be_read_is_passed_over(wrong: dict[str, object]) -> None:
    lines = [json.dumps({"natsup": 1, **asdict(HEADER)}).encode()]
    lines += [json.dumps({"socket": {**asdict(SOCKET), **wrong}}).encode()]
    session = replay(lines)
    assert session is not None
    assert session.sockets == {}


_ODD = [
    "Infinity",
    "NaN",
    "null",
    "[]",
    "{}",
    '"x"',
    "-1",
    "1e999",
    "[" * 3000,
    '"\\ud800"',
    "true",
]


@pytest.mark.parametrize("odd", _ODD, ids=lambda odd: odd[:10])
def test_no_value_in_a_journal_is_an_error(tmp_path: Path, odd: str) -> None:
    """Whatever stands in the place of any value: that line is passed over, or read somehow."""
    journal = Journal.create(tmp_path, HEADER)
    journal.gateway(GatewayRecord("upnp", "http://192.168.77.1/x", "192.168.77.2", None))
    journal.note(Note(PORT, State.MAPPED, "", 10.0, 1, True), now=0.0, wall=0.0)
    journal.socket(SocketRecord(7, [str(PORT)], "00000000", 2, 6, 8, 9, "x"))
    journal.client(ClientRecord("x", 5, "y"), wall=0.0)
    journal.io_uring("x", 5, wall=0.0)
    journal.supervisor(9, 1, 2)
    (path,) = tmp_path.glob("sessions/*")
    header, *lines = path.read_bytes().splitlines(keepends=True)
    for line in lines:
        found = list(re.finditer(rb'(?<=: )("[^"]*"|-?[\d.]+|null|true|false)', line))
        for at in found:
            broken = line[: at.start()] + odd.encode() + line[at.end() :]
            path.write_bytes(b"".join([header, *lines, broken]))
            (session,) = sessions(tmp_path)
            session.alive = False
            for location in ("http://192.168.77.1/x", "x"):
                place = Place(location, "192.168.77.2")
                leftovers([session], mappings=place, pinholes={"upnp": place}, wall=1.0)
            resumed = Journal.resume([journal.fileno() or -1])
            assert resumed is not None
    journal.end(left=False)


def test_a_supervisor_that_ended_while_it_wrote_anew_is_no_hindrance(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path, HEADER, most=1)
    left = next(tmp_path.glob("sessions/*.jsonl")).with_suffix(".new")
    left.write_bytes(b"half of")
    journal.note(note(), now=0.0, wall=1000.0)
    assert not left.exists()
    assert sessions(tmp_path)[0].ports.keys() == {PORT}
    left.write_bytes(b"half of")
    journal.end(left=False)
    assert list(tmp_path.glob("sessions/*")) == []


def test_what_was_begun_and_never_read_is_removed(tmp_path: Path) -> None:
    journal = written(tmp_path)
    names = ("old", "held", "fresh")
    for name in names:
        (tmp_path / "sessions" / f"{name}.new").touch()
    for name in ("old", "held"):
        os.utime(tmp_path / "sessions" / f"{name}.new", (1000, 1000))
    fresh = (tmp_path / "sessions" / "fresh.new").stat().st_mtime
    with (tmp_path / "sessions" / "held.new").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        remove_unread(tmp_path, wall=fresh)
    left = sorted(path.stem for path in tmp_path.glob("sessions/*.new"))
    assert left == ["fresh", "held"]
    journal.end(left=False)


def test_since_when_a_port_is_in_its_state(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path, HEADER, most=100)  # written anew again and again
    journal.gateway(GATEWAY)

    def since() -> float:
        return sessions(tmp_path)[0].ports[PORT].since

    for wall, state, begun in (
        (2000.0, State.PENDING, 2000.0),
        (2001.0, State.MAPPED, 2001.0),
        (3800.0, State.MAPPED, 2001.0),  # renewed
        (3900.0, State.IGNORED, 3900.0),
        (4000.0, State.MAPPED, 4000.0),
    ):
        journal.note(note(state), now=0.0, wall=wall)
        assert since() == begun
    fd = journal.fileno()
    assert fd is not None
    resumed = Journal.resume([fd])
    assert resumed is not None
    resumed[0].note(note(), now=0.0, wall=5000.0)
    assert since() == 4000.0
    journal.note(note(State.GONE, exists=False), now=0.0, wall=6000.0)
    journal.note(note(), now=0.0, wall=7000.0)
    assert since() == 7000.0
    journal.end(left=False)


def test_a_release_is_written_down(tmp_path: Path) -> None:
    journal = written(tmp_path)
    assert not sessions(tmp_path)[0].ports[PORT].released
    journal.note(replace(note(State.RELEASING), released=True), now=0.0, wall=2000.0)
    assert sessions(tmp_path)[0].ports[PORT].released
    journal.end(left=False)
