"""Changes in the state folder, as they come: nobody looks every second, and no session is asked.

Sessions write whatever changes into their journals and the history, and the kernel tells whoever
watches those files: inotify(7). A session that ends, by whatever end, closes its journal, which is
told as well. Its lock is free a moment after that; so there is a pause before anybody looks.
"""

import contextlib
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterable, Iterator
from enum import Flag, auto
from pathlib import Path

from natsup.state.history import NAME
from natsup.supervisor import libc

# linux/inotify.h
_MODIFY, _CLOSE_WRITE, _MOVED_FROM, _MOVED_TO = 0x2, 0x8, 0x40, 0x80
_CREATE, _DELETE, _ONLYDIR = 0x100, 0x200, 0x1000000
_OVERFLOW, _IGNORED, _ISDIR = 0x4000, 0x8000, 0x40000000
_MASK = _MODIFY | _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _ONLYDIR
_EVENT = struct.Struct("iIII")

_READS = 16  # at a time, of whoever writes without pause
SETTLE_SECONDS = 0.05  # after a change, for what comes with it


def told(data: bytes) -> list[tuple[int, int, str]]:
    """Of each event that inotify gave: the watch's number, its mask, and a file's name. Pure."""
    found, at = [], 0
    while at + _EVENT.size <= len(data):
        number, mask, _, length = _EVENT.unpack_from(data, at)
        at += _EVENT.size
        name = data[at : at + length].rstrip(b"\0")
        found.append((number, mask, os.fsdecode(name)))
        at += length
    return found


class Changes:
    """What changes in a state folder, which may be made only later. Raises OSError at first, where
    there are no more watches to be had."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._fd = libc.inotify_init()
        self._watches: dict[int, Path] = {}
        try:
            self._look()
        except OSError:
            self.close()
            raise

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        os.close(self._fd)

    def take(self) -> bool:
        """Take what there is. True: something has changed of what is shown."""
        found = False
        with contextlib.suppress(BlockingIOError):
            for _ in range(_READS):
                for number, mask, name in told(os.read(self._fd, 1 << 16)):
                    found = found or self._matters(number, mask, name)
        if found:
            with contextlib.suppress(OSError):  # it is tried again at the next change
                self._look()
        return found

    def _look(self) -> None:
        """Watch the folders that are there by now; for one that is not, the nearest one above.
        Raises OSError."""
        self._watches.clear()
        for folder in (self._directory / "sessions", self._directory, *self._directory.parents):
            try:
                number = libc.inotify_add_watch(self._fd, os.fsencode(folder), _MASK)
            except FileNotFoundError:
                continue
            self._watches[number] = folder
            if folder != self._directory / "sessions":
                return

    def _matters(self, number: int, mask: int, name: str) -> bool:
        if mask & (_OVERFLOW | _IGNORED):
            return True
        folder = self._watches.get(number)
        if folder is None:
            return False
        if folder == self._directory / "sessions":
            return name.endswith(".jsonl")
        if folder == self._directory:
            return name in (NAME, "sessions")
        return self._directory.is_relative_to(folder / name)


def none_left(directory: Path, error: OSError) -> str:
    """Why there is no `Changes`, for people."""
    return (
        f"changes in {directory} cannot be watched: {error.strerror}; sysctl fs.inotify shows what"
        " the system allows"
    )


class Why(Flag):
    """Why somebody who waited goes on."""

    TIME = 0
    CHANGED = auto()
    RESIZED = auto()
    STOPPED = auto()  # by Ctrl-Z: whoever paints the screen gives it back first


_SIGNALS = {signal.SIGWINCH: Why.RESIZED, signal.SIGTSTP: Why.STOPPED}


@contextlib.contextmanager
def waiting(changes: Changes, signals: Iterable[signal.Signals] = ()) -> Iterator["Waiting"]:
    """Wait for changes, and for some of `_SIGNALS`; in the main thread."""
    near, far = socket.socketpair()
    with near, far:
        far.setblocking(False)
        before = {one: signal.signal(one, lambda *_: None) for one in signals}
        wakeup = signal.set_wakeup_fd(far.fileno(), warn_on_full_buffer=False)
        try:
            yield Waiting(changes, near)
        finally:
            signal.set_wakeup_fd(wakeup)
            for one, handler in before.items():
                signal.signal(one, handler)


class Waiting:
    def __init__(self, changes: Changes, signals: socket.socket) -> None:
        self._changes = changes
        self._signals = signals
        self._poll = select.poll()
        self._poll.register(changes, select.POLLIN)
        self._poll.register(signals, select.POLLIN)
        self._poll.register(sys.stdout, 0)  # that its reader has gone

    def wait(self, seconds: float | None) -> Why:
        """For a change, or so many seconds. Raises SystemExit if nobody reads any more."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready = self._poll.poll(None if left is None else 1000 * left)
            if not ready:
                return Why.TIME
            why = Why.TIME
            for fd, events in ready:
                if fd == self._signals.fileno():
                    for number in self._signals.recv(64):
                        why |= _SIGNALS.get(signal.Signals(number), Why.TIME)
                elif fd != self._changes.fileno() and events & (select.POLLERR | select.POLLHUP):
                    raise SystemExit(128 + signal.SIGPIPE)
            if self._changes.take():
                time.sleep(SETTLE_SECONDS)
                self._changes.take()
                why |= Why.CHANGED
            if why:
                return why
