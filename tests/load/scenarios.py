"""Loads of any size: each is held, checked, and told as a row of figures."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from natsup.supervisor.diag import NETLINK_SOCK_DIAG
from tests.gateway.remote import Remote
from tests.lab.lab import Lab
from tests.load.loads import FIRST, Footprint, Loaded, build, table

_FLAT = 1 << 20  # bytes that a supervisor may grow by once it has warmed up
_FEW = 12  # descriptors that come and go: connections, timers, searches
TIMEOUT, STARTUP = 0.5, 2.0  # natsup's own defaults


@dataclass(frozen=True)
class Row:
    """``binds`` that were all answered; ``median`` and ``worst`` in seconds; ``settled``: seconds
    until the router's table was right; ``before`` and ``after`` it all, with as much held;
    ``answered``: by then all calls had been."""

    name: str
    binds: int
    median: float
    worst: float
    settled: float
    answered: Footprint
    before: Footprint
    after: Footprint

    HEADINGS = (
        "| load | binds | median | worst | held up | processor | table right after | memory"
        " | descriptors |"
    )

    @property
    def processor(self) -> float:
        """Seconds of it that a bind took until its answer."""
        return self.answered.processor / self.binds

    def __str__(self) -> str:
        memory, then = self.before.memory / 1e6, self.after.memory / 1e6
        return (
            f"| {self.name} | {self.binds:,} | {self.median * 1000:.1f} ms |"
            f" {self.worst:.2f} s | {self.answered.held_up:.1f} s | {self.processor * 1000:.2f} ms"
            f" | {self.settled:.1f} s | {memory:.1f}, then {then:.1f} MB"
            f" | {self.before.descriptors}, then {self.after.descriptors} |"
        )


class House:
    """A lab with the fake gateway, whose answers take some milliseconds, and a compiled load.c."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.folder = folder
        self.remote = Remote(lab)
        self.program = build(folder)
        self._count = 0

    def start(self, *words: str, options: tuple[str, ...] = ()) -> Loaded:
        """load.c with these words, in a session with a state folder of its own."""
        self.remote.do(reset=True, clear=True, forget=True)
        self._count += 1
        folder = self.folder / str(self._count)
        folder.mkdir()
        return Loaded(self.lab, folder, [self.program, *words], *options)

    def until(self, ports: set[int], seconds: float = 300) -> float:
        """Wait until the router forwards these ports and no others. Returns how long that took."""
        began = time.monotonic()
        self.lab.wait_for(lambda: table(self.remote) == ports, seconds)
        return time.monotonic() - began


def _all(said: dict[str, float]) -> None:
    assert (said["unanswered"], said["failed"]) == (0, 0), said


def bomb(house: House, processes: int, binds: int) -> Row:
    """Processes that bind and close one port after the other."""
    load = house.start("bomb", str(processes), str(binds), str(FIRST))
    before = load.footprint()
    said = load.line()
    answered = load.footprint()
    _all(said)
    load.process.wait(60)
    settled = house.until(set())
    row = Row("short binders", int(said["binds"]), said["median"], said["worst"], settled, answered,
              before, answered)  # fmt: skip
    load.end()
    return row


def threads(house: House, count: int) -> Row:
    """Threads that all bind at once; more than the page has slots, perhaps."""
    load = house.start("threads", str(count), str(FIRST))
    said = load.line()
    answered = load.footprint()
    _all(said)
    settled = house.until(set(range(FIRST, FIRST + count)))
    before = load.footprint()
    assert before.descriptors < count + 100
    load.tell()
    load.line()
    house.until(set())
    row = Row("threads at once", count, said["median"], said["worst"], settled, answered, before,
              load.footprint())  # fmt: skip
    assert row.after.descriptors < 100, row
    load.end()
    return row


def passed_threads(house: House, count: int) -> Row:
    """Threads that all bind at once what natsup lets pass."""
    load = house.start("threads", str(count), "0")
    said = load.line()
    answered = load.footprint()
    _all(said)
    load.end()
    return Row("threads at once, passed", count, said["median"], said["worst"], 0.0, answered,
               answered, answered)  # fmt: skip


def _hold(house: House, count: int) -> tuple[Loaded, dict[str, float], Footprint]:
    load = house.start("held", str(count), str(FIRST), options=("--timeout", "5"))
    said = load.line()
    answered = load.footprint()
    _all(said)
    house.until(set(range(FIRST, FIRST + count)))
    return load, said, answered


def held(house: House, count: int) -> Row:
    """Sockets that are kept, and all closed while the supervisor is not looking: the queue of the
    kernel's events overflows."""
    load, said, answered = _hold(house, count)
    before = load.footprint()
    os.kill(load.supervisor, signal.SIGSTOP)
    stat = Path(f"/proc/{load.supervisor}/stat")
    house.lab.wait_for(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T")
    load.tell()
    load.line()
    # The kernel tells of ends by work of its own, which a busy machine may do later.
    house.lab.wait_for(lambda: _dropped(load.supervisor) > 0)
    os.kill(load.supervisor, signal.SIGCONT)
    settled = house.until(set())
    row = Row("held, then closed at once", count, said["median"], said["worst"], settled, answered,
              before, load.footprint())  # fmt: skip
    assert "the kernel dropped events" in load.log()
    assert row.after.descriptors < 100, row
    load.end()
    return row


def _dropped(process: int) -> int:
    """How many events about sockets the kernel has dropped in a process's network namespace."""
    rows = [row.split() for row in Path(f"/proc/{process}/net/netlink").read_text().splitlines()]
    return sum(int(row[8]) for row in rows[1:] if int(row[1]) == NETLINK_SOCK_DIAG)


def killed(house: House, count: int) -> Row:
    """Sockets that are kept, until their program is killed. Then the session ends as well."""
    load, said, answered = _hold(house, count)
    before = load.footprint()
    load.process.kill()  # natsup exec has become the program
    settled = house.until(set(), 600)
    load.end()
    return Row("held, then killed", count, said["median"], said["worst"], settled, answered,
               before, before)  # fmt: skip


def soak(house: House, seconds: float, warm: float) -> Row:
    """Short binders for as long as that; a bind that is kept sees to it that the session goes on.
    What there is after ``warm`` seconds is compared with what there is in the end."""
    load = house.start("soak", str(FIRST))
    time.sleep(warm)  # it works all the while
    before = load.footprint()
    time.sleep(seconds)
    after = load.footprint()
    load.tell()
    said = load.line()
    _all(said)
    settled = house.until(set())
    assert after.memory - before.memory < _FLAT, (before, after)
    assert abs(after.descriptors - before.descriptors) < _FEW, (before, after)
    assert said["worst"] < STARTUP + TIMEOUT + 1
    load.end()
    return Row(f"soak of {seconds / 60:.1f} min", int(said["binds"]), said["median"], said["worst"],
               settled, after, before, after)  # fmt: skip
