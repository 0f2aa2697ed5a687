"""What a hook's command prints: its first lines go to natsup's log, the rest is thrown away.

It is read on the thread that answers bind(), and so a command that prints without end must cost
next to nothing there.
"""

import logging
import os

import trio

from natsup.state.report import printable

log = logging.getLogger("natsup.hooks")

MOST_LINES = 20  # of one command's output
_LONGEST_LINE = 500  # characters
_BYTES, _FLOOD = 1 << 12, 1 << 16  # that are read at a time: to be logged, to be thrown away
_PAUSE = 0.01  # seconds, in which a flood fills the pipe and has to wait


class Lines:
    """Chooses what is logged. Empty lines are not, but count."""

    def __init__(self) -> None:
        self.over = False  # whatever else comes is left out
        self._seen = 0
        self._begun = b""

    def take(self, data: bytes) -> list[str]:
        """The lines to be logged that end in ``data``; empty data is the end of the last one."""
        if self.over:
            return []
        *lines, self._begun = (self._begun + data).split(b"\n")
        if len(self._begun) > _LONGEST_LINE or (self._begun and not data):
            lines.append(self._begun)
            self._begun = b""
        found = list[str]()
        for line in lines:
            if self._seen == MOST_LINES:
                self.over = True
                return [*found, "(more is left out)"]
            self._seen += 1
            start = line[: _LONGEST_LINE * 4]  # UTF-8 has four bytes for a character at most
            text = printable(start.decode("utf-8", "replace").strip())[:_LONGEST_LINE]
            if text:
                found.append(text)
        return found


class Output:
    """Reads ``fd``, the end of a pipe, without blocking, for the command of this name. To be
    closed."""

    def __init__(self, name: str, fd: int) -> None:
        os.set_blocking(fd, False)  # this end alone: the command's is an open file of its own
        self.ended = False
        self._name = name
        self._fd = fd
        self._lines = Lines()

    async def follow(self) -> None:
        """Read until the last who may write to it has closed it."""
        while not self.ended:
            if not self._read():
                await trio.lowlevel.wait_readable(self._fd)
            elif self._lines.over:
                await trio.sleep(_PAUSE)

    def catch_up(self) -> None:
        """Log what is there by now."""
        while not self.ended and not self._lines.over and self._read():
            pass

    def close(self) -> None:
        self._say(b"")
        os.close(self._fd)

    def _read(self) -> bool:
        """Take something. False: there is nothing now."""
        try:
            data = os.read(self._fd, _FLOOD if self._lines.over else _BYTES)
        except BlockingIOError:
            return False
        self.ended = not data
        self._say(data)
        return True

    def _say(self, data: bytes) -> None:
        for line in self._lines.take(data):
            log.info("%s: %s", self._name, line)
