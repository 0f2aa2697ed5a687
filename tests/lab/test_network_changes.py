"""The network of a host changes while a program runs, and the program notices nothing."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab.lab import LAN1, LAN2, OUTSIDE_SECOND, ROUTER, Lab
from tests.lab.program import Program

Start = Callable[..., Program]
NEW = "192.168.77.4"  # an address that lan1 gets
PORTS = (7000, 7001)


@pytest.fixture
def start(lab: Lab, tmp_path: Path) -> Start:
    def run(*words: str) -> Program:
        program = Program(lab, tmp_path, *words)
        for number in PORTS:
            assert program.bind(f"s{number}", number) is None
        return program

    return run


def to(address: str) -> dict[str, str]:
    return {f"tcp/{number}": address for number in PORTS}


def mappings(program: Program) -> dict[int, tuple[str, str, int]]:
    (session,) = program.status()
    return {m["port"]: (m["state"], m["reason"], m["claims"]) for m in session["mappings"]}


def ip(lab: Lab, *commands: str, host: str = "lan1") -> None:
    for command in commands:
        lab.run(host, ["ip", *command.split()], check=True)


def unplug(lab: Lab) -> None:
    """Pull lan1's cable out."""
    ip(lab, "link set lan1 down", host="router")
    lab.wait_for(lambda: "LOWER_UP" not in lab.run("lan1", ["ip", "link", "show", "eth0"]).stdout)


def plug(lab: Lab) -> None:
    ip(lab, "link set lan1 up", host="router")


@pytest.mark.parametrize(
    "lab", [{}, {"upnp": False, "pmp": True}], ids=["UPnP", "PCP"], indirect=True
)
def test_another_address_beside_the_old_one(lab: Lab, start: Start) -> None:
    program = start()
    program.serve("s7000")
    assert lab.table() == to(LAN1)
    ip(lab, f"addr add {NEW}/24 dev eth0", f"route replace default via {ROUTER} src {NEW}")
    ip(lab, f"route replace 192.168.77.0/24 dev eth0 src {NEW}")
    lab.wait_for(lambda: lab.table() == to(NEW))
    assert lab.fetch("tcp", 7000) == b"here"
    lab.wait_for(lambda: mappings(program) == {n: ("mapped", "", 1) for n in PORTS})
    lost = [event for event in program.history() if event["what"] == "lost"]
    assert {event["reason"] for event in lost} == {f"this host has another address now, {NEW}"}


def replace_address(lab: Lab, address: str) -> None:
    ip(lab, "addr flush dev eth0", f"addr add {address}/24 dev eth0")
    ip(lab, f"route add default via {ROUTER}")


@pytest.mark.parametrize("lab", [{"secure": False}], indirect=True)
def test_42_another_address_in_place_of_the_old_one(lab: Lab, start: Start) -> None:
    """The router lets any host remove a mapping."""
    program = start()
    assert lab.table() == to(LAN1)
    replace_address(lab, NEW)
    lab.wait_for(lambda: lab.table() == to(NEW))
    lab.wait_for(lambda: mappings(program) == {n: ("mapped", "", 1) for n in PORTS})


def test_what_only_the_old_address_may_remove(lab: Lab, start: Start) -> None:
    """It is no other host's, and is there again when the address is."""
    program = start()
    replace_address(lab, NEW)
    kept = f"the router keeps it for {LAN1}, which this host had before"
    lab.wait_for(lambda: mappings(program) == {n: ("ignored", kept, 1) for n in PORTS})
    assert program.bind("udp", 7000, "DGRAM") is None
    assert lab.table() == to(LAN1) | {"udp/7000": NEW}
    assert program.do("udp.close()") is None
    lab.wait_for(lambda: lab.table() == to(LAN1))
    replace_address(lab, LAN1)
    lab.wait_for(lambda: mappings(program) == {n: ("mapped", "", 1) for n in PORTS})


def test_another_router(lab: Lab, start: Start) -> None:
    """The old one is there still, and lets go of what it had."""
    program = start()
    assert lab.table() == to(LAN1)
    lab.start_second_router()
    ip(lab, f"route replace default via {LAN2}")
    lab.wait_for(lambda: lab.table("lan2") == to(LAN1))
    lab.wait_for(lambda: lab.table() == {})
    assert {claims for _, _, claims in mappings(program).values()} == {1}
    lab.wait_for(lambda: program.status()[0]["gateway"]["external_address"] == OUTSIDE_SECOND)
    program.kill()
    lab.wait_for(lambda: lab.table("lan2") == {})


def test_another_router_with_the_same_address(lab: Lab, start: Start) -> None:
    """It has another MAC address, and none of the mappings."""
    program = start()
    program.serve("s7000")
    lab.stop_router()
    lab.lose_rules()
    ip(lab, "link set lan address 02:00:00:00:77:01", host="router")
    lab.start_router()
    lab.announce_router()
    lab.wait_for(lambda: lab.table() == to(LAN1), 40)
    assert lab.fetch("tcp", 7000) == b"here"
    lab.wait_for(lambda: mappings(program) == {n: ("mapped", "", 1) for n in PORTS})


def test_41_a_router_that_appears_late(lab: Lab, start: Start) -> None:
    """It says so when it starts, and gets all that was bound before."""
    lab.stop_router()
    program = start("--startup-timeout", "0.5")
    assert {state for state, _, _ in mappings(program).values()} == {"ignored"}
    lab.start_router()
    lab.wait_for(lambda: lab.table() == to(LAN1), 10)
    assert "the router says that it is there" in program.log()


def test_a_default_route_that_appears_late(lab: Lab, start: Start) -> None:
    ip(lab, "route del default")
    program = start()
    assert mappings(program)[7000][:2] == ("ignored", "there is no default route")
    ip(lab, f"route add default via {ROUTER}")
    lab.wait_for(lambda: lab.table() == to(LAN1), 5)


def test_a_link_that_was_gone(lab: Lab, start: Start) -> None:
    """Meanwhile the user removed a port in the router's page, and another host took one."""
    program = start()
    unplug(lab)
    lab.lose_rules()
    assert "is redirected to" in lab.map("lan2", "tcp", 7001)
    plug(lab)
    mixed = {"tcp/7000": LAN1, "tcp/7001": LAN2}
    lab.wait_for(lambda: lab.table() == mixed, 10)
    lab.wait_for(lambda: mappings(program)[7001] == ("conflict", f"held by {LAN2}", 1))
    (lost,) = [e for e in program.history() if e["what"] == "lost" and e["port"] == 7001]
    assert lost["holder"] == LAN2
    # The other host gives it back, and it is mapped again when the router is looked at next.
    lab.unmap("lan2", "tcp", 7001)
    unplug(lab)
    plug(lab)
    lab.wait_for(lambda: lab.table() == to(LAN1), 10)


def test_a_vpn_before_the_router(lab: Lab, start: Start) -> None:
    """Its default route comes first, by a point-to-point link, and leads to no router at home."""
    ip(
        lab,
        "tuntap add tun0 mode tun",
        "link set tun0 up",
        "addr add 10.8.0.2 peer 10.8.0.1 dev tun0",
    )
    ip(lab, "route del default", f"route add default via {ROUTER} metric 100")
    ip(lab, "route add default via 10.8.0.1 dev tun0 metric 50")
    program = start()
    assert lab.table() == to(LAN1)
    ip(lab, "route del default via " + ROUTER)
    lab.wait_for(lambda: "the default route goes into a tunnel, tun0" in program.log())
    ip(lab, f"route add default via {ROUTER} metric 100")
    lab.wait_for(lambda: program.log().count("router found") == 2)
