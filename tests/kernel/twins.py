"""Two network namespaces that look alike from within: a program runs plain in one of them and
under `natsup exec` in the other, where a router answers.

    natsup 192.168.77.2 ── 192.168.77.1 router        plain 192.168.77.2 ── nobody

Both have the same interfaces with the same numbers, addresses and routes.
"""

import contextlib
import itertools
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from tests.kernel import steps
from tests.kernel.steps import Step

NATSUP = str(Path(sys.executable).with_name("natsup"))
FIRST, LAST, LOW = 10_000, 59_996, 24  # of a sequence's own ports: four, and a privileged one
_PATIENCE = 60.0  # seconds
_count = itertools.count()

_LAYOUT = """
set -eu
for side in natsup plain router; do
    ip netns add $1-$side
    ip -n $1-$side link set lo up
done
for side in natsup plain; do
    ip -n $1-$side link add eth0 type veth peer name $side netns $1-router
    ip -n $1-router link set $side up
    ip -n $1-$side addr add 192.168.77.2/24 dev eth0
    ip -n $1-$side link set eth0 up
    ip -n $1-$side route add default via 192.168.77.1
    # What the kernel chooses is not to be one of the ports that the test chooses.
    ip netns exec $1-$side sysctl -qw net.ipv4.ip_local_port_range='60000 65000'
done
ip -n $1-router addr add 192.168.77.1/24 dev natsup
ip -n $1-router addr add 11.22.33.1/32 dev lo
"""
_GATEWAY = ["gateway", "--internal", "192.168.77.1", "--external", "11.22.33.1"]


class Namespaces:
    """The three of them. ``folder``: for files, of this object's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._prefix = f"nst{os.getpid()}-{next(_count)}"
        self._processes: list[subprocess.Popen[Any]] = []
        subprocess.run(["sh", "-c", _LAYOUT, "twins", self._prefix], check=True)

    def popen(self, side: str, command: Sequence[str], **options: Any) -> "subprocess.Popen[Any]":
        """Start a command in a namespace; what still runs at the end is killed."""
        words = ["ip", "netns", "exec", f"{self._prefix}-{side}", *command]
        process = subprocess.Popen(words, **options)
        self._processes.append(process)
        return process

    def start_router(self, fault: str | None = None) -> None:
        """natsup's own small router; what it tells goes to a file. ``fault``: see `wrong`."""
        environ = environment(self.folder, wrong(fault))
        with (self.folder / "router").open("wb") as file:
            self.popen("router", [NATSUP, *_GATEWAY], stdout=file, env=environ)
        wait_for(lambda: "ready" in self.told())

    def told(self) -> str:
        """What the router has told so far: ``tcp/10000 → 192.168.77.2:10000``, ``… removed``."""
        return (self.folder / "router").read_text()

    def mapped(self) -> list[str]:
        """The ports that the router forwards now, ``tcp/10000``."""
        held: list[str] = []
        for line in self.told().splitlines():
            port, arrow, rest = line.partition(" → ")
            if arrow and rest.endswith("removed"):
                held.remove(port)
            elif arrow and port not in held:
                held.append(port)
        return held

    def descriptors(self) -> dict[str, int]:
        """How many descriptors supervisor and guard have open, by their names."""
        name = f"{self._prefix}-natsup"
        found = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True)
        processes = [Path("/proc", pid) for pid in found.stdout.split()]
        names = {process: (process / "comm").read_text().strip() for process in processes}
        return {
            name: len(os.listdir(process / "fd"))
            for process, name in names.items()
            if name in ("natsup", "natsup-guard")
        }

    def close(self) -> None:
        for process in reversed(self._processes):
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
        for side in ("natsup", "plain", "router"):
            name = f"{self._prefix}-{side}"
            # Namespaces of the test alone: whatever still runs there was started by it.
            found = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True)
            for pid in found.stdout.split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            subprocess.run(["ip", "netns", "del", name], check=True)


@contextmanager
def namespaces(folder: Path, router_fault: str | None = None) -> Iterator[Namespaces]:
    """The namespaces, with a running router, for the `with` block."""
    found = Namespaces(folder)
    try:
        found.start_router(router_fault)
        yield found
    finally:
        found.close()


def environment(folder: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """An environment in which natsup writes nowhere but into ``folder``."""
    found = {k: v for k, v in os.environ.items() if not k.startswith(("NATSUP_", "PYTHON"))}
    return {**found, "NATSUP_STATE_DIR": str(folder / "state"), **(more or {})}


def wrong(fault: str | None) -> dict[str, str]:
    """The environment that makes a natsup wrong in this way (tests/kernel/wrong), or none."""
    if fault is None:
        return {}
    return {"PYTHONPATH": str(Path(__file__).with_name("wrong")), "WRONG_SUPERVISOR": fault}


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Until a condition holds; fails when it does not within ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.02)


