"""Scenarios that take time: leases, losses, removals, restarts, routers that are slow or silent."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from natsup.state.happenings import What
from natsup.state.model import Mapped, Port, Protocol
from natsup.upnp.igd import Igd
from tests.gateway.gateway import HERE, OTHER, Gateway
from tests.gateway.house import KEY, House, house, open_igd, short
from tests.gateway.quirks import Quirks

ADD, DELETE, LOOK = "AddPortMapping", "DeletePortMapping", "GetSpecificPortMappingEntry"
NEW = ["look", "add 3600"]
MINE = {"TCP 6881": HERE}
Enter = Callable[..., AbstractAsyncContextManager[House]]


@pytest.fixture
def enter(tmp_path: Path, autojump_clock: MockClock) -> Enter:
    def made(quirks: Quirks | None = None) -> AbstractAsyncContextManager[House]:
        return house(tmp_path, autojump_clock, quirks)

    return made


def adds(gateway: Gateway) -> int:
    return sum(one.startswith("add") for one in gateway.asked)


# --- conflicts ---


async def test_15_a_full_router_that_says_it_has_added_is_found_out_and_not_pressed(
    enter: Enter,
    autojump_clock: MockClock,
) -> None:
    async with enter(Quirks(forgets=True)) as home:
        assert short(await home.bind()) == "S"
        await trio.sleep(60)
        assert home.state() == "ignored"
        await trio.sleep(24 * 3600)
        assert adds(home.gateway) < 40
        home.gateway.quirks.forgets = False
        await trio.sleep(2 * 3600)
        assert home.state() == "mapped"
        assert home.gateway.holders == MINE


async def test_16_a_mapping_that_turns_out_to_be_another_host_s_is_not_stolen_back(
    enter: Enter,
    autojump_clock: MockClock,
) -> None:
    async with enter(Quirks(stolen=OTHER)) as home:
        assert short(await home.bind()) == "S"
        await trio.sleep(10)
        assert home.state() == "conflict"
        await trio.sleep(1800)
        assert adds(home.gateway) == 1
        home.close()
        await trio.sleep(10)
        assert "delete" not in home.gateway.asked
        assert home.gateway.holders == {"TCP 6881": OTHER}


async def test_21_two_sockets_of_one_port_are_one_mapping(
    enter: Enter, autojump_clock: MockClock
) -> None:
    async with enter() as home:
        assert [short(await home.bind()) for _ in range(2)] == ["S", "S"]
        assert home.gateway.asked == NEW
        home.close(0)
        await trio.sleep(2)
        assert home.gateway.holders == MINE
        home.close(1)
        await trio.sleep(2)
        assert home.gateway.holders == {}
        assert home.gateway.asked == [*NEW, "look", "delete"]


async def test_13_a_router_that_does_not_permit_it_is_asked_again_after_a_quarter_of_an_hour(
    enter: Enter,
    autojump_clock: MockClock,
) -> None:
    async with enter(Quirks(faults={ADD: 606})) as home:
        assert short(await home.bind()) == "I"
        await trio.sleep(890)
        assert home.gateway.asked == NEW
        home.gateway.quirks.faults.clear()
        await trio.sleep(20)
        assert home.gateway.holders == MINE


# --- leases ---


async def test_23_a_router_with_permanent_leases_alone_is_known_from_then_on(
    enter: Enter, autojump_clock: MockClock
) -> None:
    async with enter(Quirks(permanent_only=725)) as home:
        assert await home.bind() == Mapped(0)
        assert home.gateway.asked == [*NEW, "add 0"]
        assert short(await home.bind(Port(Protocol.UDP, 6881))) == "S"
        assert home.gateway.asked[3:] == ["look", "add 0"]
        assert await home.keeper.close(10)
        assert home.gateway.holders == {}


@pytest.mark.parametrize(
    "quirks",
    [
        Quirks(stores_lease=60),
        Quirks(stores_lease=604800),
        Quirks(shows_lease=0),
        Quirks(shows_lease=12345678901234567890),
    ],
    ids=["a minute", "a week", "said to be 0", "nonsense"],
)
async def test_28_a_lease_that_is_not_what_was_asked_for(
    enter: Enter, autojump_clock: MockClock, quirks: Quirks
) -> None:
    """It is renewed by what is known for certain."""
    async with enter(quirks) as home:
        assert short(await home.bind()) == "S"
        for _ in range(3600 // 50):
            await trio.sleep(50)
            assert home.gateway.holders == MINE
        assert adds(home.gateway) <= 2 + 3600 / (30 if quirks.stores_lease == 60 else 1800)


@pytest.mark.parametrize("lease", [3600, 600])
async def test_29_a_router_that_prolongs_nothing_gets_a_new_mapping_before_the_old_one_ends(
    enter: Enter, autojump_clock: MockClock, lease: int
) -> None:
    async with enter(Quirks(renews=False, stores_lease=lease)) as home:
        assert short(await home.bind()) == "S"
        for _ in range(2 * 3600 // 40):
            await trio.sleep(40)
            assert home.gateway.holders == MINE
        assert adds(home.gateway) < 3 + 2 * 2 * 3600 / (lease / 4)


async def test_29_a_router_that_prolongs_is_not_looked_at_more_than_once_for_it(
    enter: Enter,
    autojump_clock: MockClock,
) -> None:
    async with enter() as home:
        await home.bind()
        await trio.sleep(1900)
        assert "delete" not in home.gateway.asked
        home.gateway.log.clear()
        await trio.sleep(1800)
        # Every five minutes, and with the renewal; of which one took the place of a comparison.
        assert home.gateway.asked.count("add 3600") == 1
        assert home.gateway.asked.count("look") <= 7


async def test_30_a_router_whose_leases_end_at_once_gets_permanent_ones(
    enter: Enter, autojump_clock: MockClock
) -> None:
    async with enter(Quirks(dies_after=1)) as home:
        assert short(await home.bind()) == "S"
        await trio.sleep(10)
        assert home.gateway.holders == MINE
        assert adds(home.gateway) == 2
        assert await home.bind(Port(Protocol.UDP, 6881)) == Mapped(0)
        await trio.sleep(3600)
        assert home.gateway.holders == MINE | {"UDP 6881": HERE}
        assert await home.keeper.close(10)
        assert home.gateway.holders == {}


# --- losses ---


async def test_31_what_vanishes_is_put_back_with_the_next_comparison(
    enter: Enter, autojump_clock: MockClock
) -> None:
    async with enter() as home:
        await home.bind()
        await trio.sleep(10)
        home.gateway.table.entries.clear()
        await trio.sleep(300)
        assert home.gateway.holders == MINE
        assert adds(home.gateway) == 2


async def test_32_a_user_who_removes_it_again_and_again_is_not_fought(
    enter: Enter, autojump_clock: MockClock
) -> None:
    async with enter() as home:
        await home.bind()
        async with trio.open_nursery() as nursery:

            async def user() -> None:
                while True:
                    await trio.sleep(120)
                    home.gateway.table.entries.clear()

            nursery.start_soon(user)
            await trio.sleep(2 * 3600)
            early = adds(home.gateway)
            await trio.sleep(4 * 3600)
            nursery.cancel_scope.cancel()
        assert early <= 5  # and the first one
        assert adds(home.gateway) - early <= 1
        assert home.state() == "ignored"
        assert "put back once a day" in home.reason()
        home.keeper.gateway_found(await open_igd(home.gateway))  # as after a sign of a restart
        await trio.sleep(1)
        assert home.gateway.holders == MINE


async def test_33_a_full_table_has_room_again(enter: Enter, autojump_clock: MockClock) -> None:
    udp = Port(Protocol.UDP, 6881)
    async with enter(Quirks(room=1)) as home:
        assert short(await home.bind()) == "S"
        assert short(await home.bind(udp)) == "I"
        assert home.gateway.holders == MINE
        home.close(0)
        await trio.sleep(2)
        assert home.gateway.holders == {"UDP 6881": HERE}
        assert home.state(udp) == "mapped"


@pytest.mark.parametrize("code", [402, 501])
async def test_33_whatever_a_full_table_is_called(
    enter: Enter, autojump_clock: MockClock, code: int
) -> None:
    udp = Port(Protocol.UDP, 6881)
    async with enter(Quirks(room=1, full=code)) as home:
        assert short(await home.bind()) == "S"
        assert short(await home.bind(udp)) == "I"
        home.gateway.quirks.room = 2
        await trio.sleep(60)
        assert home.gateway.holders == MINE | {"UDP 6881": HERE}


# --- removals ---


async def test_16_and_31_what_another_host_took_is_mapped_again_when_it_is_given_back(
    enter: Enter, autojump_clock: MockClock
) -> None:
    async with enter() as home:
        await home.bind()
        await trio.sleep(10)
        home.gateway.table.give(KEY, OTHER)
        await trio.sleep(300)
        assert (home.state(), home.reason()) == ("conflict", f"held by {OTHER}")
        (lost,) = [event for event in home.told if event.what is What.LOST]
        assert lost.holder == OTHER
        await trio.sleep(1200)
        assert adds(home.gateway) == 1
        assert home.gateway.holders == {"TCP 6881": OTHER}
        home.gateway.table.entries.clear()
        await trio.sleep(310)
        assert (home.state(), home.gateway.holders) == ("mapped", MINE)


async def test_3_and_60_a_conflict_that_is_found_when_the_bind_has_gone_on(
    enter: Enter, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with enter(Quirks(late={LOOK: 3.0})) as home:
        home.gateway.table.give(KEY, OTHER)
        assert short(await home.bind(budget=0.5)) == "I"
        await trio.sleep(10)
        assert (home.state(), home.reason()) == ("conflict", f"held by {OTHER}")
        assert adds(home.gateway) == 0
        assert f"tcp/6881: held by {OTHER}, and is open on this LAN alone" in caplog.text
        assert [event.what for event in home.told] == [What.CONFLICT]


@pytest.mark.parametrize(
    ("quirks", "tries", "left"),
    [
        (Quirks(), 1, "gone"),
        (Quirks(faults={DELETE: 714}), 1, "gone"),
        (Quirks(faults={DELETE: 713}), 1, "gone"),
        (Quirks(faults={DELETE: 606}), 1, "gone"),
        (Quirks(faults={DELETE: 501}), 5, "releasing"),
        (Quirks(manners={DELETE: "silent"}), 1, "gone"),  # it was carried out, as a look shows
    ],
    ids=["200", "714", "713", "606", "501", "silence"],
)
async def test_34_a_removal_is_tried_again_where_that_may_help(
    enter: Enter, autojump_clock: MockClock, quirks: Quirks, tries: int, left: str
) -> None:
    async with enter() as home:
        await home.bind()
        for name, value in vars(quirks).items():
            setattr(home.gateway.quirks, name, value)
        home.close()
        await trio.sleep(290)
        assert home.gateway.asked.count("delete") == tries
        assert home.state() == left


async def test_34_a_removal_that_failed_is_made_good(
    enter: Enter, autojump_clock: MockClock
) -> None:
    async with enter() as home:
        await home.bind()
        home.gateway.quirks.faults[DELETE] = 501
        home.close()
        await trio.sleep(2)
        del home.gateway.quirks.faults[DELETE]
        await trio.sleep(30)
        assert (home.gateway.holders, home.state()) == ({}, "gone")


async def test_35_what_is_another_host_s_by_now_is_not_removed(
    enter: Enter, autojump_clock: MockClock
) -> None:
    async with enter() as home:
        await home.bind()
        home.gateway.table.give(KEY, OTHER)
        home.close()
        await trio.sleep(10)
        assert "delete" not in home.gateway.asked
        assert home.gateway.holders == {"TCP 6881": OTHER}


# --- restarts, and other networks ---


async def test_36_a_router_that_was_restarted_gets_everything_back_one_after_the_other(
    enter: Enter,
    autojump_clock: MockClock,
) -> None:
    ports = [Port(Protocol.TCP, number) for number in range(7000, 7020)]
    async with enter() as home:
        for port in ports:
            await home.bind(port)
        await trio.sleep(10)
        home.gateway.table.entries.clear()
        home.gateway.log.clear()
        home.keeper.compare()  # what a new boot number leads to: see test_scenarios_lab
        await trio.sleep(10)
        assert home.gateway.holders == {f"TCP {port.number}": HERE for port in ports}
        assert home.gateway.most_at_once == 1
        assert sorted(home.gateway.asked) == sorted(["look", "look", "add 3600", "look"] * 20)


async def test_39_a_router_that_kept_its_table_is_asked_for_nothing_new(
    enter: Enter, autojump_clock: MockClock
) -> None:
    async with enter() as home:
        await home.bind()
        await trio.sleep(10)
        home.gateway.log.clear()
        home.keeper.compare()
        await trio.sleep(10)
        assert home.gateway.asked == ["look"]


async def test_40_a_router_in_the_place_of_the_old_one_gets_everything(
    enter: Enter, autojump_clock: MockClock
) -> None:
    """It has another address, and so has this host."""
    here = HERE.removesuffix(".2") + ".4"
    async with enter() as home:
        await home.bind()
        home.gateway.stop()
        home.gateway.table.entries.clear()
        home.gateway.log.clear()
        async with trio.open_nursery() as nursery:
            await nursery.start(home.gateway.serve)
            await home.use(address=here)
            await trio.sleep(10)
            assert home.gateway.holders == {"TCP 6881": here}
            assert adds(home.gateway) == 1
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("permitted", [True, False])
async def test_42_another_address_after_which_the_old_one_is_gone(
    enter: Enter, autojump_clock: MockClock, permitted: bool
) -> None:
    here = HERE.removesuffix(".2") + ".4"
    async with enter(Quirks(lets_remove=permitted)) as home:
        igd = await home.use()
        await home.bind()
        igd._requester._source = "192.0.2.1"  # an address that this host does not have
        home.gateway.log.clear()
        await home.use(address=here)
        await trio.sleep(10)
        if permitted:
            assert home.gateway.asked == ["look", "delete", "add 3600", "look"]
            assert (home.gateway.holders, home.state()) == ({"TCP 6881": here}, "mapped")
            return
        assert (home.gateway.holders, home.state()) == (MINE, "ignored")
        assert home.reason() == f"the router keeps it for {HERE}, which this host had before"
        assert short(await home.bind()) == "I"
        await trio.sleep(2 * 3600)  # the old lease is over
        assert (home.gateway.holders, home.state()) == ({"TCP 6881": here}, "mapped")


@pytest.mark.parametrize("external", ["10.0.0.1", "100.64.0.1", "", "0.0.0.0"])
async def test_43_an_external_address_that_is_none_is_no_obstacle(
    enter: Enter, autojump_clock: MockClock, external: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once, and to nobody who did not ask: in the log, and by natsup status."""
    async with enter(Quirks(external=external)) as home:
        assert short(await home.bind()) == "S"
        assert home.gateway.holders == MINE
        for _ in range(3):
            igd = await home.use()
            home.keeper.external_address(await igd.external_address())
        warnings = [record for record in caplog.records if record.levelname == "WARNING"]
        assert len(warnings) == 1
        assert "external address" in warnings[0].getMessage()


