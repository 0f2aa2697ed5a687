"""The monitor, by textual's own pilot; and that the README's pictures are of it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import DataTable, Input, Static

from natsup.state.journal import SessionRecord
from natsup.state.ledger import State
from natsup.state.model import Port
from natsup.supervisor.monitor import Monitor, Source, lines_of, matching
from natsup.supervisor.ordering import Untold
from natsup.supervisor.watching import Changes
from tests.supervisor import sample, screenshots
from tests.supervisor.screenshots import DOCS, PICTURES, words


class House:
    """What there is to be shown, which the test changes, and what was ordered."""

    def __init__(self) -> None:
        self.records = sample.records()
        self.ordered: list[str] = []
        self.refuses = ""

    def order(self, session: SessionRecord, what: str, port: Port) -> tuple[str, str]:
        self.ordered.append(f"{what} {session.header.session} {port}")
        if self.refuses:
            raise Untold(self.refuses)
        found = next(one for one in self.records if one.header == session.header)
        state = State.RELEASED if what == "release" else State.MAPPED
        found.ports[port] = replace(found.ports[port], state=state, reason="")
        return state.value, ""

    def source(self, changes: Changes | None = None) -> Source:
        made = screenshots.source()
        return replace(made, sessions=lambda: self.records, order=self.order, changes=changes)


@pytest.fixture
def house() -> House:
    return House()


Play = Callable[[Monitor, Pilot[None]], Awaitable[None]]


def played(source: Source, play: Play) -> None:
    """Not by trio: textual needs asyncio."""

    async def run() -> None:
        monitor = Monitor(source)
        async with monitor.run_test(size=(120, 30)) as pilot:
            await pilot.pause()
            await play(monitor, pilot)

    asyncio.run(run())


def rows(monitor: Monitor) -> list[list[str]]:
    table = monitor.query_one("#ports", DataTable)
    return [[str(cell) for cell in table.get_row_at(n)] for n in range(table.row_count)]


def ports(monitor: Monitor) -> list[str]:
    return [row[2] for row in rows(monitor)]


def text(monitor: Monitor, name: str) -> str:
    return str(monitor.query_one(name, Static).content)


def told(monitor: Monitor) -> list[str]:
    return [one.message for one in monitor._notifications]


def test_all_ports_are_shown(house: House) -> None:
    async def play(monitor: Monitor, pilot: Pilot[None]) -> None:
        assert ports(monitor) == [
            *("tcp 6881", "tcp6 6881", "udp 6881", "tcp 27960", "udp 27960", "tcp 22000")
        ]
        first = rows(monitor)[0]
        assert first[:5] == ["rtorrent", "24353", "tcp 6881", "11.22.33.1:6881", "mapped"]
        assert text(monitor, "#summary") == "3 sessions, 6 ports"
        said = text(monitor, "#details")
        assert "router http://192.168.178.1:49000/igddesc.xml" in said
        happened = said.partition("history of this port\n")[2].splitlines()
        assert [line.split()[4] for line in happened] == ["put", "lost", "mapped"]
        assert "held by" not in said
        await pilot.press("down", "down")
        await pilot.pause()
        assert "held by 192.168.178.31" in text(monitor, "#details")

    played(house.source(), play)


def test_search(house: House) -> None:
    async def play(monitor: Monitor, pilot: Pilot[None]) -> None:
        await pilot.press("slash", *"Udp conf")
        await pilot.pause()
        assert ports(monitor) == ["udp 6881"]
        assert text(monitor, "#summary") == "3 sessions, 1 of 6 ports"
        assert "held by 192.168.178.31" in text(monitor, "#details")
        await pilot.press("enter", "r", "r")
        await monitor.workers.wait_for_complete()
        assert house.ordered == ["release 5f21-0b1c2d udp/6881"]
        await pilot.press("slash", *"no such thing")
        await pilot.pause()
        assert ports(monitor) == []
        assert "no port is chosen" in text(monitor, "#details")
        await pilot.press("enter", "r", "r", "t", "c")
        assert len(house.ordered) == 1
        await pilot.press("escape")
        await pilot.pause()
        assert len(ports(monitor)) == 6
        assert not monitor.query_one(Input).display

    played(house.source(), play)


def test_release_and_retry(house: House) -> None:
    async def play(monitor: Monitor, pilot: Pilot[None]) -> None:
        await pilot.press("r", "down", "r", "up")  # who looks elsewhere is asked again
        await pilot.press("r")
        await monitor.workers.wait_for_complete()
        assert house.ordered == []
        assert told(monitor)[-1] == "tcp 6881 of rtorrent: press r again to release it"
        await pilot.press("r")
        await monitor.workers.wait_for_complete()
        await pilot.pause()
        assert rows(monitor)[0][4] == "released"
        assert told(monitor)[-1] == "tcp 6881 of rtorrent: released"
        await pilot.press("t")
        await monitor.workers.wait_for_complete()
        await pilot.pause()
        assert rows(monitor)[0][4] == "mapped"
        house.refuses = "rtorrent [b]: it takes no orders"
        await pilot.press("r", "r")
        await monitor.workers.wait_for_complete()
        await pilot.pause()
        assert told(monitor)[-1] == "rtorrent [b]: it takes no orders"
        assert rows(monitor)[0][4] == "mapped"

    played(house.source(), play)


def test_a_number_finds_no_other_port() -> None:
    """A session's arguments name ports as well, and its name, its pid and addresses have digits."""
    records = sample.records()
    records[0].header.command[1:] = ["-p", "22000-27960"]
    lines = lines_of(records, sample.NOW, UTC)
    for search, found in {
        "22000": ["tcp/22000"],
        "27960": ["tcp/27960", "udp/27960"],
        "UDP 6881": ["udp/6881"],
        "14992": ["tcp/22000"],
        "5f21": ["tcp/6881", "tcp6/6881", "udp/6881"],
        "11.22": ["tcp/6881", "udp/27960"],
        "178": [],
    }.items():
        assert [str(line.row.port) for line in matching(lines, search)] == found, search


