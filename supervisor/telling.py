"""Who is told what happens to a session's ports, beside the history: hooks, and a reader."""

import os

import trio

from natsup.state.history import Entry
from natsup.supervisor.events import Events
from natsup.supervisor.hooks import LIMIT, Hooks
from natsup.supervisor.occasions import CONFLICT, MAPPED, RELEASED
from natsup.supervisor.options import Settings
from natsup.supervisor.surroundings import Surroundings

_READ_SECONDS = 1.0  # for a reader to take the last events


class Telling:
    """`run` must be running; `tell` never blocks nor raises."""

    def __init__(self, settings: Settings, surroundings: Surroundings) -> None:
        names = (MAPPED, CONFLICT, RELEASED)
        commands = {name: settings[name] for name in names if settings[name] is not None}
        self._hooks = Hooks(commands, surroundings.folder, os.environ, surroundings.limits)
        self._events = None if settings["events"] is None else Events(settings["events"])

    def tell(self, entry: Entry) -> None:
        """This has happened just now."""
        self._hooks.tell(entry)
        if self._events is not None:
            self._events.tell(entry)

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._hooks.run)
            if self._events is not None:
                nursery.start_soon(self._events.run)

    async def close(self, budget: float = LIMIT) -> None:
        """Wait until all have been told, for so many seconds at most."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._hooks.close, budget)
            if self._events is not None:
                nursery.start_soon(self._events.close, min(budget, _READ_SECONDS))
