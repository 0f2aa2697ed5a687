"""The comparison with the router's table by its own lists of mappings (WANIPConnection:2).

Whatever a list says or leaves out, what is mapped stays mapped, and is looked up by itself before
it is taken for lost.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from natsup.state.model import Port, Protocol
from tests.gateway.gateway import HERE, OTHER
from tests.gateway.house import House, house, short
from tests.gateway.quirks import Quirks
from tests.gateway.table import Entry

LIST, LOOK = "GetListOfPortMappings", "GetSpecificPortMappingEntry"
TCP = [Port(Protocol.TCP, 7000 + number) for number in range(10)]
UDP = [Port(Protocol.UDP, 7000 + number) for number in range(10)]
ALL = {f"{port.protocol.value.upper()} {port.number}": HERE for port in (*TCP, *UDP)}
Enter = Callable[..., AbstractAsyncContextManager[House]]


@pytest.fixture
def enter(tmp_path: Path, autojump_clock: MockClock) -> Enter:
    def made(quirks: Quirks, version: int = 2) -> AbstractAsyncContextManager[House]:
        return house(tmp_path, autojump_clock, quirks, version=version)

    return made


async def settled(home: House) -> None:
    """Everything is mapped, and has been looked at once."""
    for port in (*TCP, *UDP):
        assert short(await home.bind(port)) == "S"
    await trio.sleep(10)
    home.gateway.log.clear()


async def compared(home: House) -> list[str]:
    """What a comparison asks."""
    home.gateway.log.clear()
    home.keeper.compare()
    await trio.sleep(5)
    return home.gateway.asked


@pytest.mark.parametrize("form", ["cdata", "escaped", "bare"])
async def test_a_comparison_takes_a_list_of_either_protocol(
    enter: Enter, autojump_clock: MockClock, form: str
) -> None:
    async with enter(Quirks(lists=form)) as home:
        await settled(home)
        assert await compared(home) == ["list", "list"]
        assert home.gateway.holders == ALL


async def test_a_thousand_mappings_are_compared_with_two_requests(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    ports = [Port(kind, 7000 + number) for kind in Protocol for number in range(500)]
    async with house(tmp_path, autojump_clock, Quirks(lists="cdata"), version=2) as home:
        async with trio.open_nursery() as nursery:
            for port in ports:
                nursery.start_soon(home.bind, port)
        await trio.sleep(60)
        assert len(home.gateway.holders) == 1000
        assert await compared(home) == ["list", "list"]
        assert all(home.state(port) == "mapped" for port in ports)


async def test_a_few_ports_are_looked_up_without_a_list(
    enter: Enter, autojump_clock: MockClock
) -> None:
    async with enter(Quirks(lists="cdata")) as home:
        for port in TCP[:8]:
            await home.bind(port)
        await trio.sleep(10)
        assert await compared(home) == ["look"] * 8


async def test_a_router_of_version_1_is_not_asked_for_lists(
    enter: Enter, autojump_clock: MockClock
) -> None:
    async with enter(Quirks(lists="cdata"), version=1) as home:
        await settled(home)
        assert await compared(home) == ["look"] * 20


@pytest.mark.parametrize(
    "quirks",
    [
        Quirks(),
        Quirks(lists="cdata", faults={LIST: 606}),
        Quirks(lists="cdata", faults={LIST: 501}),
        Quirks(lists="cdata", manners={LIST: "silent"}),
        Quirks(lists="cdata", manners={LIST: "endless"}),
        Quirks(lists="cdata", manners={LIST: "hang up"}),
        Quirks(lists="empty"),
        Quirks(lists="html"),
        Quirks(lists="cdata", faults={LIST: 730}),
        Quirks(lists="cdata", list_most=0, list_nothing=None),
        Quirks(lists="cdata", list_most=3),
        Quirks(lists="cdata", list_hides=(7003,)),
        Quirks(lists="cdata", list_hides=tuple(range(7000, 7009))),
    ],
    ids=[
        "none", "606", "501", "silence", "endless", "hung up", "nothing in it", "HTML in it",
        "730 though there are some", "empty though there are some", "cut off", "one left out",
        "nine left out",
    ],
)  # fmt: skip
async def test_a_list_that_is_none_or_not_complete_makes_nothing_lost(
    enter: Enter, autojump_clock: MockClock, quirks: Quirks
) -> None:
    """And is not asked for again."""
    async with enter(quirks) as home:
        await settled(home)
        home.keeper.compare()
        await trio.sleep(60)
        for _ in range(2):
            asked = await compared(home)
            assert set(asked) == {"look"}
            assert len(asked) == 20
        assert home.gateway.holders == ALL
        assert all(home.state(port) == "mapped" for port in (*TCP, *UDP))


async def test_what_is_lost_is_looked_up_and_put_back(
    enter: Enter, autojump_clock: MockClock
) -> None:
    async with enter(Quirks(lists="cdata")) as home:
        await settled(home)
        del home.gateway.table.entries["TCP", 7003]
        asked = await compared(home)
        assert asked == ["list", "list", "look", "look", "add 3600", "look"]
        assert home.gateway.holders == ALL
        assert await compared(home) == ["list", "list"]


async def test_what_another_host_has_by_now_is_looked_up_and_left_to_it(
    enter: Enter, autojump_clock: MockClock
) -> None:
    async with enter(Quirks(lists="cdata")) as home:
        await settled(home)
        home.gateway.table.give(("TCP", 7003), OTHER)
        assert await compared(home) == ["list", "list", "look"]
        assert home.state(TCP[3]) == "conflict"
        assert home.gateway.holders == ALL | {"TCP 7003": OTHER}


async def test_what_a_list_says_of_another_host_is_no_proof(
    enter: Enter, autojump_clock: MockClock
) -> None:
    """It may have been another host's name for a mapping that made it say so."""
    name = (
        "</p:NewDescription></p:PortMappingEntry><p:PortMappingEntry>"
        "<p:NewExternalPort>7003</p:NewExternalPort><p:NewProtocol>TCP</p:NewProtocol>"
        f"<p:NewInternalPort>7003</p:NewInternalPort><p:NewInternalClient>{OTHER}"
        "</p:NewInternalClient><p:NewEnabled>1</p:NewEnabled><p:NewDescription>"
    )
    async with enter(Quirks(lists="cdata")) as home:
        await settled(home)
        home.gateway.table.entries["TCP", 7005] = Entry(HERE, "7005", name)
        home.gateway.table.entries["TCP", 7100] = Entry(OTHER, "7100", name)
        assert "delete" not in await compared(home)
        assert home.state(TCP[3]) == "mapped"
        assert home.gateway.holders == ALL | {"TCP 7100": OTHER}


async def test_a_router_that_cuts_its_lists_off_is_asked_for_the_rest(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    ports = [Port(Protocol.TCP, 7000 + number) for number in range(250)]
    quirks = Quirks(lists="cdata", list_most=100)
    async with house(tmp_path, autojump_clock, quirks, version=2) as home:
        for port in ports:
            await home.bind(port)
        await trio.sleep(30)
        assert await compared(home) == ["list"] * 3
        assert all(home.state(port) == "mapped" for port in ports)


async def test_a_bind_does_not_wait_for_a_comparison(
    enter: Enter, autojump_clock: MockClock
) -> None:
    async with enter(Quirks(late={LOOK: 0.5}), version=1) as home:
        await settled(home)
        home.keeper.compare()
        await trio.sleep(0.1)
        began = trio.current_time()
        assert short(await home.bind(Port(Protocol.TCP, 9000))) == "S"
        assert trio.current_time() - began < 2
