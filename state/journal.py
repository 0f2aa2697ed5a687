"""The journal: what a session has on the gateway, where its death cannot lose it.

One file a session, one JSON object a line, appended: the header, then the gateway whenever it is
another, then a line for every change of a port. A line reaches the file before the request that it
announces leaves. A person can read it, and a last line that was cut off is passed over.

The file is locked (flock(2)) for as long as the session lives. The lock belongs to the open file,
which guard and supervisor share, so it ends when the last of the two does.

A journal that has grown large is written anew, with what stands now. The new file takes the place
of the old one by rename(2) once it is whole, locked, and in the guard's hands, and only then is the
old one closed: whoever looks finds one of the two, and it is locked. Its lock can be free all the
same by the time that a reader who has opened the old file tries it; so he looks again.
"""

import contextlib
import errno
import fcntl
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from natsup.state import points
from natsup.state.files import check_link, check_owner, open_regular
from natsup.state.gateway import protocol_of
from natsup.state.ledger import Note, State
from natsup.state.model import Port

log = logging.getLogger("natsup.state")
VERSION = 1
MOST = 1 << 20  # bytes in a file, before it is written anew
_MOST_CLIENTS = 100  # of a session, that are shown
_DELETED = ".jsonl (deleted)"  # how proc_pid_fd(5) shows a journal that has been removed
# What a line that is none of ours may raise: JSON knows Infinity, and depth
_BROKEN = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
_UNREAD_SECONDS = 60.0  # in which a journal that is begun has been locked
_TRIES = 16  # at a journal that is written anew again and again


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
    boot: str = ""  # of the machine: what it calls this one (see `boot`)


@dataclass(frozen=True, slots=True)
class GatewayRecord:
    protocol: str
    location: str
    internal_address: str
    external_address: str | None  # "": it would not say; None: it was not asked yet


@dataclass(frozen=True, slots=True)
class PortRecord:
    """What stands about a port, as of its last line."""

    state: State
    reason: str
    expires: float | None  # wall clock; None: no lease, or nothing on the gateway
    claims: int
    exists: bool
    location: str  # of the gateway that it was made on, "" before there was one
    internal_address: str | None = None  # of a pinhole; a mapping's is that of the gateway's record
    handle: str = ""  # see `natsup.state.model.Mapped`
    since: float = 0.0  # wall clock: that it has been in this state
    released: bool = False  # by the user


@dataclass(frozen=True, slots=True)
class ClientRecord:
    """A program that was taken for a client, whose UDP ports are passed."""

    name: str
    pid: int
    reason: str
    since: float = 0.0  # wall clock
    until: float | None = None  # None: it is one still


@dataclass(frozen=True, slots=True)
class SocketRecord:
    """A socket that holds a port, or is about to: what it takes to find it again."""

    cookie: int
    ports: list[str]  # as `Port` is written: that it holds, by IPv4 and IPv6
    address: str  # 4 or 16 bytes in hexadecimal digits: what it is bound to
    domain: int
    protocol: int  # the kernel's number
    inode: int
    process: int
    name: str  # the program's, for people


@dataclass(slots=True)
class SessionRecord:
    """A journal, read."""

    header: Header
    gateway: GatewayRecord | None = None
    ports: dict[Port, PortRecord] = field(default_factory=dict)
    alive: bool = False
    path: Path | None = None
    clients: dict[int, ClientRecord] = field(default_factory=dict)  # that are now, by pid, latest
    io_uring: dict[int, str] = field(default_factory=dict)  # programs that use it, by pid
    sockets: dict[int, SocketRecord] = field(default_factory=dict)  # by cookie
    supervisor: int = 0  # the pid of its supervisor
    supervisors: int = 0  # how many have begun to serve it
    page: int = 0  # the version of what supervisor and guard share
    given_up: bool = False  # its supervisors have ended, one after the other


