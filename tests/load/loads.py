"""A program under load in the lab, and what its supervisor and guard take for it."""

import json
import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from natsup.state.journal import sessions
from tests.gateway.remote import Remote
from tests.lab.lab import LAN1, Lab
from tests.lab.program import NATSUP

_SOURCE = Path(__file__).with_name("load.c")
_SPENT = "*/schedstat"  # of each thread, in nanoseconds: Documentation/scheduler/sched-stats.rst
FIRST = 20000  # the first port of all that load binds; the kernel chooses others


@dataclass(frozen=True)
class Footprint:
    """Of a supervisor and its guard."""

    memory: int  # bytes that are resident, of the supervisor alone
    descriptors: int
    threads: int
    processor: float  # seconds that the supervisor has had of one so far
    held_up: float  # seconds that it has waited for one, because others had them

    @classmethod
    def of(cls, supervisor: int, guard: int) -> "Footprint":
        lines = Path(f"/proc/{supervisor}/status").read_text().splitlines()
        values = {line.split(":")[0]: line.split()[1] for line in lines if len(line.split()) > 1}
        files = sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in (supervisor, guard))
        spent = [path.read_text().split() for path in Path(f"/proc/{supervisor}/task").glob(_SPENT)]
        processor, held_up = (sum(int(one[n]) for one in spent) / 1e9 for n in (0, 1))
        memory = int(values["VmRSS"]) * 1024
        return cls(memory, files, int(values["Threads"]), processor, held_up)


def build(folder: Path) -> str:
    """Compile load.c; where the program is."""
    program = str(folder / "load")
    subprocess.run(["gcc", "-O2", "-pthread", "-o", program, str(_SOURCE)], check=True)
    return program


class Loaded:
    """A program under `natsup exec` whose lines are JSON. ``words``: options of natsup's."""

    def __init__(self, lab: Lab, folder: Path, command: Iterable[str], *words: str) -> None:
        self.state = folder / "state"
        self._lab = lab
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("NATSUP_", "PYTHON"))}
        self.process = lab.popen(
            "lan1",
            [NATSUP, "exec", *words, "--", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**environ, "NATSUP_STATE_DIR": str(self.state)},
        )
        found = list[int]()

        def served() -> bool:
            found[:] = [one.supervisor for one in sessions(self.state) if one.alive]
            return bool(found and found[0])

        lab.wait_for(served)
        self.supervisor = found[0]
        self.guard = int(Path(f"/proc/{found[0]}/stat").read_text().rpartition(")")[2].split()[1])

    def line(self) -> dict[str, Any]:
        """What it says next."""
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        assert said, "the program has ended"
        found: dict[str, Any] = json.loads(said)
        return found

    def tell(self, line: str = "") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def footprint(self) -> Footprint:
        return Footprint.of(self.supervisor, self.guard)

    def log(self) -> str:
        return (self.state / "log").read_text()

    def end(self) -> None:
        """End the program by the end of its input, and wait until its session has cleaned up."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(60)
        self._lab.wait_for(lambda: not sessions(self.state), 120)


def table(remote: Remote) -> set[int]:
    """The ports that the fake gateway forwards to the host of the load. What it was asked is
    forgotten, or every look would bring all of that, too."""
    holders = remote.do(forget=True)["table"]
    return {int(port.split()[1]) for port, client in holders.items() if client == LAN1}