def test_what_is_found_is_chosen(house: House) -> None:
    async def play(monitor: Monitor, pilot: Pilot[None]) -> None:
        await pilot.press("down", "down", "slash", *"rto")
        await pilot.pause()
        assert monitor.query_one(DataTable).cursor_row == 0
        assert text(monitor, "#details").startswith("tcp 6881 of rtorrent")
        await pilot.press("enter", "down", "escape")
        await pilot.pause()
        assert text(monitor, "#details").startswith("tcp6 6881 of rtorrent")

    played(house.source(), play)


def test_the_external_address_is_copied(house: House) -> None:
    async def play(monitor: Monitor, pilot: Pilot[None]) -> None:
        await pilot.press("c")
        assert monitor.clipboard == "11.22.33.1:6881"
        await pilot.press("down", "down", "c")
        assert monitor.clipboard == "11.22.33.1:6881"
        assert told(monitor)[-1] == "this port has no external address"

    played(house.source(), play)


def test_what_is_chosen_stays_chosen(house: House) -> None:
    async def play(monitor: Monitor, pilot: Pilot[None]) -> None:
        await pilot.press("down", "down", "down")
        await pilot.pause()
        assert "table is full" in text(monitor, "#details")
        del house.records[0].ports[sample.TCP]
        await pilot.press("f5")
        await pilot.pause()
        assert "table is full" in text(monitor, "#details")
        assert monitor.query_one(DataTable).cursor_row == 2
        del house.records[1].ports[sample.QUERY]  # itself
        await pilot.press("f5")
        await pilot.pause()
        assert "udp 27960" in text(monitor, "#details")
        house.records[1].alive = False
        await pilot.press("f5")
        await pilot.pause()
        assert rows(monitor)[2][0] == "openarena-serve (ended)"
        assert "1 ended without cleaning up" in text(monitor, "#summary")
        house.records.clear()
        await pilot.press("f5")
        await pilot.pause()
        assert "No session." in text(monitor, "#details")

    played(house.source(), play)


def test_changes_are_seen_as_they_come(house: House, tmp_path: Path) -> None:
    async def play(monitor: Monitor, pilot: Pilot[None]) -> None:
        house.records[0].ports[sample.UDP] = replace(
            house.records[0].ports[sample.UDP], state=State.MAPPED, reason=""
        )
        (tmp_path / "history.jsonl").write_text("")  # the kernel tells
        for _ in range(300):
            if rows(monitor)[2][4] == "mapped":
                break
            await pilot.pause(0.05)
        assert rows(monitor)[2][3:5] == ["11.22.33.1:6881", "mapped"]

    changes = Changes(tmp_path)
    try:
        played(house.source(changes), play)
    finally:
        changes.close()


def test_a_folder_that_cannot_be_read_is_no_end(house: House) -> None:
    def fail() -> list[SessionRecord]:
        raise PermissionError(13, "Permission denied")

    async def play(monitor: Monitor, pilot: Pilot[None]) -> None:
        assert told(monitor) == ["the state folder cannot be read: Permission denied"]
        assert ports(monitor) == []

    played(replace(house.source(), sessions=fail), play)


def test_thousands_of_ports(house: House) -> None:
    record = house.records[0]
    for number in range(2000):
        record.ports[replace(sample.TCP, number=20000 + number)] = record.ports[sample.TCP]
    lines = lines_of(house.records, sample.NOW, UTC)
    assert len(matching(lines, "rtorrent 2199")) == 10

    async def play(monitor: Monitor, pilot: Pilot[None]) -> None:
        assert len(rows(monitor)) == 2006

    played(house.source(), play)


@pytest.mark.parametrize("name", PICTURES)
def test_the_pictures_are_what_is_shown_now(name: str) -> None:
    """If they are not: just screenshots."""
    assert words((DOCS / name).read_text()) == words(PICTURES[name]())
