"""Who leads of many sessions, and what the router is asked for all of them; real unix sockets."""

import os
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import count

import pytest
import trio
import trio.testing

from natsup.state.model import Port, Protocol
from natsup.supervisor import leading
from natsup.supervisor.leading import Ears, Leader, Sessions

_MANY = 100
_numbers = count()
Look = Callable[[list[Port]], Awaitable[set[Port] | None]]


class Session:
    """One with a port of its own, and what it has heard."""

    def __init__(self, number: int) -> None:
        self.port = Port(Protocol.TCP, 20000 + number)
        self.follows = 0
        self.missing: list[list[Port]] = []
        self.heard: list[str] = []
        self.leads = trio.Event()
        self.scope = trio.CancelScope()
        ears = Ears(
            lambda: [self.port],
            self._follow,
            self.missing.append,
            self.heard.append,
            self.heard.append,
        )
        self.sessions = Sessions(ears, self._lead)

    def _follow(self) -> None:
        self.follows += 1

    async def _lead(self, leader: Leader) -> None:
        self.leads.set()
        await trio.sleep_forever()

    async def run(self, router: str) -> None:
        with self.scope:
            await self.sessions.run(router)

    @property
    def leader(self) -> Leader:
        assert self.sessions.leader is not None
        return self.sessions.leader


@pytest.fixture
def router() -> str:
    return f"test-{os.getpid()}-{next(_numbers)}"


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(20):
        while not condition():  # noqa: ASYNC110 - of several sessions, by as many events
            await trio.sleep(0.005)


async def start(nursery: trio.Nursery, router: str, many: int) -> tuple[Session, list[Session]]:
    """All of them, at once: the one that leads, and the others."""
    made = [Session(number) for number in range(many)]
    for one in made:
        nursery.start_soon(one.run, router)
    await until(lambda: sum(one.follows for one in made) == many - 1)
    (leader,) = (one for one in made if one.leads.is_set())
    await until(lambda: len(leader.leader.lines) == many - 1)
    return leader, [one for one in made if one is not leader]


async def test_one_asks_for_all(nursery: trio.Nursery, router: str) -> None:
    leader, others = await start(nursery, router, _MANY)
    asked: list[Port] = []

    async def look(ports: list[Port]) -> set[Port]:
        asked.extend(ports)
        return {others[0].port, leader.port}

    await leader.leader.compare(look)
    assert asked == sorted(one.port for one in others)  # each once; its own it looks at itself
    await until(lambda: all(one.missing for one in others))
    assert [one.missing for one in others] == [[[others[0].port]]] + [[[]]] * (_MANY - 2)
    await leader.leader.tell_external("11.22.33.1")
    await leader.leader.tell_external("11.22.33.1")
    await leader.leader.tell_restarted("it was restarted")
    await until(lambda: all(len(one.heard) == 2 for one in others))
    assert all(one.heard == ["11.22.33.1", "it was restarted"] for one in others)


async def test_when_it_ends_one_of_the_others_takes_its_place(
    nursery: trio.Nursery, router: str
) -> None:
    leader, others = await start(nursery, router, 20)
    leader.scope.cancel()
    await until(lambda: sum(one.follows for one in others) == 2 * 19 - 1)
    (second,) = (one for one in others if one.leads.is_set())
    await until(lambda: len(second.leader.lines) == 18)


async def test_who_comes_later_hears_the_address(nursery: trio.Nursery, router: str) -> None:
    leader, _ = await start(nursery, router, 2)
    assert not await leader.sessions.told_external(5)  # it is to ask itself
    await leader.leader.tell_external("11.22.33.1")
    later = Session(9)
    nursery.start_soon(later.run, router)
    await until(lambda: later.follows == 1)
    assert await later.sessions.told_external(5)
    assert later.heard == ["11.22.33.1"]


async def test_who_answers_nothing_is_done_without(
    nursery: trio.Nursery, router: str, autojump_clock: trio.testing.MockClock
) -> None:
    autojump_clock.autojump_threshold = 0.02
    leader, (other,) = await start(nursery, router, 2)
    mute = await leading._connect(leading._name(router))
    await until(lambda: len(leader.leader.lines) == 2)
    asked: list[Port] = []

    async def look(ports: list[Port]) -> None:
        asked.extend(ports)

    await leader.leader.compare(look)
    assert asked == [other.port]
    assert len(leader.leader.lines) == 1
    assert other.missing == []  # the router said nothing: it looks for itself in time
    mute.close()


@pytest.mark.parametrize(
    "words", [b"nonsense\n", b'{"missing": 7}\n', b'{"missing": ["x"]}\n', b""]
)
async def test_a_leader_that_talks_nonsense_is_left(
    nursery: trio.Nursery, router: str, words: bytes
) -> None:
    """And then the session leads itself, as soon as it may."""
    wrong = socket.socket(socket.AF_UNIX)
    wrong.bind(leading._name(router))
    wrong.listen()
    one = Session(0)
    nursery.start_soon(one.run, router)
    await until(lambda: one.follows == 1)
    met, _ = wrong.accept()
    wrong.close()
    met.send(words)
    met.close()
    await until(one.leads.is_set)


async def test_another_users_session_is_not_followed(
    nursery: trio.Nursery, router: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it follow: each is on its own."""
    first, second = Session(0), Session(1)
    nursery.start_soon(first.run, router)
    await until(first.leads.is_set)
    monkeypatch.setattr(leading, "_is_ours", lambda sock: False)
    nursery.start_soon(partial(second.run, router))
    await until(second.leads.is_set)
    assert second.follows == 0
    await trio.testing.wait_all_tasks_blocked()
    assert first.leader.lines == set()
