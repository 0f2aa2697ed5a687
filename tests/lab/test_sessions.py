"""Several sessions on one host, and one router that is asked no more than for one of them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests import leftovers
from tests.gateway.remote import Remote
from tests.lab.lab import LAN1, OUTSIDE, ROUTER_PORT, Lab
from tests.lab.program import Program

_MANY = 8


@dataclass
class Host:
    lab: Lab
    remote: Remote
    folder: Path
    programs: list[Program] = field(default_factory=list)

    def start(self) -> Program:
        self.programs.append(Program(self.lab, self.folder))
        return self.programs[-1]

    def wait_for_all(self) -> None:
        """Until every session has looked at what it mapped, and knows the external address."""

        def known() -> bool:
            found = [one["gateway"] for one in self.programs[0].status()]
            return len(found) == len(self.programs) and all(
                gateway is not None and gateway["external_address"] == OUTSIDE for gateway in found
            )

        self.lab.wait_for(known)

        def looked() -> bool:
            asked = self.remote.asked
            ports = {one.partition(" TCP ")[2] for one in asked}
            return all(asked.count(f"look TCP {port}") == 2 for port in ports)

        self.lab.wait_for(looked)

    def restart(self, bootid: int) -> None:
        """Restart the router, with an empty table."""
        self.remote.do(stop=True, clear=True, forget=True, quirks={"bootid": bootid})
        self.remote.do(start=ROUTER_PORT, tell="alive")


@pytest.fixture
def host(lab: Lab, tmp_path: Path, mark: bytes) -> Iterator[Host]:
    yield Host(lab, Remote(lab), tmp_path)
    lab.end_programs(spared=leftovers.natsups(mark))
    leftovers.expect_none(mark, besides=lab.pids("router"))


def test_a_second_session_asks_for_its_own_port_alone(host: Host) -> None:
    assert host.start().bind("s", 7000) is None
    host.wait_for_all()
    assert host.remote.do()["searches"] != []
    host.remote.do(forget=True)
    assert host.start().bind("s", 7001) is None
    host.wait_for_all()
    said = host.remote.do()
    assert said["searches"] == []
    assert said["asked"] == ["look", "add 3600", "look"]
    assert host.remote.table == {"TCP 7000": LAN1, "TCP 7001": LAN1}


def test_many_sessions_ask_as_one(host: Host) -> None:
    """The router is restarted: all of it comes back, and one session has searched and compared."""
    ours = {}
    for number in range(7000, 7000 + _MANY):
        host.start()
        ours[f"TCP {number}"] = LAN1
    for number, program in enumerate(host.programs, 7000):
        assert program.bind("s", number) is None
    host.wait_for_all()
    host.remote.do(tell="alive")
    host.restart(2)
    host.lab.wait_for(lambda: host.remote.table == ours, 30)
    said = host.remote.do()
    assert said["asked"].count("GetExternalIPAddress") == 1
    searches = len(said["searches"])
    assert searches < _MANY
    for port in ours:
        # By the one for all, by the one whose it is, and that nobody else has it before it is added
        assert said["ports"].count(f"look {port}") <= 3
        assert said["ports"].count(f"add 3600 {port}") == 1


def test_when_the_one_that_asks_dies_another_does(host: Host) -> None:
    first, second, third = (host.start() for _ in range(3))
    for number, program in enumerate(host.programs, 7000):
        assert program.bind("s", number) is None
    host.wait_for_all()
    host.remote.do(forget=True)
    first.alone()
    first.kill()
    # Another one watches from now on, and has asked the router for the number of its start.
    host.lab.wait_for(lambda: host.remote.do()["searches"] != [])
    host.remote.do(tell="alive")
    host.restart(2)
    ours = {"TCP 7001": LAN1, "TCP 7002": LAN1}
    host.lab.wait_for(lambda: host.remote.do(tell="alive")["table"] == ours, 30)
    second.kill()
    host.lab.wait_for(lambda: host.remote.table == {"TCP 7002": LAN1})
    third.kill()
    host.lab.wait_for(lambda: host.remote.table == {})


@pytest.mark.parametrize(
    ("first", "end"),
    [(0, "close"), (1, "close"), (1, "kill the program"), (0, "kill its supervisor")],
)
def test_a_port_of_two_sessions_goes_with_the_last_of_them(
    lab: Lab, tmp_path: Path, first: int, end: str
) -> None:
    """Servers that share a port by SO_REUSEPORT, each with a natsup of its own."""
    programs = [Program(lab, tmp_path) for _ in range(2)]
    for program in programs:
        program.do("s = socket.socket()")
        program.do("s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)")
        assert program.do("s.bind(('', 7000))") is None
        program.do("s.listen()")
    assert lab.table() == {"tcp/7000": LAN1}
    ending, other = programs[first], programs[1 - first]
    if end == "close":
        ending.do("s.close()")
        lab.wait_for(lambda: "handed over" in ending.log())
    elif end == "kill the program":
        ending.kill()
        lab.wait_for(lambda: len(other.status()) == 1)
    else:
        ending.alone()
        lab.wait_for(lambda: sum(one["alive"] for one in other.status()) == 1)
    assert lab.table() == {"tcp/7000": LAN1}
    assert lab.reaches(7000)
    other.do("s.close()")
    lab.wait_for(lambda: lab.table() == {})
