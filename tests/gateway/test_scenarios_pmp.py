"""Scenarios of NAT-PMP and PCP: what the bind comes to, what the router was asked, and what its
table holds at the end. The numbers and letters are those of test_scenarios.

Where the router gives another port, or none, and was not seen yet to give what it is asked for,
there follows a trial: a port at random for 120 s, which is taken back. If that one is given, the
other port means a conflict.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from natsup.state.model import Mapped, Port, Protocol
from natsup.upnp.pmp import gateway as pmp
from tests.gateway.gateway import HERE, OTHER
from tests.gateway.house import KEY, PORT, House, house, short
from tests.gateway.quirks import Quirks
from tests.gateway.table import Entry

ALL = ("upnp", "natpmp", "pcp")
THEIRS = {"TCP 6881": OTHER}
MINE = {"TCP 6881": HERE}
LOW = Port(Protocol.TCP, 80)
UDP = Port(Protocol.UDP, 6881)
Enter = Callable[..., AbstractAsyncContextManager[House]]

both = pytest.mark.parametrize("protocol", ["natpmp", "pcp"])


@pytest.fixture(autouse=True)
def _one_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The router's clock and the host's are the one of the test."""
    monkeypatch.setattr(pmp, "_now", trio.current_time)


@pytest.fixture
def enter(tmp_path: Path, autojump_clock: MockClock) -> Enter:
    def made(
        protocol: str, quirks: Quirks | None = None, *, theirs: bool = False
    ) -> AbstractAsyncContextManager[House]:
        quirks = replace(quirks or Quirks(), speaks=ALL)
        before = {KEY: Entry(OTHER, "6881")} if theirs else {}
        return house(tmp_path, autojump_clock, quirks, before, protocol)

    return made


@dataclass(frozen=True)
class Row:
    number: int
    sentence: str
    protocol: str
    quirks: Quirks
    outcome: str
    asked: str  # by the time the bind has been answered; without the name of the protocol
    theirs: bool = False  # another host has the port
    port: Port = PORT

    def __str__(self) -> str:
        return f"{self.number} {self.protocol}: {self.sentence}"


MAP, BACK, TRIAL = "map 3600", "unmap", "map 120, unmap"
NOT_THERE = f"{MAP}, {BACK}, {TRIAL}"

ROWS = [
    Row(74, "the port that was asked for", "natpmp", Quirks(), "S", MAP),
    Row(74, "the port that was asked for", "pcp", Quirks(), "S", MAP),
    Row(75, "another port, as another host has it", "natpmp", Quirks(), "C", NOT_THERE, True),
    Row(76, "always another port", "natpmp",
        Quirks(pmp_other_port=True, pmp_lifetime=60), "I", NOT_THERE),
    Row(76, "always another port", "pcp",
        Quirks(pmp_other_port=True, pcp_heeds_option=False), "I", NOT_THERE),
    Row(77, "a port that nobody gets", "natpmp",
        Quirks(lowest_port=1024), "I", NOT_THERE, port=LOW),
    Row(78, "the port or none: none, as another host has it", "pcp",
        Quirks(), "C", f"{MAP}, {TRIAL}", True),
    Row(78, "none at all", "pcp", Quirks(pmp_refuses=11), "I", f"{MAP}, map 120"),
    Row(79, "another port though told not to", "pcp",
        Quirks(pcp_heeds_option=False), "C", NOT_THERE, True),
    Row(80, "it does not know the option", "pcp",
        Quirks(pcp_knows_option=False), "S", f"{MAP}, {MAP}"),
    Row(80, "it does not know the option, and another host has the port", "pcp",
        Quirks(pcp_knows_option=False), "C", f"{MAP}, {NOT_THERE}", True),
    Row(81, "a port that nobody gets", "pcp",
        Quirks(lowest_port=1024), "I", f"{MAP}, {TRIAL}", port=LOW),
    *(
        Row(83, f"result {result}", protocol, Quirks(pmp_refuses=result), "I", MAP)
        for protocol, results in (("natpmp", range(2, 6)), ("pcp", (1, 3, 6, 7, 8, 9, 10, 12, 13)))
        for result in (*results, 99)
    ),
    *(
        Row(86, "the answers to others come first, and each twice", protocol,
            Quirks(pmp_times=2, pmp_before=(
                "another port's", "another nonce", "another opcode", "from another port",
                "from a stranger",
            )), "S", MAP)
        for protocol in ("natpmp", "pcp")
    ),
    *(
        Row(86, "two requests are lost", protocol, Quirks(pmp_loses=2), "S", f"{MAP}, {MAP}, {MAP}")
        for protocol in ("natpmp", "pcp")
    ),
    *(
        Row(91, f"before its answer something {thing}", protocol,
            Quirks(pmp_before=(thing,)), "S", MAP)
        for protocol in ("natpmp", "pcp")
        for thing in ("short", "long")
    ),
    Row(91, "before its answer one with options without end", "pcp",
        Quirks(pmp_before=("looping options",)), "S", MAP),
]  # fmt: skip


