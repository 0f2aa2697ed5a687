"""Several sessions with sockets on one port, in any order that hypothesis can think of: the mapping
is there as long as one of them lives and has a socket, and is gone with the last of them."""

import os
from dataclasses import dataclass, field

import trio
import trio.testing
from hypothesis import example, given, settings
from hypothesis import strategies as st

from natsup.state.journal import Journal
from natsup.state.keeper import Keeper
from natsup.state.ledger import Ledger, Policy
from natsup.state.model import Mapped, Outcome, Port, Protocol, Removal
from natsup.supervisor.neighbours import Announcements

# Names of unix sockets are all other tests' as well.
PORT = Port(Protocol.TCP, 20000 + os.getpid() % 20000)
_SESSIONS = 3
_LINGER = 0.25


@dataclass
class Router:
    """Carries everything out after a while, one session's requests beside another's."""

    delays: list[float]
    protocol: str = "upnp"
    location: str = "http://192.168.77.1/x"
    internal_address: str = "192.168.77.2"
    table: set[Port] = field(default_factory=set)

    async def _delay(self) -> None:
        self.delays.append(self.delays.pop(0))
        await trio.sleep(self.delays[-1])

    async def add(self, port: Port, *, lease: int) -> Outcome:
        await self._delay()
        self.table.add(port)
        await self._delay()
        return Mapped(lease)

    async def check(self, port: Port) -> Outcome:
        raise AssertionError("no session is to be saved by a look")

    async def remove(self, port: Port) -> Removal:
        await self._delay()
        self.table.discard(port)
        await self._delay()
        return Removal.GONE

    async def external_address(self) -> str | None:
        return None


class Session:
    def __init__(self, name: str, router: Router) -> None:
        self.neighbours = Announcements(name)
        self.keeper = Keeper(
            Ledger(Policy(check=None, compare=None, linger=_LINGER)),
            Journal(None, None),
            clock=trio.current_time,
            sleep_until=trio.sleep_until,
            neighbours=self.neighbours,
        )
        self.keeper.gateway_found(router)
        self.scope = trio.CancelScope()
        self.sockets: list[int] = []
        self.bind, self._binds = trio.open_memory_channel[int](100)

    async def run(self) -> None:
        """Until it is killed, with the binds that wait."""
        with self.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.keeper.run)
                async for number in self._binds:
                    nursery.start_soon(self._bind, number)

    async def _bind(self, number: int) -> None:
        with self.keeper.wish(PORT) as wish:
            await wish.outcome(60.0)
            wish.claim(number)
            self.sockets.append(number)

    def close(self) -> None:
        if self.sockets:
            self.keeper.release(self.sockets.pop())

    def kill(self) -> None:
        self.scope.cancel()
        self.neighbours.close()
        self.sockets.clear()


_sessions = st.integers(0, _SESSIONS - 1)
_steps = st.tuples(st.sampled_from(["bind", "bind", "close", "close", "kill"]), _sessions)
_times = st.sampled_from([0.0, 0.01, 0.02, 0.1, _LINGER, _LINGER + 0.01, _LINGER + 0.02])


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.tuples(_steps, _times), min_size=2, max_size=14),
    st.lists(st.sampled_from([0.0, 0.01, 0.03]), min_size=5, max_size=5),
)
@example(  # one has begun to remove the port as the other comes, who is quicker
    [(("bind", 0), 0.1), (("close", 0), _LINGER + 0.02), (("bind", 1), 0.0)],
    [0.03, 0.03, 0.03, 0.0, 0.0],
)
def test_the_mapping_is_there_for_whoever_lives(
    steps: list[tuple[tuple[str, int], float]], delays: list[float]
) -> None:
    router = Router(delays)

    async def main() -> None:
        made = [Session(f"{os.getpid()}-{number}", router) for number in range(_SESSIONS)]
        dead: set[int] = set()
        async with trio.open_nursery() as nursery:
            for one in made:
                nursery.start_soon(one.run)
            for number, ((step, which), pause) in enumerate(steps):
                one = made[which]
                if which in dead:
                    continue
                if step == "bind":
                    one.bind.send_nowait(number)
                elif step == "close":
                    one.close()
                else:
                    one.kill()
                    dead.add(which)
                await trio.sleep(pause)
            await trio.sleep(5.0)
            wanted = any(one.sockets for one in made)
            assert not wanted or PORT in router.table
            if not dead:
                assert wanted == (PORT in router.table)
            for one in made:
                while one.sockets:
                    one.close()
            await trio.sleep(5.0)
            # Of the last one, if it was killed, the next session finds the journal.
            assert dead or not router.table
            for one in made:
                one.kill()
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0.0))
