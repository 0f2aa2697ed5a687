"""natsup inside of others, and others inside of natsup: it works, or says in one line what not."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.manners.ways import NATSUP, Way, state, until, ways

BIND = (
    "import socket; s = socket.socket(); s.bind(('', 7010)); s.listen();"
    " print(s.getsockname()[1], flush=True)"
)
PYTHON = [sys.executable, "-S", "-c"]


@pytest.fixture(params=["in place", "as parent"])
def way(request: pytest.FixtureRequest, tmp_path: Path) -> Way:
    """natsup, in one of its layouts."""
    return next(one for one in ways(tmp_path) if one.name == request.param)


def _strace(folder: Path) -> list[str]:
    """It writes into ``trace``."""
    return ["strace", "-f", "-qq", "-e", "trace=bind", "-o", str(folder / "trace")]


def test_natsup_under_strace(way: Way, tmp_path: Path) -> None:
    """All of it is traced: launcher, guard, supervisor and program."""
    done = way.run(*PYTHON, BIND, before=_strace(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "7010\n", "")
    assert "sin_port=htons(7010)" in (tmp_path / "trace").read_text()


def test_strace_under_natsup(way: Way, tmp_path: Path) -> None:
    """Its tracing and natsup's do not get into each other's way."""
    done = way.run(*_strace(tmp_path), *PYTHON, BIND)
    assert (done.returncode, done.stdout, done.stderr) == (0, "7010\n", "")
    assert re.search(r"bind\(.*htons\(7010\).*\) = 0", (tmp_path / "trace").read_text())


def test_strace_with_a_filter_of_its_own_under_natsup(way: Way, tmp_path: Path) -> None:
    """SECCOMP_RET_USER_NOTIF comes before its SECCOMP_RET_TRACE (kernel/seccomp.c, and
    seccomp(2)): strace does not see what natsup is told of, and all works."""
    words = [*_strace(tmp_path), "--seccomp-bpf", "-e", "trace=bind,listen"]
    done = way.run(*words, *PYTHON, BIND)
    assert (done.returncode, done.stdout, done.stderr) == (0, "7010\n", "")
    trace = (tmp_path / "trace").read_text()
    assert "listen(" in trace
    assert "bind(" not in trace


def test_gdb_under_natsup(way: Way, tmp_path: Path) -> None:
    """It starts a program, stops it at its bind() and lets it go on."""
    script = tmp_path / "bind.py"
    script.write_text(BIND)
    commands = ["set startup-with-shell off", "catch syscall bind", "run", "delete", "continue"]
    words = ["gdb", "-nx", "-batch", *(f"-ex={command}" for command in commands)]
    done = way.run(*words, "--args", sys.executable, "-S", str(script))
    assert "(call to syscall bind)" in done.stdout
    assert "7010\n" in done.stdout
    assert "exited normally" in done.stdout


def test_a_debugger_comes_and_goes(way: Way) -> None:
    """It attaches to the program, which is under natsup, and leaves it as it was."""
    script = f"import sys; print('there', flush=True); sys.stdin.readline(); {BIND}"
    with way.start(*PYTHON, script) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        program = process.pid
        if way.name == "as parent":
            (program,) = _programs(process.pid)
        words = ["gdb", "-nx", "-batch", "-p", str(program), "-ex", "detach"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=100, env=way.environ)
        assert "detached" in done.stdout
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "7010\n"
        assert process.wait(20) == 0


def _programs(launcher: int) -> list[int]:
    """The children of the launcher's child, the supervisor."""
    return [grandchild for child in _children(launcher) for grandchild in _children(child)]


def _children(pid: int) -> list[int]:
    files = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for file in files for child in file.read_text().split()]


@pytest.mark.parametrize(
    "options",
    [
        pytest.param([], id="mounts alone"),
        pytest.param(["--unshare-pid", "--unshare-ipc", "--proc", "/proc"], id="processes"),
        pytest.param(["--unshare-all", "--die-with-parent", "--new-session"], id="everything"),
        pytest.param(["--unshare-user", "--uid", "1000"], id="users"),
    ],
)
def test_bubblewrap_under_natsup(way: Way, options: list[str]) -> None:
    """The sandbox of flatpak and others."""
    box = ["bwrap", "--bind", "/", "/", "--dev", "/dev", *options]
    done = way.run(*box, *PYTHON, BIND + "; raise SystemExit(6)")
    assert (done.returncode, done.stdout, done.stderr) == (6, "7010\n", "")


