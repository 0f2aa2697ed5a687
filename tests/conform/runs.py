"""Runs a corpus on hosts of the lab: plain and under natsup, side by side."""

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.conform.corpora import Corpus
from tests.conform.outcomes import WHOLE, Difference, Outcomes, compare
from tests.lab.lab import Lab
from tests.lab.program import NATSUP

AGAIN = 4  # how often a difference is looked at again
PLAIN = "plain"
# Each side has a network and a router of its own: they use the same ports at the same time.
SIDES: Mapping[str, Sequence[str]] = {
    PLAIN: [],
    "in place": [NATSUP, "exec", "--"],
    "as parent": [NATSUP, "exec", "--as-parent", "--"],
}
# With all that natsup does only if it is told to: more binds are acted upon, each close() is held.
MORE_SIDES: Mapping[str, Sequence[str]] = {
    **SIDES,
    "everything": [
        *[NATSUP, "exec", "--ephemeral", "--own-address", "--inherited"],
        *["--track-close", "seccomp", "--servers", "all", "--"],
    ],
}


class Side:
    """One way to run programs: on lan1 of its own lab."""

    def __init__(self, lab: Lab, folder: Path, prefix: Sequence[str]) -> None:
        self.lab = lab
        self.state = folder / "state"
        self._folder = folder
        self._prefix = prefix

    def run(self, corpus: Corpus, tests: Sequence[str] = ()) -> Outcomes:
        """All outcomes of a corpus, or of some of its tests, and that of the run as such."""
        with tempfile.TemporaryDirectory(dir=self._folder) as name:
            folder = Path(name, "run")
            folder.mkdir()
            corpus.prepare(folder)
            with (folder / "output").open("wb") as output, (folder / "errors").open("wb") as errors:
                process = self.lab.popen(
                    "lan1",
                    [*self._prefix, *corpus.command(tests)],
                    cwd=folder,
                    env=self._environ(folder, corpus),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=errors,
                    start_new_session=True,
                )
                try:
                    status = f"exit status {process.wait(corpus.seconds)}"
                except subprocess.TimeoutExpired:
                    # Its group is its own, and natsup's supervisor is not in it.
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                    status = f"not done after {corpus.seconds:.0f} s"
            printed = (folder / "output").read_text(errors="replace")
            return {**corpus.read(folder, printed), WHOLE: status}

    def left(self) -> list[str]:
        """What is left of natsup's work: ports that the router forwards, sessions."""
        return [*self.lab.table(), *(str(path) for path in self.state.glob("sessions/*"))]

    def _environ(self, folder: Path, corpus: Corpus) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("NATSUP_", "PYTHON"))}
        own = {
            "NATSUP_STATE_DIR": str(self.state),
            "TMPDIR": ".",
            "LC_ALL": "C.UTF-8",
            "RES_OPTIONS": "timeout:1 attempts:1",  # no name server answers
        }
        return {**kept, **own, **corpus.environ}


@contextlib.contextmanager
def sides(folder: Path, names: Sequence[str]) -> Iterator[dict[str, Side]]:
    """These sides, each in a lab of its own, for as long as the `with` block lasts."""
    with contextlib.ExitStack() as stack:
        made = {}
        for number, name in enumerate(names):
            # Short, and of one length on each side: the path of a Unix socket has 107 bytes.
            own = folder / str(number)
            own.mkdir()
            lab = stack.enter_context(Lab(own))
            # Connections to nowhere time out. That there is no route the router would say now and
            # then only: the kernel sends so many ICMP errors a second.
            lab.run("router", ["ip", "route", "add", "blackhole", "default"], check=True)
            made[name] = Side(lab, own, MORE_SIDES[name])
        yield made


def run_all(
    sides: Mapping[str, Side], corpus: Corpus, tests: Sequence[str] = ()
) -> dict[str, Outcomes]:
    """The outcomes of each side. All run at the same time: most tests do little but wait."""
    with ThreadPoolExecutor(len(sides)) as pool:
        running = {name: pool.submit(side.run, corpus, tests) for name, side in sides.items()}
        return {name: future.result() for name, future in running.items()}


def left_over(sides: Mapping[str, Side]) -> list[str]:
    """What is still left of natsup's work when there has been time to clean up."""
    with contextlib.suppress(AssertionError):
        sides[PLAIN].lab.wait_for(lambda: not any(side.left() for side in sides.values()))
    return [f"{name}: {what}" for name, side in sides.items() for what in side.left()]


def differences(
    sides: Mapping[str, Side], corpus: Corpus
) -> tuple[Outcomes, dict[str, list[Difference]]]:
    """What a corpus does plainly, and by side what it does otherwise there.

    Whatever differs is run again, some times on every side: tests of sockets fail by themselves
    now and then on a busy machine. See `Difference.real`.
    """
    first = run_all(sides, corpus)
    found = {
        name: compare(first[PLAIN], outcomes, corpus.known)
        for name, outcomes in first.items()
        if name != PLAIN
    }
    suspects = sorted({d.test for found_there in found.values() for d in found_there} - {WHOLE})
    if not any(found.values()):
        return first[PLAIN], found
    for _ in range(AGAIN):
        again = run_all(sides, corpus, suspects)
        for name, found_there in found.items():
            for difference in found_there:
                difference.again(again[PLAIN], again[name])
    return first[PLAIN], found
