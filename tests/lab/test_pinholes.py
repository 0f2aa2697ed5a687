"""Pinholes for IPv6 in a real router's firewall, which lets nobody in but by them."""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.lab.lab import LAN1, LAN1_6, LAN2, Lab
from tests.lab.program import NATSUP, Program
from tests.lab.test_confinement import PROFILE

ipv6 = pytest.mark.parametrize("lab", [{"ipv6": True, "pmp": True}], indirect=True, ids=["ipv6"])
both = pytest.mark.parametrize("protocol", ["upnp", "pcp"])
MOVED = "2001:db8:1::77"
Start = Callable[..., Program]


@pytest.fixture
def start(lab: Lab, tmp_path: Path) -> Start:
    """Programs whose bind() waits long enough even for a router that is yet to be found."""

    def run(*words: str) -> Program:
        return Program(lab, tmp_path, *words)

    return run


def bind_alone(program: Program, name: str, port: int) -> Any:
    """Bind a TCP socket that takes IPv6 alone."""
    program.do(f"{name} = socket.socket(socket.AF_INET6)")
    program.do(f"{name}.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)")
    return program.do(f"{name}.bind(('', {port}))")


@ipv6
@both
def test_a_server_is_reached_by_ipv6_as_long_as_it_lives(
    lab: Lab, start: Start, protocol: str
) -> None:
    program = start("--protocols", protocol)
    assert program.bind("tcp", 6881, family="INET6") is None
    assert lab.pinholes() == {"tcp/6881": LAN1_6}  # before bind() has returned
    assert lab.table() == {"tcp/6881": LAN1}
    program.serve("tcp")
    assert program.bind("udp", 6882, "DGRAM", "INET6") is None
    program.tell("udp.sendto(*udp.recvfrom(99))")
    assert lab.fetch("tcp", 6881, to=LAN1_6) == b"here"
    assert lab.fetch("udp", 6882, b"u", to=LAN1_6) == b"u"
    assert program.answer() == 1
    program.do("udp.close()")
    lab.wait_for(lambda: lab.pinholes() == {"tcp/6881": LAN1_6})
    os.kill(program.do("os.getpid()"), signal.SIGKILL)
    assert program.process.wait(20) == -signal.SIGKILL
    lab.wait_for(lambda: (lab.pinholes(), lab.table()) == ({}, {}))
    lab.wait_for(lambda: list(program.state.glob("sessions/*")) == [])


@ipv6
def test_without_a_pinhole_nobody_is_let_in(lab: Lab, start: Start) -> None:
    program = start("--no-pinholes")
    assert program.bind("tcp", 6881, family="INET6") is None
    program.serve("tcp")
    assert lab.table() == {"tcp/6881": LAN1}
    assert lab.pinholes() == {}
    assert lab.fetch("tcp", 6881) == b"here"
    assert lab.fetch("tcp", 6881, to=LAN1_6) is None


@ipv6
def test_ipv6_alone_gets_a_pinhole_alone_and_is_shown(lab: Lab, start: Start) -> None:
    program = start()
    assert bind_alone(program, "s", 6881) is None
    assert (lab.pinholes(), lab.table()) == ({"tcp/6881": LAN1_6}, {})
    program.serve("s")
    assert lab.fetch("tcp", 6881, to=LAN1_6) == b"here"
    (session,) = program.status()
    (shown,) = session["mappings"]
    assert (shown["family"], shown["internal_address"], shown["state"]) == (
        "ipv6",
        LAN1_6,
        "mapped",
    )
    text = lab.run("lan1", [NATSUP, "status"], env=program.environ).stdout
    assert f"tcp6 6881  → [{LAN1_6}]:6881  mapped" in text
    told = lab.run("lan1", [NATSUP, "log", "--port", "6881/tcp"], env=program.environ).stdout
    assert f"tcp6 6881  mapped  at [{LAN1_6}]:6881" in told


@ipv6
def test_a_socket_that_cannot_be_copied_gets_one_too(lab: Lab, tmp_path: Path) -> None:
    wrapper = [sys.executable, "-W", "ignore", "-c", PROFILE, "refuse", "pidfd_getfd"]
    program = Program(lab, tmp_path, prefix=wrapper)
    assert bind_alone(program, "s", 6881) is None
    assert program.bind("t", 6882, family="INET6") is None
    pinholes = {"tcp/6881": LAN1_6, "tcp/6882": LAN1_6}
    lab.wait_for(lambda: (lab.pinholes(), lab.table()) == (pinholes, {"tcp/6882": LAN1}))


@ipv6
@both
def test_clean_closes_what_a_dead_session_left(lab: Lab, start: Start, protocol: str) -> None:
    program = start("--protocols", protocol)
    assert program.bind("s", 6881, family="INET6") is None
    program.alone()
    program.kill()
    assert lab.pinholes() == {"tcp/6881": LAN1_6}
    done = lab.run("lan1", [NATSUP, "clean"], env=program.environ)
    assert (done.returncode, done.stderr) == (0, "")
    assert "tcp6/6881" in done.stdout
    assert (lab.pinholes(), lab.table()) == ({}, {})