def test_natsup_under_bubblewrap(way: Way) -> None:
    box = ["bwrap", "--bind", "/", "/", "--dev", "/dev", "--unshare-pid", "--proc", "/proc"]
    done = way.run(*PYTHON, BIND + "; raise SystemExit(6)", before=box)
    assert (done.returncode, done.stdout, done.stderr) == (6, "7010\n", "")


def test_natsup_in_natsup(way: Way, tmp_path: Path) -> None:
    """The outer one serves, and both layouts fit into both."""
    for inner in ways(tmp_path)[1:3]:
        done = way.run(*inner.prefix, *PYTHON, BIND + "; raise SystemExit(6)")
        assert (done.returncode, done.stdout, done.stderr) == (6, "7010\n", "")


@pytest.mark.parametrize("other", [False, True], ids=["closed", "another file's"])
def test_the_inner_one_leaves_the_events_of_the_outer_one(
    way: Way, tmp_path: Path, other: bool
) -> None:
    """The variable is inherited and its descriptor is not: by that number the program may have a
    file of its own, which is there for what it runs."""
    opened = f'exec 7>"{tmp_path}/own"; ' if other else ""
    inside = "echo there >&7 && echo inner" if other else "echo inner"
    script = f"{opened}exec \"$@\" sh -c '{inside}'"
    outer = f'exec 7>"{tmp_path}/events"; NATSUP_EVENTS=7 exec "$@"'
    words = ["sh", "-c", script, "sh", NATSUP, "exec", "--"]
    done = way.run(*words, before=["sh", "-c", outer, "sh"])
    assert (done.returncode, done.stdout, done.stderr) == (0, "inner\n", "")
    assert not other or (tmp_path / "own").read_text() == "there\n"


LISTENER = """
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
# BPF_RET | BPF_K: SECCOMP_RET_ALLOW
code = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0x7FFF0000))
program = struct.pack("HxxxxxxP", 1, ctypes.addressof(code))
libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
number = {"x86_64": 317, "aarch64": 277}[os.uname().machine]
fd = libc.syscall(number, 1, 8, program)  # SECCOMP_SET_MODE_FILTER, NEW_LISTENER
print(fd >= 0, ctypes.get_errno(), flush=True)
if sys.argv[1:]:
    os.execvp(sys.argv[1], sys.argv[1:])
"""


def test_a_program_with_a_listener_of_its_own(way: Way) -> None:
    """The kernel allows one: the program is told, and may go on without."""
    done = way.run(*PYTHON, LISTENER, *PYTHON, BIND)
    assert (done.returncode, done.stdout, done.stderr) == (0, "False 16\n7010\n", "")  # EBUSY


def test_natsup_inside_of_somebody_elses_listener(way: Way) -> None:
    """One line, and natsup's own status: the program has not been started."""
    script = LISTENER.replace("if sys", "os.set_inheritable(fd, True)\nif sys")
    done = way.run(*PYTHON, BIND, before=[*PYTHON, script])
    assert (done.returncode, done.stdout) == (125, "True 0\n")
    assert done.stderr.startswith("natsup: ")
    assert done.stderr.count("\n") == 1


def test_a_daemon_stays_where_natsup_may_look(way: Way, tmp_path: Path) -> None:
    """As parent. Yama (ptrace_scope 1) lets a process be looked into by its ancestors alone; and a
    daemon whose parents have ended would be a child of the machine's init."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    script = f"(setsid sh -c 'echo $$; exec >&-; read line < \"{fifo}\"; exit 0' &); exit 7"
    with way.start("sh", "-c", script) as process:
        assert process.stdout is not None
        daemon = int(process.stdout.readline())
        assert process.wait(20) == 7
        stat = Path(f"/proc/{daemon}/stat").read_text()
        parent = int(stat.rpartition(") ")[2].split()[1])
        words = Path(f"/proc/{parent}/cmdline").read_bytes()
        assert (b"natsup.supervisor.session" in words) == (way.name == "as parent")
        fifo.write_text("\n")
        until(lambda: state(daemon) in ("", "Z"))


def test_a_killed_program_under_strace(way: Way, tmp_path: Path) -> None:
    """A tracer takes over how its program died, and natsup from it."""
    done = way.run(*_strace(tmp_path), "sh", "-c", "kill -9 $$")
    assert done.returncode == -signal.SIGKILL


def test_an_inner_natsup_has_its_status(way: Way) -> None:
    done = way.run(NATSUP, "exec", "--", "sh", "-c", "kill -9 $$")
    assert done.returncode == -signal.SIGKILL
