"""What a session costs that only waits, with one mapped port, in a lab: memory and wake-ups."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.measuring import NATSUP, compile_c, limit, show
from tests.lab import watchers
from tests.lab.lab import LAN1, Lab
from tests.lab.overheard import Overheard

_SECONDS = 20
_PORT = 20000


@contextmanager
def _waiting(folder: Path) -> Iterator[tuple[Lab, dict[str, int]]]:
    """A session of a small program with one mapped port, when all that follows a bind is over."""
    since, first = compile_c("since", str(folder)), compile_c("first", str(folder))
    (folder / "lab").mkdir()
    with Lab(folder / "lab") as lab:
        overheard = Overheard(lab, folder)
        process = lab.popen(
            "lan1",
            [since, NATSUP, "exec", "--", first, str(_PORT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "NATSUP_STATE_DIR": str(folder / "state")},
        )
        assert process.stdout is not None
        assert process.stdout.readline()
        assert lab.table() == {f"tcp/{_PORT}": LAN1}
        pids = watchers.watchers(lab)
        watchers.wait_for_idleness(lab, overheard, pids, _PORT)
        yield lab, pids


def memory(folder: Path, rounds: int) -> bool:
    """Supervisor and guard together."""
    with _waiting(folder) as (_, pids):
        found = watchers.memory(pids)
    show("Memory of a session, proportional set size", found, "MB")
    return limit("supervisor and guard, MB", sum(found.values()), 60)


def idle(folder: Path, rounds: int) -> bool:
    """Wake-ups of all threads together, between two timers."""
    with _waiting(folder) as (lab, pids):
        found = {"the router announces itself": _wakeups(pids)}
        lab.pause_router()
        found["nobody says anything"] = _wakeups(pids)
    show(f"Wake-ups of a session that waits, within {_SECONDS} s", found, "")
    return limit("where nobody says anything", found["nobody says anything"], 0)


def _wakeups(pids: dict[str, int]) -> int:
    before = watchers.switches(pids)
    time.sleep(_SECONDS)
    return sum(watchers.switches(pids).values()) - sum(before.values())
