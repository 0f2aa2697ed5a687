"""One of natsup's processes stops at a step, something befalls the session there, and it goes on.

`run` plays one case in a lab, and returns what was not as it must be:

* The program is told what bind(2) tells it without natsup, within its budget. Only where nobody is
  left who could answer it is told ENOSYS.
* After quiet the router forwards what the program's sockets hold, and nothing else.
* A port is free for others as soon as the program has closed it.
* Nothing is left after the end: no process, no journal, no lock, nothing on the router.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from natsup.state import journal, points
from tests.lab import cast
from tests.lab.cast import Cast
from tests.lab.kills import Case, Event, Layout
from tests.lab.lab import LAN1, Lab
from tests.lab.program import NATSUP, Program

PORTS = range(7000, 7005)
FIRST_BUDGET, BUDGET = 2.5, 0.5  # seconds: of a call to a session that has just begun, and else
SLACK = 2.0  # seconds that a busy machine may take, to start Python for one
_SECONDS = 20.0  # for whatever is to come about
_ROUTER_SECONDS = 60.0  # for a router that is back to be found
_LEASE = 3600
_DAY = 86400
_ROOM = "3m"  # of the state folder: enough for a journal that is written anew
_JOURNAL = journal.MOST + (1 << 16)  # bytes, after which it is


@dataclass
class Result:
    violations: list[str] = field(default_factory=list)
    slowest: float = 0.0  # seconds; of the binds
    lost: int = 0  # binds that failed with ENOSYS
    over: float = -FIRST_BUDGET  # seconds; the most that one took more than its budget


def run(case: Case, lab: Lab, folder: Path, clock: Path) -> Result:
    """Play one case. ``folder``: of its own; ``clock``: `jump.c`, compiled."""
    played = _Play(case, lab, folder, clock)
    try:
        played.play()
    except Exception as error:
        played.found(f"it could not be played: {error!r}")
    finally:
        played.clear_up()
    return played.result


def compile_clock(folder: Path) -> Path:
    source, library = Path(__file__).with_name("jump.c"), folder / "jump.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    return library


# What the program has beside its own.
_SETUP = """
import signal
def bind(sock, host, port, signals):
    if signals:
        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.01)
    begin = time.monotonic()
    try: sock.bind((host, port)); failed = None
    except OSError as error: failed = errno.errorcode[error.errno]
    finally: signal.setitimer(signal.ITIMER_REAL, 0)
    return [failed, time.monotonic() - begin]
def restrict():
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    ruleset = libc.syscall(444, (ctypes.c_uint64 * 2)(1 << 3, 0), 16, 0)
    assert libc.prctl(38, 1, 0, 0, 0) == 0 == libc.syscall(446, ruleset, 0)
"""

# Binds ports as somebody else would, and tells which of them are taken.
_TAKEN = """
import socket, sys
taken = []
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    for port in map(int, sys.argv[1:]):
        with socket.socket(type=kind) as sock:
            try: sock.bind(("", port))
            except OSError: taken.append(port)
