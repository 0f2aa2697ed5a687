"""Pinholes: who opens them is found out when the first is wished for, and anew when it changes.

    look at the network ─ no IPv6 ─▶ wait for a change
            │
    ask its router ───── no answer ─▶ wait for a change, or ever longer
            │
    keep the ports there until another address or router comes, or it does not answer

Where there is no IPv6 nobody is told so for each port: a wish lies dormant until there is.
"""

import logging
from collections.abc import Callable
from contextlib import aclosing
from functools import partial

import trio

from natsup.state import gateway as gateways
from natsup.state.gateway import Gateway
from natsup.state.happenings import Caller
from natsup.state.keeper import Keeper, Wish, cancel_after
from natsup.state.model import Port
from natsup.supervisor.options import Settings
from natsup.supervisor.wishes import Dormant
from natsup.upnp.network import NoGateway
from natsup.upnp.pinhole.address import Network
from natsup.upnp.pinhole.finding import find, find_here
from natsup.upnp.pinhole.kernel import changes, look

log = logging.getLogger("natsup.session")

_LOOK_SECONDS = 0.1  # for the kernel to say whether there is IPv6
_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 300.0
_STEADY_SECONDS = 30.0  # a router that answered for so long has not been lost before


class Pinholes:
    """The pinholes of one session. ``keeper`` is theirs alone. `run` must be running."""

    def __init__(self, settings: Settings, keeper: Keeper, secret: Callable[[], bytes]) -> None:
        self._settings = settings
        self._keeper = keeper
        self._secret = secret
        self._network: Network | NoGateway | None = None
        self._looked = trio.Event()
        self._wished = trio.Event()
        self._dormant: dict[int, tuple[Port, Caller | None]] = {}  # by the socket's cookie
        self._mapper: Gateway | None = None
        self._searched = trio.Event()  # it is known whether there is a mapper
        self._changed = trio.Event()
        self._current: gateways.Pinholes | None = None

    async def wish(self, port: Port, caller: Caller | None) -> Wish | Dormant:
        """See `Keeper.wish`."""
        self._wished.set()
        with trio.move_on_after(_LOOK_SECONDS):
            await self._looked.wait()
        if isinstance(self._network, Network):
            return self._keeper.wish(port, caller)
        return Dormant(partial(self._claim, port, caller))

    def _claim(self, port: Port, caller: Caller | None, holder: int) -> None:
        """A wish that lay dormant came to a socket. There may be IPv6 since it was begun."""
        if isinstance(self._network, Network):
            with self._keeper.wish(port, caller) as wish:
                wish.claim(holder)
        else:
            self._dormant[holder] = port, caller

    def wanted(self, port: Port) -> bool:
        """Does somebody hold or ask for this one?"""
        return self._keeper.wanted(port) or any(one == port for one, _ in self._dormant.values())

    def release(self, holder: int) -> None:
        """The socket with this cookie is no more."""
        self._dormant.pop(holder, None)
        self._keeper.release(holder)

    def mapper(self, gateway: Gateway | None) -> None:
        """By this one ports are mapped from now on; None: there is none."""
        self._mapper = gateway
        self._searched.set()
        self._changed.set()

    async def opener(self, protocol: str) -> gateways.Pinholes | None:
        """Who opens pinholes by this protocol, if anybody does, for what dead sessions left."""
        if self._current is not None and self._current.protocol == protocol:
            return self._current
        return await find_here(self._settings["interface"], self._mapper, protocol, self._secret)

    async def run(self) -> None:
        """Until cancelled."""
        await self._wished.wait()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            pause, reason = _FIRST_PAUSE, ""
            while True:
                changed = self._changed = trio.Event()
                found = await self._search()
                if isinstance(found, NoGateway):
                    level = logging.DEBUG if found.reason == reason else logging.INFO
                    log.log(level, "no pinholes: %s", found.reason)
                    reason = found.reason
                    self._current = None
                    self._keeper.gateway_missing(reason)
                else:
                    reason, since = "", trio.current_time()
                    log.info("pinholes: by %s, to %s", found.location, found.internal_address)
                    self._current = found
                    await self._use(found)
                    changed = self._changed
                    if trio.current_time() - since > _STEADY_SECONDS:
                        pause = _FIRST_PAUSE
                        continue
                if isinstance(self._network, NoGateway):
                    await changed.wait()
                with trio.move_on_after(pause):
                    await changed.wait()
                pause = _FIRST_PAUSE if changed.is_set() else min(pause * 2, _LONGEST_PAUSE)

    async def _search(self) -> gateways.Pinholes | NoGateway:
        try:
            current = self._network.address if isinstance(self._network, Network) else None
            network = await look(self._settings["interface"], current)
            self._network = network
            self._looked.set()
            if isinstance(network, NoGateway):
                return network
            self._wake()
            return await self._find(network)
        except Exception:
            log.exception("the search for who opens pinholes failed")
            return NoGateway("an error inside natsup; see the log")

    async def _find(self, network: Network) -> gateways.Pinholes | NoGateway:
        await self._searched.wait()
        return await find(
            network,
            self._mapper,
            protocols=self._settings["protocols"],
            secret=self._secret,
        )

    def _wake(self) -> None:
        """There is IPv6: what lay dormant is wished for."""
        dormant, self._dormant = self._dormant, {}
        for holder, (port, caller) in dormant.items():
            self._claim(port, caller, holder)

    async def _use(self, found: gateways.Pinholes) -> None:
        """Keep the ports on a router until it leaves a request without an answer, or there is
        another one to ask, or another address."""
        self._keeper.gateway_found(found, external=found.internal_address)
        async with trio.open_nursery() as nursery:
            lost = trio.Event()
            nursery.start_soon(self._notice_change, lost)
            nursery.start_soon(self._hear_signs, found)
            nursery.start_soon(cancel_after, lost, nursery.cancel_scope)
            await self._keeper.lost()
            log.info("who opens pinholes does not answer")
            nursery.cancel_scope.cancel()

    async def _notice_change(self, other: trio.Event) -> None:
        mapper, network = self._mapper, self._network
        assert isinstance(network, Network)
        while True:
            await self._changed.wait()
            self._changed = trio.Event()
            now = await look(self._settings["interface"], network.address)
            if self._mapper is not mapper or now != network:
                other.set()
                self._changed.set()
                return

    async def _hear_signs(self, found: gateways.Pinholes) -> None:
        """Of a restart of the router, by PCP. By UPnP the mapper hears of it."""
        from natsup.upnp.pmp.gateway import PmpGateway

        if isinstance(found, PmpGateway):
            send, receive = trio.open_memory_channel[str](1)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(found.watch, send)
                async for reason in receive:
                    log.info("%s", reason)
                    self._keeper.compare()

    async def _watch(self) -> None:
        async with aclosing(changes()) as heard:
            async for _ in heard:
                self._changed.set()
