"""Signals, stops and terminals: what reaches the program, and what its caller sees of it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.supervisor.conftest import NATSUP, Exec

_CHLD = 1 << (signal.SIGCHLD - 1)


@contextmanager
def python(
    environ: dict[str, str], layout: list[str], script: str
) -> Iterator["subprocess.Popen[str]"]:
    """A script in Python under `natsup exec`, in a process group of its own."""
    command = ["unshare", "--net", NATSUP, "exec", *layout, "--", sys.executable, "-c", script]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, text=True, env=environ, process_group=0
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:  # the test failed, and nobody would end it
                os.killpg(process.pid, signal.SIGKILL)


def test_the_terminals_hang_up_reaches_the_program(
    environ: dict[str, str], layout: list[str]
) -> None:
    """The kernel tells the session's leader alone, as which natsup may have been started."""
    script = (
        "import signal, sys\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})\n"
        "print('ready', flush=True)\n"
        "sys.exit(10 + signal.sigwait({signal.SIGHUP}))\n"
    )
    end, terminal = os.openpty()
    command = ["setsid", "--ctty", "unshare", "--net", NATSUP, "exec", *layout, "--"]
    with subprocess.Popen(
        [*command, sys.executable, "-c", script],
        stdin=terminal,
        stdout=subprocess.PIPE,
        text=True,
        env=environ,
    ) as process:
        assert process.stdout is not None
        os.close(terminal)
        assert process.stdout.readline() == "ready\n"
        os.close(end)
        try:
            assert process.wait(20) == 10 + signal.SIGHUP
        finally:
            process.kill()


WAIT_FOR_SIGNALS = (
    "import os, signal, sys\n"
    "wanted = {signal.SIGCONT, signal.SIGRTMIN}\n"
    "signal.pthread_sigmask(signal.SIG_BLOCK, wanted)\n"
    "print(os.getpid(), flush=True)\n"
    "while (number := signal.sigwait(wanted)) == signal.SIGCONT: print('continued', flush=True)\n"
    "sys.exit(5)\n"
)


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN])
def test_a_continue_is_mirrored(
    environ: dict[str, str], layout: list[str], number: signal.Signals
) -> None:
    """Whoever stops the program and continues it finds natsup as it was, and the program has been
    continued once."""
    with python(environ, layout, WAIT_FOR_SIGNALS) as process:
        assert process.stdout is not None
        program = int(process.stdout.readline())
        os.kill(program, number)
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        assert os.WSTOPSIG(status) == number
        os.kill(program, signal.SIGCONT)
        assert process.stdout.readline() == "continued\n"
        _, status = os.waitpid(process.pid, os.WCONTINUED)
        assert os.WIFCONTINUED(status)
        process.send_signal(signal.SIGRTMIN)  # natsup takes it after a SIGCONT, as the program does
        assert process.stdout.read() == ""
        assert process.wait(20) == 5


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGTSTP])
def test_natsup_does_not_stay_stopped(environ: dict[str, str], number: signal.Signals) -> None:
    """However close together the program's stop and its continue come."""
    with python(environ, ["--as-parent"], WAIT_FOR_SIGNALS) as process:
        assert process.stdout is not None
        program = int(process.stdout.readline())
        os.kill(program, number)
        os.waitpid(process.pid, os.WUNTRACED)  # from here on stops are mirrored
        os.kill(program, signal.SIGCONT)
        assert process.stdout.readline() == "continued\n"
        for _ in range(300):
            os.kill(program, number)
            os.kill(program, signal.SIGCONT)
            assert process.stdout.readline() == "continued\n"
        process.send_signal(signal.SIGRTMIN)
        assert process.wait(20) == 5


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGTSTP])
def test_the_end_of_a_stopped_program(
    environ: dict[str, str], layout: list[str], number: signal.Signals
) -> None:
    with python(environ, layout, WAIT_FOR_SIGNALS) as process:
        assert process.stdout is not None
        program = int(process.stdout.readline())
        os.kill(program, number)
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        os.kill(program, signal.SIGKILL)
        assert process.wait(20) == -signal.SIGKILL


