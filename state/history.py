"""The history: what happened to the ports of all sessions, in two files at most.

``history.jsonl`` in the state folder, one JSON object a line. Every session appends to it with one
write(2) at a time, which O_APPEND keeps whole. When it is full it becomes ``history.jsonl.old``.

What is said there already is not said again: a program that is refused or ignored as before, within
an hour, and the router's address; and of one session there are only so many lines an hour.

What two sessions do at once loses nothing. Only one can rename, by a lock on a file beside it, and
only the file that it found full. Whoever had opened that file before writes to it under its new
name; had it been thrown away meanwhile, the write is made once more.

Unlike the journal nothing is built on it, so nothing waits for it, and what cannot be written is
lost with one line in the log.
"""

import errno
import fcntl
import json
import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from natsup.state import aside
from natsup.state.backlog import Backlog
from natsup.state.files import open_regular
from natsup.state.happenings import FAILURES, Caller, Event, What, repeats
from natsup.state.model import Port

log = logging.getLogger("natsup.state")

NAME, OLD = "history.jsonl", "history.jsonl.old"
MOST = 1 << 20  # bytes in a file
_LOCK = "history.lock"
_WAITING = 4096  # events that are kept for a disk that is slow
_AT_ONCE = 64  # lines in a write
_AN_HOUR = 500  # events of a session, of the 5000 or so that the files have room for
_HOUR = 3600.0
_LONGEST_COMMAND, _LONGEST_REASON = 200, 300  # characters
_TRIES = 32
_PATIENCE, _PAUSE = 1.0, 0.005  # seconds


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the history."""

    time: float  # seconds of the wall clock
    session: str
    command: tuple[str, ...]  # cut, where it is long
    event: Event


def line_of(entry: Entry) -> bytes:
    """An entry as it stands in the file, with its end of line. Pure."""
    event = entry.event
    record: dict[str, Any] = {"time": round(entry.time, 3), "what": event.what.value}
    if event.port is not None:
        record["port"] = str(event.port)
    if event.caller is not None:
        record |= {"program": event.caller.name, "pid": event.caller.pid}
    record |= {"session": entry.session, "command": _cut(entry.command)}
    record["reason"] = event.reason[:_LONGEST_REASON]
    for name in ("external_address", "lease", "holder"):
        if getattr(event, name) is not None:
            record[name] = getattr(event, name)
    text = json.dumps(record, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace") + b"\n"  # as in the journal


def _cut(command: Sequence[str]) -> list[str]:
    left, words = _LONGEST_COMMAND, list[str]()
    for word in command:
        if len(word) > left:
            return [*words, word[: max(left, 0)] + "…"]
        words.append(word)
        left -= len(word) + 1
    return words


def entry_of(line: bytes) -> Entry | None:
    """Read a line; None if it is torn, or of a kind that is not known. Pure."""
    try:
        record = json.loads(line)
        port = caller = None
        if "port" in record:
            port = Port.read(record["port"])
        if "program" in record:
            caller = Caller(str(record["program"]), int(record["pid"]))
        moment = float(record["time"])
        if not math.isfinite(moment) or not 0 <= moment < 1e11:
            return None
        external, lease = record.get("external_address"), record.get("lease")
        holder = record.get("holder")
        event = Event(
            What(record["what"]),
            port,
            caller,
            str(record["reason"]),
            None if external is None else str(external),
            None if lease is None else int(lease),
            None if holder is None else str(holder),
        )
        words = tuple(str(word) for word in record["command"])
        return Entry(moment, str(record["session"]), words, event)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def read(directory: Path) -> Iterator[Entry] | None:
    """Every entry in a state folder, the oldest first; None if there is no history.

    Raises OSError if there is one and it cannot be read.
    """
    fds = opened(directory)
    return _entries(fds) if fds else None


def opened(directory: Path) -> list[int]:
    """The descriptors of the files that there are, the oldest first. Raises OSError."""
    fds: list[int] = []
    try:
        # In this order: a file that is renamed in between is found twice, and none is missed.
        for name in (NAME, OLD):
            try:
                fds.append(open_regular(directory / name, os.O_RDONLY))
            except FileNotFoundError:
                continue
    except OSError:
        for fd in fds:
            os.close(fd)
        raise
    if len(fds) == 2 and os.path.sameopenfile(*fds):
        os.close(fds.pop())
    return fds[::-1]


def _entries(fds: Sequence[int]) -> Iterator[Entry]:
    for fd in fds:
        with open(fd, "rb") as file:
            for line in file:
                entry = entry_of(line)
                if entry is not None:
                    yield entry


def last(directory: Path, event: Event) -> Entry | None:
    """What was written last of the same port, or of the router's address. Raises OSError."""
    needle = b'"what": "router"' if event.port is None else f'"port": "{event.port}"'.encode()
    for name in (NAME, OLD):
        try:
            data = (directory / name).read_bytes()
        except FileNotFoundError:
            continue
        found = data.rfind(needle)
        while found >= 0:
            begin = data.rfind(b"\n", 0, found) + 1
            entry = entry_of(data[begin : data.find(b"\n", found)])
            if entry is not None and entry.event.port == event.port:
                return entry
            found = data.rfind(needle, 0, begin)
    return None


