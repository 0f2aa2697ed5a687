"""What the caller and the program see of `natsup exec`: nothing, in both layouts."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.supervisor.conftest import NATSUP, Exec

PYTHON = sys.executable


@pytest.mark.parametrize("status", [0, 1, 7, 125, 126, 127, 128, 255])
def test_the_exit_status_is_the_programs(natsup_exec: Exec, layout: list[str], status: int) -> None:
    assert natsup_exec(*layout, "--", "sh", "-c", f"exit {status}").returncode == status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV, signal.SIGHUP])
def test_natsup_dies_as_the_program_died(
    natsup_exec: Exec, layout: list[str], number: signal.Signals
) -> None:
    # In a shell that ignores nothing, whatever the tests were started under
    ended = natsup_exec(*layout, "--", "sh", "-c", f"kill -{number.value} $$")
    assert ended.returncode == -number


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--", "no-such-command"], 127, "no-such-command: command not found"),
        (["--", "/no/such/file"], 127, "/no/such/file: command not found"),
        (["--", "/etc/passwd"], 126, "/etc/passwd: cannot be run: Permission denied"),
        (["--", "/"], 126, "/: cannot be run: Permission denied"),
        ([], 125, "no command to run: natsup exec [options] -- COMMAND [ARG...]"),
        (["--prots", "1", "--", "true"], 125, "unknown option --prots (did you mean --ports?)"),
        (["--timeout", "soon", "--", "true"], 125, "--timeout: 'soon' will not do; give a number"),
        (
            ["--ports", "9-1", "--", "true"],
            125,
            "--ports: '9-1' will not do; give ports and ranges",
        ),
        (
            ["--deny", "x", "--", "true"],
            125,
            "--deny: 'x' will not do; give ports and ranges",
        ),
        (["--timeout"], 125, "--timeout needs a value: --timeout S"),
    ],
)
def test_bad_input_gets_one_line(
    natsup_exec: Exec, layout: list[str], words: list[str], status: int, message: str
) -> None:
    ended = natsup_exec(*layout, *words)
    assert ended.returncode == status
    assert ended.stdout == ""
    assert ended.stderr.startswith(f"natsup: {message}")
    assert ended.stderr.count("\n") == 1


def test_a_bad_value_in_the_environment_is_named(
    natsup_exec: Exec, environ: dict[str, str]
) -> None:
    ended = natsup_exec("--", "true", env={**environ, "NATSUP_LEASE": "1h"})
    assert ended.returncode == 125
    assert ended.stderr.startswith("natsup: NATSUP_LEASE: '1h' will not do; give a number")


def test_a_script_without_interpreter_line_runs_as_in_a_shell(
    natsup_exec: Exec, layout: list[str], tmp_path: Path
) -> None:
    script = tmp_path / "script"
    script.write_text("echo from a script\n")
    script.chmod(0o755)
    assert natsup_exec(*layout, "--", str(script)).stdout == "from a script\n"


REPORT = """
import json, os, signal, sys
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({
    "environment": dict(os.environ),
    "arguments": sys.argv[1:],
    "folder": os.getcwd(),
    "descriptors": sorted(int(fd) for fd in os.listdir("/proc/self/fd"))[:-1],
    "ignored": status["SigIgn"].strip(),
    "blocked": status["SigBlk"].strip(),
    "group": os.getpgrp(), "session": os.getsid(0),
    "children": open(f"/proc/self/task/{os.getpid()}/children").read(),
    "pid": os.getpid(), "parent": os.getppid(),
    "limits": open("/proc/self/limits").read(),
    "umask": status["Umask"].strip(),
}))
"""


def test_the_program_is_given_what_it_would_have_without(
    natsup_exec: Exec, layout: list[str], environ: dict[str, str]
) -> None:
    # Python itself ignores SIGPIPE and SIGXFSZ, here as there. In the C locale it also sets
    # LC_CTYPE for its children, which the program must not inherit from natsup.
    plain = {k: v for k, v in environ.items() if not k.startswith(("LC_", "LANG"))}
    report = ["sh", "-c", 'exec env -u X "$0" -c "$1" a "b c"', PYTHON, REPORT]
    bare = json.loads(subprocess.check_output(report, env=plain, text=True))
    ours = json.loads(natsup_exec(*layout, "--", *report, env=plain).stdout)
    same = ["arguments", "folder", "descriptors", "ignored", "blocked", "group", "session"]
    same += ["limits", "umask", "environment"]
    assert {key: ours[key] for key in same} == {key: bare[key] for key in same} | {
        "group": ours["group"],
        "session": bare["session"],
    }
    assert ours["children"] == ""
    if not layout:
        assert ours["parent"] == os.getpid()


def test_the_c_locale_stays_the_c_locale(natsup_exec: Exec, environ: dict[str, str]) -> None:
    plain = {k: v for k, v in environ.items() if not k.startswith(("LC_", "LANG"))}
    assert "LC_CTYPE" not in natsup_exec("--", "env", env=plain).stdout


def test_sigpipe_kills_as_ever(natsup_exec: Exec, layout: list[str]) -> None:
    ended = natsup_exec(*layout, "--", "grep", "SigIgn", "/proc/self/status")
    assert int(ended.stdout.split()[1], 16) & (1 << (signal.SIGPIPE - 1)) == 0
    assert int(ended.stdout.split()[1], 16) & (1 << (signal.SIGXFSZ - 1)) == 0


@pytest.mark.parametrize("layout", [[], ["--as-parent"]], ids=["in place", "as parent"])
@pytest.mark.parametrize("ignored", [True, False])
def test_whether_the_program_ignores_interrupts_is_its_callers_affair(
    environ: dict[str, str], layout: list[str], ignored: bool
) -> None:
    """A shell without job control has its background jobs ignore SIGINT."""
    caller = ["env", "--ignore-signal=INT" if ignored else "--default-signal=INT"]
    command = [*caller, NATSUP, "exec", *layout, "--", "grep", "SigIgn", "/proc/self/status"]
    ended = subprocess.run(["unshare", "--net", *command], capture_output=True, env=environ)
    assert bool(int(ended.stdout.split()[1], 16) & (1 << (signal.SIGINT - 1))) == ignored


def test_wait_finds_no_children(natsup_exec: Exec, layout: list[str]) -> None:
    """A program that waits for any child must not be given the guard."""
    script = "import os\ntry: print(os.wait())\nexcept ChildProcessError: print('none')"
    assert natsup_exec(*layout, "--", PYTHON, "-c", script).stdout == "none\n"


def test_natsup_prints_nothing(natsup_exec: Exec, layout: list[str]) -> None:
    ended = natsup_exec(*layout, "--verbose", "--", "echo", "hello")
    assert (ended.stdout, ended.stderr) == ("hello\n", "")


def test_a_reader_sees_the_end_when_the_program_closes(
    environ: dict[str, str], layout: list[str]
) -> None:
    """Guard and supervisor keep no pipe of the program's open."""
    script = "exec >&- 2>&-; read line"
    command = ["unshare", "--net", NATSUP, "exec", *layout, "--", "sh", "-c", script]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.read() == b""
        assert process.poll() is None
        process.stdin.write(b"\n")
        process.stdin.close()
        assert process.wait(30) == 0


