"""The journal: what a session has on the gateway, where its death cannot lose it.

One file a session, one JSON object a line, appended: the header, then the gateway whenever it is
another, then a line for every change of a port. A line reaches the file before the request that it
announces leaves. A person can read it, and a last line that was cut off is passed over.

The file is locked (flock(2)) for as long as the session lives. The lock belongs to the open file,
which guard and supervisor share, so it ends when the last of the two does.
"""

import fcntl
import json
import logging
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from natsup.state.ledger import Note, State
from natsup.state.model import Port, Protocol

log = logging.getLogger("natsup.state")
VERSION = 1
_MOST_CLIENTS = 100  # of a session, that are shown; ten times as many that are written down


def default_directory(environ: Mapping[str, str], uid: int) -> Path:
    """Where sessions keep their journals. Pure."""
    if environ.get("NATSUP_STATE_DIR"):
        return Path(environ["NATSUP_STATE_DIR"])
    if uid == 0:
        return Path("/var/lib/natsup")
    folder = environ.get("XDG_STATE_HOME") or ""
    if os.path.isabs(folder):
        return Path(folder) / "natsup"
    return Path(environ.get("HOME") or "/") / ".local/state/natsup"


@dataclass(frozen=True, slots=True)
class Header:
    """The first line: whose session it is."""

    session: str
    pid: int  # of the program's first process
    command: list[str]
    started: float  # seconds of the wall clock


@dataclass(frozen=True, slots=True)
class GatewayRecord:
    protocol: str
    location: str
    internal_address: str
    external_address: str | None


@dataclass(frozen=True, slots=True)
class PortRecord:
    """What stands about a port, as of its last line."""

    state: State
    reason: str
    expires: float | None  # wall clock; None: no lease, or nothing on the gateway
    claims: int
    exists: bool
    location: str  # of the gateway that it was made on, "" before there was one


@dataclass(frozen=True, slots=True)
class ClientRecord:
    """A program that was taken for a client, whose UDP ports are passed."""

    name: str
    pid: int
    reason: str


@dataclass(slots=True)
class SessionRecord:
    """A journal, read."""

    header: Header
    gateway: GatewayRecord | None = None
    ports: dict[Port, PortRecord] = field(default_factory=dict)
    alive: bool = False
    path: Path | None = None
    clients: dict[int, ClientRecord] = field(default_factory=dict)  # by pid, of many the latest
    io_uring: dict[int, str] = field(default_factory=dict)  # programs that use it, by pid


