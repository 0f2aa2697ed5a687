"""Other people's tests, plain and under `natsup exec`: there must be no difference.

    python -m tests.conform.conform [--quick] [--list] [CORPUS...]

Needs what tests/run installs and, for network namespaces, root.
"""

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.conform.corpora import ALL, QUICK, Corpus
from tests.conform.outcomes import FAILED, PASSED, SKIPPED, Difference, Outcomes
from tests.conform.runs import AGAIN, MORE_SIDES, SIDES, Side, differences, left_over, sides


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpora", nargs="*", metavar="CORPUS", help="run these only")
    parser.add_argument("--quick", action="store_true", help="what CI runs")
    parser.add_argument("--list", action="store_true", help="name them, run nothing")
    options = parser.parse_args()
    chosen = {corpus.name: corpus for corpus in (QUICK if options.quick else ALL)}
    if unknown := set(options.corpora) - set(chosen):
        parser.error(f"no such corpus: {', '.join(sorted(unknown))}")
    if options.list:
        print(*chosen, sep="\n")
        return 0
    if os.geteuid() != 0:
        parser.error("network namespaces need root: sudo just conform")
    good = True
    names = list(SIDES if options.quick else MORE_SIDES)
    with tempfile.TemporaryDirectory() as folder, sides(Path(folder), names) as made:
        for name in options.corpora or chosen:
            good &= report(made, chosen[name])
    print("no difference" if good else "THERE ARE DIFFERENCES")
    return 0 if good else 1


def report(made: dict[str, Side], corpus: Corpus) -> bool:
    """Run a corpus on all sides, and print what came of it. Is it without a real difference?"""
    start = time.monotonic()
    plain, found = differences(made, corpus)
    print(f"{corpus.name}: {_summary(plain)} plain, in {time.monotonic() - start:.0f} s")
    for test in (test for test, outcome in plain.items() if outcome == FAILED):
        print(f"    fails plain: {test}")
    for test, why in corpus.known.items():
        print(f"    known: {test}: {why}")
    good = True
    for side, here in found.items():
        real = [difference for difference in here if difference.real]
        print(f"    {side}: {len(real) or 'no'} differences")
        for difference in here:
            print(f"        {_kind(difference)} {difference}")
        good &= not real
    for what in left_over(made):
        print(f"    LEFT OVER {what}")
        good = False
    sys.stdout.flush()
    return good


def _kind(difference: Difference) -> str:
    if difference.real:
        return "DIFFERENT"
    return f"unsteady by itself (run {AGAIN} more times on both sides)"


def _summary(outcomes: Outcomes) -> str:
    counted = Counter(outcomes.values())
    words = [f"{counted.pop(kind)} {kind}" for kind in (PASSED, FAILED, SKIPPED) if counted[kind]]
    if others := counted.total() - 1:  # but for the run's own status
        words.append(f"{others} answers")
    return ", ".join(words)


if __name__ == "__main__":
    sys.exit(main())
