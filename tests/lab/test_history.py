"""What `natsup log` shows of two sessions with a real router."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.lab.lab import LAN1, LAN2, OUTSIDE, Lab
from tests.lab.program import NATSUP, Program

_CHAIN = "inet", "nat", "prerouting_miniupnpd"


@contextlib.contextmanager
def refusing(lab: Lab) -> Iterator[None]:
    """Without its chain miniupnpd cannot make rules: error 501, as of a router that is full."""
    lab.run("router", ["nft", "flush", "chain", "inet", "nat", "prerouting"], check=True)
    lab.run("router", ["nft", "delete", "chain", *_CHAIN], check=True)
    yield
    lab.run("router", ["nft", "add", "chain", *_CHAIN], check=True)
    jump = ["nft", "add", "rule", "inet", "nat", "prerouting", "jump", _CHAIN[-1]]
    lab.run("router", jump, check=True)


def short(entry: dict[str, Any]) -> str:
    return f"{entry['what']} {entry['protocol']}/{entry['port']}"


def told(program: Program) -> list[str]:
    """What happened to ports; the router's address comes when it comes."""
    return [short(entry) for entry in program.history() if entry["what"] != "router"]


def test_two_sessions_with_a_router(lab: Lab, tmp_path: Path) -> None:
    lab.map("lan2", "tcp", 7000)
    first = Program(lab, tmp_path)
    assert first.bind("s", 7000) == "EADDRINUSE"
    assert first.do("s.bind(('', 7001))") is None
    assert lab.table() == {"tcp/7000": LAN2, "tcp/7001": LAN1}
    pid = first.do("os.getpid()")
    lab.wait_for(lambda: any(entry["what"] == "router" for entry in first.history()))
    first.do("s.close()")
    lab.wait_for(lambda: lab.table() == {"tcp/7000": LAN2})

    second = Program(lab, tmp_path)
    with refusing(lab):
        assert second.bind("u", 7002, "DGRAM") is None
    lab.wait_for(lambda: lab.table() == {"udp/7002": LAN1}, 60)
    expected = [
        "refused tcp/7000",
        "mapped tcp/7001",
        "removed tcp/7001",
        "ignored udp/7002",
        "mapped udp/7002",
    ]
    lab.wait_for(lambda: told(second) == expected)
    lab.run("router", ["nft", "flush", "chain", *_CHAIN], check=True)
    lab.wait_for(lambda: told(second)[len(expected) :] == ["lost udp/7002", "put back udp/7002"])
    assert lab.table() == {"udp/7002": LAN1}
    second.kill()
    lab.wait_for(lambda: told(second)[-1] == "removed udp/7002")
    assert lab.table() == {}

    found = {short(entry): entry for entry in first.history()}
    refused, removed = found["refused tcp/7000"], found["removed tcp/7001"]
    assert (refused["pid"], refused["holder"]) == (pid, LAN2)
    assert refused["reason"] == f"held by {LAN2}"
    assert refused["program"].startswith("python")
    assert refused["command"][1] == "-c"
    assert found["mapped tcp/7001"]["lease"] in range(3590, 3601)
    assert (removed["pid"], removed["reason"]) == (pid, "its last socket is gone")
    assert removed["external_address"] == OUTSIDE
    ignored, lost = found["ignored udp/7002"], found["lost udp/7002"]
    assert ignored["session"] == lost["session"] != refused["session"]
    assert ignored["reason"]
    assert lost["reason"] == "the router did not keep the mapping"
    assert found["removed udp/7002"]["pid"] == second.process.pid


def test_a_first_port_is_mapped_at_the_address_that_is_known(lab: Lab, tmp_path: Path) -> None:
    """The router is asked for its address when nobody waits for it, and so after that."""
    networks = tmp_path / "state-lan1" / "networks.json"
    first = Program(lab, tmp_path)
    assert first.bind("s", 7000) is None
    lab.wait_for(lambda: networks.exists() and OUTSIDE in networks.read_text())
    first.kill()
    lab.wait_for(lambda: lab.table() == {})
    second = Program(lab, tmp_path)
    assert second.bind("s", 7001) is None
    lab.wait_for(lambda: told(second)[-1] == "mapped tcp/7001")
    (mapped,) = [entry for entry in second.history() if entry["port"] == 7001]
    assert mapped["external_address"] == OUTSIDE
    assert [entry["what"] for entry in second.history()].count("router") == 1


def test_what_a_dead_session_left_is_told_of_as_its_own(lab: Lab, tmp_path: Path) -> None:
    for how in ("the next session", "natsup clean"):
        dead = Program(lab, tmp_path / how)
        assert dead.bind("s", 7000) is None
        lab.wait_for(lambda: told(dead) == ["mapped tcp/7000"])  # noqa: B023 - it runs here
        dead.alone()
        dead.kill()
        if how == "natsup clean":
            lab.run("lan1", [NATSUP, "clean"], env=dead.environ, check=True)
        else:
            Program(lab, tmp_path / how)
        lab.wait_for(lambda: len(told(dead)) == 2)  # noqa: B023
        before, after = (entry for entry in dead.history() if entry["what"] != "router")
        assert short(after) == "removed tcp/7000"
        assert before["session"] == after["session"]
        assert after["reason"] == "its session ended without cleaning up"
        assert lab.table() == {}
