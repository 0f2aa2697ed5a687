"""When a session compares for others, or leaves it to one that leads. The keeper is a stand-in."""

import itertools
import os
from collections.abc import Callable, Iterable
from typing import cast

import pytest
import trio

from natsup.state.gateway import Gateway
from natsup.state.keeper import Keeper
from natsup.state.model import Conflict, Ignored, Mapped, Outcome, Port, Protocol, Unknown
from natsup.supervisor import clock
from natsup.supervisor.sharing import Sharing

_count = itertools.count()
PORTS = [Port(Protocol.TCP, number) for number in range(7000, 7004)]


class Noting:
    """A keeper that notes what it is told."""

    def __init__(self, *ports: Port) -> None:
        self.ports = list(ports)
        self.told: list[list[Port]] = []
        self.due: list[float] = []
        self.address = ""

    def mapped(self) -> list[Port]:
        return self.ports

    def compared(self, missing: Iterable[Port]) -> None:
        self.told.append(list(missing))

    def compare_by(self, when: float) -> None:
        self.due.append(when)

    def external_address(self, address: str) -> None:
        self.address = address


class Router:
    protocol = "upnp"

    def __init__(self) -> None:
        self.checks: list[Port] = []
        self.reads = 0
        self.outcomes: dict[Port, Outcome] = {}

    async def check(self, port: Port) -> Outcome:
        self.checks.append(port)
        return self.outcomes.get(port, Mapped(0))

    async def external_address(self) -> str:
        self.reads += 1
        return "11.22.33.1"


class Session:
    """On a LAN of loopback, whose router is never heard."""

    def __init__(self, router: Router, *ports: Port) -> None:
        self.keeper, self.again = Noting(*ports), 0
        self.gateway = cast(Gateway, router)
        self.sharing = Sharing(cast(Keeper, self.keeper), self._look_again)
        self.scope = trio.CancelScope()

    def _look_again(self, reason: str) -> None:
        self.again += 1

    async def start(self, nursery: trio.Nursery, name: str) -> None:
        """Until it leads or follows."""
        self.sharing.found(self.gateway)
        nursery.start_soon(self.sharing.run, self.gateway, ("lo", "127.0.0.1", name), self.scope)
        await until(lambda: bool(self.keeper.told) or self._leads())

    def _leads(self) -> bool:
        return self.sharing._sessions is not None and self.sharing._sessions.leader is not None


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(20):
        while not condition():  # noqa: ASYNC110 - of several sessions, by as many events
            await trio.sleep(0.005)


@pytest.fixture
def name(monkeypatch: pytest.MonkeyPatch) -> str:
    async def watch(*where: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr("natsup.upnp.watch.watch", watch)
    return f"test-{os.getpid()}-{next(_count)}"


async def test_one_looks_and_reads_for_all(nursery: trio.Nursery, name: str) -> None:
    router = Router()
    router.outcomes = {
        PORTS[1]: Ignored("gone"),
        PORTS[2]: Conflict("192.168.77.3"),
        PORTS[3]: Unknown("odd"),
    }
    first, *others = (Session(router, port) for port in PORTS)
    for one in (first, *others):
        await one.start(nursery, name)
    assert await first.sharing.external_address(first.gateway) == "11.22.33.1"
    for one in others:
        assert await one.sharing.external_address(one.gateway) is None
        assert one.keeper.address == "11.22.33.1"
    assert router.reads == 1
    first.sharing.found(first.gateway)  # again: it may have been restarted
    await until(lambda: all(len(one.keeper.told) == 2 for one in others))
    assert router.checks == PORTS[1:]
    assert [one.keeper.told[1] for one in others] == [[PORTS[1]], [PORTS[2]], []]
    assert not any(one.again for one in others)


async def test_a_comparison_is_not_put_off_by_leaders_that_die(
    nursery: trio.Nursery, name: str
) -> None:
    """It is due five minutes after the last one, whoever leads by then."""
    router = Router()
    first, second, third = (Session(router, port) for port in PORTS[:3])
    begun = clock.now()
    for one in (first, second, third):
        await one.start(nursery, name)
    followed = clock.now()
    first.scope.cancel()
    await until(lambda: bool(second.keeper.due or third.keeper.due))
    leader, last = (second, third) if second.keeper.due else (third, second)
    await until(lambda: bool(leader.sharing._sessions.leader.lines))  # type: ignore[union-attr]
    leader.scope.cancel()
    await until(lambda: bool(last.keeper.due))
    assert last.keeper.told == [[]]  # to follow another one is no comparison
    (due,) = last.keeper.due
    assert begun + 300 <= due <= followed + 300
    assert router.checks == []
