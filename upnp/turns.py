"""Turns: one operation at a time goes to a router, and the others wait as long as it answers.

Each operation has a time of its own, which begins with its turn: a router that takes long over each
of many has not fallen silent. If one of them was not answered in its time, those that wait behind
it have waited for the same silence, and their turns do not come.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import trio

_Step = TypeVar("_Step")
_Result = TypeVar("_Result")


class Turns:
    def __init__(self) -> None:
        self._lock = trio.Lock()
        self._waiting: set[trio.CancelScope] = set()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[bool]:
        """Wait for one, and keep it for as long as the block lasts. False: it does not come."""
        waiting = trio.CancelScope()
        self._waiting.add(waiting)
        try:
            with waiting:
                await self._lock.acquire()
        finally:
            self._waiting.discard(waiting)
        if waiting.cancelled_caught:
            yield False
            return
        try:
            yield True
        finally:
            self._lock.release()

    async def carry_out(
        self,
        operation: Generator[_Step, Any, _Result],
        ask: Callable[[_Step], Awaitable[object]],
        *,
        come: bool,
        seconds: float,
        late: Iterable[object],
    ) -> _Result:
        """Take an operation to its end, and return what it comes to: a generator that yields what
        to ask the router, and is sent the answers.

        ``come``: has its turn come? When its ``seconds`` are up, or it has not, it is sent one of
        ``late`` after another, which say that nothing is answered any more and never end, and
        decides itself what that comes to.
        """
        try:
            with trio.move_on_after(seconds) as limit:
                step = next(operation)
                while come:
                    step = operation.send(await ask(step))
            if limit.cancelled_caught:
                self.fall_silent()
            # No checkpoint from here on: nothing else is learned meanwhile.
            for answer in late:
                operation.send(answer)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        raise AssertionError("late answers do not end")

    def fall_silent(self) -> None:
        """The router has left an operation without an answer."""
        for waiting in self._waiting:
            waiting.cancel()
