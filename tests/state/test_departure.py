"""What is left behind on another router, or at another address: taken back, left, or known."""

from contextlib import nullcontext

import pytest
import trio
from trio.testing import MockClock

from natsup.state.departure import Departure, Former
from natsup.state.happenings import Event, What
from natsup.state.keeper import Keeper
from natsup.state.model import Conflict, Ignored, Mapped, Outcome, Port, Protocol, Removal
from tests.state.test_keeper import GRANTED, PORT, Others, Router, journal, keeper, others, told

__all__ = ["journal", "keeper", "others", "told"]  # fixtures
OTHER = Port(Protocol.UDP, 6881)
NEW = "192.168.77.4"


class Moved(Router):
    internal_address = NEW


class Elsewhere(Router):
    location = "http://10.0.0.1/x"
    internal_address = "10.0.0.2"


async def claimed(keeper: Keeper, *ports: Port) -> None:
    for holder, port in enumerate(ports):
        with keeper.wish(port) as wish:
            assert await wish.outcome(60) == GRANTED
            wish.claim(holder)


async def test_the_old_mapping_goes_before_the_new_one_comes(
    autojump_clock: MockClock, keeper: Keeper, told: list[Event]
) -> None:
    old, new = Router(delay=1.0), Moved()
    order = list[str]()
    keeper.gateway_found(old)
    await claimed(keeper, PORT, OTHER)
    old.asked = new.asked = order
    keeper.gateway_found(new)
    await trio.sleep(10)
    assert order.index(f"remove {PORT}") < order.index(f"add {PORT}")
    assert order.index(f"remove {OTHER}") < order.index(f"add {OTHER}")
    lost = [event for event in told if event.what is What.LOST]
    assert {event.reason for event in lost} == {f"this host has another address now, {NEW}"}


async def test_an_old_router_that_is_silent_holds_up_for_seconds_at_most(
    autojump_clock: MockClock, keeper: Keeper
) -> None:
    old, new = Router(), Elsewhere()
    keeper.gateway_found(old)
    await claimed(keeper, PORT, OTHER)
    old.delay, old.removal = 3600.0, Removal.FAILED
    keeper.gateway_found(new)
    await trio.sleep(6)
    assert sorted(new.asked) == [f"add {PORT}", f"add {OTHER}"]
    assert old.asked.count(f"remove {OTHER}") == 0  # it is not asked twice


async def test_another_router_in_the_old_ones_place_gets_everything_and_is_asked_to_remove_nothing(
    autojump_clock: MockClock, keeper: Keeper
) -> None:
    router = Router()
    keeper.gateway_found(router, device="one")
    await claimed(keeper, PORT)
    keeper.gateway_found(router, device="")  # it is not known now which one it is
    await trio.sleep(1)
    assert router.asked == [f"add {PORT}"]
    keeper.gateway_found(router, device="two")
    await trio.sleep(1)
    assert router.asked == [f"add {PORT}"] * 2


async def test_what_another_session_has_is_left_to_it(
    autojump_clock: MockClock, keeper: Keeper, others: Others
) -> None:
    old = Router()
    keeper.gateway_found(old)
    await claimed(keeper, PORT)
    others.wanted.add(PORT)
    keeper.gateway_found(Elsewhere())
    await trio.sleep(10)
    assert f"remove {PORT}" not in old.asked


async def test_a_departure_that_fails_is_over_all_the_same(autojump_clock: MockClock) -> None:
    router = Router()
    router.removal = ValueError("a bug")
    departure = Departure(
        router, [PORT], removing=lambda port: nullcontext(True), gone=lambda port: None
    )
    await departure.run()
    with trio.fail_after(1):
        await departure.over(PORT)
        await departure.over(OTHER)  # which it is not about


HELD = Ignored("the router keeps it for 192.168.77.2, which this host had before")


@pytest.mark.parametrize(
    ("outcome", "router", "now", "judged"),
    [
        (Conflict("192.168.77.2"), Moved(), 10.0, HELD),
        (Ignored("a conflict, it says"), Moved(), 10.0, HELD),
        (Conflict("192.168.77.3"), Moved(), 10.0, Conflict("192.168.77.3")),
        (Mapped(60), Moved(), 10.0, Mapped(60)),
        (Ignored("no answer", silent=True), Moved(), 10.0, Ignored("no answer", silent=True)),
        # By then somebody else may have the old address.
        (Conflict("192.168.77.2"), Moved(), 100.0, Conflict("192.168.77.2")),
        (Conflict("192.168.77.2"), Elsewhere(), 10.0, Conflict("192.168.77.2")),
        (Conflict("192.168.77.2"), Router(), 10.0, Conflict("192.168.77.2")),
    ],
)
def test_a_conflict_with_the_own_old_address_is_none(
    outcome: Outcome, router: Router, now: float, judged: Outcome
) -> None:
    former = Former()
    former.leave(Router(), {PORT: 100.0}, 0.0)
    assert former.judge(PORT, outcome, router, now) == judged
    assert former.judge(OTHER, outcome, router, now) == outcome


def test_an_old_address_is_this_hosts_for_a_minute_only() -> None:
    former = Former()
    former.leave(Router(), {PORT: None, OTHER: None}, 0.0)
    assert former.recent(Moved(), 59.0) == {PORT: "192.168.77.2", OTHER: "192.168.77.2"}
    former.forget(OTHER)
    assert former.recent(Moved(), 59.0) == {PORT: "192.168.77.2"}
    assert former.recent(Moved(), 61.0) == {}
    assert former.recent(Elsewhere(), 1.0) == {}
