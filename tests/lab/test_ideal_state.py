"""The ideal state: the router forwards what living sockets want, whatever it went through."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab.lab import LAN1, LAN2, Lab
from tests.lab.program import Program

Start = Callable[..., Program]


@pytest.fixture
def start(lab: Lab, tmp_path: Path) -> Start:
    def run(*words: str) -> Program:
        return Program(lab, tmp_path, *words)

    return run


def lose_rules(lab: Lab) -> None:
    """What a restarted router has forgotten: miniupnpd's rules outlive it in the kernel."""
    for table, chain in (
        ("filter", "miniupnpd"),
        ("nat", "prerouting_miniupnpd"),
        ("nat", "postrouting_miniupnpd"),
    ):
        lab.run("router", ["nft", "flush", "chain", "inet", table, chain], check=True)
    (lab.folder / "leases").unlink(missing_ok=True)


def states(program: Program) -> dict[int, str]:
    return {m["port"]: m["state"] for session in program.status() for m in session["mappings"]}


def timed(program: Program, name: str, port: int) -> float:
    begin = time.monotonic()
    assert program.bind(name, port) is None
    return time.monotonic() - begin


def test_a_restarted_router_gets_its_rules_back(lab: Lab, start: Start) -> None:
    program = start("--timeout", "0.3")
    for number in (7000, 7001, 7002):
        assert program.bind(f"s{number}", number) is None
    ours = {f"tcp/{number}": LAN1 for number in (7000, 7001, 7002)}
    lab.wait_for(lambda: lab.table() == ours)
    lab.stop_router()
    lose_rules(lab)
    assert lab.table() == {}
    # It is noticed here: a request finds the router gone, and the search for it begins.
    assert program.bind("s7003", 7003) is None
    lab.start_router()
    ours["tcp/7003"] = LAN1
    lab.wait_for(lambda: lab.table() == ours, 60)
    program.serve("s7001")
    assert lab.fetch("tcp", 7001) == b"here"


def test_a_foreign_rule_is_left_alone(lab: Lab, start: Start) -> None:
    """While the router was away another host has taken one of the ports."""
    program = start("--timeout", "0.3")
    for number in (7000, 7001):
        assert program.bind(f"s{number}", number) is None
    lab.stop_router()
    lose_rules(lab)
    assert program.bind("s7002", 7002) is None
    lab.start_router()
    lab.map("lan2", "tcp", 7000)
    taken = {"tcp/7000": LAN2, "tcp/7001": LAN1, "tcp/7002": LAN1}
    ours = {f"tcp/{number}": LAN1 for number in (7000, 7001, 7002)}
    # Whichever of the two was quicker has it; nobody takes it from the other.
    lab.wait_for(lambda: lab.table() in (taken, ours), 60)
    if lab.table() == taken:
        lab.wait_for(lambda: states(program).get(7000) == "conflict")
    else:
        assert "718" in lab.map("lan2", "tcp", 7000)


@pytest.mark.parametrize("gone", [False, True])
def test_nobody_waits_a_second_time_for_a_router_that_is_silent(
    lab: Lab, start: Start, gone: bool
) -> None:
    """Whether its connections stay up or nothing of it is left on the LAN."""
    program = start("--timeout", "1")
    assert program.bind("first", 7000) is None
    if gone:
        lab.run("router", ["ip", "link", "set", "lan", "down"], check=True)
    else:
        lab.pause_router()
    assert timed(program, "second", 7001) >= 1
    assert sum(timed(program, f"s{n}", n) for n in range(7002, 7012)) < 1
    if gone:
        lab.run("router", ["ip", "link", "set", "lan", "up"], check=True)
    else:
        lab.resume_router()
    everything = {f"tcp/{number}": LAN1 for number in range(7000, 7012)}
    lab.wait_for(lambda: lab.table() == everything, 60)
    assert timed(program, "last", 7020) < 1
    assert lab.table() == everything | {"tcp/7020": LAN1}  # waited for again


def test_a_router_that_refuses_everything_is_asked_again(lab: Lab, start: Start) -> None:
    """Without its chain miniupnpd cannot make rules: error 501."""
    program = start()
    assert program.bind("first", 7000) is None
    rename = "inet", "nat", "prerouting_miniupnpd"
    lab.run("router", ["nft", "flush", "chain", "inet", "nat", "prerouting"], check=True)
    lab.run("router", ["nft", "delete", "chain", *rename], check=True)
    assert program.bind("second", 7001) is None
    assert states(program)[7001] == "ignored"
    lab.run("router", ["nft", "add", "chain", *rename], check=True)
    jump = ["nft", "add", "rule", "inet", "nat", "prerouting", "jump", "prerouting_miniupnpd"]
    lab.run("router", jump, check=True)
    lab.wait_for(lambda: lab.table().get("tcp/7001") == LAN1, 60)


def test_a_restart_that_nothing_else_would_show(lab: Lab, start: Start) -> None:
    """No program binds anything, the router never tells of itself, every mapping has been seen to
    be there once, and the router is away for less than it takes to be missed."""
    program = start("-v")
    for number in (7000, 7001, 7002):
        assert program.bind(f"s{number}", number) is None
    ours = {f"tcp/{number}": LAN1 for number in (7000, 7001, 7002)}
    lab.wait_for(lambda: program.log().count("looked again: mapped") == 3)
    assert lab.table() == ours
    lab.stop_router()
    lose_rules(lab)
    next_second = int(time.time()) + 1  # its boot number is the time of its start, in seconds
    lab.wait_for(lambda: time.time() >= next_second)
    lab.start_router()
    lab.wait_for(lambda: lab.table() == ours, 30)
    assert "the router was restarted" in program.log()
    assert "does not answer" not in program.log()