def numbered(number: int) -> Port:
    return Port(Protocol.TCP, 7000 + number)


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_row(row: Row, enter: Enter, autojump_clock: MockClock) -> None:
    async with enter(row.protocol, row.quirks, theirs=row.theirs) as home:
        outcome = await home.bind(row.port)
        assert short(outcome) == row.outcome, outcome
        asked = ", ".join(one.removeprefix(f"{row.protocol} ") for one in home.gateway.asked)
        assert asked == row.asked
        ours = {f"TCP {row.port.number}": HERE} if row.outcome == "S" else {}
        assert home.gateway.holders == (THEIRS if row.theirs else ours)


@both
async def test_75_and_78_a_router_that_gave_what_it_was_asked_for_needs_no_trial(
    enter: Enter, autojump_clock: MockClock, protocol: str
) -> None:
    async with enter(protocol, theirs=True) as home:
        assert short(await home.bind(UDP)) == "S"
        home.gateway.log.clear()
        assert short(await home.bind()) == "C"
        taken_back = ["natpmp unmap"] if protocol == "natpmp" else []
        assert home.gateway.asked == [f"{protocol} map 3600", *taken_back]
        assert home.gateway.holders == THEIRS | {"UDP 6881": HERE}


async def test_80_an_option_that_a_router_does_not_know_is_not_sent_again(
    enter: Enter, autojump_clock: MockClock
) -> None:
    async with enter("pcp", Quirks(pcp_knows_option=False)) as home:
        assert [short(await home.bind(port)) for port in (UDP, numbered(0))] == ["S", "S"]
        assert home.gateway.asked == ["pcp map 3600"] * 3


async def test_82_a_restarted_natsup_still_owns_its_mappings(
    enter: Enter, autojump_clock: MockClock
) -> None:
    async with enter("pcp") as home:
        assert short(await home.bind()) == "S"
        again = await home.use_pmp("pcp")
        assert await again.add(UDP, lease=3600) == Mapped(3600)
        assert short(await again.add(numbered(0), lease=60)) == "S"
        home.close()
        await trio.sleep(5)
        assert home.gateway.holders == {"UDP 6881": HERE, "TCP 7000": HERE}


async def test_82_a_lost_secret_is_no_conflict(enter: Enter, autojump_clock: MockClock) -> None:
    async with enter("pcp") as home:
        entry = Entry(HERE, "6881", "old", None, "pcp", b"another nonce"[:12])
        home.gateway.table.entries[KEY] = entry
        assert short(await home.bind()) == "I"
        assert home.gateway.asked == ["pcp map 3600"]
        assert home.gateway.table.entries == {KEY: entry}


@pytest.mark.parametrize("lifetime", [0, 30, 600])
async def test_83_a_refusal_is_not_asked_about_again_while_it_holds(
    enter: Enter, autojump_clock: MockClock, lifetime: int
) -> None:
    async with enter("pcp", Quirks(pmp_refuses=8, pcp_error_lifetime=lifetime)) as home:
        assert short(await home.bind()) == "I"
        home.gateway.quirks.pmp_refuses = 0
        await trio.sleep(max(lifetime, 20) * 0.8)
        assert home.gateway.asked == ["pcp map 3600"]
        await trio.sleep(2 * lifetime + 60)
        assert home.gateway.holders == MINE


