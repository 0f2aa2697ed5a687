"""Coverage-guided fuzzing of every reader, by atheris: what `just fuzz` runs.

    python -m tests.fuzz [--inputs N] [TARGET...]

One process for each target, one after the other. It starts from the corpus and ends after so many
inputs, or at the first that does not pass the bars of `tests.fuzz.bounds`. That one is kept in
tests/fuzz/found/: put right what it found, and move it to the target's folder in the corpus.
"""

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from tests.fuzz import bounds

HERE = Path(__file__).parent
CORPUS, FOUND = HERE / "corpus", HERE / "found"
_INPUTS = 1_000_000
_LONGEST = 4096  # bytes that atheris makes; longer ones come of `bounds.swollen`
_SWELL = 2000  # every so many inputs one is swollen
_LOOK = 1000  # every so many inputs the memory is looked at


def main() -> int:
    from tests.fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(prog="just fuzz", description="Fuzz what reads foreign bytes.")
    parser.add_argument("--inputs", type=int, default=_INPUTS, help="for each target")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    asked = parser.parse_args()
    unknown = set(asked.targets) - set(TARGETS)
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    print("| target | inputs | seconds | slowest, ms | memory over the base, MB |")
    print("|---|---|---|---|---|", flush=True)
    failed = 0
    for name in asked.targets or TARGETS:
        failed += not _one(name, asked.inputs)
    return min(failed, 1)


def _one(name: str, inputs: int) -> bool:
    """Fuzz a target in a process of its own, and print its row."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        (Path(folder) / "grown").mkdir()
        command = [sys.executable, "-m", "tests.fuzz", "--child", name, str(inputs), folder]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if not report.exists():
            print(f"{name}: {done.stderr}", file=sys.stderr)
            return False
        told = json.loads(report.read_text())
    print(
        f"| {name} | {told['inputs']:,} | {told['seconds']:.0f} | {told['slowest'] * 1000:.1f}"
        f" | {told['memory'] / (1 << 20):.1f} |",
        flush=True,
    )
    if told["failure"] is not None:
        print(f"{name}: {told['failure']}", file=sys.stderr)
    return told["failure"] is None and told["inputs"] >= inputs


class _Child:
    """One target under atheris. It ends its process: libFuzzer would, without asking Python."""

    def __init__(self, name: str, inputs: int, folder: Path) -> None:
        import atheris

        with atheris.instrument_imports(include=["natsup", "h11"], enable_loader_override=False):
            from tests.fuzz import targets
        self._atheris = atheris
        self._name = name
        self._target = targets.TARGETS[name]
        self._inputs = inputs
        self._folder = folder
        self._chance = random.Random(name)
        self._count = 0
        self._slowest = 0.0
        self._base = self._most = 0
        self._began = time.monotonic()

    def run(self) -> None:
        words = [
            "fuzz",
            f"-max_len={min(self._target.most, _LONGEST)}",
            "-timeout=10",
            "-rss_limit_mb=0",
            f"-artifact_prefix={FOUND}/{self._name}-",
            str(self._folder / "grown"),
            str(CORPUS / self._name),
        ]
        FOUND.mkdir(exist_ok=True)
        self._atheris.Setup(words, self.take)
        self._atheris.Fuzz()

    def take(self, data: bytes) -> None:
        self._pass(data)
        self._count += 1
        if self._count % _SWELL == 0:
            self._pass(bounds.swollen(data, self._target.most, self._chance))
        if self._count == _LOOK:  # everything has been imported and filled by now
            self._base = bounds.resident()
        if self._count % _LOOK == 0:
            self._most = max(self._most, bounds.resident())
            if self._most - self._base > bounds.MOST_MEMORY:
                self._end("more memory than is permitted", data)
        if self._count >= self._inputs:
            self._end(None, b"")

    def _pass(self, data: bytes) -> None:
        try:
            took = bounds.seconds(self._target.run, data)
        except BaseException:
            self._end(traceback.format_exc(), data)
        self._slowest = max(self._slowest, took)
        if took > bounds.MOST_SECONDS:
            self._end(f"an input of {len(data)} bytes took {took * 1000:.0f} ms", data)

    def _end(self, failure: str | None, data: bytes) -> None:
        report: dict[str, Any] = {
            "inputs": self._count,
            "seconds": time.monotonic() - self._began,
            "slowest": self._slowest,
            "memory": max(self._most - self._base, 0),
            "failure": failure,
        }
        if failure is not None:
            name = f"{self._name}-{hashlib.sha256(data).hexdigest()[:12]}"
            (FOUND / name).write_bytes(data)
            report["failure"] = f"{FOUND / name}: {failure}"
        (self._folder / "report.json").write_text(json.dumps(report))
        os._exit(0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _Child(sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])).run()
    else:
        sys.exit(main())
