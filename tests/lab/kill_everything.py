"""Whatever can end natsup's processes, at every step of theirs: `just kill-everything`, as root.

    python -m tests.lab.kill_everything [--jobs N] [--step NAME] [--event NAME] [--selection]

Prints a line for every case that fails, and at the end a table. The exit status is 1 if one has.
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests import apart
from tests.lab.kills import Case, Event, everything, selection
from tests.lab.lab import Lab
from tests.lab.playing import Result, compile_clock, run


def played(cases: list[Case]) -> Iterator[tuple[Case, Result]]:
    """Play them one after another, in one lab."""
    apart.own_network()
    with tempfile.TemporaryDirectory(prefix="kills") as name:
        folder = Path(name)
        clock = compile_clock(folder)
        (folder / "lab").mkdir()
        with Lab(folder / "lab") as lab:
            for number, case in enumerate(cases):
                own = folder / str(number)
                own.mkdir()
                yield case, run(case, lab, own, clock)


def _work(cases: list[Case], results: "multiprocessing.Queue[tuple[Case, Result] | None]") -> None:
    try:
        for pair in played(cases):
            results.put(pair)
    finally:
        results.put(None)


def _play(cases: list[Case], jobs: int) -> Iterator[tuple[Case, Result]]:
    results: multiprocessing.Queue[tuple[Case, Result] | None] = multiprocessing.Queue()
    workers = [
        multiprocessing.Process(target=_work, args=(cases[number::jobs], results))
        for number in range(jobs)
    ]
    for worker in workers:
        worker.start()
    left = jobs
    while left:
        pair = results.get()
        if pair is None:
            left -= 1
        else:
            yield pair
    for worker in workers:
        worker.join()


def main() -> int:
    parser = argparse.ArgumentParser(prog="kill-everything")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--step", action="append")
    parser.add_argument("--event", action="append", choices=[event.name.lower() for event in Event])
    parser.add_argument("--selection", action="store_true", help="what the tests play")
    parser.add_argument("-v", "--verbose", action="store_true", help="print every case")
    options = parser.parse_args()
    cases = [
        case
        for case in (selection() if options.selection else everything())
        if options.step is None or case.step in options.step
        if options.event is None or case.event.name.lower() in options.event
    ]
    begin = time.monotonic()
    done: list[tuple[Case, Result]] = []
    for case, result in _play(cases, options.jobs):
        done.append((case, result))
        if options.verbose:
            print(f"{time.monotonic() - begin:.0f} s: {case}", flush=True)
        for violation in result.violations:
            print(f"{case}: {violation}", flush=True)
    print(f"\n{len(done)} cases of {len(cases)} in {time.monotonic() - begin:.0f} s\n")
    print("| what happens | cases | failures | slowest bind | most over its budget |")
    print("|---|---|---|---|---|")
    for event in (*Event, None):
        results = [result for case, result in done if event in (case.event, None)]
        if not results:
            continue
        failures = sum(bool(result.violations) for result in results)
        slowest = max(result.slowest for result in results)
        over = max(result.over for result in results)
        what = "all" if event is None else event
        print(f"| {what} | {len(results)} | {failures} | {slowest:.2f} s | {over:+.2f} s |")
    failed = any(result.violations for _, result in done)
    return int(failed or len(done) < len(cases))


if __name__ == "__main__":
    sys.exit(main())
