"""How the cost grows with the work: with the number of mappings, and of calls in flight.

A straight line means that each one costs the same, however many there are. The router is the
tests' own (tests/gateway), which answers at once and is no slower with a long table.
"""

import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.bench.crowds import Crowd, with_router
from tests.bench.measuring import NATSUP, Line, Result, Spread, environ_of, show
from tests.gateway.remote import Remote
from tests.lab.lab import Lab

_MAPPINGS = (1, 10, 100, 1000, 10_000)
_CALLS = (1, 10, 100, 1000)
# One program that binds ports one after another. It tells how long that took.
_SOURCE = """
import resource, socket, sys, time
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
socks, number = [], 10000
print("ready", flush=True)
for line in sys.stdin:
    began = time.perf_counter()
    for _ in range(int(line)):
        sock = socket.socket()
        sock.bind(("", number))
        socks.append(sock)
        number += 1
    print(time.perf_counter() - began, flush=True)
"""


def mappings(folder: Path, rounds: int) -> Result:
    """Ports bound one after another, and kept, up to 10,000."""
    (folder / "lab").mkdir()
    environ = {**environ_of(folder / "state"), "NATSUP_TIMEOUT": "60"}
    times: dict[int, list[float]] = {}
    with Lab(folder / "lab") as lab:
        remote = Remote(lab)
        program = lab.popen(
            "lan1",
            [NATSUP, "exec", "--", sys.executable, "-c", _SOURCE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environ,
        )
        assert program.stdin is not None
        assert program.stdout is not None
        program.stdout.readline()
        lab.wait_for(lambda: with_router(folder) == 1)
        made, took = 0, 0.0
        for count in _MAPPINGS:
            program.stdin.write(f"{count - made}\n")
            program.stdin.flush()
            took += float(program.stdout.readline())
            made = count
            assert len(remote.table) == count
            times[count] = [took]
        began = time.perf_counter()
        program.stdin.close()
        lab.wait_for(lambda: not remote.table, 300)
        ended = time.perf_counter() - began
    print(f"\n  all {made:,} removed in {ended:.1f} s")
    return Result([_line("ports mapped one after another, and kept", times, first=1)])


def flight(folder: Path, rounds: int) -> Result:
    """Programs of one session that bind at once."""
    (folder / "lab").mkdir()
    times: dict[int, list[float]] = {count: [] for count in _CALLS}
    with Lab(folder / "lab") as lab:
        remote = Remote(lab)

        def measure(count: int) -> Callable[[], float]:
            def took() -> float:
                crowd = Crowd(lab, folder, 20000, 20000 + count)
                lab.wait_for(lambda: with_router(folder) == 1)
                crowd.tell()
                found = crowd.took()
                lab.wait_for(lambda: len(remote.table) == count, 60)
                crowd.end()
                lab.wait_for(lambda: not remote.table, 60)
                return found

            return took

        for _ in range(max(1, rounds // 4)):
            for count in _CALLS:
                times[count].append(measure(count)())
    return Result([_line("calls in flight at once, until the last is answered", times, first=1)])


def _line(what: str, times: Mapping[int, Sequence[float]], first: int) -> Line:
    """The slope of log time over log count: 1 is a straight line, 2 a parabola."""
    middle = {count: statistics.median(values) for count, values in times.items()}
    each = {
        f"{count:,}, each": [value / count for value in values] for count, values in times.items()
    }
    show(what, each, "ms", 1e3)
    slopes = [
        _slope({count: times[count][turn] for count in times if count > first})
        for turn in range(len(times[first]))
    ]
    costs = ", ".join(f"{1e3 * middle[count] / count:.2g}" for count in middle)
    counts = ", ".join(f"{count:,}" for count in middle)
    return Line(what, f"{costs} ms each", f"of {counts}", Spread.of(slopes), 1.1)


def _slope(times: Mapping[int, float]) -> float:
    return statistics.linear_regression(
        [math.log(count) for count in times], [math.log(value) for value in times.values()]
    ).slope
