"""natsup's figures, each measured side by side with its peers and printed as a ratio.

    python -m tests.bench.bench [--rounds N] [--page] [FIGURE...]

Needs gcc, make, strace, tini, upnpc, miniupnpd and, for network namespaces, root. Times of
different runs cannot be compared; the ratios within one can.
"""

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from tests.bench import calls, crowds, footprint, growth, measuring, page, programs, router, starts

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


def _install(folder: Path) -> str:
    """A virtual environment with natsup as users have it: what an editable one adds to every start
    of Python takes as long as the rest. Its dependencies are those of the one that runs this."""
    root, source, target = Path(__file__).parents[2], folder / "source", folder / "installed"
    ignored = shutil.ignore_patterns(".venv*", ".git", "build", "*.egg-info", "__pycache__")
    shutil.copytree(root, source, symlinks=True, ignore=ignored)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(target)], check=True)
    (packages,) = target.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", str(target / "bin/python"), "install"]
    subprocess.run([*pip, "--quiet", "--no-deps", str(source)], check=True)
    return str(target)


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
        with tempfile.TemporaryDirectory() as folder:
            environ = {**os.environ, measuring.INSTALLED: _install(Path(folder))}
            return subprocess.run(["unshare", "--net", *again], env=environ).returncode
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
