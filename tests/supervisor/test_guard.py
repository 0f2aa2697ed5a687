"""The guard alone: what the rest of natsup cannot be brought to do to it."""

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from natsup.state.journal import Header, Journal, sessions
from natsup.state.ledger import Note, State
from natsup.state.model import Port, Protocol
from natsup.supervisor import guard, handover, libc
from natsup.supervisor.listener import Listener
from natsup.supervisor.page import Page
from tests.kernel.harness import supervised
from tests.kernel.test_notifications import bind_once

_PR_GET_DUMPABLE = 3


@pytest.fixture
def ends() -> Iterator[tuple[handover.End, handover.End]]:
    """The guard's and the supervisor's end of what they talk through."""
    control, supervisor = handover.pair()
    yield control, supervisor
    control.close()
    supervisor.close()


@contextmanager
def program_that_exits(status: int) -> Iterator[tuple[int, int]]:
    """A child of this process, as the program is the supervisor's: its pid, and a pidfd."""
    pid = os.fork()
    if pid == 0:
        os._exit(status)
    pidfd = os.pidfd_open(pid)
    yield pid, pidfd
    os.close(pidfd)


@contextmanager
def signals_and_page() -> Iterator[tuple[int, Page]]:
    signals, page = libc.signalfd([signal.SIGRTMAX]), Page.create([])
    yield signals, page
    os.close(signals)
    os.close(page.fd)