class Lines:
    """A program of which each line that it is told is answered with one."""

    def __init__(self, process: "subprocess.Popen[Any]") -> None:
        self.process = process

    def tell(self, value: Any) -> None:
        stdin: IO[bytes] = self.process.stdin  # type: ignore[assignment]
        stdin.write(json.dumps(value).encode() + b"\n")
        stdin.flush()

    def answer(self, seconds: float = _PATIENCE) -> Any:
        """The next answer; fails if none comes within ``seconds``."""
        stdout: IO[bytes] = self.process.stdout  # type: ignore[assignment]
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            assert selector.select(seconds), "no answer: something hangs"
        line = stdout.readline()
        assert line, "the program has ended"
        return json.loads(line)

    def end(self) -> None:
        """Have the program end by the end of its input."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(20) == 0


_PIPES = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}


def plain(net: Namespaces, script: str, prefix: Sequence[str] = ()) -> Lines:
    """A script in the plain namespace. ``prefix``: a command that runs it."""
    command = [*prefix, sys.executable, script]
    return Lines(net.popen("plain", command, env=environment(net.folder), **_PIPES))


def under_natsup(
    net: Namespaces,
    script: str,
    *words: str,
    fault: str | None = None,
    prefix: Sequence[str] = (),
) -> Lines:
    """A script under `natsup exec` with these options. ``fault``: see `wrong`; ``prefix``: a
    command that runs natsup."""
    command = [*prefix, NATSUP, "exec", *words, "--", sys.executable, script]
    environ = environment(net.folder, wrong(fault))
    return Lines(net.popen("natsup", command, env=environ, **_PIPES))


class Twins:
    """The program of the steps twice: `compare` runs a sequence in both."""

    def __init__(
        self, net: Namespaces, fault: str | None, words: Sequence[str], prefix: Sequence[str]
    ) -> None:
        self.net = net
        self.runs = 0
        self.plain = plain(net, steps.__file__, prefix)
        self.natsup = under_natsup(net, steps.__file__, *words, fault=fault, prefix=prefix)

    def _request(self, sequence: list[Step]) -> dict[str, Any]:
        """With ports that no sequence has had for long: what was closed may be in TIME_WAIT."""
        self.runs += 1
        return {
            "base": FIRST + self.runs * 4 % (LAST - FIRST),
            "low": LOW + self.runs % (1024 - LOW),
            "steps": sequence,
        }

    def compare(self, sequence: list[Step]) -> list[str]:
        """What differs. Nothing does, too, if it also differs from one plain run to the next:
        the kernel promises no more then."""
        request = self._request(sequence)
        self.natsup.tell(request)
        self.plain.tell(request)
        plain, wrapped = self.plain.answer(), self.natsup.answer()
        assert isinstance(plain, list), f"{plain}: {sequence}"
        found = differences(sequence, plain, wrapped)
        for _ in range(3 if found else 0):
            self.plain.tell(self._request(sequence))
            if not differences(sequence, self.plain.answer(), wrapped):
                return []
        return found


def differences(sequence: list[Step], plain: Any, wrapped: Any) -> list[str]:
    """What a program sees under natsup that it does not see without. Pure."""
    if plain == wrapped:
        return []
    if not isinstance(wrapped, list):
        return [str(wrapped)]
    steps = [*sequence, {"do": "the end"}]
    return [
        f"step {number}, {step}: {path}: plain {one!r}, natsup {other!r}"
        for number, (step, before, after) in enumerate(zip(steps, plain, wrapped, strict=True))
        for path, one, other in _unlike(before, after, "")
    ]


def _unlike(one: Any, other: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other}):
            yield from _unlike(one.get(key), other.get(key), f"{path}/{key}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for key, (left, right) in enumerate(zip(one, other, strict=True)):
            yield from _unlike(left, right, f"{path}/{key}")
    elif one != other:
        yield path, one, other


@contextmanager
def twins(
    folder: Path, *words: str, fault: str | None = None, prefix: Sequence[str] = ()
) -> Iterator[Twins]:
    """Both programs, running. ``words``: options of `natsup exec`; ``fault``: see `wrong`;
    ``prefix``: a command that runs both."""
    with namespaces(folder) as net:
        yield Twins(net, fault, words, prefix)
