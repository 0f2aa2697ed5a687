"""natsup in containers: which of their networks are of use."""

import json
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.containers import profiles
from tests.containers.contained import Contained
from tests.containers.engines import Box, Engine
from tests.containers.networks import IN_MACVLAN, network
from tests.lab.lab import LAN1, Lab
from tests.lab.program import NATSUP

BUDGET = 20  # seconds


def doctor(program: Contained) -> dict[str, dict[str, str]]:
    """What `natsup doctor` says in the program's container, by id."""
    program.do("import subprocess")
    done = program.do(
        f"subprocess.run([{NATSUP!r}, 'doctor', '--json'], stdout=-1).stdout.decode()"
    )
    return {check["id"]: check for check in json.loads(done)["checks"]}


def test_macvlan(engine: Engine, lab: Lab, tmp_path: Path) -> None:
    """The container is a host of the LAN's. Its program is killed, and the port goes."""
    with network(lab, "macvlan") as inside:
        program = Contained(engine, Box(network=inside), lab, tmp_path)
        assert program.bind("s", 7000) is None
        lab.wait_for(lambda: lab.table() == {"tcp/7000": IN_MACVLAN})
        program.serve("s")
        assert lab.fetch("tcp", 7000) == b"here"
        program.tell("os.kill(os.getpid(), 9)")
        assert program.process.wait(30) == 128 + signal.SIGKILL
        assert lab.table() == {}


def test_bridge(engine: Engine, lab: Lab, tmp_path: Path) -> None:
    """The first bind waits for the search, once; the program notices nothing else, and the log has
    one line of it."""
    words = ("--startup-timeout", "1", "--timeout", str(BUDGET))
    with network(lab, "bridge") as inside:
        program = Contained(engine, Box(network=inside), lab, tmp_path, *words)
        assert program.do("os.getpid()") != 1
        for numbers in (range(7000, 7001), range(7001, 7021)):
            begun = time.monotonic()
            for number in numbers:
                assert program.bind(f"s{number}", number) is None
            assert time.monotonic() - begun < BUDGET  # nothing has waited for as long as it may
        program.serve("s7000")
        hear = "socket.create_connection(('127.0.0.1', 7000)).recv(9).decode()"
        assert program.do(hear) == "here"
        lab.wait_for(lambda: "no router to ask" in program.log())
        assert program.end() == 0
        (line,) = [line for line in program.log().splitlines() if "no router to ask" in line]
        assert "(a bridge)" in line
        assert lab.table() == {}


@pytest.mark.parametrize("engine", ["crun"], indirect=True)
def test_doctor_in_a_bridge(engine: Engine, lab: Lab, tmp_path: Path) -> None:
    docker = Box(capabilities=profiles.DOCKER_CAPABILITIES, profile=profiles.like_docker())
    with network(lab, "bridge") as inside:
        program = Contained(engine, replace(docker, network=inside), lab, tmp_path)
        found = doctor(program)
        assert program.end() == 0
    assert found["container"]["level"] == "note"
    assert "(a bridge)" in found["container"]["found"]
    assert "--network host" in found["container"]["advice"]
    assert found["router"]["level"] == "problem"
    assert found["descriptors"]["level"] == "warning"
    assert "--cap-add SYS_PTRACE" in found["descriptors"]["advice"]


@pytest.mark.parametrize("engine", ["podman"], indirect=True)
def test_doctor_on_the_hosts_network(engine: Engine, lab: Lab, tmp_path: Path) -> None:
    program = Contained(engine, Box(), lab, tmp_path)
    found = doctor(program)
    assert program.end() == 0
    assert found["container"]["level"] == "ok"
    assert "podman" in found["container"]["found"]
    assert found["descriptors"]["level"] == "ok"
    assert LAN1 in found["default-route"]["found"]
