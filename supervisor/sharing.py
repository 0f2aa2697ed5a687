"""What the sessions of this host share at one router: one of them watches it and compares, for all.

See `natsup.supervisor.leading` for how it is found out who, and how it tells the others.
"""

import logging
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from natsup.state.gateway import Gateway
from natsup.state.keeper import Keeper, cancel_after
from natsup.state.model import Conflict, Ignored, Port, Unknown
from natsup.supervisor import clock
from natsup.supervisor.leading import Ears, Leader, Sessions

log = logging.getLogger("natsup.session")

Watching = Callable[["trio.MemorySendChannel[str]"], Awaitable[None]]
_COMPARE_SECONDS = 300.0  # as `Policy.compare`, for the other sessions' ports
_TELL_SECONDS = 10.0  # for the session that leads to tell the external address


class Sharing:
    """``look_again``: has the search for the router begin anew, for a reason that it logs."""

    def __init__(self, keeper: Keeper, look_again: Callable[[str], None]) -> None:
        self._keeper = keeper
        self._look_again = look_again
        self._gateway: Gateway | None = None  # while it answers
        self._sessions: Sessions | None = None
        self._compared = 0.0  # when another session last looked for what is mapped
        self._delay = 0.0
        self._found = trio.Event()

    def found(self, gateway: Gateway | None, *, delay: float = 0.0) -> None:
        """The router was found, again perhaps, or lost. ``delay``: seconds until what was mapped on
        it before is looked for."""
        self._gateway, self._delay = gateway, delay
        if gateway is not None:
            self._found.set()

    async def run(
        self, gateway: Gateway, where: tuple[str, str, str], scope: trio.CancelScope
    ) -> None:
        """Do this session's part at a router until cancelled. ``where``: the interface that leads
        to it, this host's address there, and the router's."""
        _, address, router = where
        ears = Ears(
            self._keeper.mapped,
            self._follow,
            self._hear_compared,
            partial(self._hear_restarted, gateway.protocol),
            self._keeper.external_address,
        )
        with scope:
            sessions = self._sessions = Sessions(ears, partial(self._lead, gateway, where))
            try:
                await sessions.run(f"{gateway.protocol}/{router}/{address}")
            except Exception:  # the ports of this session are kept all the same
                log.exception("nothing is shared with the other sessions any more")

    async def external_address(self, gateway: Gateway) -> str | None:
        """Read it, and tell the keeper. None where another session tells it, or the router does not
        say."""
        sessions = self._sessions
        if sessions is not None and await sessions.told_external(_TELL_SECONDS):
            return None
        address = await gateway.external_address()
        self._keeper.external_address(address)
        if sessions is not None and sessions.leader is not None:
            await sessions.leader.tell_external(address)
        return address

    # --- what another session says ---

    def _follow(self) -> None:
        """Once is enough: where the sessions that lead end soon, one after another, it counts when
        one of them has compared indeed."""
        if not self._compared:
            self._hear_compared([])

    def _hear_compared(self, missing: list[Port]) -> None:
        self._compared = clock.now()
        self._keeper.compared(missing)
        if self._gateway is None:
            self._look_again("another session has found the router")

    def _hear_restarted(self, protocol: str, reason: str) -> None:
        """By UPnP what is missing is told as well, a little later."""
        if protocol != "upnp" or self._gateway is None:
            self._look_again(f"{reason}, another session says")

    # --- what this one does for all ---

    async def _lead(self, gateway: Gateway, where: tuple[str, str, str], leader: Leader) -> None:
        """Watch the router, and compare."""
        from natsup.upnp.pmp.gateway import PmpGateway
        from natsup.upnp.watch import watch

        watching: Watching = partial(watch, *where)
        if isinstance(gateway, PmpGateway):
            others = leader.lines
            watching = partial(gateway.watch, interface=where[0], others=lambda: bool(others))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._signs, watching, leader)
            await self._compare(leader)

    async def _signs(self, watching: Watching, leader: Leader) -> None:
        """Tell all sessions of signs that the router was restarted."""
        send, receive = trio.open_memory_channel[str](1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watching, send)
            async for reason in receive:
                self._look_again(reason)
                await leader.tell_restarted(reason)

    async def _compare(self, leader: Leader) -> None:
        """Look for the other sessions' ports now and then, and when the router is found again."""
        due = clock.now() + _COMPARE_SECONDS
        if self._compared:  # by another session, which has ended
            due = self._compared + _COMPARE_SECONDS
            self._keeper.compare_by(due)
        while True:
            found = self._found = trio.Event()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel_after, found, nursery.cancel_scope)
                await clock.sleep_until(due)
                nursery.cancel_scope.cancel()
            if found.is_set():
                await trio.sleep(self._delay)
            due = clock.now() + _COMPARE_SECONDS
            if self._gateway is not None:
                await leader.compare(partial(_missing, self._gateway))


async def _missing(gateway: Gateway, ports: list[Port]) -> set[Port] | None:
    """Those that a gateway does not forward; None if it does not answer. By NAT-PMP and PCP it can
    only be seen that it was restarted, which is told at once."""
    missing = set()
    for port in ports if gateway.protocol == "upnp" else ():
        outcome = await gateway.check(port)
        if isinstance(outcome, Unknown) and outcome.silent:
            return None
        if isinstance(outcome, (Conflict, Ignored)):
            missing.add(port)
    return missing
