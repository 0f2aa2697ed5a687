"""natsup as a container's entrypoint, PID 1, by the engines that people use."""

import signal
import subprocess
from pathlib import Path

import pytest

from tests.containers import profiles
from tests.containers.contained import BELOW_SHELLS, Contained
from tests.containers.engines import Box, Engine
from tests.lab.lab import LAN1, LAN2, Lab
from tests.lab.program import NATSUP

DOCKER = Box(capabilities=profiles.DOCKER_CAPABILITIES, profile=profiles.like_docker())
TRACING = Box(
    capabilities=(*profiles.DOCKER_CAPABILITIES, "SYS_PTRACE"), profile=profiles.like_docker()
)
TIGHT = Box(capabilities=(), user=1000, read_only=True, no_new_privs=True)
NO_COPIES = "pidfd_getfd"  # in the line that says that binds are left to the kernel


def test_a_server(engine: Engine, lab: Lab, tmp_path: Path) -> None:
    """With what podman gives by default: natsup can do all."""
    program = Contained(engine, Box(), lab, tmp_path)
    assert program.do("open('/proc/1/comm').read()") == "natsup\n"
    assert program.bind("s", 7000) is None
    lab.wait_for(lambda: lab.table() == {"tcp/7000": LAN1})
    program.serve("s")
    assert lab.fetch("tcp", 7000) == b"here"

    # Orphans: of the program's, and of others in the container.
    orphan = "os.popen('sleep 0.01 >&- & echo $!').read()"
    others = engine.execute("sh", "-c", "sleep 0.01 >&- & echo $!")
    for pid in (program.do(orphan), others):
        lab.wait_for(lambda pid=pid: not program.do(f"os.path.exists('/proc/{pid.strip()}')"))  # type: ignore[misc]

    # Signals: forwarded, and once.
    program.do("import signal; got = []")
    for name in ("TERM", "HUP", "USR1", "RTMIN+3"):
        number = signal.SIGRTMIN + 3 if name == "RTMIN+3" else getattr(signal, f"SIG{name}")
        program.do(f"signal.signal({number}, lambda number, frame: got.append(number))")
        engine.signal(number)
        lab.wait_for(lambda number=number: program.do("got") == [number])  # type: ignore[misc]
        program.do("got.clear()")

    program.do("signal.signal(signal.SIGTERM, signal.SIG_DFL)")
    engine.signal(signal.SIGTERM)
    assert program.process.wait(30) == 128 + signal.SIGTERM
    assert lab.table() == {}  # before the container has ended
    assert NO_COPIES not in program.log()


@pytest.mark.parametrize("engine", ["runc"], indirect=True)
def test_below_a_shell(engine: Engine, lab: Lab, tmp_path: Path) -> None:
    """In place: natsup becomes the program."""
    program = Contained(engine, Box(), lab, tmp_path, prefix=BELOW_SHELLS)
    assert program.do("open('/proc/1/comm').read()") == "sh\n"
    assert program.do("os.getppid()") != 1
    assert program.bind("s", 7000) is None
    lab.wait_for(lambda: lab.table() == {"tcp/7000": LAN1})
    program.do("s.close()")
    lab.wait_for(lambda: lab.table() == {})
    assert program.end() == 0


def test_dockers_profile(engine: Engine, lab: Lab, tmp_path: Path) -> None:
    """The router is asked, the kernel binds, and the log says once what is missing."""
    lab.map("lan2", "tcp", 7000)
    program = Contained(engine, DOCKER, lab, tmp_path)
    assert program.bind("s", 7000) == "EADDRINUSE"
    for number in (7001, 7002):
        assert program.bind(f"s{number}", number) is None
    expected = {"tcp/7000": LAN2, "tcp/7001": LAN1, "tcp/7002": LAN1}
    lab.wait_for(lambda: lab.table() == expected)
    assert program.end() == 0
    assert lab.table() == {"tcp/7000": LAN2}
    (line,) = [line for line in program.log().splitlines() if NO_COPIES in line]
    assert "CAP_SYS_PTRACE" in line


@pytest.mark.parametrize("engine", ["crun"], indirect=True)
def test_dockers_profile_with_the_capability(engine: Engine, lab: Lab, tmp_path: Path) -> None:
    """A program that becomes another user is served as well."""
    program = Contained(engine, TRACING, lab, tmp_path)
    program.do("os.setgid(1000); os.setuid(1000)")
    assert program.bind("s", 7000) is None
    lab.wait_for(lambda: lab.table() == {"tcp/7000": LAN1})
    assert program.end() == 0
    assert NO_COPIES not in program.log()
    assert "CAP_SYS_PTRACE" not in program.log()


def test_a_tight_box(engine: Engine, lab: Lab, tmp_path: Path) -> None:
    """Nobody in particular, no capability, and nothing that can be written."""
    program = Contained(engine, TIGHT, lab, tmp_path, keep=False)
    assert program.do("os.getuid()") == 1000
    assert program.bind("s", 7000) is None
    lab.wait_for(lambda: lab.table() == {"tcp/7000": LAN1})
    engine.signal(signal.SIGTERM)
    assert program.process.wait(30) == 128 + signal.SIGTERM
    assert lab.table() == {}
    assert program.log().count("NATSUP_STATE_DIR") == 1


@pytest.mark.parametrize("engine", ["podman"], indirect=True)
def test_another_user_without_the_capability(engine: Engine, lab: Lab, tmp_path: Path) -> None:
    """Its binds pass, and the log says what is missing."""
    program = Contained(engine, Box(), lab, tmp_path)
    program.do("os.setgid(1000); os.setuid(1000)")
    assert program.bind("s", 7000) is None
    assert program.bind("t", 7001) is None
    assert program.end() == 0
    assert program.log().count("CAP_SYS_PTRACE") == 1
    assert lab.table() == {}


@pytest.mark.parametrize("engine", ["podman"], indirect=True)
def test_stopped_the_hard_way(engine: Engine, lab: Lab, tmp_path: Path) -> None:
    """`stop` of a program that does not listen: SIGTERM, and then SIGKILL for all. The next
    container with the same state folder removes what this one has left."""
    program = Contained(engine, Box(), lab, tmp_path)
    program.do("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)")
    assert program.bind("s", 7000) is None
    lab.wait_for(lambda: lab.table() == {"tcp/7000": LAN1})
    engine.signal(signal.SIGTERM)
    assert program.do("'still here'") == "still here"
    engine.signal(signal.SIGKILL)
    assert program.process.wait(30) == 128 + signal.SIGKILL
    assert lab.table() == {"tcp/7000": LAN1}
    after = Contained(engine, Box(), lab, tmp_path)
    lab.wait_for(lambda: lab.table() == {})
    assert after.end() == 0


@pytest.mark.parametrize(
    ("words", "status"),
    [(["sh", "-c", "exit 255"], 255), (["sh", "-c", "kill -9 $$"], 137), (["/nowhere"], 127)],
    ids=["code", "signal", "not found"],
)
@pytest.mark.parametrize("engine", ["crun"], indirect=True)
def test_status(engine: Engine, words: list[str], status: int) -> None:
    command = engine.command(Box(), [NATSUP, "exec", "--", *words])
    given = {"stdin": subprocess.DEVNULL, "capture_output": True, "timeout": 60}
    assert subprocess.run(["unshare", "--net", *command], **given).returncode == status  # type: ignore[call-overload]
