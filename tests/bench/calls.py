"""What natsup costs where there is nothing to publish: calls that pass, calls that are not
trapped, and the launch. In an empty network, so that no router is asked."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.bench.measuring import NATSUP, compile_c, interleaved, limit, printed, show


def _environ(folder: Path) -> dict[str, str]:
    return {**os.environ, "NATSUP_STATE_DIR": str(folder)}


def passed_bind(folder: Path, rounds: int) -> bool:
    """A bind() that natsup lets pass, compared with other supervisors' that do."""
    environ = _environ(folder)
    calls = [compile_c("binder", str(folder)), "20000"]
    notifier = compile_c("notifier", str(folder))
    traced = ["strace", "-f", "--seccomp-bpf", "-e", "trace=bind", "-o", "/dev/null", *calls]
    times = interleaved(
        rounds,
        {
            "no supervisor": lambda: printed(calls, environ),
            "natsup": lambda: printed([NATSUP, "exec", "--", *calls], environ),
            "a notifier in C": lambda: printed([notifier, *calls], environ),
            "strace --seccomp-bpf": lambda: printed(traced, environ),
        },
    )
    show("A bind() that is passed (median)", times, "us", 1e-3)
    good = limit("natsup / C notifier", times["natsup"] / times["a notifier in C"], 1.0)
    return limit("natsup / strace", times["natsup"] / times["strace --seccomp-bpf"], 0.5) and good


def launch(folder: Path, rounds: int) -> bool:
    """The first output of a trivial program under natsup, and of Python alone."""
    environ = _environ(folder)
    bare = [sys.executable, "-c", "print()"]
    under = [NATSUP, "exec", "--", "/bin/echo"]
    times = interleaved(
        rounds * 3,
        {
            "python -c 'print()'": lambda: _first_output(bare, environ),
            "natsup exec -- echo": lambda: _first_output(under, environ),
        },
        pause=1.0,
    )
    show("First output of a trivial program", times, "ms", 1e3)
    value = times["natsup exec -- echo"] / times["python -c 'print()'"]
    return limit("natsup / python", value, 2.5)


def _first_output(command: Sequence[str], environ: Mapping[str, str]) -> float:
    """Seconds until a command writes its first byte."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environ) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        took = time.perf_counter() - start
    return took


def other_calls(folder: Path, rounds: int) -> bool:
    """Calls that natsup's filter does not trap, compared with a filter that traps bind() alone."""
    environ = _environ(folder)
    loops, notifier = compile_c("loops", str(folder)), compile_c("notifier", str(folder))
    supervisors = {
        "no supervisor": [],
        "natsup": [NATSUP, "exec", "--"],
        "a notifier in C": [notifier],
        "natsup --track-close seccomp": [NATSUP, "exec", "--track-close", "seccomp", "--"],
    }
    good = []
    for call, count in (("getppid", "2000000"), ("dup-close", "500000")):
        measures: dict[str, Callable[[], float]] = {}
        for name, words in supervisors.items():
            command = [*words, loops, call, count]
            measures[name] = lambda command=command: printed(command, environ)  # type: ignore[misc]
        times = interleaved(rounds, measures)
        show(f"One turn of a loop of {call} (median)", times, "ns")
        value = times["natsup"] / times["a notifier in C"]
        good.append(limit("natsup / C notifier", value, 1.1))
    return all(good)
