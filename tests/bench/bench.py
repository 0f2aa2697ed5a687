"""natsup's figures, each measured side by side with its peers and printed as a ratio.

    python -m tests.bench.bench [--rounds N] [--page] [FIGURE...]

Needs gcc, make, strace, tini, upnpc, miniupnpd and, for network namespaces, root. Times of
different runs cannot be compared; the ratios within one can.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench import calls, crowds, footprint, growth, page, programs, router, starts

FIGURES = {
    "passed": calls.passed_bind,
    "threads": calls.threads,
    "others": calls.other_calls,
    "launch": starts.launch,
    "first": starts.first_bind,
    "mapped": router.mapped_bind,
    "memory": footprint.memory,
    "idle": footprint.idle,
    "ledger": crowds.ledger,
    "crowd": crowds.crowd,
    "mappings": growth.mappings,
    "flight": growth.flight,
    "programs": programs.whole,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=f"of {', '.join(FIGURES)}")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--page", action="store_true", help="write them to docs/performance.md")
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
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    met = []
    for name in options.figures or FIGURES:
        load = os.getloadavg()[0]
        with tempfile.TemporaryDirectory() as folder:
            result = FIGURES[name](Path(folder), options.rounds)
        for line in result.lines:
            line.show()
            met.append(line.met)
        if options.page:
            page.write({name: result}, load)
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
