"""What sessions cost that only wait, with a mapped port, in a lab: memory, processor, wake-ups."""

import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.bench.measuring import (
    NATSUP,
    PYTHON,
    Line,
    Result,
    Spread,
    alone,
    compile_c,
    environ_of,
    ratio,
    show,
)
from tests.gateway.remote import Remote
from tests.lab import watchers
from tests.lab.lab import LAN1, Lab
from tests.lab.overheard import Overheard
from tests.lab.program import Program

_SECONDS = 60
_PORT = 20000
_SESSIONS = 50
_LIVES = 1000  # mappings that are made and removed
_WARM = 200  # such, before anything is measured
_WITH_TRIO = "import trio; print(flush=True); trio.run(trio.sleep_forever)"


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
            env=environ_of(folder / "state"),
        )
        assert process.stdout is not None
        assert process.stdout.readline()
        assert lab.table() == {f"tcp/{_PORT}": LAN1}
        pids = watchers.watchers(lab)
        watchers.wait_for_idleness(lab, overheard, pids, _PORT)
        yield lab, pids


def memory(folder: Path, rounds: int) -> Result:
    """Supervisor and guard together; of many sessions; and after many mappings."""
    found = _of_one(folder)
    show("Memory of a session, proportional set size", {k: [v] for k, v in found.items()}, "MB")
    whole, python = found["supervisor"] + found["guard"], found["python with trio"]
    each, grown = _of_many(folder), _growth(folder)
    against = f"Python with trio alone, waiting: {python:.1f} MB"
    return Result(
        [
            Line(
                "memory of a session, supervisor and guard",
                f"{whole:.1f} MB",
                against,
                ratio([whole], [python]),
                2.0,
            ),
            alone(f"memory of each of {_SESSIONS} sessions", [each], "MB", 30),
            alone(f"growth by {_LIVES:,} mappings made and removed", grown, "MB", 1),
        ]
    )


def _of_one(folder: Path) -> dict[str, float]:
    """With Python and trio alone beside it, so that what is shared is shared alike."""
    with _waiting(folder) as (_, pids):
        words = [PYTHON, "-c", _WITH_TRIO]
        with subprocess.Popen(words, stdout=subprocess.PIPE) as bare:
            assert bare.stdout is not None
            bare.stdout.readline()
            time.sleep(0.5)  # it has gone to sleep
            found = watchers.memory({**pids, "python with trio": bare.pid})
            bare.kill()
    return found


def _of_many(folder: Path) -> float:
    """Of some sessions at once, each with a port: MB for each."""
    where = folder / "many"
    where.mkdir()
    first = compile_c("first", str(folder))
    environ = environ_of(where / "state")
    with Lab(where) as lab:
        for number in range(_PORT, _PORT + _SESSIONS):
            process = lab.popen(
                "lan1",
                [
                    NATSUP,
                    "exec",
                    "--timeout",
                    "30",
                    "--startup-timeout",
                    "30",
                    "--",
                    first,
                    str(number),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**environ, "BENCH_STARTED": "0"},
            )
            assert process.stdout is not None
            assert process.stdout.readline()
        lab.wait_for(lambda: len(lab.table()) == _SESSIONS, 30)
        time.sleep(5)  # each has looked once more whether its port is there
        pids = {str(pid): pid for pid in lab.pids("lan1") if _is_natsup(pid)}
        assert len(pids) == 2 * _SESSIONS
        return sum(watchers.memory(pids).values()) / _SESSIONS


def _is_natsup(pid: int) -> bool:
    return Path(f"/proc/{pid}/comm").read_text().startswith("natsup")


def _growth(folder: Path) -> list[float]:
    """MB by which a session has grown after each of some thousands of mappings, the first few
    not counted: they load what the others use."""
    where = folder / "growth"
    (where / "lab").mkdir(parents=True)
    with Lab(where / "lab") as lab:
        remote = Remote(lab)
        program = Program(lab, where)
        program.bind("kept", _PORT)
        pids = watchers.watchers(lab)
        found = []
        before = 0.0
        for turn, count in enumerate((_WARM, _LIVES, _LIVES, _LIVES)):
            program.do(
                f"for n in range({count}): s = socket.socket(); s.bind(('', {_PORT} + 1 + n % 500))"
            )
            program.do("s.close()")
            lab.wait_for(lambda: len(remote.table) == 1, 60)
            now = sum(watchers.memory(pids).values())
            if turn:
                found.append(now - before)
            before = now
    return found


def idle(folder: Path, rounds: int) -> Result:
    """Wake-ups of all threads together, and their time on a processor, between two timers."""
    with _waiting(folder) as (lab, pids):
        heard = _waited(pids)
        lab.pause_router()
        quiet = _waited(pids)
    hour = 3600 / _SECONDS
    title = f"Of a session that waits, within {_SECONDS} s"
    for name, (wakeups, seconds) in (("the router heard", heard), ("all quiet", quiet)):
        show(f"{title}, {name}", {"wake-ups": [wakeups], "processor": [seconds * 1e3]}, "(or ms)")
    return Result(
        [
            alone(
                f"wake-ups in {_SECONDS} s, a port mapped, nobody says anything", [quiet[0]], "", 0
            ),
            alone("processor time of an hour, the same", [quiet[1] * hour], "s", 0),
            Line(
                "the same, while miniupnpd announces itself every 30 s",
                f"{heard[1] * hour:.2f} s",
                f"{heard[0] * hour:.0f} wake-ups",
                Spread.of([heard[1] * hour]),
            ),
        ]
    )


def _waited(pids: Mapping[str, int]) -> tuple[float, float]:
    """Wake-ups and seconds on a processor while the clock goes on."""
    before, spent = sum(watchers.switches(dict(pids)).values()), _spent(pids)
    time.sleep(_SECONDS)
    return sum(watchers.switches(dict(pids)).values()) - before, _spent(pids) - spent


def _spent(pids: Mapping[str, int]) -> float:
    """Seconds that these processes have been on a processor: proc(5), schedstat."""
    stats = (thread / "schedstat" for pid in pids.values() for thread in watchers.threads(pid))
    return sum(int(stat.read_text().split()[0]) for stat in stats) / 1e9