print(taken)
"""


class _Play:
    def __init__(self, case: Case, lab: Lab, folder: Path, clock: Path) -> None:
        self.case, self.shape = case, case.shape
        self.lab = lab
        self.result = Result()
        self.alone = False  # is nobody of natsup's left?
        self.ended = False  # has the program?
        self.state = folder / "state-lan1"
        self.jump = folder / "jump"
        self.cast = Cast(self.state)
        self.mounted = case.event is Event.FULL
        if self.mounted:
            self.state.mkdir()
            words = ["mount", "-t", "tmpfs", "-o", f"size={_ROOM}", "natsup", str(self.state)]
            subprocess.run(words, check=True)
        environ = {points.VARIABLE: case.step}
        if case.event in (Event.FORWARD, Event.BACK):
            environ |= {"LD_PRELOAD": str(clock), "JUMP": str(self.jump)}
        words = ["--as-parent"] if case.layout is Layout.AS_PARENT else []
        prefix = ["env", *(f"{name}={value}" for name, value in environ.items())]
        self.program = Program(lab, folder, *words, *self.shape.words, prefix=prefix)
        self.sure: dict[str, str] = {}  # sockets that were bound, and their ports
        self.open: dict[str, Any] = {}  # sockets whose bind() was made: what it came to
        self.bound: dict[str, int] = {}

    # --- what is played ---

    def play(self) -> None:
        self.program.do(f"exec({_SETUP!r}, globals())")
        self.pid = self.program.pid
        under_way = self._come_to_the_step()
        self._befall()
        begin = time.monotonic()
        self.cast.go_on()
        if self.ended:
            self._end()
            return
        for name in under_way:
            answer = self._answer()
            self._judge(name, answer, time.monotonic() - begin, self._first_budget())
        after = self._bind("d", 3)
        self._judge("d", after, after[1], self._first_budget())
        if self.case.event is Event.ROUTER:
            self.lab.start_router()
            self.lab.announce_router()
        self._rest()
        if self.case.event in (Event.FORWARD, Event.BACK):
            self._another_supervisor()
            self._rest()
            self._look_at_leases()
        self._close_everything()
        if not self.alone:
            last = self._bind("e", 4)
            self._judge("e", last, last[1], self._first_budget())
        self._end()

    def _come_to_the_step(self) -> list[str]:
        """Returns the names of the sockets whose bind() is not answered yet."""
        step = self.case.step
        if step in points.START:
            self._wait_for_stop()
            return self._tell_bind("a", 0)
        if step in points.PASSING:
            self._do("restrict()")
        if step in (*points.BIND, *points.PASSING):
            told = self._tell_bind("a", 0)
            self._wait_for_stop()
            return told
        first = self._bind("a", 0)
        self._judge("a", first, first[1], FIRST_BUDGET)
        if step in points.COMPARISON:
            self._wait_for_stop()
            return self._tell_bind("b", 1)
        if step in points.RELEASE:
            self._expect_table()
            self._close("a")
            self._wait_for_stop()
            return self._tell_bind("b", 1)
        self._expect_table()
        told = []
        if step in points.END:
            self._end_program()
        elif step in points.ANEW:
            self._kill(self.cast.supervisors(), signal.SIGUSR2)
        elif step in points.FOLLOWING or step == "guarding":
            cast.kill(self.cast.guards())
        else:
            told = self._end_a_supervisor()
        self._wait_for_stop()
        if step in points.TAKEOVER:
            answer = self._answer()  # the guard has seen to that
            self._judge("b", answer, answer[1], BUDGET)
            return self._tell_bind("c", 2)
        if step in points.END:
            return []
        return told or self._tell_bind("b", 1)

    def _end_a_supervisor(self) -> list[str]:
        """Kill it, with what the step needs prepared: its journal, or a call that it has not
        seen."""
        supervisors = self.cast.supervisors()
        for pid in supervisors:
            os.kill(pid, signal.SIGSTOP)
        told = []
        if self.case.step in (*points.TAKEOVER, *points.GUARDING):
            told = self._tell_bind("b", 1)
        path = self._journal()
        if self.case.step in points.COMPACTION:
            with path.open("ab") as file:
                file.write(b"\n" + b" " * _JOURNAL + b"\n")
        if self.case.step in points.RENEWAL:
            record = journal.read(path)
            assert record is not None
            for port, known in record.ports.items():
                journal.extend(path, port, known, expires=time.time() + 8, wall=time.time())
        cast.kill(supervisors)
        return told

    def _befall(self) -> None:
        event = self.case.event
        supervisors, guards = self.cast.supervisors(), self.cast.guards()
        if event is Event.SUPERVISOR:
            cast.kill(supervisors)
        elif event is Event.GUARD:
            cast.kill(guards)
        elif event is Event.BOTH:
            cast.kill(supervisors | guards)
        elif event is Event.PROGRAM:
            os.kill(self.pid, signal.SIGKILL)
            self.ended = True
        elif event is Event.ROUTER:
            self.lab.stop_router()
        elif event is Event.FULL:
            self._fill()
        else:
            self.jump.write_text(f"{_DAY if event is Event.FORWARD else -_DAY}\n")
        self.alone = not self.cast.members()
        self.table = self.lab.table() if self.alone else {}

    def _fill(self) -> None:
        """Leave no room for the journal but 20 bytes, so that a line is cut off."""
        for path in self.state.glob("sessions/*"):
            with path.open("ab") as file:
                file.write(b"\n" * (4096 - 20 - path.stat().st_size % 4096))
        with contextlib.suppress(OSError), (self.state / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    def _another_supervisor(self) -> None:
        """Whatever is read from the journal is read by the other clock."""
        before = self.cast.supervisors()
        cast.kill(before)
        self._expect(lambda: bool(self.cast.supervisors() - before), "there is no other supervisor")
        answer = self._bind("g", 2 if "c" not in self.open else 4)
        self._judge("g", answer, answer[1], FIRST_BUDGET)

    def _look_at_leases(self) -> None:
        wall = time.time() + int(self.jump.read_text())
        record = journal.read(self._journal())
        for port, known in () if record is None else record.ports.items():
            left = None if known.expires is None else known.expires - wall
            if known.exists and left is not None and not -1 < left <= _LEASE + 1:
                self.found(f"the lease of {port} is thought to last {left:.0f} s")

    def _rest(self) -> None:
        """Nothing is under way any more: the router forwards what there is."""
        if self.alone:
            self._clean()
        self._expect_table()
        if not self.alone:
            self._expect(
                lambda: (len(self.cast.supervisors()), len(self.cast.guards())) == (1, 1),
                "there are not one supervisor and one guard",
            )

    def _close_everything(self) -> None:
        if self.alone and "seccomp" in self.shape.words:
            return  # close() fails with ENOSYS, too
        for name in list(self.open):
            self._close(name)
        words = [sys.executable, "-c", _TAKEN, *map(str, sorted(self.bound.values()))]
        taken = self.lab.run("lan1", words, check=True).stdout.strip()
        if taken != "[]":
            self.found(f"ports are taken after they were closed: {taken}")
        if self.alone:
            return
        self._expect(lambda: self.lab.table() == {}, "closed ports are still forwarded")

    def _end_program(self) -> None:
        if not self.ended:
            assert self.program.process.stdin is not None
            self.program.process.stdin.close()
            self.ended = True

    def _end(self) -> None:
        """The program ends, and natsup after it."""
        self._end_program()
        self._expect(lambda: cast.state(self.pid) in ("Z", ""), "the program has not ended")
        self._expect(lambda: not self.cast.members(), "natsup has not ended")
        router = self.case.event is Event.ROUTER
        if router and not self.lab.router_runs():
            self.lab.start_router()
        if self.case.step == "create":
            for path in self.state.glob("sessions/*.new"):  # it may be being written, for a minute
                os.utime(path, (0, 0))
        if self.alone or router or self.case.step in (*points.END, "create"):
            self._clean()
        self._expect(lambda: self.lab.table() == {}, "the router still forwards something")
        left = [path.name for path in self.state.glob("sessions/*")]
        if left:
            self.found(f"journals are left: {left}")
        names = self.lab.run("lan1", ["cat", "/proc/net/unix"]).stdout
        if "natsup" in names:
            self.found("something is still announced to other sessions")

    def clear_up(self) -> None:
        """Whatever came of it, the lab is as it was."""
        cast.kill(self.cast.members())
        self.lab.end_programs()
        if not self.lab.router_runs():
            self.lab.start_router()
        if self.lab.table():
            self.lab.stop_router()
            self.lab.lose_rules()
            self.lab.start_router()
        if self.mounted:
            subprocess.run(["umount", "--lazy", str(self.state)], check=True)

    # --- the program ---

    def _do(self, line: str) -> Any:
        self.program.tell(line)
        return self._answer()

    def _answer(self) -> Any:
        """Of the program, while all that stops is continued."""
        assert self.program.process.stdout is not None
        deadline = time.monotonic() + _SECONDS
        while not select.select([self.program.process.stdout], [], [], 0.01)[0]:
            if time.monotonic() > deadline:
                raise TimeoutError("the program is held")
            self.cast.go_on()
        return self.program.answer()

    def _tell_bind(self, name: str, number: int) -> list[str]:
        shape = self.shape
        self._say(f"{name} = {shape.make}")
        if shape.before:
            self._say(shape.before.format(name))
        port = 0 if shape.chosen else PORTS[number]
        # A call that nobody takes meanwhile is interrupted: natsup cannot help that.
        signals = shape.signals and self.case.step in points.BIND and name == "a"
        if signals:
            self._expect(self._is_served, "no session begins")
        self.program.tell(f"bind({name}, {shape.host!r}, {port}, {signals})")
        return [name]

    def _say(self, line: str) -> None:
        """A line that is answered at once, whoever stands still."""
        self.program.tell(line)
        assert self.program.process.stdout is not None
        assert select.select([self.program.process.stdout], [], [], _SECONDS)[0], line
        self.program.answer()

    def _bind(self, name: str, number: int) -> Any:
        self._tell_bind(name, number)
        return self._answer()

    def _judge(self, name: str, answer: Any, seconds: float, budget: float) -> None:
        """What came of a bind(), and how long it took."""
        failed = answer[0]
        self.open[name] = failed
        self.result.slowest = max(self.result.slowest, seconds)
        self.result.over = max(self.result.over, seconds - budget)
        if seconds > budget + SLACK:
            self.found(f"{name}: bind() took {seconds:.2f} s")
        if not (failed is None or (failed == "ENOSYS" and self.alone)):
            self.found(f"{name}: bind() failed with {failed}")
        if self.alone and failed is None and name == "d":
            self.found("bind() was answered by nobody")
        if failed == "ENOSYS":
            self.result.lost += 1
        number = self._do(f"{name}.getsockname()[1]")
        if number:
            self.bound[name] = number
        elif failed is None:
            self.found(f"{name} is not bound")
        reuse = bool(self._do(f"{name}.getsockopt(1, 2)"))
        if reuse != bool(self.shape.before) and failed is None:
            self.found(f"{name}: SO_REUSEADDR is {reuse}")
        if number and self.shape.after:
            self._do(self.shape.after.format(name))

    def _close(self, name: str) -> None:
        self._do(f"{name}.close()")
        self.open.pop(name)

    # --- what must come about ---

    def found(self, violation: str) -> None:
        self.result.violations.append(violation)

    def _first_budget(self) -> float:
        """A supervisor that has just come looks for the router anew."""
        return FIRST_BUDGET

    def _expect(
        self, condition: Callable[[], bool], otherwise: str, seconds: float = _SECONDS
    ) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                self.found(otherwise)
                return
            self.cast.go_on()
            time.sleep(0.1)  # a look at the router costs more than natsup does

    def _wait_for_stop(self) -> None:
        deadline = time.monotonic() + _SECONDS
        while not self.cast.stopped():
            if time.monotonic() > deadline:
                raise TimeoutError("nobody came to the step")
            time.sleep(0.01)

    def _expect_table(self) -> None:
        protocol = "udp" if self.shape.udp else "tcp"
        held = {name: f"{protocol}/{self.bound[name]}" for name in self.open if name in self.bound}
        possible = dict.fromkeys(held.values(), LAN1)
        # Who is left alone keeps what there is, no more. And what was bound, and whose caller was
        # told otherwise by the kernel, nobody knows of.
        sure = {
            held[name]: LAN1
            for name in held
            if self.open[name] is None and (not self.alone or held[name] in self.table)
        }

        def right() -> bool:
            table = self.lab.table()
            return sure.items() <= table.items() <= possible.items()

        slow = self.case.event is Event.ROUTER
        self._expect(right, "", _ROUTER_SECONDS if slow else _SECONDS)
        if not self.result.violations or self.result.violations[-1]:
            return
        self.result.violations[-1] = f"the router forwards {self.lab.table()}, and not {possible}"

    def _journal(self) -> Path:
        found = [
            path
            for path in self.state.glob("sessions/*.jsonl")
            if json.loads(path.read_bytes().split(b"\n")[0])["pid"] == self.pid
        ]
        return max(found, key=lambda path: path.stat().st_mtime, default=self.state / "none")

    def _is_served(self) -> bool:
        path = self._journal()
        return path.is_file() and b'"supervisor"' in path.read_bytes()

    def _clean(self) -> None:
        done = self.lab.run("lan1", [NATSUP, "clean"], env=self.program.environ)
        if done.returncode != 0:
            self.found(f"natsup clean: {done.stdout}{done.stderr}")

    def _kill(self, pids: set[int], number: int) -> None:
        for pid in pids:
            os.kill(pid, number)