def append(directory: Path, lines: Sequence[bytes], *, most: int = MOST) -> None:
    """Add lines to the history. Raises OSError; what was not written is lost.

    ``most``: bytes after which a file is full. The folder is not made: the journal has done so, and
    one that is gone was removed by somebody who wants it to stay so.
    """
    for start in range(0, len(lines), _AT_ONCE):
        _append(directory, b"".join(lines[start : start + _AT_ONCE]), most)


def _append(directory: Path, data: bytes, most: int) -> None:
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    for _ in range(_TRIES):
        fd = os.open(directory / NAME, flags, 0o600)
        try:
            status = os.fstat(fd)
            size = status.st_size
            overfull = size > 2 * most  # whoever renames it takes his time
            patience = _PATIENCE if overfull else 0.0
            if size and size + len(data) > most and _rotate(directory, status, patience):
                continue
            if overfull:  # it must not grow for ever
                raise OSError(errno.EFBIG, "it is full, and cannot be renamed")
            torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"  # a write that found no space
            whole = b"\n" * torn + data
            if os.write(fd, whole) < len(whole):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if os.fstat(fd).st_nlink:
                return
            # Two rotations have come between.
        finally:
            os.close(fd)
    raise OSError(errno.EBUSY, "it is always full")


def _rotate(directory: Path, found: os.stat_result, patience: float) -> bool:
    """Rename the file that was ``found`` full. True: there is, or may be, another one by now.

    ``patience``: seconds to wait for another session that is about to do it.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    lock = os.open(directory / _LOCK, flags, 0o600)
    try:
        if not _take(lock, patience):
            return False
        try:
            status = os.stat(directory / NAME)
        except FileNotFoundError:
            return True
        if os.path.samestat(status, found):
            os.rename(directory / NAME, directory / OLD)
        return True
    finally:
        os.close(lock)


def _take(lock: int, patience: float) -> bool:
    """Lock a file, within so many seconds. False, too, where the file system has no locks."""
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(_PAUSE)
        except OSError:
            return False
        else:
            return True


class History:
    """A session's part in the history. `run` must be running; `add` and `put` never
    block nor raise."""

    def __init__(
        self,
        directory: Path,
        session: str,
        command: Sequence[str],
        *,
        wall: Callable[[], float] = time.time,
        most: int = MOST,
        an_hour: int = _AN_HOUR,
        tell: Callable[[Entry], None] = lambda entry: None,
    ) -> None:
        """``tell`` hears of every entry at once, also of those that are one too many for the file;
        it must not block nor raise."""
        self._directory = directory
        self._session = session
        self._command = tuple(_cut(command))
        self._wall = wall
        self._most = most
        self._an_hour = an_hour
        self._tell = tell
        self._hour = -math.inf  # when the hour that is counted began
        self._count = 0
        self._waiting: deque[Entry] = deque()
        self._backlog = Backlog(self._take, self._write_aside)
        self._complained = False

    def add(self, event: Event) -> None:
        """Have an event of this session written soon."""
        now = self._wall()
        self._tell(Entry(now, self._session, self._command, event))
        if not 0 <= now - self._hour < _HOUR:
            self._hour, self._count = now, 0
        self._count += 1
        if self._count > self._an_hour + 1:
            return
        if self._count > self._an_hour:
            why = f"more than {self._an_hour} events of this session within an hour"
            event = Event(What.LEFT_OUT, reason=why)
        self._put(Entry(now, self._session, self._command, event))

    def put(self, entry: Entry) -> None:
        """Have an entry written soon, of whichever session."""
        self._tell(entry)
        self._put(entry)

    def _put(self, entry: Entry) -> None:
        if len(self._waiting) >= _WAITING:
            self._complain("the disk is too slow")
            return
        self._waiting.append(entry)
        self._backlog.wake()

    async def run(self) -> None:
        """Write what is added, until cancelled."""
        await self._backlog.run()

    async def close(self, budget: float) -> None:
        """Wait until everything is written, for ``budget`` seconds at most."""
        await self._backlog.close(budget)

    def _take(self) -> list[Entry]:
        entries = list(self._waiting)
        self._waiting.clear()
        return entries

    async def _write_aside(self, entries: Sequence[Entry]) -> None:
        # In a thread: a disk may hang, and a bind() must not wait for it.
        await aside.run(self._write, entries, abandon_on_cancel=True)

    def _write(self, entries: Sequence[Entry]) -> None:
        lines: list[bytes] = []
        try:
            for entry in entries:
                if entry.event.what in (What.ROUTER, *FAILURES):
                    append(self._directory, lines, most=self._most)  # to see what was said last
                    lines = []
                    before = last(self._directory, entry.event)
                    if before and repeats(entry.event, before.event, entry.time - before.time):
                        continue
                lines.append(line_of(entry))
            append(self._directory, lines, most=self._most)
        except OSError as error:
            self._complain(error.strerror)

    def _complain(self, reason: str | None) -> None:
        if not self._complained:
            log.warning(
                "the history in %s cannot be written: %s; natsup log will not show everything",
                self._directory,
                reason,
            )
        self._complained = True
