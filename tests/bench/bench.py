"""natsup's figures, each measured side by side in one run and printed as a ratio.

    python -m tests.bench.bench [--rounds N] [FIGURE...]

Needs gcc, strace, miniupnpd and, for network namespaces, root. Times of different runs cannot be
compared; the ratios within one can.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from tests.bench import calls, crowds, footprint, router

FIGURES = {
    "passed": calls.passed_bind,
    "launch": calls.launch,
    "others": calls.other_calls,
    "mapped": router.mapped_bind,
    "first": router.first_bind,
    "memory": footprint.memory,
    "idle": footprint.idle,
    "ledger": crowds.ledger,
    "crowd": crowds.crowd,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=f"of {', '.join(FIGURES)}")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--alone", action="store_true", help="already in an empty network")
    options = parser.parse_args()
    if unknown := set(options.figures) - set(FIGURES):
        parser.error(f"no such figure: {', '.join(sorted(unknown))}")
    if os.geteuid() != 0:
        parser.error("network namespaces need root: sudo just bench")
    if not options.alone:
        # No router but the lab's is to be asked, nor waited for.
        again = [sys.executable, "-m", "tests.bench.bench", *sys.argv[1:], "--alone"]
        os.execvp("unshare", ["unshare", "--net", *again])
    good = []
    for name in options.figures or FIGURES:
        with tempfile.TemporaryDirectory() as folder:
            good.append(FIGURES[name](Path(folder), options.rounds))
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
