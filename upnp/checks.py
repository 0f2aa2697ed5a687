"""Looking at the table of a router for many ports at once, as a comparison does.

They are looked at one after the other, so that who binds a port waits behind one of them at the
most; and where a router can list its mappings, all that wait are looked for in its lists first.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import trio

from natsup.state.model import Port
from natsup.upnp.adding import Holder, Kind
from natsup.upnp.listing import FEW, Survey


@dataclass(eq=False, slots=True)
class _Check:
    port: Port
    seen: Holder | None = None
    unlisted: bool = False  # the router's lists do not show it


class Checks:
    """``look`` asks for one port, ``survey`` for lists. ``lists``: may the router have any?"""

    def __init__(
        self,
        look: Callable[[Port], Awaitable[Holder]],
        survey: Callable[[Sequence[Port]], Awaitable[Survey]],
        *,
        lists: bool,
    ) -> None:
        self._look = look
        self._survey = survey
        self._lists = lists
        self._one_at_a_time = trio.Lock()
        self._waiting: dict[_Check, None] = {}

    async def see(self, port: Port) -> Holder:
        """Whose the port is."""
        check = _Check(port)
        self._waiting[check] = None
        try:
            async with self._one_at_a_time:
                if check.seen is None and self._lists and not check.unlisted:
                    await self._read_lists()
                if check.seen is None:
                    check.seen = await self._see(check)
                return check.seen
        finally:
            del self._waiting[check]

    async def _read_lists(self) -> None:
        """Of all that wait now."""
        checks = [one for one in self._waiting if one.seen is None and not one.unlisted]
        if len(checks) <= FEW:
            return
        survey = await self._survey([one.port for one in checks])
        self._lists = survey.works
        for one in checks:
            one.seen = survey.ours.get(one.port)
            one.unlisted = one.seen is None

    async def _see(self, check: _Check) -> Holder:
        seen = await self._look(check.port)
        if seen.kind is Kind.OURS and check.unlisted:
            self._lists = False  # they do not show everything
        if seen.silent:  # those behind have waited for the same silence
            for one in self._waiting:
                one.seen = one.seen or seen
        return seen
