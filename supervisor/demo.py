"""`natsup demo`: the main job, shown live, with no router and no root needed."""

import contextlib
import io
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from natsup.supervisor import abi, libc
from natsup.supervisor.namespaces import HERE, OTHER, OUTSIDE, ROUTER, NamespacesRefused, Network

_PORT = 6881
_RANGE = f"{_PORT}-{_PORT + 9}"
_SERVER = f"server {_RANGE}"
_PATIENCE = 20.0  # seconds for anything to come about
_MODULE = [sys.executable, "-P", "-m"]
_ADDRESSES = ["--internal", ROUTER, "--external", OUTSIDE]
_PICTURE = f"""\
    this host   {HERE} ┐
                             ├ {ROUTER}  router  {OUTSIDE} ── the Internet
    other host  {OTHER} ┘
"""
_INSTEAD = """\
natsup demo: this system does not permit {reason}.
What works instead:
  sudo natsup demo                  as root it needs no user namespace
  natsup exec -v -- COMMAND         with your real router; then, in another terminal:
  natsup status
"""


class Surprise(Exception):
    """Something did not come about as the story goes."""


def main() -> int:
    """Returns the exit status: 0 if everything went as told, 1 if not, 125 if nothing could."""
    for output in (sys.stdout, sys.stderr):
        assert isinstance(output, io.TextIOWrapper)
        output.reconfigure(line_buffering=True, errors="replace")
    signal.signal(signal.SIGTERM, _interrupt)  # so that nothing stays behind
    signal.signal(signal.SIGHUP, _interrupt)
    try:
        return _show()
    except KeyboardInterrupt as error:
        return 128 + (error.args[0] if error.args else signal.SIGINT)
    except BrokenPipeError:
        os.dup2(os.open("/dev/null", os.O_WRONLY), 1)  # for Python's own last flush
        return 128 + signal.SIGPIPE
    except OSError as error:
        os.dup2(os.open("/dev/null", os.O_WRONLY), 1)
        print(f"natsup demo: cannot go on: {error.strerror or error}", file=sys.stderr)
        return 125


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt(number)


def _show() -> int:
    libc.prctl(abi.PR_SET_CHILD_SUBREAPER, 1)  # the supervisors are to be waited for
    folder = tempfile.mkdtemp(prefix="natsup-demo-")
    try:
        with Network() as network:
            story = _Story(network, folder)
            try:
                story.tell()
            finally:
                story.end()
    except NamespacesRefused as error:
        print(_INSTEAD.format(reason=error), end="", file=sys.stderr)
        return 125
    except Surprise as error:
        print(f"\nnatsup demo: {error}", file=sys.stderr)
        return 1
    finally:
        _wait_for_supervisors()
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def _wait_for_supervisors() -> None:
    """Their programs have been killed, and they clean up: in the folder, too."""
    deadline = time.monotonic() + _PATIENCE
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < deadline:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.02)


