"""What many ports cost: in the ledger, and at a router that is slow."""

import gc
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from natsup.state.journal import sessions
from natsup.state.ledger import Ledger, Policy
from natsup.state.model import Mapped, Port, Protocol, Removal
from tests.bench.measuring import NATSUP, Result, compared, environ_of, interleaved, show
from tests.bench.router import OVERHEARD, ByHand, heard, names
from tests.gateway.remote import Remote
from tests.lab.lab import LAN1, Lab
from tests.lab.overheard import Overheard

_PORT = Port(Protocol.TCP, 6881)
_LIVES = 300  # for each measurement
_ANSWER = 0.05  # seconds for which the router keeps one waiting
_PROGRAMS, _SESSIONS = 200, 20


def ledger(folder: Path, rounds: int) -> Result:
    """One port's whole life in the ledger, beside few others and beside many."""
    few, many = _lives(10), _lives(10_000)
    gc.collect()
    gc.freeze()  # what there is already is not to be looked through again and again
    times = interleaved(rounds * 3, {"beside 10": few, "beside 10,000": many})
    gc.unfreeze()
    show(
        "A port's life in the ledger: asked for, mapped, claimed, released, removed",
        times,
        "us",
        1e6,
    )
    what = "a port's life in the ledger, beside 10,000 others"
    return Result([compared(what, times, "beside 10,000", "beside 10", "us", 1e6, most=1.25)])


def _lives(others: int) -> Callable[[], float]:
    made = Ledger(Policy())
    made.gateway_found(0.0)
    for number in range(1024, 1024 + others):
        port = Port(Protocol.UDP, number)
        made.ask(port, 0.0)
        made.added(port, Mapped(3600), 0.0)
        made.claim(port, number, 0.0)

    def measure() -> float:
        began = time.perf_counter()
        for _ in range(_LIVES):
            made.next_deadline()
            made.ask(_PORT, 0.0)
            made.added(_PORT, Mapped(3600), 0.0)
            made.claim(_PORT, 1, 0.0)
            made.next_deadline()
            made.release(1, 1.0)
            made.next_deadline()
            made.tick(1.25)
            made.removed(_PORT, Removal.GONE, 1.5)
        return (time.perf_counter() - began) / _LIVES

    return measure


# Children of one process, which bind as soon as there is something to read.
_SOURCE = """
import os, socket, sys, time
first, last = map(int, sys.argv[1:])
go, done = os.pipe(), os.pipe()
for number in range(first, last):
    if os.fork() == 0:
        sock = socket.socket()
        os.read(go[0], 1)
        sock.bind(("", number))
        os.write(done[1], b"x")
        time.sleep(1000)
print("ready", flush=True)
sys.stdin.readline()
began = time.perf_counter()
os.write(go[1], bytes(last - first))
left = last - first
while left:
    left -= len(os.read(done[0], left))
print(time.perf_counter() - began, flush=True)
sys.stdin.read()
os.killpg(0, 9)
"""


class Crowd:
    """A session with programs that bind at once."""

    def __init__(self, lab: Lab, folder: Path, first: int, last: int) -> None:
        environ = {**environ_of(folder / "state"), "NATSUP_TIMEOUT": "60"}
        self._process = lab.popen(
            "lan1",
            [NATSUP, "exec", "--", sys.executable, "-c", _SOURCE, str(first), str(last)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environ,
            start_new_session=True,
        )
        self._line()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return str(self._process.stdout.readline())

    def tell(self) -> None:
        """Have them bind."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def took(self) -> float:
        """Seconds until the last of them was answered."""
        return float(self._line())

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def crowd(folder: Path, rounds: int) -> Result:
    """Programs that bind at once, and a router whose answers take 50 ms: one session with many of
    them, and some sessions with one each."""
    (folder / "lab").mkdir()
    with Lab(folder / "lab") as lab:
        remote = Remote(lab)
        overheard = Overheard(lab, folder)
        alone = Crowd(lab, folder, int(OVERHEARD), int(OVERHEARD) + 1)
        alone.tell()
        alone.took()
        adding = [r for r in heard(lab, overheard, "AddPortMapping") if "#" in r]
        remote.set(late={"*": _ANSWER})
        by_hand = ByHand(lab, adding, [], "kept")

        def natsup(count: int, programs: int) -> float:
            each = programs // count
            starts = range(20000, 20000 + programs, each)
            crowds = [Crowd(lab, folder, start, start + each) for start in starts]
            lab.wait_for(lambda: with_router(folder) == count + 1)
            began = time.perf_counter()
            for one in crowds:
                one.tell()
            for one in crowds:
                one.took()
            took = time.perf_counter() - began
            assert len(remote.table) == programs + 1
            remote.set(late={})
            for one in crowds:
                one.end()
            lab.wait_for(lambda: len(remote.table) == 1, 60)
            remote.set(late={"*": _ANSWER})
            return took

        def router(programs: int) -> float:
            numbers = range(20000, 20000 + programs)
            took = by_hand.send(adding, numbers)
            remote.do(clear=True)
            remote.do(give=[["TCP", int(OVERHEARD), LAN1]])
            return took

        times = interleaved(
            max(1, rounds // 4),
            {
                "natsup, 1 session": lambda: natsup(1, _PROGRAMS),
                f"the router alone, one after another, {_ANSWER * 1e3:g} ms each": lambda: router(
                    _PROGRAMS
                ),
            },
        )
        small = interleaved(
            max(1, rounds // 4),
            {
                f"natsup, {_SESSIONS} sessions": lambda: natsup(_SESSIONS, _SESSIONS),
                f"the router alone, one after another, {_ANSWER * 1e3:g} ms each": lambda: router(
                    _SESSIONS
                ),
            },
        )
    asked = f"{names(adding)}, {_ANSWER * 1e3:g} ms each"
    lines = []
    for what, values in (
        (f"{_PROGRAMS} programs of a session that bind at once", times),
        (f"{_SESSIONS} programs that bind at once, each with a session of its own", small),
    ):
        show(f"{what}, {asked}", values, "s")
        one, other = values
        lines.append(compared(what, values, one, other, "s", most=1.25))
    return Result(lines)


def with_router(folder: Path) -> int:
    """How many sessions have found the router."""
    return sum(one.alive and one.gateway is not None for one in sessions(folder / "state"))