def test_inside_natsup_the_outer_one_serves(natsup_exec: Exec, layout: list[str]) -> None:
    ended = natsup_exec(*layout, "--", NATSUP, "exec", *layout, "--", "sh", "-c", "exit 9")
    assert (ended.returncode, ended.stderr) == (9, "")


def test_inside_natsup_whose_supervisor_died_it_simply_runs(
    environ: dict[str, str], layout: list[str]
) -> None:
    """The guard says that it is natsup, too."""
    inner = f'echo ready; read line; exec "{NATSUP}" exec -- sh -c "exit 9"'
    command = ["unshare", "--net", NATSUP, "exec", *layout, "--", "sh", "-c", inner]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=environ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        os.kill(supervisor_of(process.pid), signal.SIGKILL)
        _, error = process.communicate(b"\n", timeout=60)
        assert (process.returncode, error) == (9, b"")


def test_small_limits_are_the_programs(environ: dict[str, str], layout: list[str]) -> None:
    """What the user limits is not natsup's size; its supervisor takes what it may have."""
    limits = "ulimit -S -n 40; ulimit -S -f 100"
    program = "ulimit -n; ulimit -f; read line; exit 0"
    words = ["unshare", "--net", NATSUP, "exec", *layout, "--", "sh", "-c", program]
    with subprocess.Popen(
        ["sh", "-c", f'{limits}; exec "$@"', "sh", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environ,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() + process.stdout.readline() == b"40\n100\n"
        limits_of = Path(f"/proc/{supervisor_of(process.pid)}/limits")
        deadline = time.monotonic() + 20
        for name in ("Max open files", "Max file size"):
            soft, hard = "", " "
            while soft != hard:
                assert time.monotonic() < deadline, (name, soft, hard)
                lines = limits_of.read_text().splitlines()
                found = next(line for line in lines if line.startswith(name))
                soft, hard = found[len(name) :].split()[:2]
        process.stdin.close()
        assert process.wait(30) == 0


def test_python_looks_where_it_looked(
    environ: dict[str, str], layout: list[str], tmp_path: Path
) -> None:
    """A relative PYTHONPATH is relative to where natsup was typed."""
    (tmp_path / "lib").mkdir()
    marker = tmp_path / "marker"
    text = (
        f"import sys; 'natsup.supervisor.session' in sys.orig_argv and open({str(marker)!r}, 'w')"
    )
    (tmp_path / "lib" / "sitecustomize.py").write_text(text)
    environ = {**environ, "PYTHONPATH": "lib"}
    words = ["unshare", "--net", NATSUP, "exec", *layout, "--", "sh", "-c", "read line; exit 0"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, env=environ, cwd=tmp_path) as process:
        deadline = time.monotonic() + 20
        while not marker.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(30) == 0


def test_a_bind_goes_through(natsup_exec: Exec, layout: list[str]) -> None:
    script = "import socket; s = socket.socket(); s.bind(('', 7001)); print(s.getsockname())"
    assert natsup_exec(*layout, "--", PYTHON, "-c", script).stdout == "('0.0.0.0', 7001)\n"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_descriptors_stay_closed(
    environ: dict[str, str], layout: list[str], tmp_path: Path, closed: str
) -> None:
    report = tmp_path / "report"
    script = f"import os; open({str(report)!r}, 'w').write(' '.join(os.listdir('/proc/self/fd')))"
    seen = []
    for prefix in ([], [NATSUP, "exec", *layout, "--"]):
        command = ["sh", "-c", f'exec "$@" {closed}', "sh", *prefix, PYTHON, "-c", script]
        done = subprocess.run(["unshare", "--net", *command], env=environ, timeout=60)
        assert done.returncode == 0
        seen.append(sorted(report.read_text().split()))
    assert seen[0] == seen[1]


def test_help_names_every_option(natsup_exec: Exec) -> None:
    ended = natsup_exec("--help")
    assert ended.returncode == 0
    for name in ("--timeout", "--deny", "--as-parent", "--dry-run"):
        assert name in ended.stdout


def test_a_forwarded_signal_arrives_once(environ: dict[str, str]) -> None:
    """As parent: what is sent to natsup's pid reaches the program, once. (A real-time signal: those
    are queued, so that two would not pass for one.)"""
    script = (
        "import signal, sys\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGRTMIN, signal.SIGTERM})\n"
        "print('ready', flush=True)\n"
        "while signal.sigwait({signal.SIGRTMIN, signal.SIGTERM}) == signal.SIGRTMIN:\n"
        "    print('one', flush=True)\n"
        "sys.exit(3)\n"
    )
    command = ["unshare", "--net", NATSUP, "exec", "--as-parent", "--", PYTHON, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGRTMIN)
        assert process.stdout.readline() == "one\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == ""  # had it come twice, it would be told twice
        assert process.wait(30) == 3


def test_stops_are_mirrored(environ: dict[str, str]) -> None:
    """As parent: natsup stops when the program stops itself, and continues with it."""
    script = "echo ready; kill -STOP $$; echo back; exit 4"
    command = ["unshare", "--net", NATSUP, "exec", "--as-parent", "--", "sh", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        process.send_signal(signal.SIGCONT)
        assert process.stdout.readline() == "back\n"
        assert process.wait(30) == 4


def test_pid_1_reaps_and_ends_with_the_program(environ: dict[str, str]) -> None:
    """As PID 1 natsup is the parent by itself, and deaths become 128+n as in a shell."""
    script = "echo $PPID; (sleep 0 &) ; kill -9 $$"
    command = ["unshare", "--net", "--pid", "--fork", "--mount-proc", "--kill-child", NATSUP]
    ended = subprocess.run(
        [*command, "exec", "--", "sh", "-c", script],
        capture_output=True,
        text=True,
        env=environ,
        timeout=60,
    )
    assert ended.returncode == 128 + signal.SIGKILL
    assert ended.stdout == "2\n"


CONTAINER = ["unshare", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"]


@pytest.mark.parametrize(
    ("variables", "parent"),
    [([], "the supervisor"), (["INVOCATION_ID=1"], "PID 1"), (["NOTIFY_SOCKET=/n"], "PID 1")],
)
def test_below_a_containers_init_natsup_is_the_parent(
    environ: dict[str, str], variables: list[str], parent: str
) -> None:
    """What it waits for may be the container's end. Not so systemd, which says that it is it."""
    script = 'env "$@"; exit $?'  # two commands, so that the shell stays
    words = [*variables, NATSUP, "exec", "--", "sh", "-c", "echo $PPID"]
    known = {k: v for k, v in environ.items() if k not in ("INVOCATION_ID", "NOTIFY_SOCKET")}
    done = subprocess.run(
        [*CONTAINER, "sh", "-c", script, "sh", *words],
        capture_output=True,
        text=True,
        env=known,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert ("PID 1" if done.stdout == "1\n" else "the supervisor") == parent


def test_a_dead_supervisor_leaves_the_program_its_bind(environ: dict[str, str]) -> None:
    """The guard lets every call pass when the supervisor is gone."""
    script = (
        "import socket, sys\n"
        "for line in sys.stdin:\n"
        "    with socket.socket() as s: s.bind(('', 7002)); print('bound', flush=True)\n"
    )
    command = ["unshare", "--net", NATSUP, "exec", "--", PYTHON, "-c", script]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def bind() -> str:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("\n")
            process.stdin.flush()
            return process.stdout.readline()

        assert bind() == "bound\n"
        supervisor = supervisor_of(process.pid)
        os.kill(supervisor, signal.SIGKILL)
        assert [bind() for _ in range(5)] == ["bound\n"] * 5
        process.stdin.close()
        assert process.wait(30) == 0


def supervisor_of(pid: int) -> int:
    """The supervisor in the network namespace of a process. The program does not wait for it to be
    started, so this does."""
    home = os.readlink(f"/proc/{pid}/ns/net")
    deadline = time.monotonic() + 20
    while not (found := _supervisors(home)):
        assert time.monotonic() < deadline, "no supervisor was started"
        time.sleep(0.01)
    assert len(found) == 1
    return found[0]


def _supervisors(namespace: str) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if b"natsup.supervisor.session" not in words:
                continue
            if os.readlink(entry / "ns/net") == namespace:
                found.append(int(entry.name))
    return found


def test_guard_and_supervisor_stand_apart(environ: dict[str, str]) -> None:
    """Sessions of their own, and not one of the program's descriptors."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        os.set_inheritable(ours.fileno(), True)
        command = ["unshare", "--net", NATSUP, "exec", "--", "sh", "-c", "echo; read line"]
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environ,
            pass_fds=[ours.fileno()],
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdout.readline()
            inode = os.fstat(ours.fileno()).st_ino
            supervisor = supervisor_of(process.pid)
            status = Path(f"/proc/{supervisor}/stat").read_text().rpartition(") ")[2].split()
            guard = int(status[1])
            for pid in (supervisor, guard):
                assert os.getsid(pid) not in (os.getsid(0), os.getsid(process.pid))
                links = []
                for number in os.listdir(f"/proc/{pid}/fd"):
                    with contextlib.suppress(FileNotFoundError):  # a file of an import, just over
                        links.append(os.readlink(f"/proc/{pid}/fd/{number}"))
                assert f"socket:[{inode}]" not in links
                assert [os.readlink(f"/proc/{pid}/fd/{n}") for n in range(3)] == ["/dev/null"] * 3
                os.kill(pid, signal.SIGTERM)  # ignored, like all that is meant for the program
            process.stdin.write(b"\n")
            process.stdin.close()
            assert process.wait(30) == 0


@pytest.mark.parametrize("closes", [False, True])
def test_without_a_guard_the_launcher_ends(closes: bool) -> None:
    """It has the only listener then, and nobody answers: it must not call what is trapped."""
    script = (
        "import os, sys\n"
        "from natsup.supervisor import handover, launch\n"
        "here, there = handover.pair()\n"
        "if os.fork() == 0:\n"
        "    here.close()\n"
        "    handover.receive(there)\n"
        "    os._exit(0)\n"
        "there.close()\n"
        "program = launch._Program(['true'], io_uring=True)\n"
        f"program.closes = {closes}\n"
        "launch._become_program(program, [here])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (125, b"")
    assert b"guard" in done.stderr


def test_a_command_that_is_to_have_another_name(natsup_exec: Exec, layout: list[str]) -> None:
    words = ["--argv0", "-a b", "--", "sh", "-c", "tr '\\0' '|' </proc/$$/cmdline; exit 0"]
    assert natsup_exec(*layout, *words).stdout.startswith("-a b|-c|")
    words[:2] = ["--argv0="]
    assert natsup_exec(*layout, *words).stdout.startswith("|-c|")