class Journal:
    """A session's own journal, open for appending. No method raises: a session goes on without
    its journal, says so once in the log, and then only its own end cleans up after it."""

    def __init__(self, path: Path | None, fd: int | None, most: int = MOST) -> None:
        self._path = path
        self._fd = fd
        self._complained = False
        self._torn = False  # does the file end within a line?
        self._size = 0  # bytes that were written to it
        self._most = self._limit = most
        # What stands now, line by line
        self._header = b""
        self._gateways: dict[str, bytes] = {"": b""}  # by location, the latest last
        self._pinholes: GatewayRecord | None = None  # by which pinholes are made
        self._ports: dict[Port, tuple[str, bytes]] = {}  # with the gateway's location
        self._since: dict[Port, tuple[State, float]] = {}
        self._clients: dict[int, bytes] = {}
        self._io_uring: dict[int, bytes] = {}
        self._sockets: dict[int, bytes] = {}
        self._supervisor = b""
        # Gives another descriptor to the guard, which keeps that and the one before. False: not
        # now.
        self.hand_on: Callable[[int], bool] = lambda fd: True

    @classmethod
    def create(cls, directory: Path, header: Header, *, most: int = MOST) -> "Journal":
        """Make and lock the journal of a new session in the state folder ``directory``. ``most``:
        bytes, after which it is written anew."""
        path = directory / "sessions" / f"{header.session}.jsonl"
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            journal = cls(path, _locked(unread(path)), most)
            if points.STOP_AT:
                points.reached("create")
            unread(path).rename(path)
        except OSError as error:
            log.warning(
                "no journal (%s: %s): should natsup be killed, its ports stay on the router until"
                " their lease ends; NATSUP_STATE_DIR names a folder that can be written",
                path,
                error.strerror,
            )
            return cls(None, None)
        journal._header = journal._append({"natsup": VERSION, **asdict(header)})
        return journal

    @classmethod
    def resume(
        cls, fds: Iterable[int], *, most: int = MOST
    ) -> "tuple[Journal, SessionRecord] | None":
        """Go on with the journal of a supervisor that has ended, and left these descriptors of it.
        They stay open, one of them as the journal's own; its file may have been removed meanwhile.
        None if none of them is a journal that can be read."""
        for fd in reversed(list(fds)):
            try:
                path: Path | None = Path(os.readlink(f"/proc/self/fd/{fd}"))
                data = Path(f"/proc/self/fd/{fd}").read_bytes()
            except OSError:
                continue
            if path is not None and path.name.endswith(_DELETED):
                path = None  # with the state folder, perhaps
            elif path is None or path.suffix != ".jsonl":
                continue
            lines = data.splitlines(keepends=True)
            session = replay(lines)
            if session is None:
                continue
            journal = cls(path, fd, most)
            journal._size, journal._torn = len(data), not data.endswith(b"\n")
            journal._recall(lines)
            return journal, session
        return None

    def _recall(self, lines: list[bytes]) -> None:
        """Sort what stands in the file, for when it is to be written anew."""
        self._header = lines[0]
        for line in lines[1:]:
            try:
                record = json.loads(line)
                if "gateway" in record:
                    self._gateways.pop(record["gateway"]["location"], None)
                    self._gateways[record["gateway"]["location"]] = line
                elif "port" in record:
                    port, state = Port.read(record["port"]), State(record["state"])
                    self._stands(port, state, line)
                    self._begin(port, state, _since(record))
                    if port.ipv6 and record.get("location") and record.get("internal_address"):
                        location = str(record["location"])
                        address = str(record["internal_address"])
                        self._pinholes = GatewayRecord(
                            protocol_of(location), location, address, None
                        )
                elif "socket" in record:
                    self._sockets[int(record["socket"]["cookie"])] = line
                elif "ended" in record:
                    self._sockets.pop(int(record["ended"]), None)
                elif "io_uring" in record:
                    self._io_uring[int(record["io_uring"]["pid"])] = line
            except _BROKEN:
                continue

    def _stands(self, port: Port, state: State, line: bytes) -> None:
        self._ports.pop(port, None)
        if state is not State.GONE:
            self._ports[port] = (next(reversed(self._gateways)), line)

    def _begin(self, port: Port, state: State, now: float) -> float:
        """Since when a port has been in this state, if it is by ``now``."""
        before = self._since.pop(port, None)
        since = before[1] if before is not None and before[0] is state else now
        if state is not State.GONE:
            self._since[port] = state, since
        return since

    def fileno(self) -> int | None:
        """The descriptor that holds the lock; None where there is no journal."""
        return self._fd

    def gateway(self, record: GatewayRecord) -> None:
        """Ports are on this one from now on; if its address of ours is one of IPv6, pinholes are,
        and it stands in the line of each of them."""
        if ":" in record.internal_address:
            self._pinholes = record
            return
        self._gateways.pop(record.location, None)
        self._gateways[record.location] = self._append({"gateway": asdict(record)})
        self._compact()

    def client(self, record: ClientRecord, *, wall: float) -> None:
        """A program was taken for a client, or is one no more."""
        self._clients.pop(record.pid, None)
        line = self._append({"client": asdict(record)}, wall)
        if record.until is None:
            self._clients[record.pid] = line
        while len(self._clients) > _MOST_CLIENTS:
            del self._clients[next(iter(self._clients))]
        self._compact()

    def io_uring(self, name: str, pid: int, *, wall: float) -> None:
        """A program uses io_uring, by which it can bind unseen."""
        self._io_uring[pid] = self._append({"io_uring": {"name": name, "pid": pid}}, wall)
        self._compact()

    def note(self, note: Note, *, now: float, wall: float) -> None:
        """Write a ledger's note down; ``now`` and ``wall``: its clock, and the wall's."""
        expires = None if note.expires is None else round(wall + note.expires - now, 3)
        since = self._begin(note.port, note.state, round(wall, 3))
        record = {
            "port": str(note.port),
            "state": note.state.value,
            "reason": note.reason,
            "expires": expires,
            "claims": note.claims,
            "exists": note.exists,
            "since": since,
        }
        if note.released:
            record["released"] = True
        if note.port.ipv6 and self._pinholes is not None:
            record["location"] = self._pinholes.location
            record["internal_address"] = self._pinholes.internal_address
        if note.handle:
            record["handle"] = note.handle
        self._stands(note.port, note.state, self._append(record, wall))
        self._compact()

    def socket(self, record: SocketRecord) -> None:
        """A socket is about to hold a port."""
        self._sockets[record.cookie] = self._append({"socket": asdict(record)})
        self._compact()

    def ended(self, cookie: int) -> None:
        """A socket holds no port, or none any more. One that is not known is passed over."""
        if self._sockets.pop(cookie, None) is not None:
            self._append({"ended": cookie})
            self._compact()

    def supervisor(self, pid: int, number: int, page: int) -> None:
        """Who serves the session from now on, as which of its supervisors, from 1 on. ``page``: the
        version of what it shares with the guard."""
        self._supervisor = self._append({"supervisor": pid, "number": number, "page": page})

    def end(self, *, left: bool) -> None:
        """The session is over. Without anything left on the gateway the journal is over, too."""
        if self._path is not None and not left:
            try:
                remove(self._path)
            except OSError as error:
                log.warning("the journal %s cannot be removed: %s", self._path, error.strerror)
        if self._fd is not None:
            os.close(self._fd)
        self._fd = self._path = None

    def _compact(self) -> None:
        """Write the journal anew if it has grown large."""
        if self._fd is None or self._path is None or self._size <= self._limit:
            return
        if points.STOP_AT:
            points.reached("compact")
        new = unread(self._path)
        data = self._what_stands()
        # Where it does not work, or does not help, it is not tried at every line.
        self._limit = max(self._most, 2 * len(data), self._size + self._most // 2)
        fd, handed = -1, False
        try:
            new.unlink(missing_ok=True)  # a supervisor has ended in the middle of this
            fd = _locked(new)
            if os.write(fd, data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if points.STOP_AT:
                points.reached("written")
            handed = self.hand_on(fd)
            if not handed:
                raise OSError(errno.EAGAIN, "the guard is busy")
            if points.STOP_AT:
                points.reached("handed")
            new.rename(self._path)
            if points.STOP_AT:
                points.reached("renamed")
        except OSError as error:
            log.info("the journal cannot be written anew: %s", error.strerror)
            if fd >= 0:
                os.close(fd)
                with contextlib.suppress(OSError):
                    new.unlink()
            if handed:
                self.hand_on(self._fd)  # the guard is to keep this one when there is a third
            return
        old, self._fd, self._size, self._torn = self._fd, fd, len(data), False
        self._limit = max(self._most, 2 * len(data))
        os.close(old)

    def _what_stands(self) -> bytes:
        """In the order that it has to be read in: a port is on the gateway that was named last."""
        lines = [self._header]
        latest = next(reversed(self._gateways))
        for location, gateway in self._gateways.items():
            ports = [line for where, line in self._ports.values() if where == location]
            if ports or location == latest:
                lines += [gateway, *ports]
        lines += [*self._clients.values(), *self._io_uring.values(), *self._sockets.values()]
        lines.append(self._supervisor)
        return b"".join(lines)

    def _append(self, record: dict[str, Any], wall: float | None = None) -> bytes:
        """Returns the line, with its end."""
        if self._fd is None:
            return b""
        stamp = round(time.time() if wall is None else wall, 3)
        text = json.dumps({"time": stamp, **record}, ensure_ascii=False)
        # What is no UTF-8 in a command line becomes an escape of JSON's: \udcff
        line = text.encode("utf-8", "backslashreplace") + b"\n"
        whole = b"\n" * self._torn + line
        try:
            written = os.write(self._fd, whole)
        except OSError as error:
            self._complain(error.strerror)
        else:
            self._size += written
            self._torn = written < len(whole)
            if self._torn:
                self._complain("no space left")
        return line

    def _complain(self, reason: str | None) -> None:
        if not self._complained:
            log.warning("the journal cannot be written: %s", reason)
        self._complained = True


def boot() -> str:
    """What names the machine's life since it was started, in which cookies name sockets: random(4).
    "" without /proc. The wall clock does not tell: it may have been set since."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def unread(path: Path) -> Path:
    """What a journal is called before it is locked: nobody reads it, nor takes its lock."""
    return path.with_suffix(".new")


def extend(
    path: Path,
    port: Port,
    known: PortRecord,
    *,
    expires: float | None,
    handle: str = "",
    wall: float,
) -> None:
    """Write into a dead session's journal that a port's lease now ends at ``expires``, and by what
    ``handle`` the router knows it. Where that does not work it is renewed too early the next time,
    which does no harm."""
    record: dict[str, Any] = {
        "time": round(wall, 3),
        "port": str(port),
        "state": known.state.value,
        "reason": known.reason,
        "expires": None if expires is None else round(expires, 3),
        "claims": known.claims,
        "exists": True,
        "since": known.since,
        "location": known.location,
    }
    if known.internal_address is not None:
        record["internal_address"] = known.internal_address
    if handle:
        record["handle"] = handle
    with (
        contextlib.suppress(OSError),
        open(open_regular(path, os.O_WRONLY | os.O_APPEND), "ab", buffering=0) as file,
    ):
        file.write(b"\n" + json.dumps(record).encode() + b"\n")


def check_folder(directory: Path) -> None:
    """Raises OSError where this user had better not clean up what sessions left."""
    with contextlib.suppress(FileNotFoundError):
        check_owner(directory / "sessions")


def remove(path: Path) -> None:
    """Remove a dead session's journal, and what it may have been about to write anew. Raises
    OSError."""
    path.unlink(missing_ok=True)
    unread(path).unlink(missing_ok=True)


def remove_unread(directory: Path, *, wall: float) -> None:
    """Remove what sessions left that ended while they wrote a journal that nobody has read yet.
    Raises OSError."""
    for path in directory.glob("sessions/*.new"):
        try:
            fd = open_regular(path, os.O_RDONLY)
        except OSError:  # it has gone, or is none of ours
            continue
        with open(fd, "rb") as file, contextlib.suppress(FileNotFoundError):
            if wall - os.fstat(file.fileno()).st_mtime < _UNREAD_SECONDS:
                continue  # it may not be locked yet
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                path.unlink()


def _locked(path: Path) -> int:
    """Make and lock a file of a session's own. Returns its descriptor; raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
    fd = os.open(path, flags, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        with contextlib.suppress(OSError):
            path.unlink()
        raise
    return fd


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
                        [str(word) for word in record["command"]] or ["?"],
                        _moment(record["started"]),
                        str(record.get("boot", "")),
                    )
                )
            elif "gateway" in record:
                session.gateway = _gateway(record["gateway"])
            elif "port" in record:
                _replay_port(session, record)
            elif "client" in record:
                _replay_client(session, record["client"])
            elif "io_uring" in record:
                session.io_uring[int(record["io_uring"]["pid"])] = str(record["io_uring"]["name"])
            elif "socket" in record:
                known = _socket(record["socket"])
                session.sockets[known.cookie] = known
            elif "ended" in record:
                session.sockets.pop(int(record["ended"]), None)
            elif "supervisor" in record:
                session.supervisor, session.given_up = int(record["supervisor"]), False
                session.supervisors = int(record["number"])
                session.page = int(record["page"])
            elif "given_up" in record:
                session.given_up = True
        except _BROKEN:
            if session is None:
                return None
    return session


def _moment(value: Any) -> float:
    """Seconds of the wall clock that a calendar has. Raises ValueError and TypeError."""
    moment = float(value)
    if not 0 <= moment < 1e11:  # nor NaN
        raise ValueError("no time")
    return moment


def _gateway(record: Any) -> GatewayRecord:
    external = record["external_address"]
    return GatewayRecord(
        str(record["protocol"]),
        str(record["location"]),
        str(record["internal_address"]),
        None if external is None else str(external),
    )


def _socket(record: dict[str, Any]) -> SocketRecord:
    ports = [str(Port.read(str(port))) for port in record["ports"]]
    if not ports:
        raise ValueError("a socket without a port")
    return SocketRecord(
        int(record["cookie"]),
        ports,
        bytes.fromhex(record["address"]).hex(),
        int(record["domain"]),
        int(record["protocol"]),
        int(record["inode"]),
        int(record["process"]),
        str(record["name"]),
    )


def _replay_port(session: SessionRecord, record: dict[str, Any]) -> None:
    port = Port.read(record["port"])
    state = State(record["state"])
    if state is State.GONE:
        session.ports.pop(port, None)
        return
    expires = record["expires"]
    there = session.gateway.location if session.gateway and not port.ipv6 else ""
    address = record.get("internal_address")
    session.ports[port] = PortRecord(
        state,
        str(record["reason"]),
        None if expires is None else _moment(expires),
        int(record["claims"]),
        bool(record["exists"]),
        str(record.get("location", there)),
        None if address is None else str(address),
        str(record.get("handle", "")),
        _since(record),
        record.get("released") is True,
    )


def _since(record: dict[str, Any]) -> float:
    """Of a port's line."""
    return _moment(record.get("since", record.get("time", 0.0)))


def _replay_client(session: SessionRecord, record: dict[str, Any]) -> None:
    pid, since = int(record["pid"]), _moment(record.get("since", 0.0))
    client = ClientRecord(str(record["name"]), pid, str(record["reason"]), since)
    session.clients.pop(pid, None)
    if record.get("until") is None:
        session.clients[pid] = client
    if len(session.clients) > _MOST_CLIENTS:
        del session.clients[next(iter(session.clients))]


def read(path: Path) -> SessionRecord | None:
    """The session in a file; None if it is gone or no journal. Alive: somebody holds its lock."""
    for _ in range(_TRIES):
        try:
            with open(open_regular(path, os.O_RDONLY), "rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    alive = False
                except BlockingIOError:
                    alive = True
                except OSError:  # a file system without locks: better to wait than to remove
                    alive = True
                if not alive and not os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    continue  # it was written anew meanwhile
                session = replay(file)
        except OSError:
            return None
        if session is not None:
            session.alive, session.path = alive, path
        return session
    return None


def sessions(directory: Path) -> list[SessionRecord]:
    """Every session in a state folder, living and dead, the oldest first. Raises OSError if the
    folder is there and cannot be read."""
    folder = directory / "sessions"
    try:
        check_link(folder)
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
    paths = [folder / name for name in names if name.endswith(".jsonl")]
    found = [session for session in map(read, paths) if session is not None]
    return sorted(found, key=lambda session: session.header.started)
