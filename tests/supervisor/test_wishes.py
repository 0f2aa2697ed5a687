"""A wish for a mapping and one for a pinhole, as one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from natsup.state.journal import Header, Journal
from natsup.state.keeper import Keeper
from natsup.state.ledger import Ledger
from natsup.state.model import Conflict, Ignored, Mapped, Outcome, Port, Protocol, Removal
from natsup.supervisor.wishes import Dormant, Wishes
from tests.gateway.house import Alone

PORT = Port(Protocol.TCP, 6881)


class Router:
    protocol = "upnp"
    location = "http://192.168.1.1/"
    internal_address = "192.168.1.2"

    def __init__(self, outcome: Outcome, seconds: float) -> None:
        self.outcome = outcome
        self.seconds = seconds
        self.removed: list[Port] = []

    async def add(self, port: Port, *, lease: int) -> Outcome:
        await trio.sleep(self.seconds)
        return self.outcome

    async def check(self, port: Port) -> Outcome:
        return self.outcome

    async def remove(self, port: Port) -> Removal:
        self.removed.append(port)
        return Removal.GONE

    async def external_address(self) -> str | None:
        return None


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal.create(tmp_path, Header("s", pid=1, command=["x"], started=0.0))
    yield journal
    journal.end(left=False)


def keeper(journal: Journal, nursery: trio.Nursery, router: Router) -> Keeper:
    made = Keeper(
        Ledger(),
        journal,
        clock=trio.current_time,
        sleep_until=trio.sleep_until,
        neighbours=Alone(),
    )
    nursery.start_soon(made.run)
    made.gateway_found(router)
    return made


@pytest.mark.parametrize(
    ("mapping", "pinhole", "outcome", "seconds"),
    [
        (Router(Mapped(60), 0.2), Router(Mapped(60), 0.3), Mapped(60), 0.3),  # and not 0.5
        (Router(Mapped(60), 0.2), Router(Ignored("no"), 0.3), Mapped(60), 0.3),
        (Router(Mapped(60), 0.2), Router(Mapped(60), 9.0), Mapped(60), 0.5),
        (Router(Conflict("x"), 0.2), Router(Mapped(60), 0.3), Conflict("x"), 0.2),
        (Router(Conflict("x"), 0.2), Router(Mapped(60), 9.0), Conflict("x"), 0.2),
        (Router(Ignored("no"), 0.2), Router(Mapped(60), 0.3), Ignored("no"), 0.3),
        (None, Router(Mapped(60), 0.3), Mapped(60), 0.3),
        (None, Router(Mapped(60), 9.0), Ignored("no answer within 0.5 s"), 0.5),
        (None, None, Ignored("there is no IPv6 here"), 0.0),
    ],
)
async def test_what_a_call_waits_for(
    mapping: Router | None,
    pinhole: Router | None,
    outcome: Outcome,
    seconds: float,
    journal: Journal,
    nursery: trio.Nursery,
    autojump_clock: MockClock,
) -> None:
    dormant = Dormant(lambda holder: None)
    wishes = Wishes(
        None if mapping is None else keeper(journal, nursery, mapping).wish(PORT),
        dormant if pinhole is None else keeper(journal, nursery, pinhole).wish(PORT.pinhole),
    )
    begin = trio.current_time()
    with wishes as wish:
        assert await wish.outcome(0.5) == outcome
    assert trio.current_time() - begin == pytest.approx(seconds)


async def test_a_port_that_is_refused_leaves_no_pinhole(
    journal: Journal, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    mapping, pinhole = Router(Conflict("x"), 0.2), Router(Mapped(60), 0.1)
    other = keeper(journal, nursery, pinhole)
    with Wishes(keeper(journal, nursery, mapping).wish(PORT), other.wish(PORT.pinhole)) as wish:
        assert isinstance(await wish.outcome(0.5), Conflict)
    await trio.sleep(1)
    assert pinhole.removed == [PORT.pinhole]


async def test_one_socket_holds_both(
    journal: Journal, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    routers = Router(Mapped(60), 0.1), Router(Mapped(60), 0.1)
    keepers = [keeper(journal, nursery, router) for router in routers]
    ports = PORT, PORT.pinhole
    with Wishes(*(one.wish(port) for one, port in zip(keepers, ports, strict=True))) as wish:
        await wish.outcome(0.5)
        wish.claim(1)
    assert all(one.wanted(port) for one, port in zip(keepers, ports, strict=True))
    for one in keepers:
        one.release(1)
    await trio.sleep(1)
    assert [router.removed for router in routers] == [[PORT], [PORT.pinhole]]


def test_a_dormant_wish_is_remembered_once_it_has_a_socket() -> None:
    claims: list[int] = []
    with Dormant(claims.append):
        pass
    assert claims == []
    with Dormant(claims.append) as wish:
        wish.claim(1)
    assert claims == [1]