async def test_43_a_public_address_is_nothing_to_talk_about_and_a_change_of_it_is(
    enter: Enter, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with enter() as home:
        igd = await home.use()
        home.keeper.external_address(await igd.external_address())
        home.gateway.quirks.external = "11.22.33.77"
        home.keeper.external_address(await igd.external_address())
        assert not [record for record in caplog.records if record.levelname == "WARNING"]
        told = [e.external_address for e in home.told if e.what is What.ROUTER]
        assert told == ["11.22.33.1", "11.22.33.77"]


async def test_44_a_router_that_has_no_internet_for_a_while(
    enter: Enter, autojump_clock: MockClock
) -> None:
    async with enter(Quirks(wan_down=True)) as home:
        assert short(await home.bind()) == "I"
        assert home.gateway.asked == [*NEW, "look"]
        home.gateway.quirks.wan_down = False
        await trio.sleep(60)
        assert home.gateway.holders == MINE


async def test_45_after_three_hours_of_sleep_it_is_mapped_again(
    enter: Enter, autojump_clock: MockClock
) -> None:
    async with enter() as home:
        await home.bind()
        await trio.sleep(10)
        autojump_clock.jump(3 * 3600)
        await trio.sleep(10)
        assert home.gateway.holders == MINE
        assert adds(home.gateway) == 2


# --- slow ones and silent ones ---


@pytest.mark.parametrize("manner", ["silent", "drip", "reset", "hang up", "endless"])
@pytest.mark.parametrize("action", [LOOK, ADD])
async def test_49_and_50_a_router_of_no_manners_holds_nobody_up(
    enter: Enter, autojump_clock: MockClock, action: str, manner: str
) -> None:
    async with enter(Quirks(manners={action: manner})) as home:
        began = trio.current_time()
        outcome = await home.bind(budget=0.5)
        assert short(outcome) in ("I", "S")
        assert trio.current_time() - began < 1
        home.gateway.quirks.manners.clear()
        await trio.sleep(60)
        assert home.gateway.holders == MINE


@pytest.mark.parametrize("framing", ["huge", "long header"])
async def test_50_an_answer_without_end_is_left(
    enter: Enter, autojump_clock: MockClock, framing: str
) -> None:
    async with enter(Quirks(framing=framing)) as home:
        assert short(await home.bind()) == "I"
        assert set(home.gateway.asked) == {"look", "add 3600"}


async def test_55_a_redirection_is_not_followed(enter: Enter, autojump_clock: MockClock) -> None:
    async with enter() as home, trio.open_nursery() as nursery:
        elsewhere = Gateway(HERE)
        await nursery.start(elsewhere.serve)
        home.gateway.quirks.redirect = elsewhere.url
        assert short(await home.bind()) == "I"
        assert elsewhere.connections == 0
        nursery.cancel_scope.cancel()


async def test_59_many_at_once_are_asked_for_one_after_the_other(
    enter: Enter, autojump_clock: MockClock
) -> None:
    async with enter(Quirks(one_connection=True)) as home:
        async with trio.open_nursery() as nursery:
            for number in range(7000, 7010):
                nursery.start_soon(home.bind, Port(Protocol.TCP, number))
        assert len(home.gateway.holders) == 10
        assert home.gateway.most_at_once == 1
        assert home.gateway.connections == 1


async def test_60_an_answer_after_four_seconds_is_heard_all_the_same(
    enter: Enter, autojump_clock: MockClock
) -> None:
    async with enter(Quirks(late={ADD: 4.0})) as home:
        began = trio.current_time()
        assert short(await home.bind(budget=0.5)) == "I"
        assert trio.current_time() - began < 1
        await trio.sleep(10)
        assert home.state() == "mapped"
        assert home.gateway.asked[:2] == NEW
        assert adds(home.gateway) == 1


async def test_a_kept_connection_that_went_stale_is_opened_anew(
    enter: Enter, autojump_clock: MockClock
) -> None:
    async with enter(Quirks(closes=True)) as home:
        igd: Igd = await open_igd(home.gateway)
        for number in range(7000, 7005):
            assert await igd.add(Port(Protocol.TCP, number), lease=60) == Mapped(60)
        assert home.gateway.asked == ["look", "add 60"] * 5