def test_without_its_supervisor_natsup_does_not_stop(environ: dict[str, str]) -> None:
    """It answers the calls then, and others than the program make some too."""
    script = (
        "import os, signal, socket, sys\n"
        "if os.fork() == 0:\n"
        "    sys.stdin.readline()\n"
        "    socket.socket().bind(('', 7004))\n"
        "    print('bound', flush=True)\n"
        "    os._exit(0)\n"
    )
    with python(environ, ["--as-parent"], script + WAIT_FOR_SIGNALS) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        program = int(process.stdout.readline())
        os.kill(parent_of(program), signal.SIGKILL)
        deadline = time.monotonic() + 20
        while parent_of(program) != process.pid:
            assert time.monotonic() < deadline
        os.kill(program, signal.SIGSTOP)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "bound\n"
        os.kill(program, signal.SIGKILL)
        assert process.wait(20) == -signal.SIGKILL


def parent_of(pid: int) -> int:
    """The pid of a process's parent."""
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(") ")[2].split()[1])


@pytest.mark.parametrize("ignored", [True, False])
def test_whether_the_program_ignores_its_children_is_its_callers_affair(
    environ: dict[str, str], layout: list[str], ignored: bool
) -> None:
    """Natsup itself cannot do without, and its end is the program's all the same."""
    script = "print(open('/proc/self/status').read()); import sys; sys.exit(6)"
    caller = ["env", "--ignore-signal=CHLD" if ignored else "--default-signal=CHLD"]
    command = [
        "unshare",
        "--net",
        *caller,
        NATSUP,
        "exec",
        *layout,
        "--",
        sys.executable,
        "-c",
        script,
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=30)
    assert (done.returncode, done.stderr) == (6, "")
    found = done.stdout.partition("SigIgn:")[2].split()[0]
    assert bool(int(found, 16) & _CHLD) == ignored


def test_no_child_of_natsups_is_pending(natsup_exec: Exec, environ: dict[str, str]) -> None:
    """The caller has SIGCHLD blocked, so that what natsup left would wait for the program."""
    for layout in ([], ["--as-parent"]):
        words = ["unshare", "--net", NATSUP, "exec", *layout, "--", "cat", "/proc/self/status"]
        command = ["env", "--block-signal=CHLD", *words]
        done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=30)
        status = dict(line.split(":\t") for line in done.stdout.splitlines())
        assert int(status["SigBlk"], 16) & _CHLD
        assert int(status["SigPnd"], 16) | int(status["ShdPnd"], 16) == 0


@pytest.mark.parametrize("status", [6, -signal.SIGKILL])
def test_the_status_does_not_wait_for_the_libraries(
    environ: dict[str, str], layout: list[str], tmp_path: Path, status: int
) -> None:
    """The caller has it at once, however long the supervisor takes to import what it needs, and
    stops are mirrored, too."""
    here, there, gate = tmp_path / "lib", tmp_path / "there", tmp_path / "gate"
    os.mkfifo(gate)
    here.mkdir()
    (here / "trio.py").write_text(
        "import os, sys\n"
        f"sys.path.remove({str(here)!r})\n"
        "if 'natsup.supervisor.session' in sys.orig_argv:\n"
        f"    open({str(there)!r}, 'w').close()\n"
        f"    open({str(gate)!r}).close()\n"
        "del sys.modules['trio']\n"
        "import trio\n"
    )
    environ = {**environ, "PYTHONPATH": str(here)}
    with python(environ, layout, WAIT_FOR_SIGNALS.replace("(5)", "(6)")) as process:
        assert process.stdout is not None
        program = int(process.stdout.readline())
        deadline = time.monotonic() + 20
        while not there.exists():
            assert time.monotonic() < deadline
        os.kill(program, signal.SIGTSTP)
        _, stopped = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(stopped)
        os.kill(program, signal.SIGCONT)
        assert process.stdout.readline() == "continued\n"
        os.kill(program, signal.SIGRTMIN if status > 0 else signal.SIGKILL)
        assert process.wait(20) == status
        os.close(os.open(gate, os.O_WRONLY | os.O_NONBLOCK))  # the supervisor waits for it still
