"""A terminal, as a person sees it: pyte keeps the screen."""

import os
import select
import subprocess
import termios
import time
from collections.abc import Callable, Sequence
from typing import Self

import pyte

_PATIENCE = 30.0  # seconds, on a busy machine


class Terminal:
    """A session on a terminal of its own, which ends with the block."""

    def __init__(
        self, words: Sequence[str], environ: dict[str, str], *, columns: int = 100, lines: int = 30
    ) -> None:
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        self.output = b""
        self._end, self._terminal = os.openpty()
        termios.tcsetwinsize(self._end, (lines, columns))
        self.process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *words],
            stdin=self._terminal,
            stdout=self._terminal,
            stderr=self._terminal,
            env=environ,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(_PATIENCE)
        os.close(self._end)
        os.close(self._terminal)

    def resize(self, columns: int, lines: int) -> None:
        self.screen.resize(lines, columns)
        termios.tcsetwinsize(self._end, (lines, columns))

    def type(self, keys: str) -> None:
        os.write(self._end, keys.encode())

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip()

    @property
    def settings(self) -> list[object]:
        """What stty(1) shows."""
        return termios.tcgetattr(self._terminal)

    def until(self, holds: Callable[[], bool]) -> None:
        """Read until it holds of what is on the screen."""
        deadline = time.monotonic() + _PATIENCE
        while not holds():
            assert time.monotonic() < deadline, self.text
            self._read(0.1)

    def shows(self, *words: str) -> None:
        """Wait until all of this is on the screen."""
        self.until(lambda: all(one in self.text for one in words))

    def end(self) -> int:
        """Read to the end. Returns the exit status."""
        self.until(lambda: self.process.poll() is not None)
        while self._read(0.0):
            pass
        return self.process.returncode

    def _read(self, seconds: float) -> bool:
        if not select.select([self._end], [], [], seconds)[0]:
            return False
        data = os.read(self._end, 1 << 16)
        self.output += data
        self._stream.feed(data)
        return True

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.type("\x03")

    def child(self) -> int:
        """The pid of what runs on it, of which setsid(1) may be the parent."""
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children") as file:
            children = file.read().split()
        return int(children[0]) if children else self.process.pid
