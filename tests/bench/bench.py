"""natsup's figures, each measured side by side in one run and printed as a ratio.

    python tests/bench/bench.py [--rounds N]

Needs gcc, strace and, for an empty network namespace, root. Times of different runs cannot be
compared; the ratios within one can.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

HERE = Path(__file__).parent
NATSUP = str(Path(sys.executable).with_name("natsup"))


def compile_c(name: str, folder: str) -> str:
    """The program of a C file beside this one."""
    target = f"{folder}/{name}"
    subprocess.run(["gcc", "-O2", "-o", target, str(HERE / f"{name}.c")], check=True)
    return target


def interleaved(
    rounds: int, measures: dict[str, Callable[[], float]], pause: float = 0.0
) -> dict[str, float]:
    """The median of each measure, taken in turns so that noise meets all alike."""
    found: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            found[name].append(measure())
            time.sleep(pause)  # what a launch leaves running in the background
    return {name: statistics.median(values) for name, values in found.items()}


def printed(command: Sequence[str], environ: dict[str, str]) -> float:
    """What a command prints: nanoseconds."""
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environ)
    return float(done.stdout.split()[-1])


def first_output(command: Sequence[str], environ: dict[str, str]) -> float:
    """Seconds until a command writes its first byte."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environ) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        took = time.perf_counter() - start
    return took


def show(title: str, times: dict[str, float], unit: str, scale: float) -> None:
    print(f"\n{title}")
    for name, value in times.items():
        print(f"  {name:<44}{value * scale:9.1f} {unit}")


def ratio(what: str, value: float, limit: float) -> bool:
    good = value <= limit
    print(f"  {'ok ' if good else 'MISSED'} {what}: {value:.2f} (at most {limit})")
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--alone", action="store_true", help="already in an empty network")
    options = parser.parse_args()
    rounds = options.rounds
    if os.geteuid() != 0:
        parser.error("an empty network namespace needs root: sudo just bench")
    if not options.alone:
        # No router is to be asked, nor waited for.
        os.execvp("unshare", ["unshare", "--net", sys.executable, *sys.argv, "--alone"])
    good = []
    with tempfile.TemporaryDirectory() as folder:
        environ = {**os.environ, "NATSUP_STATE_DIR": folder}
        binder, notifier = compile_c("binder", folder), compile_c("notifier", folder)
        calls = [binder, "20000"]
        ours = [NATSUP, "exec", "--", *calls]
        traced = ["strace", "-f", "--seccomp-bpf", "-e", "trace=bind", "-o", "/dev/null", *calls]
        times = interleaved(
            rounds,
            {
                "no supervisor": lambda: printed(calls, environ),
                "natsup": lambda: printed(ours, environ),
                "a notifier in C": lambda: printed([notifier, *calls], environ),
                "strace --seccomp-bpf": lambda: printed(traced, environ),
            },
        )
        show("A bind() that is passed (median)", times, "us", 1e-3)
        good.append(ratio("natsup / C notifier", times["natsup"] / times["a notifier in C"], 1.0))
        good.append(ratio("natsup / strace", times["natsup"] / times["strace --seccomp-bpf"], 0.5))

        bare = [sys.executable, "-c", "print()"]
        under = [NATSUP, "exec", "--", "/bin/echo"]
        times = interleaved(
            rounds * 3,
            {
                "python -c 'print()'": lambda: first_output(bare, environ),
                "natsup exec -- echo": lambda: first_output(under, environ),
            },
            pause=1.0,
        )
        show("First output of a trivial program", times, "ms", 1e3)
        good.append(
            ratio(
                "natsup / python",
                times["natsup exec -- echo"] / times["python -c 'print()'"],
                2.5,
            )
        )
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