class Journal:
    """A session's own journal, open for appending. No method raises: a session goes on without
    its journal, says so once in the log, and then only its own end cleans up after it."""

    def __init__(self, path: Path | None, fd: int | None) -> None:
        self._path = path
        self._fd = fd
        self._complained = False
        self._clients = 0
        self._torn = False  # does the file end within a line?

    @classmethod
    def create(cls, directory: Path, header: Header) -> "Journal":
        """Make and lock the journal of a new session in the state folder ``directory``."""
        path = directory / "sessions" / f"{header.session}.jsonl"
        unlocked = path.with_suffix(".new")  # nobody reads it, nor takes its lock
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
            journal = cls(path, os.open(unlocked, flags, 0o600))
            assert journal._fd is not None
            fcntl.flock(journal._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            unlocked.rename(path)
        except OSError as error:
            log.warning(
                "no journal (%s: %s): should natsup be killed, its ports stay on the router until"
                " their lease ends",
                path,
                error.strerror,
            )
            return cls(None, None)
        journal._append({"natsup": VERSION, **asdict(header)})
        return journal

    def fileno(self) -> int | None:
        """The descriptor that holds the lock; None where there is no journal."""
        return self._fd

    def gateway(self, record: GatewayRecord) -> None:
        self._append({"gateway": asdict(record)})

    def client(self, record: ClientRecord, *, wall: float) -> None:
        """A program was taken for a client."""
        self._clients += 1
        if self._clients <= 10 * _MOST_CLIENTS:
            self._append({"client": asdict(record)}, wall)

    def io_uring(self, name: str, pid: int, *, wall: float) -> None:
        """A program uses io_uring, by which it can bind unseen."""
        self._append({"io_uring": {"name": name, "pid": pid}}, wall)

    def note(self, note: Note, *, now: float, wall: float) -> None:
        """Write a ledger's note down; ``now`` and ``wall``: its clock, and the wall's."""
        expires = None if note.expires is None else round(wall + note.expires - now, 3)
        record = {
            "port": str(note.port),
            "state": note.state.value,
            "reason": note.reason,
            "expires": expires,
            "claims": note.claims,
            "exists": note.exists,
        }
        self._append(record, wall)

    def end(self, *, left: bool) -> None:
        """The session is over. Without anything left on the gateway the journal is over, too."""
        if self._path is not None and not left:
            try:
                self._path.unlink()
            except OSError as error:
                log.warning("the journal %s cannot be removed: %s", self._path, error.strerror)
        if self._fd is not None:
            os.close(self._fd)
        self._fd = self._path = None

    def _append(self, record: dict[str, Any], wall: float | None = None) -> None:
        if self._fd is None:
            return
        stamp = round(time.time() if wall is None else wall, 3)
        text = json.dumps({"time": stamp, **record}, ensure_ascii=False)
        # What is no UTF-8 in a command line becomes an escape of JSON's: \udcff
        line = b"\n" * self._torn + text.encode("utf-8", "backslashreplace") + b"\n"
        try:
            self._torn = os.write(self._fd, line) < len(line)
        except OSError as error:
            self._complain(error.strerror)
        else:
            if self._torn:
                self._complain("no space left")

    def _complain(self, reason: str | None) -> None:
        if not self._complained:
            log.warning("the journal cannot be written: %s", reason)
        self._complained = True


def replay(lines: Iterable[bytes]) -> SessionRecord | None:
    """Read a journal's lines. None if it is no journal, or not one of this version. Pure.

    Lines that cannot be read are passed over, and so are records of kinds that are not known.
    """
    session: SessionRecord | None = None
    for line in lines:
        try:
            record = json.loads(line)
            if session is None:
                if record["natsup"] != VERSION:
                    return None
                session = SessionRecord(
                    Header(
                        str(record["session"]),
                        int(record["pid"]),
                        [str(word) for word in record["command"]],
                        float(record["started"]),
                    )
                )
            elif "gateway" in record:
                session.gateway = GatewayRecord(**record["gateway"])
            elif "port" in record:
                _replay_port(session, record)
            elif "client" in record:
                _replay_client(session, record["client"])
            elif "io_uring" in record:
                session.io_uring[int(record["io_uring"]["pid"])] = str(record["io_uring"]["name"])
        except (ValueError, KeyError, TypeError):
            if session is None:
                return None
    return session


def _replay_port(session: SessionRecord, record: dict[str, Any]) -> None:
    protocol, _, number = record["port"].partition("/")
    port = Port(Protocol(protocol), int(number))
    state = State(record["state"])
    if state is State.GONE:
        session.ports.pop(port, None)
        return
    expires = record["expires"]
    session.ports[port] = PortRecord(
        state,
        str(record["reason"]),
        None if expires is None else float(expires),
        int(record["claims"]),
        bool(record["exists"]),
        session.gateway.location if session.gateway else "",
    )


def _replay_client(session: SessionRecord, record: dict[str, Any]) -> None:
    client = ClientRecord(str(record["name"]), int(record["pid"]), str(record["reason"]))
    session.clients.pop(client.pid, None)
    session.clients[client.pid] = client
    if len(session.clients) > _MOST_CLIENTS:
        del session.clients[next(iter(session.clients))]


def read(path: Path) -> SessionRecord | None:
    """The session in a file; None if it is gone or no journal. Alive: somebody holds its lock."""
    try:
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                alive = False
            except BlockingIOError:
                alive = True
            except OSError:  # a file system without locks: better to wait than to remove
                alive = True
            session = replay(file)
    except OSError:
        return None
    if session is not None:
        session.alive, session.path = alive, path
    return session


def sessions(directory: Path) -> list[SessionRecord]:
    """Every session in a state folder, living and dead, the oldest first. Raises OSError if the
    folder is there and cannot be read."""
    folder = directory / "sessions"
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
    paths = [folder / name for name in names if name.endswith(".jsonl")]
    found = [session for session in map(read, paths) if session is not None]
    return sorted(found, key=lambda session: session.header.started)
