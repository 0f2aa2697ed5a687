"""Scenarios from end to end: a program under `natsup exec`, and the fake gateway as its router."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import leftovers
from tests.gateway.remote import Remote
from tests.lab.lab import LAN1, LAN2, ROUTER_PORT, Lab
from tests.lab.program import Program

ADD, LOOK = "AddPortMapping", "GetSpecificPortMappingEntry"
PORT = 6881


@dataclass(frozen=True)
class Row:
    number: int
    sentence: str
    quirks: dict[str, Any]
    result: str | None  # of the bind: the name of an errno
    state: str | None  # that `natsup status` shows
    asked: str
    holds: str = ""
    before: str = ""

    def __str__(self) -> str:
        return f"{self.number} {self.sentence}"


@dataclass
class Home:
    lab: Lab
    remote: Remote

    def restart(self) -> None:
        """And with it whatever request is still under way."""
        self.remote.do(stop=True)
        self.remote.do(start=ROUTER_PORT)

    def states(self, program: Program) -> dict[int, str]:
        return {m["port"]: m["state"] for one in program.status() for m in one["mappings"]}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with Lab(tmp_path_factory.mktemp("lab")) as lab:
        yield Home(lab, Remote(lab))


@pytest.fixture
def home(network: Home, mark: bytes) -> Iterator[Home]:
    """A good router with an empty table. What a test has made of it is taken back."""
    network.remote.do(reset=True, clear=True, forget=True)
    yield network
    network.remote.do(reset=True)
    network.lab.end_programs(spared=leftovers.natsups(mark))
    leftovers.expect_none(mark, besides=network.lab.pids("router"))


ROWS = [
    Row(2, "another host's port is in use", {}, "EADDRINUSE", None, "look", LAN2, LAN2),
    Row(3, "another host was quicker", {"taken_meanwhile": [LAN2, "6881"]},
        "EADDRINUSE", None, "look, add 3600, look", LAN2),
    Row(4, "718 though nobody holds the port", {"faults": {ADD: 718}},
        None, "ignored", "look, add 3600, look"),
    Row(7, "718 where nothing can be looked at", {"faults": {ADD: 718, LOOK: 401}},
        "EADDRINUSE", None, "look, add 3600, look"),
    Row(13, "606: this host may not", {"faults": {ADD: 606}}, None, "ignored", "look, add 3600"),
    Row(14, "a router that would let the port be taken over", {"overwrites": True},
        "EADDRINUSE", None, "look", LAN2, LAN2),
    Row(19, "an entry that names a host is no proof", {"shows_client": "nas"},
        None, "ignored", "look", LAN2, LAN2),
    Row(20, "an entry that is switched off", {"shows_enabled": "0"},
        "EADDRINUSE", None, "look", LAN2, LAN2),
    Row(53, "a page to log in for everything", {"login": True},
        None, "pending", "look, add 3600, look"),
    Row(57, "a router that is particular", {"exact_header": True, "exact_host": True},
        None, "mapped", "look, add 3600", LAN1),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_row(row: Row, home: Home, tmp_path: Path) -> None:
    if row.before:
        home.remote.do(give=[["TCP", PORT, row.before]])
    home.remote.set(**row.quirks)
    program = Program(home.lab, tmp_path)
    assert program.bind("s", PORT) == row.result
    asked = ", ".join(one.removesuffix(f" TCP {PORT}") for one in home.remote.asked)
    assert asked == row.asked
    assert home.remote.table == ({f"TCP {PORT}": row.holds} if row.holds else {})
    assert home.states(program).get(PORT) == row.state
    if row.result:  # and the program's own search goes on, on the same socket
        home.remote.do(reset=True)
        assert program.do(f"s.bind(('', {PORT + 1}))") is None
        assert home.remote.table[f"TCP {PORT + 1}"] == LAN1


def test_1_and_23_what_is_mapped_is_gone_with_its_socket(home: Home, tmp_path: Path) -> None:
    """With a router that knows permanent mappings alone as with any."""
    program = Program(home.lab, tmp_path)
    assert program.bind("one", PORT) is None
    home.remote.set(permanent_only=725)
    assert program.bind("other", PORT + 1) is None
    assert home.remote.table == {f"TCP {PORT}": LAN1, f"TCP {PORT + 1}": LAN1}
    program.do("one.close()")
    home.lab.wait_for(lambda: home.remote.table == {f"TCP {PORT + 1}": LAN1})
    program.kill()
    home.lab.wait_for(lambda: home.remote.table == {})


def test_49_a_silent_router_costs_the_budget_and_no_more(home: Home, tmp_path: Path) -> None:
    program = Program(home.lab, tmp_path, "--timeout", "0.5")
    assert program.bind("warm", PORT - 1) is None
    home.remote.set(manners={ADD: "silent"})
    began = time.monotonic()
    assert program.bind("s", PORT) is None
    assert 0.5 <= time.monotonic() - began < 5
    home.restart()


def test_60_a_late_answer_is_heard_in_the_background(home: Home, tmp_path: Path) -> None:
    program = Program(home.lab, tmp_path, "--timeout", "0.5")
    assert program.bind("warm", PORT - 1) is None
    home.remote.set(late={ADD: 3})
    began = time.monotonic()
    assert program.bind("s", PORT) is None
    assert time.monotonic() - began < 2.5
    home.lab.wait_for(lambda: home.states(program)[PORT] == "mapped")
    assert home.remote.asked.count(f"add 3600 TCP {PORT}") == 1


@pytest.mark.parametrize("port", [ROUTER_PORT, ROUTER_PORT + 1], ids=["same port", "another port"])
def test_36_and_37_a_router_that_was_restarted_gets_everything_back(
    home: Home, tmp_path: Path, port: int
) -> None:
    """Without a goodbye, with another boot number and perhaps at another port."""
    program = Program(home.lab, tmp_path)
    ours = {}
    for number in (7000, 7001, 7002):
        assert program.bind(f"s{number}", number) is None
        ours[f"TCP {number}"] = LAN1
    # What it says unasked is compared with what it said before.
    home.remote.do(tell="alive")
    home.remote.do(stop=True, clear=True, quirks={"bootid": 2})
    assert home.remote.do(start=port, tell="alive")["table"] == {}
    home.lab.wait_for(lambda: home.remote.table == ours, 30)
    home.restart()
