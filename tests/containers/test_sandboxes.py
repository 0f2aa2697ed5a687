"""Sandboxes and sudo(8) around natsup and below it. (tests/manners has debuggers, bubblewrap, and
other users of seccomp's notifications.)"""

import sys
from pathlib import Path

import pytest

from tests.lab.lab import LAN1, Lab
from tests.lab.program import PATIENT, Program
from tests.manners.ways import Way, ways
from tests.nobody import as_nobody, for_everybody

FIREJAIL = ["firejail", "--quiet", "--noprofile"]
STRICT = ["--seccomp", "--caps.drop=all", "--nonewprivs", "--nogroups"]
STRICTNESS = [pytest.param([], id="open"), pytest.param(STRICT, id="strict")]
SUDO = ["sudo", "-n", "-u", "#65534"]
BIND = "import socket; s = socket.socket(); s.bind(('', 7010)); print(s.getsockname()[1])"
PYTHON = [sys.executable, "-S", "-c"]


@pytest.fixture(params=["in place", "as parent"])
def way(request: pytest.FixtureRequest, tmp_path: Path) -> Way:
    """natsup, in one of its layouts. A bind() waits until natsup is there, however long it takes:
    who cleans up late would be seen by who waits for everything."""
    found = next(one for one in ways(tmp_path) if one.name == request.param)
    found.prefix[2:2] = PATIENT
    return found


@pytest.mark.parametrize("options", STRICTNESS)
def test_firejail_below(way: Way, options: list[str]) -> None:
    done = way.run(*FIREJAIL, *options, *PYTHON, BIND + "; raise SystemExit(6)")
    assert (done.returncode, done.stdout, done.stderr) == (6, "7010\n", "")


@pytest.mark.parametrize("options", STRICTNESS)
def test_firejail_around(way: Way, options: list[str]) -> None:
    """It waits for everything inside, and takes the last status that it sees."""
    script = BIND + "; raise SystemExit(6)"
    done = way.run(*PYTHON, script, before=[*FIREJAIL, *options])
    assert (done.returncode, done.stdout, done.stderr) == (6, "7010\n", "")


@pytest.mark.parametrize("options", STRICTNESS)
@pytest.mark.parametrize("where", ["around", "below"])
def test_ports_of_a_jail(lab: Lab, tmp_path: Path, where: str, options: list[str]) -> None:
    """Around natsup its filter keeps it from copying sockets. Ports are published all the same."""
    jail = [*FIREJAIL, *options]

    def below(command: list[str]) -> list[str]:
        at = command.index("--") + 1
        return [*command[:at], *jail, *command[at:]]

    def around(command: list[str]) -> list[str]:
        return [*jail, *command]

    lab.map("lan2", "tcp", 7001)
    program = Program(lab, tmp_path, within=around if where == "around" else below)
    assert program.bind("s", 7000) is None
    assert program.bind("t", 7001) == "EADDRINUSE"
    lab.wait_for(lambda: lab.table().get("tcp/7000") == LAN1)
    program.serve("s")
    assert lab.fetch("tcp", 7000) == b"here"
    assert program.process.stdin is not None
    program.process.stdin.close()
    assert program.process.wait(30) == 0
    lab.wait_for(lambda: "tcp/7000" not in lab.table())


def test_sudo_below_a_user(way: Way) -> None:
    """The kernel wants a user to give up gaining privileges (no_new_privs). sudo says so itself."""
    done = way.run("sudo", "-n", "true", before=as_nobody())
    assert done.returncode == 1
    assert "no new privileges" in done.stderr
    assert "natsup" not in done.stderr


def test_sudo_around(way: Way) -> None:
    """From root to a user, who starts natsup."""
    before = [*for_everybody(), *SUDO]
    done = way.run(*PYTHON, BIND + "; raise SystemExit(6)", before=before)
    assert (done.returncode, done.stdout, done.stderr) == (6, "7010\n", "")


def test_sudo_below_root(way: Way) -> None:
    """From root to a user, who is served by root's natsup."""
    words = [*SUDO, *PYTHON, BIND + "; raise SystemExit(6)"]
    done = way.run(*words, before=for_everybody())
    assert (done.returncode, done.stdout, done.stderr) == (6, "7010\n", "")
