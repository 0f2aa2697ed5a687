"""Where natsup's log goes: never to a terminal, which belongs to the program.

The journal where systemd started the program; the standard error as PID 1 of a container, whose
engine collects it; else a file in the state folder. Nothing else of the program's is kept: whoever
reads from a pipe waits for its last writer, and natsup may outlive the program.

Whoever collects the log may be slow, or hang. What it does not take at once is dropped: a bind()
must not wait for it.
"""

import logging
import os
import socket
import stat
from collections.abc import Callable
from io import TextIOWrapper
from pathlib import Path

from natsup.state.files import open_regular

_JOURNAL = "/run/systemd/journal/socket"
_LONGEST = 1 << 20  # bytes, looked at when a session begins
_FORMAT = "%(asctime)s %(levelname)-7s %(message)s"


class JournalHandler(logging.Handler):
    """Writes records to journald's own socket, systemd-journald.service(8)."""

    def __init__(self, session: str) -> None:
        super().__init__()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._fields = f"SYSLOG_IDENTIFIER=natsup\nNATSUP_SESSION={session}\n".encode()

    def emit(self, record: logging.LogRecord) -> None:
        priority = 3 if record.levelno >= logging.ERROR else 4
        if record.levelno < logging.WARNING:
            priority = 6 if record.levelno >= logging.INFO else 7
        text = self.format(record).encode("utf-8", "replace")
        data = b"PRIORITY=%d\n%bMESSAGE\n" % (priority, self._fields)
        data += len(text).to_bytes(8, "little") + text + b"\n"
        try:
            self._socket.sendto(data, _JOURNAL)
        except OSError:
            self.handleError(record)

    def close(self) -> None:
        self._socket.close()
        super().close()


class StderrHandler(logging.Handler):
    """Writes lines to the standard error. Raises OSError where that cannot be opened anew.

    O_NONBLOCK belongs to the open file, which the program has too; hence one of natsup's own
    (proc_pid_fd(5)). A regular file never blocks, and has its end in the open file.
    """

    def __init__(self) -> None:
        super().__init__()
        if stat.S_ISREG(os.fstat(2).st_mode):
            fd = os.dup(2)
        else:
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            fd = os.open("/proc/self/fd/2", flags)
        self._file = open(fd, "wb", buffering=0)  # noqa: SIM115 - closed below

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._file.write(self.format(record).encode("utf-8", "replace") + b"\n")
        except OSError:
            self.handleError(record)

    def close(self) -> None:
        self._file.close()
        super().close()


class Held(logging.Handler):
    """Keeps records until `set_up`: calls are received before it is known where the log goes."""

    MOST = 1000

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        if len(self.records) < self.MOST:
            self.records.append(record)


def hold(*, verbose: bool) -> None:
    """From now on keep what is logged. It must come before anything is logged, or Python itself
    would print it."""
    top = logging.getLogger("natsup")
    top.addHandler(Held())
    top.propagate = False
    top.setLevel(logging.DEBUG if verbose else logging.INFO)


def set_up(where: str, *, file: str | None, folder: Path, session: str) -> None:
    """Send natsup's log to ``where``, beginning with what was held; ``file`` is what the user asked
    for, and comes first."""
    logging.raiseExceptions = False  # a log that cannot be written must not reach the program
    handler: logging.Handler
    if file is not None:
        handler = _file(Path(file), session, _open_at_once)
    elif where == "journal":
        handler = JournalHandler(session)
    elif where == "stderr":
        try:
            handler = StderrHandler()
        except OSError:  # ENXIO: a socket
            handler = _file(folder / "log", session, open_regular)
    else:
        handler = _file(folder / "log", session, open_regular)
    if not isinstance(handler, JournalHandler):
        handler.setFormatter(logging.Formatter(f"{_FORMAT} [{session}]"))
    top = logging.getLogger("natsup")
    top.addHandler(handler)
    for held in [found for found in top.handlers if isinstance(found, Held)]:
        top.removeHandler(held)
        for record in held.records:
            handler.handle(record)


class FileHandler(logging.FileHandler):
    """Writes to a file that is opened by ``opener`` (see open())."""

    def __init__(self, path: Path, opener: Callable[[str, int], int]) -> None:
        self._opener = opener
        super().__init__(path, encoding="utf-8")

    def _open(self) -> TextIOWrapper:
        return open(self.baseFilename, "a", encoding="utf-8", opener=self._opener)


def _open_at_once(path: str, flags: int) -> int:
    """What the user names may be a FIFO, or a terminal."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY, 0o666)


def _file(path: Path, session: str, opener: Callable[[str, int], int]) -> logging.Handler:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.is_file() and path.stat().st_size > _LONGEST:
            path.replace(path.with_name(path.name + ".old"))  # other sessions go on in that one
        return FileHandler(path, opener)
    except OSError:
        # Somebody who looks for a reason looks there next.
        return JournalHandler(session) if os.path.exists(_JOURNAL) else logging.NullHandler()
