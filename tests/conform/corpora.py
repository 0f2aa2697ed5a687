"""Other people's programs, each a corpus of tests: a command, and how its outcomes are read.

CPython's own tests use every part of the socket API from the language that natsup itself knows
best. libuv's were chosen beside them because it is what they are not: C, without the care of an
interpreter, of the event loop that Node.js and uvloop run on; some 500 tests of TCP, UDP, pipes,
signals, threads and processes, nearly all of which bind the same two or three ports on the wildcard
address and leave them the next instant, so that each is mapped, released and taken over hundreds of
times. (Its source is in uvloop's package on PyPI.) The two shells and `make -j` bind nothing: they
are for what a supervisor of processes breaks: pids, groups, statuses, signals, waits.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.conform.outcomes import Outcomes, of_junit, of_lines, of_tap

HERE = Path(__file__).parent
LIBUV = HERE / ".libuv"
PYTHON = "/usr/bin/python3"  # Debian's; its tests are in the package libpython3.X-testsuite
_JUNIT = "results.xml"
# libuv's runner takes one name at a time, and then says no more than by its exit status.
_ONE_BY_ONE = """
for name do
    ./run-tests "$name" >/dev/null
    case $? in
        0) echo "ok 1 - $name" ;;
        7) echo "ok 1 - $name # SKIP" ;;
        *) echo "not ok 1 - $name" ;;
    esac
done
"""


@dataclass(frozen=True)
class Corpus:
    """What is run, and how it is read.

    ``command`` makes a command line of the tests to run, by name; none: all of them.
    ``read`` is given the folder of the run and what the program has printed.
    """

    name: str
    command: Callable[[Sequence[str]], list[str]]
    read: Callable[[Path, str], Outcomes]
    seconds: float  # the longest that it may take
    environ: dict[str, str] = field(default_factory=dict)
    prepare: Callable[[Path], None] = lambda folder: None
    # Differences that the kernel leaves no way to avoid: the test's name, and why
    known: dict[str, str] = field(default_factory=dict)


def cpython(*modules: str) -> Corpus:
    """Modules of CPython's own test suite, by regrtest."""

    def command(tests: Sequence[str]) -> list[str]:
        words = [PYTHON, "-m", "test", "--junit-xml", _JUNIT]
        # Where a hypervisor has vsock but nobody at its other end, these wait for ever.
        words += ["--ignore", "*VSOCK*"]
        if not any(" " in test for test in tests):  # else a class or a module as a whole
            for test in tests:
                words += ["--match", test]
        return [*words, *modules]

    def read(folder: Path, output: str) -> Outcomes:
        try:
            return of_junit((folder / _JUNIT).read_text())
        except FileNotFoundError:
            return {}

    name = modules[0] if len(modules) == 1 else f"{modules[0]} and {len(modules) - 1} more"
    return Corpus(name, command, read, seconds=300)


def _shell(shell: str, rounds: int) -> Corpus:
    def command(tests: Sequence[str]) -> list[str]:
        return [shell, str(HERE / "torture.sh"), str(rounds), shell]

    return Corpus(shell, command, _printed_lines, seconds=300)


def _make(files: int) -> Corpus:
    def command(tests: Sequence[str]) -> list[str]:
        return ["sh", str(HERE / "building.sh"), str(files)]

    return Corpus("make -j", command, _printed_lines, seconds=300)


def _libuv() -> Corpus:
    def command(tests: Sequence[str]) -> list[str]:
        if not tests:
            return ["./run-tests"]
        return ["sh", "-c", _ONE_BY_ONE, "sh", *tests]

    def prepare(folder: Path) -> None:
        shutil.copytree(LIBUV, folder, dirs_exist_ok=True)

    def read(folder: Path, output: str) -> Outcomes:
        return of_tap(output)

    return Corpus("libuv", command, read, 300, {"UV_RUN_AS_ROOT": "1"}, prepare)


def _printed_lines(folder: Path, output: str) -> Outcomes:
    return of_lines(output)


PROTOCOLS = ("test_socketserver", "test_selectors", "test_ftplib", "test_httplib", "test_smtplib")
QUICK = [
    cpython("test_socket"),
    cpython(*PROTOCOLS),
    _shell("dash", 300),
    _shell("bash", 300),
    _make(20),
    _libuv(),
]
ALL = [
    cpython("test_socket"),
    cpython(*PROTOCOLS),
    cpython("test_ssl"),
    cpython("test_asyncio"),
    _shell("dash", 4000),
    _shell("bash", 4000),
    _make(150),
    _libuv(),
]
