"""What waits to be written: in its order, by one writer, while nobody waits for it."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

import trio

_Entry = TypeVar("_Entry")


class Backlog(Generic[_Entry]):
    """``take``: what is to be written next, nothing if there is none, at once. ``write`` writes it,
    for as long as it takes, and raises nothing. `run` must be running."""

    def __init__(
        self,
        take: Callable[[], Sequence[_Entry]],
        write: Callable[[Sequence[_Entry]], Awaitable[None]],
    ) -> None:
        self._take = take
        self._write = write
        self._busy = False
        self._come = trio.Event()
        self._idle = trio.Event()

    def wake(self) -> None:
        """There is something to take."""
        self._come.set()

    async def run(self) -> None:
        """Write what comes, until cancelled."""
        while True:
            await self._come.wait()
            self._come = trio.Event()
            while entries := self._take():
                self._busy = True
                await self._write(entries)
                self._busy = False
            self._idle.set()
            self._idle = trio.Event()

    async def close(self, budget: float) -> None:
        """Wait until everything is written, for ``budget`` seconds at most."""
        with trio.move_on_after(budget):
            while self._busy or self._come.is_set():
                await self._idle.wait()