def test_a_status_that_is_never_told_is_a_failure(
    ends: tuple[handover.End, handover.End], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The supervisor has waited for the program, and its word of that is lost."""
    monkeypatch.setattr(guard, "_STATUS_SECONDS", 0.05)
    with program_that_exits(0) as (pid, pidfd), signals_and_page() as (signals, page):
        os.waitpid(pid, 0)
        parent = guard.ParentGuard(Listener(-1), page, ends[0], -1, signals, pid, pidfd)
        assert os.WEXITSTATUS(parent.program_status()) == 125


def test_a_status_that_is_told_late_counts(
    ends: tuple[handover.End, handover.End], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as nobody has waited for the program, the word of its end is still to come."""
    monkeypatch.setattr(guard, "_STATUS_SECONDS", 0.01)

    class Parent(guard.ParentGuard):
        def _collected(self) -> bool:
            found = super()._collected()  # some time has passed, and nothing has been told
            handover.send(ends[1], handover.STATUS, os.waitpid(self._program, 0)[1])
            return found

    with program_that_exits(7) as (pid, pidfd), signals_and_page() as (signals, page):
        parent = Parent(Listener(-1), page, ends[0], -1, signals, pid, pidfd)
        assert os.WEXITSTATUS(parent.program_status()) == 7


def in_a_fork(function: Callable[[], int]) -> int:
    """The exit status of a function that returns one, in a process of its own."""
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            status = function()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_death_that_is_imitated_leaves_no_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a file, which the limit forbids, nor one in a pipe, which minds no limit."""

    def die(pid: int, number: int) -> None:
        dumpable = ctypes.CDLL(None).prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0)
        limit, _ = resource.getrlimit(resource.RLIMIT_CORE)
        os._exit(10 if (dumpable, limit) == (0, 0) else 11)

    monkeypatch.setattr(os, "kill", die)
    assert in_a_fork(lambda: guard.end_as(signal.SIGSEGV)) == 10


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"PYTHONPATH": "lib"}, {"PYTHONPATH": "/home/u/lib"}),
        ({"PYTHONPATH": "/a:lib::"}, {"PYTHONPATH": "/a:/home/u/lib:/home/u/:/home/u/"}),
        ({"PYTHONPATH": ""}, {}),
        ({"PYTHONHOME": "py", "HOME": "h"}, {"PYTHONHOME": "/home/u/py", "HOME": "h"}),
        ({"PYTHONSTARTUP": "x", "PYTHONWARNINGS": "error"}, {}),
    ],
)
def test_paths_of_python_stay_where_they_were(
    given: dict[str, str], expected: dict[str, str]
) -> None:
    assert guard.supervisor_environment(given, "/home/u") == expected


def test_it_keeps_the_last_two_journals() -> None:
    control, supervisor = handover.pair()
    with signals_and_page() as (_, page):
        kept = guard._Guard(Listener(-1), page, control, -1)
        readers = []
        for _ in range(4):
            reader, writer = os.pipe()
            handover.send(supervisor, handover.KEEP, fd=writer)
            os.close(writer)
            os.set_blocking(reader, False)
            kept._hear()
            readers.append(reader)
        for reader in readers[:2]:
            assert os.read(reader, 1) == b""  # nobody has the other end
        for reader in readers[2:]:
            with pytest.raises(BlockingIOError):
                os.read(reader, 1)
        supervisor.close()
        kept._hear()
        for fd in (*readers, *kept._kept):
            os.close(fd)


def write_until_killed(folder: Path, supervisor: handover.End, steps: int) -> None:
    """What a supervisor does with its journal. It dies after so many calls of functions in C,
    counted from the line that makes it write the journal anew. Ends with 1 if it came through."""
    journal = Journal.create(folder, Header("s", 1, ["x"], 0.0), most=1000)
    handover.send(supervisor, handover.KEEP, fd=journal.fileno())
    handed: list[int] = []

    def hand_on(fd: int) -> bool:
        handed.append(fd)
        handover.send(supervisor, handover.KEEP, fd=fd)
        return True

    journal.hand_on = hand_on
    note = Note(Port(Protocol.TCP, 7000), State.MAPPED, "", None, 1, exists=True)
    while journal._size <= journal._limit - 150:
        journal.note(note, now=0.0, wall=0.0)
    left = steps

    def die(frame: object, event: str, argument: Any) -> None:
        nonlocal left
        if event == "c_call":
            left -= 1
            if left < 0:
                os._exit(0)

    sys.setprofile(die)
    while not handed:
        journal.note(note, now=0.0, wall=0.0)
    sys.setprofile(None)
    os._exit(1)


def test_a_supervisor_that_dies_while_it_writes_its_journal_anew(tmp_path: Path) -> None:
    """At any instant there is one journal, it can be read, and the guard's lock is on it."""
    for steps in count():
        folder = tmp_path / str(steps)
        control, supervisor = handover.pair()
        pid = os.fork()
        if pid == 0:
            control.close()
            write_until_killed(folder, supervisor, steps)
        supervisor.close()
        with signals_and_page() as (_, page):
            kept = guard._Guard(Listener(-1), page, control, -1)
            while kept._control is not None:
                kept._hear()
            _, status = os.waitpid(pid, 0)
            (session,) = sessions(folder)
            assert session.alive
            assert list(session.ports) == [Port(Protocol.TCP, 7000)]
            for fd in kept._kept:
                os.close(fd)
            (session,) = sessions(folder)
            assert not session.alive
        if status:
            assert os.WEXITSTATUS(status) == 1
            break
    assert steps > 10


def test_a_guard_whose_last_caller_goes_does_not_wait_for_ever() -> None:
    """It may go between the two looks whether it is there."""
    with supervised(lambda: None) as child:
        child.wait()
        assert child.listener.abandoned()
        alone = guard._Guard(child.listener, child.page, None, -1)
        assert alone._take_turn() == set()


def test_a_guard_gives_up_when_every_supervisor_ends_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Calls pass meanwhile and from then on; the journal says so; what was left is cleaned up."""
    started = tmp_path / "started"

    def end(*_: object, **__: object) -> None:
        with started.open("a") as file:
            file.write("x")
        os._exit(1)

    cleaned: list[bool] = []
    monkeypatch.setattr("natsup.supervisor.restarts._PAUSES", (0.0, 0.01, 0.02))
    monkeypatch.setattr(guard, "become_supervisor", end)
    monkeypatch.setattr(guard._Guard, "_clean", lambda self: cleaned.append(True))
    journal = Journal.create(tmp_path, Header("x", pid=1, command=["x"], started=0.0))
    fd = journal.fileno()
    assert fd is not None

    def bind_five_times() -> list[int]:
        return [bind_once() for _ in range(5)]

    with supervised(bind_five_times) as child:
        control, supervisor = handover.pair()
        one = guard._Guard(child.listener, child.page, control, -1)
        one.keep([os.dup(fd)])
        supervisor.close()
        one.guard()
        assert child.result() == [0] * 5
    assert started.read_text() == "xxx"
    assert cleaned == [True]
    assert sessions(tmp_path)[0].given_up
