"""What one call wishes for, by IPv4 and IPv6, as one wish."""

from collections.abc import Callable
from functools import partial
from types import TracebackType

import trio

from natsup.state.keeper import Wish
from natsup.state.model import Conflict, Ignored, Outcome, Port


class Dormant:
    """A wish for a pinhole where there is no IPv6: see `natsup.supervisor.pinholes`. ``claim`` gets
    the socket that it came to."""

    def __init__(self, port: Port, claim: Callable[[int], None]) -> None:
        self.ports = [str(port)]
        self._claim = claim

    def __enter__(self) -> "Dormant":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    async def outcome(self, budget: float, *, telling: bool = True) -> Outcome:
        """See `Wish.outcome`."""
        return Ignored("there is no IPv6 here")

    def claim(self, holder: int) -> None:
        """See `Wish.claim`."""
        self._claim(holder)


class Wishes:
    """A wish for a mapping, if any, and one for a pinhole."""

    def __init__(self, mapping: Wish | None, pinhole: Wish | Dormant) -> None:
        self._mapping = mapping
        self._pinhole = pinhole

    def __enter__(self) -> "Wishes":
        if self._mapping is not None:
            self._mapping.__enter__()  # first: it alone can be refused
        self._pinhole.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pinhole.__exit__(kind, error, trace)
        if self._mapping is not None:
            self._mapping.__exit__(kind, error, trace)

    async def outcome(self, budget: float, *, telling: bool = True) -> Outcome:
        """What the router makes of the mapping, where there is one; what it makes of the pinhole
        changes nothing for the call. Both have ``budget`` seconds, and have them together."""
        if self._mapping is None:
            return await self._pinhole.outcome(budget, telling=telling)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(self._pinhole.outcome, budget, telling=telling))
            outcome = await self._mapping.outcome(budget, telling=telling)
            if isinstance(outcome, Conflict):
                nursery.cancel_scope.cancel()
        return outcome

    @property
    def ports(self) -> list[str]:
        """See `Wish.ports`."""
        return [*(self._mapping.ports if self._mapping else ()), *self._pinhole.ports]

    def claim(self, holder: int) -> None:
        """See `Wish.claim`."""
        if self._mapping is not None:
            self._mapping.claim(holder)
        self._pinhole.claim(holder)