@ipv6
def test_the_next_session_closes_it_as_well(lab: Lab, start: Start) -> None:
    dead = start()
    assert dead.bind("s", 6881, family="INET6") is None
    dead.alone()
    dead.kill()
    assert lab.pinholes() == {"tcp/6881": LAN1_6}
    program = start()
    assert program.bind("s", 7000) is None
    lab.wait_for(lambda: (lab.pinholes(), lab.table()) == ({}, {"tcp/7000": LAN1}))


@ipv6
def test_another_address_gets_the_pinholes(lab: Lab, start: Start) -> None:
    """And with the last one they go to sleep, until there is one again."""
    program = start()
    assert program.bind("s", 6881, family="INET6") is None
    assert lab.pinholes() == {"tcp/6881": LAN1_6}

    def ip(*words: str) -> None:
        lab.run("lan1", ["ip", "addr", *words, "dev", "eth0"], check=True)

    ip("add", f"{MOVED}/64", "nodad")
    ip("del", f"{LAN1_6}/64")
    lab.wait_for(lambda: "tcp/6881" in lab.pinholes() and MOVED in lab.pinholes().values())
    ip("del", f"{MOVED}/64")
    lab.wait_for(lambda: "no pinholes: eth0 has no lasting global IPv6 address" in program.log())
    assert program.bind("t", 6883, family="INET6") is None
    ip("add", f"{LAN1_6}/64", "nodad")
    lab.wait_for(lambda: lab.pinholes().get("tcp/6883") == LAN1_6)


def test_without_ipv6_nothing_is_said_of_it(lab: Lab, start: Start) -> None:
    program = start()
    assert program.bind("s", 6881, family="INET6") is None
    assert lab.table() == {"tcp/6881": LAN1}
    assert bind_alone(program, "t", 6882) is None
    (session,) = program.status()
    assert [one["family"] for one in session["mappings"]] == ["ipv4"]
    assert {one["family"] for one in program.history() if one["port"]} == {"ipv4"}


@ipv6
def test_a_port_of_another_host_is_in_use_and_gets_no_pinhole(lab: Lab, start: Start) -> None:
    lab.map("lan2", "tcp", 7000)
    program = start()
    assert program.bind("s", 7000, family="INET6") == "EADDRINUSE"
    assert program.do("s.bind(('', 7001))") is None
    lab.wait_for(lambda: lab.pinholes() == {"tcp/7001": LAN1_6})
    assert lab.table() == {"tcp/7000": LAN2, "tcp/7001": LAN1}


@ipv6
def test_a_router_that_hangs_holds_no_bind_up_for_longer(lab: Lab, tmp_path: Path) -> None:
    program = Program(lab, tmp_path, "--timeout", "0.5")
    assert program.bind("s", 7000, family="INET6") is None
    lab.wait_for(lambda: lab.pinholes() == {"tcp/7000": LAN1_6})
    lab.pause_router()
    program.do("t = socket.socket(socket.AF_INET6)")
    program.do("t.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)")
    program.do("u = socket.socket(socket.AF_INET6)")
    for name, number in (("t", 7001), ("u", 7002)):
        program.do("begin = time.monotonic()")
        assert program.do(f"{name}.bind(('', {number}))") is None
        assert program.do("time.monotonic() - begin") < 2
    lab.resume_router()
    lab.wait_for(lambda: set(lab.pinholes()) == {"tcp/7000", "tcp/7001", "tcp/7002"}, 60)


_BOTH_WAYS = """
from natsup.upnp.pinhole import kernel
asked = kernel.Kernel()
print(sorted(map(str, asked.default_routes())) == sorted(map(str, kernel.listed_routes())))
print(sorted(map(str, asked.own_addresses())) == sorted(map(str, kernel.listed_addresses())))
print(kernel._look(None, None))
"""


@ipv6
def test_the_kernel_says_the_same_by_netlink_and_by_its_files(lab: Lab) -> None:
    lab.run("lan1", ["ip", "addr", "add", "2001:db8:1::88/64", "dev", "eth0", "preferred_lft", "0"])

    same = lab.run("lan1", [sys.executable, "-W", "ignore", "-c", _BOTH_WAYS], check=True).stdout
    network = f"Network(interface='eth0', gateway='fe80::1%eth0', address='{LAN1_6}')"
    assert same.splitlines() == ["True", "True", network]


@ipv6
def test_the_doctor_tries_one(lab: Lab, tmp_path: Path) -> None:
    environ = {**os.environ, "NATSUP_STATE_DIR": str(tmp_path / "state")}
    done = lab.run("lan1", [NATSUP, "doctor", "--json"], env=environ)
    (check,) = (one for one in json.loads(done.stdout)["checks"] if one["id"] == "pinholes")
    assert check["level"] == "ok"
    assert f"opened by UPnP to {LAN1_6}" in check["found"]
    assert (lab.pinholes(), lab.table()) == ({}, {})
