"""What a session leaves behind when its host has another router, or another address.

What the old gateway still forwards would lead to nobody, or to whoever gets the old address. It is
taken back where that is permitted: by the old address, if this host has it still; or, on a router
that lets any host remove what is not its own, from the new one. Else it is left to its lease, which
this session knows to be its own, and so no conflict with another host.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import trio

from natsup.state.gateway import Gateway, host
from natsup.state.model import Conflict, Ignored, Outcome, Port, Removal

log = logging.getLogger("natsup.state")

_SECONDS = 5.0  # for everything: the new mappings may be waiting
_RECENT = 60.0  # seconds


class Departure:
    """Takes back what was made on a gateway that was used before. `run` ends by itself.

    ``removing``: see `Neighbours.removing`; what another session wants is left to it. ``gone``:
    called for each port that was taken back.
    """

    def __init__(
        self,
        gateway: Gateway,
        ports: Iterable[Port],
        *,
        removing: Callable[[Port], AbstractContextManager[bool]],
        gone: Callable[[Port], None],
    ) -> None:
        self._gateway = gateway
        self._over = {port: trio.Event() for port in ports}
        self._removing = removing
        self._gone = gone

    async def run(self) -> None:
        try:
            with trio.move_on_after(_SECONDS):
                await self._take_back()
        except Exception:
            log.exception("what was mapped on %s could not be taken back", self._gateway.location)
        finally:
            for event in self._over.values():
                event.set()

    async def _take_back(self) -> None:
        for port, over in self._over.items():
            with self._removing(port) as free:
                removal = await self._gateway.remove(port) if free else Removal.HANDED_OVER
            old = f"{self._gateway.internal_address}, {self._gateway.location}"
            log.info("%s: removal where it was before (%s): %s", port, old, removal.value)
            if removal is Removal.FAILED:
                return  # the old address has gone, or the way to the router
            if removal is Removal.GONE:
                self._gone(port)
            over.set()

    async def over(self, port: Port) -> None:
        """Wait until a port has been taken back, or is given up."""
        if port in self._over:
            await self._over[port].wait()


@dataclass(frozen=True, slots=True)
class _Left:
    router: str
    address: str
    since: float
    until: float | None  # when its lease ends; None: it does not, or nobody knows


class Former:
    """What a router may still forward to an address that this host had before. Pure; ``now`` as in
    the ledger."""

    def __init__(self) -> None:
        self._left: dict[Port, _Left] = {}

    def leave(self, gateway: Gateway, ports: Mapping[Port, float | None], now: float) -> None:
        """These ports, until their leases end, are left on a gateway."""
        for port, until in ports.items():
            left = _Left(host(gateway.location), gateway.internal_address, now, until)
            self._left[port] = left

    def recent(self, gateway: Gateway, now: float) -> dict[Port, str]:
        """To which addresses ports lead that were left on this router just now: nobody else can
        have come to these addresses, and have the ports mapped, meanwhile."""
        return {
            port: left.address
            for port, left in self._on(gateway, now)
            if now - left.since < _RECENT
        }

    def judge(self, port: Port, outcome: Outcome, gateway: Gateway, now: float) -> Outcome:
        """The outcome; a conflict with this host's own old address is none."""
        left = dict(self._on(gateway, now)).get(port)
        if left is None:
            return outcome
        refused = isinstance(outcome, Ignored) and not outcome.silent
        if refused or outcome == Conflict(left.address):
            return Ignored(f"the router keeps it for {left.address}, which this host had before")
        return outcome

    def forget(self, port: Port) -> None:
        """It is mapped anew, or not any more."""
        self._left.pop(port, None)

    def _on(self, gateway: Gateway, now: float) -> Iterator[tuple[Port, _Left]]:
        router, here = host(gateway.location), gateway.internal_address
        for port, left in self._left.items():
            over = left.until is not None and left.until <= now
            if (left.router, left.address != here, over) == (router, True, False):
                yield port, left
