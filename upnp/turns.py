"""Turns: one operation at a time goes to a router, and the others wait as long as it answers.

Each operation has a time of its own, which begins with its turn: a router that takes long over each
of many has not fallen silent. If one of them was not answered in its time, those that wait behind
it have waited for the same silence, and their turns do not come.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


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

    def fall_silent(self) -> None:
        """The router has left an operation without an answer."""
        for waiting in self._waiting:
            waiting.cancel()
