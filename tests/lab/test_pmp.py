"""NAT-PMP and PCP with a real router, which speaks UPnP besides, or does not."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab.lab import LAN1, LAN2, ROUTER, Lab
from tests.lab.program import NATSUP, Program

ALONE = pytest.param({"upnp": False, "pmp": True}, id="alone")
alone = pytest.mark.parametrize("lab", [ALONE], indirect=True)
with_upnp = pytest.mark.parametrize("lab", [{"pmp": True}], indirect=True, ids=["with UPnP"])
both = pytest.mark.parametrize("protocol", ["pcp", "natpmp"])
Start = Callable[..., Program]


@pytest.fixture
def start(lab: Lab, tmp_path: Path) -> Start:
    def run(*words: str, host: str = "lan1") -> Program:
        return Program(lab, tmp_path, *words, host=host)

    return run


@alone
@both
def test_bound_ports_are_open_and_gone_with_the_program(
    lab: Lab, start: Start, protocol: str
) -> None:
    program = start("--protocols", protocol)
    assert program.bind("tcp", 6881) is None
    assert lab.table() == {"tcp/6881": LAN1}  # before bind() has returned
    assert program.bind("udp", 6881, "DGRAM") is None
    assert lab.table() == {"tcp/6881": LAN1, "udp/6881": LAN1}
    program.serve("tcp")
    assert lab.fetch("tcp", 6881) == b"here"
    (session,) = program.status()
    assert session["gateway"]["protocol"] == protocol
    assert session["gateway"]["location"] == f"{protocol}://{ROUTER}:5351"
    lab.wait_for(lambda: program.status()[0]["gateway"]["external_address"] == "11.22.33.1")
    program.do("udp.close()")
    lab.wait_for(lambda: lab.table() == {"tcp/6881": LAN1})
    os.kill(program.do("os.getpid()"), signal.SIGKILL)
    assert program.process.wait(20) == -signal.SIGKILL
    lab.wait_for(lambda: lab.table() == {})
    lab.wait_for(lambda: list(program.state.glob("sessions/*")) == [])


@alone
@both
def test_a_port_of_another_host_is_in_use(lab: Lab, start: Start, protocol: str) -> None:
    other = start("--protocols", protocol, host="lan2")
    assert other.bind("s", 7000) is None
    program = start("--protocols", protocol)
    assert program.bind("s", 7000) == "EADDRINUSE"
    assert program.do("s.bind(('', 7001))") is None  # the same descriptor goes on
    assert lab.table() == {"tcp/7000": LAN2, "tcp/7001": LAN1}
    other.kill()
    lab.wait_for(lambda: lab.table() == {"tcp/7001": LAN1})
    assert program.bind("t", 7000) is None
    assert lab.table() == {"tcp/7000": LAN1, "tcp/7001": LAN1}


@alone
@both
def test_a_restart_is_seen_by_the_routers_clock(lab: Lab, start: Start, protocol: str) -> None:
    """No program binds anything, and the router is away for less than it takes to be missed."""
    program = start("--protocols", protocol, "-v")
    for number in (7000, 7001):
        assert program.bind(f"s{number}", number) is None
    ours = {f"tcp/{number}": LAN1 for number in (7000, 7001)}
    # The clock is to be further than what goes for inaccuracy.
    lab.wait_for(lambda: int(lab.epoch()[8:16], 16) > 3)
    lab.wait_for(lambda: program.log().count("looked again: mapped") >= 2)
    lab.stop_router()
    lab.lose_rules()
    assert lab.table() == {}
    lab.start_router()
    lab.wait_for(lambda: lab.table() == ours, 30)
    assert "the router was restarted, by its clock" in program.log()
    assert program.bind("s7002", 7002) is None
    assert lab.table() == {**ours, "tcp/7002": LAN1}


@alone
def test_found_without_being_told(lab: Lab, start: Start) -> None:
    first = start("--startup-timeout", "10")
    assert first.bind("s", 7000) is None
    assert lab.table() == {"tcp/7000": LAN1}
    assert "router found: pcp://" in first.log()
    lab.wait_for((first.state / "networks.json").exists)
    (known,) = json.loads((first.state / "networks.json").read_text()).values()
    assert known["location"] == f"pcp://{ROUTER}:5351"
    second = start("--startup-timeout", "0.8")  # less than a search for UPnP is given
    assert second.bind("s", 7001) is None
    assert lab.table() == {"tcp/7000": LAN1, "tcp/7001": LAN1}


@alone
@both
def test_a_dead_sessions_ports_are_removed(lab: Lab, start: Start, protocol: str) -> None:
    """By clean, by the protocol that made them, whatever the search would find."""
    dead = start("--protocols", protocol)
    other = start("--protocols", protocol, host="lan2")
    assert other.bind("s", 7001) is None
    assert dead.bind("s", 7000) is None
    dead.alone()
    dead.kill()
    assert lab.table() == {"tcp/7000": LAN1, "tcp/7001": LAN2}
    done = lab.run("lan1", [NATSUP, "clean"], env=dead.environ)
    assert done.returncode == 0, done.stdout + done.stderr
    assert lab.table() == {"tcp/7001": LAN2}
    assert list(dead.state.glob("sessions/*")) == []


@alone
def test_the_doctor(lab: Lab, start: Start) -> None:
    program = start("--dry-run")  # for its environment
    done = lab.run("lan1", [NATSUP, "doctor", "--json"], env=program.environ)
    found = {check["id"]: check for check in json.loads(done.stdout)["checks"]}
    assert found["router"]["found"] == f"speaks PCP at pcp://{ROUTER}:5351"
    assert found["external-address"]["found"] == "11.22.33.1, a public one"
    assert "mapped in" in found["test-mapping"]["found"]
    assert "and removed" in found["test-mapping"]["found"]
    assert lab.table() == {}


@with_upnp
def test_upnp_is_preferred(lab: Lab, start: Start) -> None:
    program = start()
    assert program.bind("s", 7000) is None
    assert lab.table() == {"tcp/7000": LAN1}
    assert program.status()[0]["gateway"]["protocol"] == "upnp"


@with_upnp
@both
def test_what_was_mapped_by_one_protocol_is_removed_by_it(
    lab: Lab, start: Start, protocol: str
) -> None:
    """By clean, while UPnP is what the search finds."""
    dead = start("--protocols", protocol)
    assert dead.bind("s", 7000) is None
    dead.alone()
    dead.kill()
    lab.map("lan2", "tcp", 7001)
    assert lab.table() == {"tcp/7000": LAN1, "tcp/7001": LAN2}
    done = lab.run("lan1", [NATSUP, "clean"], env=dead.environ)
    assert (done.returncode, done.stderr) == (0, "")
    assert "tcp/7000" in done.stdout
    assert lab.table() == {"tcp/7001": LAN2}


@with_upnp
@both
def test_another_hosts_upnp_mapping_is_a_conflict_too(
    lab: Lab, start: Start, protocol: str
) -> None:
    lab.map("lan2", "tcp", 7000)
    program = start("--protocols", protocol)
    assert program.bind("s", 7000) == "EADDRINUSE"
    assert lab.table() == {"tcp/7000": LAN2}