class _Story:
    def __init__(self, network: Network, folder: str) -> None:
        self._network = network
        self._environ = {
            **os.environ,
            "NATSUP_STATE_DIR": f"{folder}/state",
            "NATSUP_CONFIG": "none",
            "XDG_CACHE_HOME": f"{folder}/cache",
        }
        self._say = print
        self._servers: list[subprocess.Popen[str]] = []
        # A program by a name that says what it is, in natsup status too
        self._program = f"{folder}/server"
        source = Path(__file__).with_name("demo_program.py").read_text(encoding="utf-8")
        Path(self._program).write_text(source, encoding="utf-8")

    def tell(self) -> None:
        say = self._say
        say("natsup demo: a home network inside this computer. Nothing outside of it is touched.\n")
        say(_PICTURE)
        router = self._start("router", ["natsup.supervisor.cli", "gateway", *_ADDRESSES])
        self._line(router, "router: ready", "the router")

        say("1. Nobody has asked the router for anything.")
        self._visit(_PORT, None)

        say(f"\n2. This host:  natsup exec -- {_SERVER}")
        server = self._serve("here", "hello from this host")
        held = self._expect_bind(server, _PORT, "ok")
        self._line(router, f"tcp/{_PORT} → {HERE}", "the mapping")
        say(f"     bind({_PORT}) was held for {held} ms (the first one also waits until the router")
        say("     has been found); meanwhile natsup had the router map it:")
        say(f"     router: tcp/{_PORT} → {HERE}")
        self._line(server, "listening", "the server")
        self._visit(_PORT, "hello from this host")

        say(f"\n3. The other host:  natsup exec -- {_SERVER}   (the same ports)")
        other = self._serve("other", "hello from the other host")
        self._expect_bind(other, _PORT, "EADDRINUSE")
        say(f"     bind({_PORT}) failed with EADDRINUSE: the router's port is this host's")
        self._expect_bind(other, _PORT + 1, "ok")
        self._line(router, f"tcp/{_PORT + 1} → {OTHER}", "the second mapping")
        say(f"     bind({_PORT + 1}) went well: the program's own search for a port went on")
        say(f"     router: tcp/{_PORT + 1} → {OTHER}")
        self._line(other, "listening", "the other server")
        self._visit(_PORT + 1, "hello from the other host")
        self._visit(_PORT, "hello from this host")

        say("\n4. natsup status")
        self._status()

        say("\n5. The first server is killed (SIGKILL: it cannot clean up).")
        start = time.monotonic()
        server.kill()
        self._line(router, f"tcp/{_PORT} → {HERE} removed", "the removal")
        took = (time.monotonic() - start) * 1000
        say(f"     router: tcp/{_PORT} → {HERE} removed, {took:.0f} ms later")
        self._visit(_PORT, None)
        self._visit(_PORT + 1, "hello from the other host")
        other.terminate()
        self._line(router, f"tcp/{_PORT + 1} → {OTHER} removed", "the second removal")
        say(f"\nThat was all. With your own router:  {_own_name()} exec -- COMMAND")

    def end(self) -> None:
        """Kill the programs, and have the router take back what they had, while there is one."""
        for server in self._servers:
            server.kill()
        journals = Path(self._environ["NATSUP_STATE_DIR"]) / "sessions"
        with contextlib.suppress(Surprise):
            _wait_for(lambda: not list(journals.glob("*.jsonl")), "the end of the sessions", 2.0)

    # --- what the story is made of ---

    def _start(self, host: str, words: list[str]) -> "subprocess.Popen[str]":
        return self._network.popen(host, [*_MODULE, *words], env=self._environ)

    def _serve(self, host: str, greeting: str) -> "subprocess.Popen[str]":
        program = [sys.executable, self._program, _RANGE]
        environ = {**self._environ, "GREETING": greeting}
        words = [*_MODULE, "natsup.supervisor.cli", "exec", "--", *program]
        server = self._network.popen(host, words, env=environ)
        self._servers.append(server)
        return server

    def _expect_bind(self, server: "subprocess.Popen[str]", port: int, result: str) -> str:
        line = self._line(server, f"bind {port} {result} ", f"bind({port})")
        return line.split()[-1]

    def _line(self, process: "subprocess.Popen[str]", start: str, what: str) -> str:
        """The next line of a program's output, which is to start so."""
        line = _next_line(process)
        if not line.startswith(start):
            raise Surprise(f"{what} did not come about: {line or 'nothing was printed'!r}")
        return line

    def _visit(self, port: int, expected: str | None) -> None:
        """Somebody on the Internet connects; ``expected`` is what answers, None: nobody does."""
        script = (
            "import socket\n"
            "try:\n"
            f"    with socket.create_connection(('{OUTSIDE}', {port}), 5) as s:\n"
            "        print(s.makefile().readline().strip() or 'closed')\n"
            "except OSError as error:\n"
            "    print('-', error.strerror or error)\n"
        )
        visitor = self._network.popen("internet", [sys.executable, "-c", script])
        line = _next_line(visitor)
        refused = line.startswith("- ")
        answer = line[2:].lower() if refused else f'"{line}"'
        self._say(f"     Internet → {OUTSIDE}:{port}   {answer}")
        if (None if refused else line) != expected:
            raise Surprise(f"port {port} was to answer {expected!r}")

    def _status(self) -> None:
        def run(*words: str) -> str:
            command = [*_MODULE, "natsup.supervisor.cli", "status", *words]
            return self._network.popen("here", command, env=self._environ).communicate()[0]

        def both_mapped() -> bool:
            sessions = json.loads(run("--json"))["sessions"]
            states = [m["state"] for session in sessions for m in session["mappings"]]
            return states == ["mapped", "mapped"]

        _wait_for(both_mapped, "both ports in natsup status")
        for line in run().splitlines():
            self._say(f"     {line}")


def _own_name() -> str:
    """What to type to run natsup: its path, unless PATH has it."""
    typed = sys.argv[0]
    found = shutil.which("natsup")
    return "natsup" if found and os.path.realpath(found) == os.path.realpath(typed) else typed


def _next_line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    line = b""
    fd = process.stdout.fileno()
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([fd], [], [], _PATIENCE)
        byte = os.read(fd, 1) if ready else b""
        if not byte:
            break
        line += byte
    return line.decode("utf-8", "replace").strip()


def _wait_for(condition: Callable[[], bool], what: str, seconds: float = _PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise Surprise(f"{what} did not come about")
        time.sleep(0.05)