async def test_85_a_port_that_is_closed_is_seen_at_once(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with house(tmp_path, autojump_clock, protocol="natpmp") as home:
        began = trio.current_time()
        assert short(await home.bind()) == "I"
        assert trio.current_time() - began < 0.5
        assert home.gateway.asked == []


@both
async def test_85_silence_costs_the_budget_and_no_more(
    enter: Enter, autojump_clock: MockClock, protocol: str
) -> None:
    async with enter(protocol, Quirks(pmp_mute=("query", "map", "unmap"))) as home:
        began = trio.current_time()
        assert short(await home.bind(budget=0.5)) == "I"
        assert 0.5 <= trio.current_time() - began < 0.7
        home.gateway.quirks.pmp_mute = ()
        await trio.sleep(60)
        assert (home.gateway.holders, home.state()) == (MINE, "mapped")


@both
async def test_87_a_router_that_was_restarted_gets_everything_back(
    enter: Enter, autojump_clock: MockClock, protocol: str
) -> None:
    ports = [numbered(number) for number in range(10)]
    async with enter(protocol) as home:
        for port in ports:
            await home.bind(port)
        await trio.sleep(100)
        assert home.signs == []
        home.gateway.table.entries.clear()
        home.gateway.pmp.start(trio.current_time())
        await trio.sleep(15)
        assert home.gateway.holders == {f"TCP {port.number}": HERE for port in ports}
        assert home.signs == ["the router was restarted, by its clock"]
        home.gateway.log.clear()
        await trio.sleep(100)
        assert set(home.gateway.asked) == {f"{protocol} query"}


@pytest.mark.parametrize(
    ("protocol", "pace"), [("natpmp", 0.2), ("pcp", 0.2), ("pcp", 5.0)], ids=str
)
async def test_87_a_clock_of_another_pace_is_followed_by_renewals_and_no_loss(
    enter: Enter, autojump_clock: MockClock, protocol: str, pace: float
) -> None:
    async with enter(protocol, Quirks(pmp_pace=pace)) as home:
        assert short(await home.bind()) == "S"
        await trio.sleep(20)
        assert home.signs
        assert home.gateway.asked.count(f"{protocol} map 3600") == 2
        for _ in range(20):
            await trio.sleep(36)
            assert (home.gateway.holders, home.state()) == (MINE, "mapped"), home.signs
        assert home.gateway.asked.count(f"{protocol} map 3600") == 2
        home.close()
        await trio.sleep(5)
        assert home.gateway.holders == {}


@both
async def test_87_a_loss_that_the_clock_does_not_tell_is_made_good_by_the_renewal(
    enter: Enter, autojump_clock: MockClock, protocol: str
) -> None:
    async with enter(protocol, Quirks(pmp_keeps_clock=True)) as home:
        assert short(await home.bind()) == "S"
        await trio.sleep(100)
        home.gateway.table.entries.clear()
        home.gateway.pmp.start(trio.current_time())
        await trio.sleep(1800)
        assert home.gateway.holders == MINE
        assert home.signs == []


@pytest.mark.parametrize(
    ("protocol", "quirks", "there", "tries", "left"),
    [
        ("natpmp", {}, True, 1, "gone"),
        ("natpmp", {}, False, 1, "gone"),
        ("pcp", {}, True, 1, "gone"),
        ("pcp", {}, False, 1, "gone"),
        ("pcp", {"pcp_absent": 8}, False, 1, "gone"),
        ("pcp", {"pmp_refuses_removal": 2}, True, 1, "gone"),
        ("natpmp", {"pmp_refuses_removal": 3}, True, 5, "releasing"),
    ],
    ids=str,
)
async def test_89_a_removal_is_tried_again_where_that_may_help(
    enter: Enter,
    autojump_clock: MockClock,
    protocol: str,
    quirks: dict[str, int],
    there: bool,
    tries: int,
    left: str,
) -> None:
    async with enter(protocol) as home:
        await home.bind()
        if not there:
            home.gateway.table.entries.clear()
        for name, value in quirks.items():
            setattr(home.gateway.quirks, name, value)
        home.close()
        await trio.sleep(290)
        assert home.gateway.asked.count(f"{protocol} unmap") == tries
        assert home.state() == left


@both
async def test_89_and_93_a_removal_that_is_not_answered_is_made_sure_of(
    enter: Enter, autojump_clock: MockClock, protocol: str
) -> None:
    async with enter(protocol) as home:
        await home.bind()
        home.gateway.quirks.pmp_mute = ("query", "unmap")
        home.close()
        await trio.sleep(30)
        assert home.gateway.holders == {}
        assert home.state() == "releasing"
        home.gateway.quirks.pmp_mute = ()
        await trio.sleep(60)
        assert home.state() == "gone"


async def test_90_no_time_at_all_is_no_mapping(enter: Enter, autojump_clock: MockClock) -> None:
    async with enter("natpmp", Quirks(pmp_lifetime=0)) as home:
        assert short(await home.bind()) == "I"
        assert home.gateway.asked == ["natpmp map 3600", "natpmp unmap"]
        assert home.gateway.holders == {}


@both
async def test_90_the_shortest_lease_does_not_make_for_a_storm(
    enter: Enter, autojump_clock: MockClock, protocol: str
) -> None:
    async with enter(protocol, Quirks(pmp_lifetime=1)) as home:
        assert await home.bind() == Mapped(1)
        await trio.sleep(600)
        assert home.gateway.asked.count(f"{protocol} map 3600") <= 600 / 4


async def test_90_the_longest_lease_is_renewed_within_a_day(
    enter: Enter, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pmp, "_EVERY", 3600.0)  # seconds between looks at its clock
    async with enter("natpmp", Quirks(pmp_lifetime=10**7)) as home:
        assert await home.bind() == Mapped(86400)
        await trio.sleep(86400 / 2 + 60)
        assert home.gateway.asked.count("natpmp map 3600") == 2


async def test_93_another_port_that_may_still_be_open_is_taken_back_in_the_background(
    enter: Enter,
    autojump_clock: MockClock,
) -> None:
    async with enter("natpmp", Quirks(pmp_mute=("unmap",)), theirs=True) as home:
        assert short(await home.bind(budget=0.5)) == "I"
        await trio.sleep(11)
        home.gateway.quirks.pmp_mute = ()
        await trio.sleep(60)
        assert home.gateway.holders == THEIRS
        assert home.state() == "conflict"
