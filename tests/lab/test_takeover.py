"""The death of natsup's own processes: the program notices nothing, and its ports stay right."""

import os
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kernel.twins import wrong
from tests.lab.cast import state
from tests.lab.lab import LAN1, LAN1_6, Lab
from tests.lab.program import NATSUP, Program

Start = Callable[..., Program]

# Binds and closes a port in a thread until it is told to stop; what went wrong is in `failed`.
BINDER = """
failed = []
class Binder(threading.Thread):
    on = True
    def run(self):
        while self.on:
            try:
                with socket.socket() as sock: sock.bind(("", 7001))
            except BaseException as error: failed.append(repr(error))
    def stop(self):
        self.on = False
        self.join()
binder = Binder()
binder.start()
"""


@pytest.fixture(params=["in place", "as parent"])
def start(request: pytest.FixtureRequest, lab: Lab, tmp_path: Path) -> Start:
    """Starts a program under natsup. Keywords: variables of its environment."""
    words = ["--as-parent"] if request.param == "as parent" else []

    def start(*more: str, **environ: str) -> Program:
        prefix = ["env", *(f"{name}={value}" for name, value in environ.items())]
        program = Program(lab, tmp_path, *words, *more, prefix=prefix if environ else [])
        assert program.pid
        return program

    return start


def kill_supervisor(lab: Lab, program: Program) -> int:
    """Returns the pid of the one that takes its place, once that has taken the session over."""
    before = program.supervisor()
    os.kill(before, signal.SIGKILL)
    lab.wait_for(lambda: program.supervisor() != before)
    return program.supervisor()


def test_when_no_supervisor_is_started_any_more_the_log_says_so(lab: Lab, start: Start) -> None:
    program = start(**wrong("ends_again_and_again"))
    assert program.bind("s", 7000) is None
    os.kill(program.supervisor(), signal.SIGKILL)
    lab.wait_for(lambda: "is not started any more" in program.log())
    assert program.bind("t", 7001) is None
    assert lab.table() == {"tcp/7000": LAN1}
    lines = [line for line in program.log().splitlines() if " ERROR " in line]
    assert len(lines) == 1
    (journal,) = program.state.glob("sessions/*.jsonl")
    assert lines[0].endswith(f"[{journal.stem}]")
    program.process.communicate(timeout=20)  # it ends with its input
    lab.wait_for(lambda: lab.table() == {})


def test_another_supervisor_takes_the_place_of_a_dead_one(lab: Lab, start: Start) -> None:
    program = start()
    assert program.bind("s", 7000) is None
    assert program.bind("t", 7001, "DGRAM") is None
    supervisors = {program.supervisor()}
    for number in range(3):
        supervisors.add(kill_supervisor(lab, program))
        assert program.bind(f"s{number}", 7002 + number) is None
        lab.wait_for(lambda: f"tcp/{7002 + number}" in lab.table())  # noqa: B023 - it runs here
    assert len(supervisors) == 4
    every = {f"tcp/{port}" for port in (7000, 7002, 7003, 7004)}
    assert lab.table() == dict.fromkeys([*every, "udp/7001"], LAN1)
    program.do("t.close()")
    lab.wait_for(lambda: lab.table() == dict.fromkeys(every, LAN1))
    os.kill(program.do("os.getpid()"), signal.SIGKILL)
    assert program.process.wait(20) == -signal.SIGKILL
    lab.wait_for(lambda: lab.table() == {})


def test_what_ends_while_nobody_looks_is_removed(lab: Lab, start: Start) -> None:
    program = start(NATSUP_STOP_AT="restore")
    assert program.bind("s", 7000) is None
    assert program.bind("t", 7001) is None
    before = program.supervisor()
    os.kill(before, signal.SIGKILL)
    lab.wait_for(lambda: program.supervisor() != before and state(program.supervisor()) == "T")
    program.do("s.close()")
    os.kill(program.supervisor(), signal.SIGCONT)
    lab.wait_for(lambda: lab.table() == {"tcp/7001": LAN1})


