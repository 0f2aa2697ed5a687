"""A program for tests that does what it is told, line by line, and answers each line with one."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.lab.lab import Lab

NATSUP = str(Path(sys.executable).with_name("natsup"))

_SOURCE = """
import errno, json, os, socket, sys, threading, time
def greet(server):
    while True:
        client, _ = server.accept()
        client.sendall(b"here")
        client.close()
names = dict(globals())
for line in sys.stdin:
    try:
        try: answer = eval(line, names)
        except SyntaxError: exec(line, names); answer = None
    except OSError as error: answer = errno.errorcode[error.errno]
    try: text = json.dumps(answer)
    except TypeError: text = "null"
    print(text, flush=True)
"""


PATIENT = ("--timeout", "10", "--startup-timeout", "10")


class Program:
    """Python under `natsup exec` on a host of the lab.

    ``words``: options of `natsup exec`; ``prefix``: a command that runs it, for another user, say;
    ``within``: makes of all this the command that runs it, in a container, say.
    A bind() waits for the router as long as it must: who looks at what a short budget does gives
    one. With that of a person a busy machine would let ports be mapped after their bind().
    """

    def __init__(
        self,
        lab: Lab,
        folder: Path,
        *words: str,
        host: str = "lan1",
        prefix: Sequence[str] = (),
        pass_fds: Sequence[int] = (),
        within: Callable[[list[str]], list[str]] = list,
        stderr: int | None = None,
    ) -> None:
        self.state = folder / f"state-{host}"
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("NATSUP_", "PYTHON"))}
        self.environ = {**environ, "NATSUP_STATE_DIR": str(self.state)}
        self._lab = lab
        self._host = host
        self.process = lab.popen(
            host,
            within(
                [*prefix, NATSUP, "exec", *PATIENT, *words, "--", sys.executable, "-c", _SOURCE]
            ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=self.environ,
            pass_fds=pass_fds,
        )

    def do(self, line: str) -> Any:
        """Run a line of Python in the program. Its value; the name of its errno if it failed."""
        self.tell(line)
        return self.answer()

    def tell(self, line: str) -> None:
        """Send a line; `answer` brings what came of it."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the program has ended"
        return json.loads(line)

    def bind(self, name: str, port: int, kind: str = "STREAM", family: str = "INET") -> Any:
        """A new socket under this name, bound to the wildcard. None, or the name of an errno."""
        self.do(f"{name} = socket.socket(socket.AF_{family}, socket.SOCK_{kind})")
        return self.do(f"{name}.bind(('', {port}))")

    def serve(self, name: str) -> None:
        """Have a bound TCP socket answer everybody who connects, in the background."""
        self.do(f"{name}.listen()")
        self.do(f"threading.Thread(target=greet, args=({name},), daemon=True).start()")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    @cached_property
    def pid(self) -> int:
        """The program's own; as parent it is a grandchild's. To be asked for before it is busy."""
        return int(self.do("os.getpid()"))

    def behind(self) -> list[int]:
        """The pids of its supervisor and guard."""
        found = self.holders()
        assert len(found) == 2
        return sorted(found)

    def holders(self) -> set[int]:
        """The pids of those who hold its session's journal open, guard and supervisor."""
        (journal,) = (
            path
            for path in self.state.glob("sessions/*")
            if json.loads(path.read_text().split("\n")[0])["pid"] == self.pid
        )
        found = set()
        for link in Path("/proc").glob("[0-9]*/fd/*"):
            with contextlib.suppress(OSError):
                if os.readlink(link) == str(journal):
                    found.add(int(link.parts[2]))
        return found

    def alone(self) -> None:
        """Kill supervisor and guard. Each would see to it that the other one has a successor, and
        so both are stopped first."""
        pids = self.behind()
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in pids:
                os.kill(pid, number)

    def supervisor(self) -> int:
        """The pid of its supervisor, by its session's journal."""
        (session,) = [s for s in self.status() if s["pid"] == self.pid]
        return int(session["supervisor"])

    def guard(self) -> int:
        """The pid of its guard."""
        (pid,) = set(self.behind()) - {self.supervisor()}
        return pid

    def status(self) -> list[dict[str, Any]]:
        """The sessions that `natsup status --json` shows on this host."""
        done = self._lab.run(self._host, [NATSUP, "status", "--json"], env=self.environ)
        sessions: list[dict[str, Any]] = json.loads(done.stdout)["sessions"]
        return sessions

    def history(self) -> list[dict[str, Any]]:
        """What `natsup log --json` shows on this host."""
        done = self._lab.run(self._host, [NATSUP, "log", "--json"], env=self.environ)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def log(self) -> str:
        """What natsup has logged on this host."""
        try:
            return (self.state / "log").read_text()
        except FileNotFoundError:
            return ""
