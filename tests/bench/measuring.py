"""What every measurement needs: turns, medians, and how a ratio is shown."""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

NATSUP = str(Path(sys.executable).with_name("natsup"))


def compile_c(name: str, folder: str) -> str:
    """The program of a C file beside this one."""
    target = f"{folder}/{name}"
    source = Path(__file__).with_name(f"{name}.c")
    subprocess.run(["gcc", "-O2", "-o", target, str(source)], check=True)
    return target


def interleaved(
    rounds: int, measures: Mapping[str, Callable[[], float]], pause: float = 0.0
) -> dict[str, float]:
    """The median of each measure, taken in turns so that noise meets all alike. Every other round
    goes backwards, so that none always comes after the same one."""
    found: dict[str, list[float]] = {name: [] for name in measures}
    for number in range(rounds):
        turn = list(measures.items())
        for name, measure in reversed(turn) if number % 2 else turn:
            found[name].append(measure())
            time.sleep(pause)  # what a launch leaves running in the background
    return {name: statistics.median(values) for name, values in found.items()}


def printed(command: Sequence[str], environ: Mapping[str, str]) -> float:
    """The number that a command prints last."""
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environ)
    return float(done.stdout.split()[-1])


def show(title: str, values: Mapping[str, float], unit: str, scale: float = 1.0) -> None:
    print(f"\n{title}")
    for name, value in values.items():
        print(f"  {name:<44}{value * scale:9.2f} {unit}", flush=True)


def limit(what: str, value: float, most: float) -> bool:
    """Print a ratio, or another figure, beside the most that it may be. Is it met?"""
    good = value <= most
    print(f"  {'ok ' if good else 'MISSED'} {what}: {value:.2f} (at most {most:g})", flush=True)
    return good