def test_another_guard_takes_the_place_of_a_dead_one(lab: Lab, start: Start) -> None:
    program = start()
    child = program.do("os.getpid()")
    assert program.bind("s", 7000) is None
    for number in range(2):
        supervisor, guard = program.supervisor(), program.guard()
        os.kill(guard, signal.SIGKILL)
        lab.wait_for(lambda: len(program.holders() - {guard}) == 2)  # noqa: B023
        assert program.bind(f"s{number}", 7001 + number) is None
        assert program.supervisor() == supervisor
        kill_supervisor(lab, program)
    assert program.bind("t", 7005) is None
    lab.wait_for(lambda: len(lab.table()) == 4)
    os.kill(child, signal.SIGKILL)
    lab.wait_for(lambda: lab.table() == {})


def test_a_session_begins_anew_with_nothing_lost(lab: Lab, start: Start) -> None:
    """While the program binds and closes all the time, with another image of the supervisor."""
    program = start()
    assert program.bind("s", 7000) is None
    supervisor = program.supervisor()
    program.do(f"exec({BINDER!r})")
    for _ in range(3):
        done = lab.run("lan1", [NATSUP, "restart", str(program.pid)], env=program.environ)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.endswith(": restarted\n")
        assert program.supervisor() == supervisor
        assert lab.table()["tcp/7000"] == LAN1
    assert program.do("binder.stop() or failed") == []
    assert program.bind("t", 7002) is None
    lab.wait_for(lambda: lab.table() == {"tcp/7000": LAN1, "tcp/7002": LAN1})
    os.kill(program.pid, signal.SIGKILL)
    assert program.process.wait(20) == -signal.SIGKILL
    lab.wait_for(lambda: lab.table() == {})


def test_a_program_that_outlives_its_session_keeps_its_ports(lab: Lab, start: Start) -> None:
    """By natsup clean, as long as its sockets are there. Its further binds fail, as bind(2) does
    with no seccomp listener."""
    program = start()
    assert program.bind("s", 7000) is None
    assert program.bind("t", 7001) is None
    program.alone()
    assert program.bind("u", 7002) == "ENOSYS"
    program.do("t.close()")
    done = lab.run("lan1", [NATSUP, "clean"], env=program.environ)
    assert (done.returncode, done.stderr) == (0, "")
    name = Path(sys.executable).name
    assert f"tcp/7000 of {name} is kept: the program lives on without natsup\n" in done.stdout
    assert lab.table() == {"tcp/7000": LAN1}
    program.serve("s")
    assert lab.fetch("tcp", 7000) == b"here"
    pidfd = os.pidfd_open(program.pid)
    os.kill(program.pid, signal.SIGKILL)
    assert select.select([pidfd], [], [], 20)[0]
    os.close(pidfd)
    done = lab.run("lan1", [NATSUP, "clean"], env=program.environ)
    assert (done.returncode, done.stderr) == (0, "")
    assert lab.table() == {}


@pytest.mark.parametrize("lab", [{"ipv6": True, "pmp": True}], indirect=True)
@pytest.mark.parametrize("protocol", ["upnp", "pcp"])
def test_pinholes_are_taken_over(lab: Lab, tmp_path: Path, protocol: str) -> None:
    program = Program(lab, tmp_path, "--protocols", protocol)
    assert program.pid
    assert program.bind("s", 7000, family="INET6") is None

    def kinds() -> set[str]:
        (session,) = program.status()
        return {f"{m['family']} {m['state']}" for m in session["mappings"]}

    lab.wait_for(lambda: kinds() == {"ipv4 mapped", "ipv6 mapped"})
    kill_supervisor(lab, program)
    program.serve("s")
    lab.wait_for(lambda: kinds() == {"ipv4 mapped", "ipv6 mapped"})
    assert lab.fetch("tcp", 7000, to=LAN1_6) == b"here"
    os.kill(program.pid, signal.SIGKILL)
    program.process.wait(20)
    lab.wait_for(lambda: lab.table() == {})
    if protocol == "pcp":  # miniupnpd refuses to remove a pinhole that was renewed
        lab.wait_for(lambda: "tcp6/7000: the router ends it in 120 s by itself" in program.log())
    else:
        lab.wait_for(lambda: lab.pinholes() == {})
