"""What every measurement needs: turns, medians, ratios with their spread, and a line of the table.

A ratio is the median of the rounds' own ratios: what disturbs a round disturbs both of its sides.
Its spread is a 95% interval by bootstrap (Efron: the rounds are drawn anew, with replacement, many
times, and of the medians that come out the middle 95% are kept).
"""

import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

INSTALLED = "BENCH_INSTALLED"  # the variable that tells the virtual environment to measure
_BIN = Path(os.environ.get(INSTALLED, sys.prefix)) / "bin"
NATSUP, PYTHON = str(_BIN / "natsup"), str(_BIN / "python")
_DRAWS = 2000

Samples = Mapping[str, Sequence[float]]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Spread:
    """A median with the ends of its 95% interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        drawn = random.Random(0)  # the same values have the same interval
        medians = sorted(
            statistics.median(drawn.choices(values, k=len(values))) for _ in range(_DRAWS)
        )
        low, high = (medians[round(part * (_DRAWS - 1))] for part in (0.025, 0.975))
        return cls(statistics.median(values), low, high)

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the table. ``ratio``: what is held against ``most``; ``least``: the other way."""

    what: str
    natsup: str
    against: str
    ratio: Spread
    most: float | None = None
    least: float | None = None

    @property
    def met(self) -> bool:
        above = self.most is not None and self.ratio.value > self.most
        return not above and (self.least is None or self.ratio.value >= self.least)

    @property
    def bar(self) -> str:
        if self.most is not None:
            return f"≤ {self.most:g}"
        return "" if self.least is None else f"≥ {self.least:g}"

    def show(self) -> None:
        verdict = "ok    " if self.met else "MISSED"
        print(f"  {verdict} {self.what} / {self.against}: {self.ratio} {self.bar}", flush=True)


@dataclass(frozen=True, slots=True)
class Result:
    """What a figure found. ``plots``: a title each, and what is to be drawn: distributions."""

    lines: Sequence[Line]
    plots: Mapping[str, Samples] = field(default_factory=dict)


def environ_of(state: Path) -> dict[str, str]:
    """What everything that is measured finds in its environment."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("NATSUP_", "PYTHON"))}
    return {**kept, "NATSUP_STATE_DIR": str(state)}


def compile_c(name: str, folder: str, *options: str) -> str:
    """The program of a C file beside this one."""
    target = f"{folder}/{name}"
    source = Path(__file__).with_name(f"{name}.c")
    subprocess.run(["gcc", "-O2", "-pthread", *options, "-o", target, str(source)], check=True)
    return target


def interleaved(
    rounds: int, measures: Mapping[str, Callable[[], _T]], pause: float = 0.0
) -> dict[str, list[_T]]:
    """Every round's value of each measure, taken in turns so that noise meets all alike. Every
    other round goes backwards, so that none always comes after the same one."""
    found: dict[str, list[_T]] = {name: [] for name in measures}
    for number in range(rounds):
        turn = list(measures.items())
        for name, measure in reversed(turn) if number % 2 else turn:
            found[name].append(measure())
            time.sleep(pause)  # what a launch leaves running in the background
    return found


def printed(command: Sequence[str], environ: Mapping[str, str]) -> list[float]:
    """The numbers in the last line that a command prints."""
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environ)
    return [float(word) for word in done.stdout.strip().split("\n")[-1].split()]


def ratio(one: Sequence[float], other: Sequence[float]) -> Spread:
    """Of two measures that were taken in the same rounds."""
    return Spread.of([mine / theirs for mine, theirs in zip(one, other, strict=True)])


def compared(
    what: str,
    values: Samples,
    one: str,
    other: str,
    unit: str,
    scale: float = 1.0,
    *,
    most: float | None = None,
    least: float | None = None,
) -> Line:
    """A line from two of some measures. ``scale`` makes ``unit`` of their values."""
    texts = [number(statistics.median(values[name]) * scale, unit) for name in (one, other)]
    spread = ratio(values[one], values[other])
    return Line(what, texts[0], f"{other}: {texts[1]}", spread, most, least)


def number(value: float, unit: str) -> str:
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


def show(title: str, values: Samples, unit: str, scale: float = 1.0) -> None:
    print(f"\n{title}")
    for name, each in values.items():
        print(f"  {name:<52}{statistics.median(each) * scale:12.2f} {unit}", flush=True)


def alone(what: str, values: Sequence[float], unit: str, most: float, against: str = "") -> Line:
    """A line whose figure is held against a number, not against another figure."""
    middle = statistics.median(values)
    return Line(
        what, number(middle, unit), against or f"at most {most:g} {unit}", Spread.of(values), most
    )
