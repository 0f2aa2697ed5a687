"""A router that hangs, floods or talks without an end costs the program its budget, and no more:
a real session, and what other binds of the program notice of it."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from natsup.state.ledger import Policy
from tests import leftovers
from tests.gateway.remote import Remote
from tests.lab.lab import LAN1, Lab
from tests.lab.program import Program

_BUDGET = 0.5  # seconds
_MACHINE = 1.5  # that a busy one may add to it
_HUNDRED, _FEW = 100, 20
_MEDIAN, _SLOWEST = 0.02, 1.0  # seconds of a bind that natsup lets pass, also on a busy machine
_BOUND = 8 << 20  # bytes that the supervisor may take for it
_AWHILE = 1.0  # seconds

# ``hundred``: binds, one after the other: how long all of them took, and the slowest. Meanwhile
# ``passed``: what binds take that natsup lets pass, the median and the slowest.
_MEASURE = """
def timed(sock, address):
    began = time.perf_counter()
    sock.bind(address)
    return time.perf_counter() - began
class Passing(threading.Thread):
    on = True
    def run(self):
        self.times = []
        while self.on:
            with socket.socket() as sock: self.times.append(timed(sock, ("127.0.0.1", 0)))
            time.sleep(0.002)
    def stop(self):
        self.on = False
        self.join()
        self.times.sort()
        return [self.times[len(self.times) // 2], self.times[-1]]
def hundred(first, count):
    socks = [socket.socket() for _ in range(count)]
    kept.extend(socks)
    times = [timed(sock, ("", first + n)) for n, sock in enumerate(socks)]
    return [sum(times), max(times)]
kept = []
"""


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, Remote]]:
    with Lab(tmp_path_factory.mktemp("lab")) as lab:
        yield lab, Remote(lab)


@pytest.fixture
def remote(network: tuple[Lab, Remote], mark: bytes) -> Iterator[Remote]:
    lab, remote = network
    remote.do(reset=True, clear=True, forget=True)
    yield remote
    remote.do(reset=True)
    lab.end_programs(spared=leftovers.natsups(mark))
    leftovers.expect_none(mark, besides=lab.pids("router"))


@pytest.fixture
def program(network: tuple[Lab, Remote], remote: Remote, tmp_path: Path) -> Program:
    """One port of its is mapped."""
    program = Program(network[0], tmp_path, "--timeout", str(_BUDGET))
    assert program.bind("warm", 6999) is None
    assert remote.table == {"TCP 6999": LAN1}
    program.do(f"exec({_MEASURE!r}, globals())")
    return program


def memory(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def processor(pid: int) -> float:
    """Seconds that a process has had."""
    times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, times)) / os.sysconf("SC_CLK_TCK")


BAD: list[dict[str, object]] = [
    {"manners": {"*": "silent"}},
    {"manners": {"*": "drip"}},
    {"manners": {"*": "continue for ever"}},
    {"manners": {"*": "headers"}},
]
ANSWERS: list[dict[str, object]] = [{"framing": "huge"}]


@pytest.mark.parametrize(
    "quirks", BAD + ANSWERS, ids=lambda quirks: " ".join(map(str, quirks.values()))
)
def test_a_hundred_binds_wait_for_a_few_budgets(
    program: Program, remote: Remote, quirks: dict[str, object]
) -> None:
    supervisor = program.supervisor()
    before = memory(supervisor)
    remote.do(forget=True, quirks=quirks)
    program.do("passing = Passing()")
    program.do("passing.start()")
    answers = quirks in ANSWERS  # each bind hears a no that cannot be read, and soon
    count = _FEW if answers else _HUNDRED
    total, worst = program.do(f"hundred(7000, {count})")
    used = processor(supervisor)
    time.sleep(_AWHILE)  # what it does in the background is to be seen, too
    used = processor(supervisor) - used
    print(f"{quirks}: {total=} {worst=} {used=} {memory(supervisor) - before}")
    median, slowest = program.do("passing.stop()")
    assert worst < _BUDGET + _MACHINE
    assert total < (_FEW * _BUDGET if answers else 4 * _BUDGET + 3 * _MACHINE)
    assert median < _MEDIAN
    assert slowest < _SLOWEST
    assert memory(supervisor) - before < _BOUND
    assert used < 0.75 * _AWHILE


def test_it_is_asked_again_by_one_request_at_a_time(
    network: tuple[Lab, Remote], program: Program, remote: Remote
) -> None:
    """And waited for again once that has been answered."""
    lab = network[0]
    remote.do(forget=True, quirks={"manners": {"*": "silent"}})
    total, _ = program.do("hundred(7000, 30)")
    assert total < 3 * _BUDGET + _MACHINE
    assert len(remote.asked) <= 2
    remote.do(quirks={"manners": {}})
    wanted = {f"TCP {number}": LAN1 for number in (6999, *range(7000, 7030))}
    lab.wait_for(lambda: remote.table == wanted, 3 * Policy().recheck + 30)
    assert program.bind("again", 7100) is None
    assert remote.table["TCP 7100"] == LAN1


def test_a_flood_of_signs_is_heard_as_a_few(program: Program, remote: Remote) -> None:
    """Thousands of times a second the router says that it was restarted."""
    supervisor = program.supervisor()
    before = memory(supervisor)
    program.do("passing = Passing()")
    program.do("passing.start()")
    for _ in range(5):
        remote.do(flood=2000)
    median, slowest = program.do("passing.stop()")
    assert median < _MEDIAN
    assert slowest < _SLOWEST
    assert memory(supervisor) - before < _BOUND
    assert program.bind("s", 7000) is None
    assert remote.table == {"TCP 6999": LAN1, "TCP 7000": LAN1}
    assert program.log().count("the router was restarted") <= 3
