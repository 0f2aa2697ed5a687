"""The four ways to run a program, and a terminal to do it on."""

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

NATSUP = str(Path(sys.executable).with_name("natsup"))
PROBE = [sys.executable, "-S", str(Path(__file__).with_name("probe.py"))]
_PATIENCE = 30.0  # seconds, on a busy machine


class Way:
    """``prefix``: what stands before the program's own words. ``thorough``: try all there is, not
    some of it."""

    def __init__(self, name: str, prefix: list[str], environ: dict[str, str], folder: Path) -> None:
        self.name = name
        self.prefix = prefix
        self.environ = environ
        self.folder = folder
        self.thorough = False

    def run(
        self, *program: str, before: Sequence[str] = (), **options: object
    ) -> "subprocess.CompletedProcess[str]":
        """Run the program to its end. ``before``: a command that runs it."""
        given = {"capture_output": True, "text": True, "timeout": 60, "env": self.environ}
        return subprocess.run(  # type: ignore[call-overload, no-any-return]
            ["unshare", "--net", *before, *self.prefix, *program], **given | options
        )

    def shell(self, script: str, **options: object) -> "subprocess.CompletedProcess[str]":
        """Run a script of bash's, in which "$@" runs a program in this way."""
        words = ["unshare", "--net", "bash", "--norc", "-c", script, "bash", *self.prefix]
        given = {"capture_output": True, "text": True, "timeout": 60, "env": self.environ}
        return subprocess.run(words, **given | options)  # type: ignore[call-overload, no-any-return]

    @contextmanager
    def start(
        self, *program: str, before: Sequence[str] = (), **options: object
    ) -> Iterator["subprocess.Popen[str]"]:
        """The program, with pipes, in a process group of its own; its end is the block's."""
        given = {
            "stdin": subprocess.PIPE,
            "stdout": subprocess.PIPE,
            "text": True,
            "env": self.environ,
            "process_group": 0,
        }
        process = subprocess.Popen(  # type: ignore[call-overload]
            ["unshare", "--net", *before, *self.prefix, *program], **given | options
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                for number in (signal.SIGKILL, signal.SIGCONT):
                    os.killpg(process.pid, number)
                process.wait(_PATIENCE)
            for file in (process.stdin, process.stdout):
                if file is not None:
                    file.close()

    def launcher(self, pid: int, group: int, parent: int) -> int:
        """Whom the caller knows: the process that it has started."""
        return {"as parent": group, "tini": parent}.get(self.name, pid)


def ways(folder: Path) -> list[Way]:
    """The four, in the order of the table."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("NATSUP_", "PYTHON", "TMUX"))}
    environ = {**kept, "NATSUP_STATE_DIR": str(folder / "state"), "LC_ALL": "C.UTF-8"}
    prefixes: dict[str, list[str]] = {
        "bare": [],
        "in place": [NATSUP, "exec", "--"],
        "as parent": [NATSUP, "exec", "--as-parent", "--"],
        "tini": ["tini", "-s", "--"],
    }
    return [Way(name, prefix, environ, folder) for name, prefix in prefixes.items()]


class Terminal:
    """A terminal of 80 columns and 24 lines, and a session on it that ends with the block."""

    def __init__(self, words: Sequence[str], environ: dict[str, str]) -> None:
        self.output = b""
        self._seen = 0
        self._end, terminal = os.openpty()
        self.name = os.ttyname(terminal)
        self.resize(24, 80)
        command = ["setsid", "--ctty", "unshare", "--net", *words]
        self.process = subprocess.Popen(
            command, stdin=terminal, stdout=terminal, stderr=terminal, env=environ
        )
        os.close(terminal)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.hang_up()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(_PATIENCE)

    def resize(self, lines: int, columns: int) -> None:
        termios.tcsetwinsize(self._end, (lines, columns))

    def type(self, keys: str) -> None:
        os.write(self._end, keys.encode())

    def hang_up(self) -> None:
        if self._end >= 0:
            os.close(self._end)
            self._end = -1

    def until(self, pattern: str) -> "re.Match[bytes]":
        """Read until this comes, after what was found before."""
        deadline = time.monotonic() + _PATIENCE
        while (found := re.search(pattern.encode(), self.output[self._seen :], re.S)) is None:
            assert self._read(deadline), (pattern, self.output[self._seen :])
        self._seen += found.end()
        return found

    def rest(self) -> bytes:
        """Read to the end, which comes when nobody has the terminal open any more."""
        deadline = time.monotonic() + _PATIENCE
        while self._read(deadline):
            pass
        return self.output

    def _read(self, deadline: float) -> bool:
        if not select.select([self._end], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return False
        try:
            data = os.read(self._end, 65536)
        except OSError:  # EIO: the last one has closed it
            return False
        self.output += data
        return bool(data)


def until(condition: Callable[[], bool]) -> None:
    """Wait for it."""
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def state(pid: int) -> str:
    """The letter that proc_pid_stat(5) has for it; none if it has gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    return ""
