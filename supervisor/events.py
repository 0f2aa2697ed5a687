"""What happens to ports as JSON lines, for whoever reads: --events.

Opening and writing are done in a thread, and may block there: a reader that is slow or away loses
events, and nobody waits for it. A FIFO or a socket whose reader has gone is opened anew for the
next event; a descriptor cannot be.
"""

import contextlib
import errno
import json
import logging
import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence

import trio

from natsup.state.backlog import Backlog
from natsup.state.chronicle import as_json
from natsup.state.happenings import Event, What
from natsup.state.history import Entry
from natsup.supervisor.options import UNIX

log = logging.getLogger("natsup.events")

MOST = 1024  # events that are kept for a reader that is slow
_AT_ONCE = 64


def line_of(entry: Entry) -> bytes:
    """An event as `natsup log --json` shows it, with its end of line. Pure."""
    return json.dumps(as_json(entry)).encode() + b"\n"


class Events:
    """``where``: a descriptor, ``unix:PATH`` or a file. `run` must be running; `tell` never blocks
    nor raises."""

    def __init__(self, where: int | str, *, wall: Callable[[], float] = time.time) -> None:
        self._where = where
        self._wall = wall
        self._fd = where if isinstance(where, int) else -1
        self._waiting: deque[Entry] = deque()
        self._lost: list[Entry] = []  # the first of those that were too many, and
        self._count = 0  # how many there were
        self._backlog = Backlog(self._next, self._write_aside)
        self._over = False  # nobody will ever read
        self._complained = False

    def tell(self, entry: Entry) -> None:
        """Have an event written soon."""
        if self._over:
            return
        if len(self._waiting) >= MOST:
            self._lost = self._lost or [entry]
            self._count += 1
            return
        self._waiting.append(entry)
        self._backlog.wake()

    async def run(self) -> None:
        """Write what is told, until cancelled."""
        await self._backlog.run()

    async def close(self, budget: float) -> None:
        """Wait until everything is written, for ``budget`` seconds at most."""
        await self._backlog.close(budget)

    def _next(self) -> list[Entry]:
        """Some of what is to be written; after the last of what was kept, what was lost."""
        entries = [self._waiting.popleft() for _ in range(min(_AT_ONCE, len(self._waiting)))]
        if self._count and not self._waiting:
            (first,) = self._lost
            why = f"{self._count} events for which the reader was too slow"
            event = Event(What.LEFT_OUT, reason=why)
            entries.append(Entry(self._wall(), first.session, first.command, event))
            self._lost, self._count = [], 0
        return entries

    async def _write_aside(self, entries: Sequence[Entry]) -> None:
        try:
            await trio.to_thread.run_sync(self._write, entries, abandon_on_cancel=True)
        except RuntimeError:  # no thread can be started, and without one a reader holds all up
            self._complain("there are too many processes")

    def _write(self, entries: Sequence[Entry]) -> None:
        """In a thread."""
        data = b"".join(map(line_of, entries))
        try:
            if self._fd < 0:
                self._fd = self._open()
            while data:
                data = data[self._write_some(data) :]
        except OSError as error:
            self._complain("nobody reads" if error.errno == errno.EPIPE else error.strerror)
            if isinstance(self._where, int):
                self._over = True
            elif self._fd >= 0:
                with contextlib.suppress(OSError):
                    os.close(self._fd)
                self._fd = -1
        else:
            self._complained = False

    def _open(self) -> int:
        assert isinstance(self._where, str)
        if not self._where.startswith(UNIX):
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
            return os.open(self._where, flags, 0o600)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.connect(self._where.removeprefix(UNIX))
            return sock.detach()

    def _write_some(self, data: bytes) -> int:
        while True:
            try:
                return os.write(self._fd, data)
            except BlockingIOError:  # who gave the descriptor wants it so
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                poll.poll()

    def _complain(self, why: str | None) -> None:
        if not self._complained:
            log.warning("events are lost: %s: %s", self._where, why)
        self._complained = True
