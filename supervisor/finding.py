"""Finding the gateway, for as long as the session lives, and giving it to the keeper.

    search ─ found ──▶ use it until it does not answer, or there is a sign ─────────┐
      ▲  └── none ───▶ wait, ever longer, or until there is a sign, or the router is ─┤
      └───────────────────────────────────────────────────────────────────────────────┘

Signs are that it was restarted, that this host's network is another one, or that the machine has
slept. A gateway that is found again is looked through by the keeper: its table may be empty.
"""

import logging
import os
import random
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from natsup.state.gateway import Gateway, Neighbours, host, protocol_of
from natsup.state.history import History
from natsup.state.keeper import Keeper, cancel_after
from natsup.state.known import Known, recall, remember
from natsup.state.secret import secret
from natsup.state.sweep import sweep
from natsup.supervisor import clock, container, suspend
from natsup.supervisor.options import Settings
from natsup.supervisor.pinholes import Pinholes
from natsup.supervisor.sharing import Sharing
from natsup.supervisor.signs import Signs
from natsup.supervisor.takeover import lives
from natsup.supervisor.verdict import Rules

if TYPE_CHECKING:
    from natsup.upnp.choosing import Speakers
    from natsup.upnp.network import Network, NoGateway

log = logging.getLogger("natsup.session")

_CHOICE_SECONDS = 86400.0  # for which the choice of a protocol counts
_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 300.0
_LONGEST_PAUSE_IF_KNOWN = 30.0  # there was a router, and it may come back
_LATE_SECONDS = 25.0  # of a search that nobody waits for: there are routers that answer late
_ADDRESS_SECONDS = 240.0  # for which the router's external address is not asked for again
_STEADY_SECONDS = 30.0  # a router that answered for so long has not been lost before
_SPREAD_SECONDS = 5.0  # over which hosts look at a router that was restarted
_ARRIVALS_APART = 60.0  # seconds between announcements of a router that then does not answer


class Finder:
    """`run` must be running."""

    def __init__(
        self,
        settings: Settings,
        keeper: Keeper,
        rules: Rules,
        folder: Path,
        neighbours: Neighbours,
        history: History,
        pinholes: Pinholes,
        spread: Callable[[], float] = lambda: random.uniform(0.0, _SPREAD_SECONDS),
    ) -> None:
        self._settings = settings
        self._keeper = keeper
        self._rules = rules
        self._folder = folder
        self._neighbours = neighbours
        self._history = history
        self._pinholes = pinholes
        self._searched = trio.Event()  # the first search has ended
        self._until = clock.now() + settings["startup_timeout"]
        self._signs = Signs(spread)
        self._network: Network | NoGateway | None = None  # in which the router was searched for
        self._arrived = float("-inf")  # when one was last heard to be there, without a search
        self._speakers: Speakers | None = None
        self._protocol: str | None = None  # that this session uses
        self._chosen = 0.0  # wall clock: when that was chosen
        self._sharing = Sharing(keeper, self._signs.restarted)
        self._known: Known | None = None  # of the network, before the last search

    async def searched(self) -> bool:
        """Wait for the end of the first search, within the session's start-up time-out. Has it
        ended?"""
        if not self._searched.is_set():
            with trio.move_on_after(max(0.0, self._until - clock.now())):
                await self._searched.wait()
        return self._searched.is_set()

    async def run(self) -> None:
        """Search, use, and search again, until cancelled."""
        pause, longest, reason = _FIRST_PAUSE, _LONGEST_PAUSE, ""
        watch = trio.CancelScope()
        watched = ("", "", "", "")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_spared, self._watch_network)
            nursery.start_soon(_spared, partial(suspend.watch, self._signs.change))
            while True:
                hurry = self._signs.begin()
                sign, changed = self._signs.any, self._signs.changed
                found, network = await self._search(changed, patient=bool(reason))
                if changed.is_set():
                    continue
                if isinstance(found, str):
                    level = logging.DEBUG if found == reason else logging.WARNING
                    log.log(level, "no router to ask: %s%s", found, _why_here(network))
                    reason = found
                    self._missing(found)
                    await self._remember(network, Known(None, time.time(), found))
                else:
                    since, reason, longest = clock.now(), "", _LONGEST_PAUSE_IF_KNOWN
                    interface = "" if network is None else network.interface
                    where = (interface, found.internal_address, host(found.location))
                    if watched != (watched := (found.protocol, *where)):
                        watch.cancel()
                        watch = trio.CancelScope()
                        nursery.start_soon(self._sharing.run, found, where, watch)
                    await self._use(found, network, sign, self._delay(found, hurry=hurry))
                    if sign.is_set() or clock.now() - since > _STEADY_SECONDS:
                        pause = _FIRST_PAUSE
                        continue  # it has just been lost: look for it at once
                await self._pause(pause, network, sign)
                pause = _FIRST_PAUSE if sign.is_set() else min(pause * 2, longest)

    def _delay(self, gateway: Gateway, *, hurry: bool) -> float:
        """Seconds until what was mapped is looked for. By NAT-PMP and PCP each host sees a restart
        in its own time, and has been spread already where the router announced it."""
        return self._signs.delay(hurry=hurry or gateway.protocol != "upnp")

    async def _pause(self, seconds: float, network: "Network | None", sign: trio.Event) -> None:
        """Wait for so long, or until there is a sign, or the router of this network says that it
        is there."""
        async with trio.open_nursery() as nursery:
            if network is not None:
                nursery.start_soon(_spared, partial(self._hear_arrival, network))
            with trio.move_on_after(seconds):
                await sign.wait()
            nursery.cancel_scope.cancel()

    async def _hear_arrival(self, network: "Network") -> None:
        from natsup.upnp.arrival import arrival

        await arrival(network)
        await trio.sleep(max(0.0, self._arrived + _ARRIVALS_APART - clock.now()))
        self._arrived = clock.now()
        self._signs.restarted("the router says that it is there")

    async def _watch_network(self) -> None:
        from natsup.upnp.changes import watch

        await watch(self._look, lambda: self._network, self._signs.change)

    async def _look(self) -> "Network | NoGateway":
        from natsup.upnp.discovery import network_of

        return await network_of(
            interface=self._settings["interface"], url=self._settings["gateway"]
        )

    async def _search(
        self, over: trio.Event, *, patient: bool
    ) -> "tuple[Gateway | str, Network | None]":
        """One search. The gateway, or why there is none; and the network, unless that is why.

        ``over``: that it is of no use any more. ``patient``: the one before found none either.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel_after, over, nursery.cancel_scope)
                found = await self._search_network(patient)
                nursery.cancel_scope.cancel()
                return found
        except Exception:
            log.exception("the search for a router failed")
        return "an error inside natsup; see the log", None

    async def _search_network(self, patient: bool) -> "tuple[Gateway | str, Network | None]":
        from natsup.upnp.choosing import Speakers, find
        from natsup.upnp.network import NoGateway

        url, seconds = self._settings["gateway"], self._settings["startup_timeout"]
        if patient:
            seconds = max(seconds, _LATE_SECONDS)
        network = self._network = await self._look()
        if isinstance(network, NoGateway):
            return network.reason, None
        known = self._known = self._recall(network)
        if known is not None and known.location is None and not self._searched.is_set():
            # Nobody is to wait for it again; the search goes on all the same.
            self._missing(f"{known.reason} (so it was at {_clock(known.since)})")
        location = known.location if known is not None else None
        if self._speakers is None:
            self._speakers = Speakers(lambda: secret(self._folder))
        found = await find(
            network,
            self._speakers,
            protocols=self._settings["protocols"],
            prefer=self._preferred(known),
            url=url,
            known=location,
            seconds=seconds,
        )
        return found.reason if isinstance(found, NoGateway) else found, network

    def _preferred(self, known: Known | None) -> str | None:
        """The protocol that this session uses, or that another one chose not long ago: the others
        need not be waited for. Not for good, since the user may switch a better one on."""
        if self._protocol is not None:
            return self._protocol
        if known is None or known.location is None:
            return None
        fresh = known.chosen <= time.time() < known.chosen + _CHOICE_SECONDS
        return protocol_of(known.location) if fresh else None

    def _recall(self, network: "Network") -> Known | None:
        return recall(self._folder, network.name, wall=time.time()) if network.name else None

    async def _remember(self, network: "Network | None", known: Known) -> None:
        """Note down what a search came to. Nobody waits for it."""
        if network is None or self._settings["gateway"] is not None:
            return
        name = network.name or await self._look_again(network)
        if name:
            remember(self._folder, name, known)

    async def _look_again(self, network: "Network") -> str:
        """The name of a network whose router's MAC was not known: by now something has been sent
        to it. "" if it is not known yet."""
        from natsup.upnp.discovery import network_of
        from natsup.upnp.network import Network

        try:
            again = await network_of(interface=self._settings["interface"], url=None)
        except Exception:
            log.exception("the network cannot be looked at")
            return ""
        if isinstance(again, Network) and again.gateway == network.gateway:
            return again.name
        return ""

    def _missing(self, reason: str) -> None:
        self._sharing.found(None)
        self._keeper.gateway_missing(reason)
        self._pinholes.mapper(None)
        self._searched.set()

    async def _use(
        self, gateway: Gateway, network: "Network | None", sign: trio.Event, delay: float
    ) -> None:
        """Keep the ports on a gateway until it leaves a request without an answer, or there is a
        sign. ``delay``: seconds until what was mapped on it before is looked for."""
        log.info("router found: %s, this host is %s", gateway.location, gateway.internal_address)
        self._rules.own_addresses = frozenset({socket.inet_aton(gateway.internal_address)})
        known = self._known
        if self._protocol != gateway.protocol:
            same = gateway.protocol == self._preferred(known)
            self._chosen = known.chosen if known is not None and same else time.time()
            self._protocol = gateway.protocol
        external = known.external if known is not None else None
        former = self._keeper.former(gateway)
        if former and gateway.protocol == "upnp":
            from natsup.upnp.igd import Igd

            if isinstance(gateway, Igd):
                gateway.inherit(former)
        device = "" if network is None else network.name
        self._keeper.gateway_found(gateway, external=external, device=device, delay=delay)
        self._pinholes.mapper(gateway)
        self._sharing.found(gateway, delay=delay)
        self._searched.set()
        async with trio.open_nursery() as nursery:
            found = Known(gateway.location, time.time(), chosen=self._chosen)
            nursery.start_soon(self._remember, network, found)
            nursery.start_soon(self._tidy, gateway, network, found)
            nursery.start_soon(cancel_after, sign, nursery.cancel_scope)
            await self._keeper.lost()
            self._sharing.found(None)
            log.info("the router does not answer")
            nursery.cancel_scope.cancel()

    async def _reopen(self, network: "Network | None", location: str) -> Gateway | None:
        from natsup.upnp.choosing import reopen

        if network is None or self._speakers is None:
            return None
        return await reopen(location, network, self._speakers)

    async def _tidy(self, gateway: Gateway, network: "Network | None", found: Known) -> None:
        """What can wait for the ports of this session."""
        await self._keeper.answered()
        try:
            await self._ask_for_address(gateway, network, found)
            report = await sweep(
                self._folder,
                gateway,
                wall=time.time,
                neighbours=self._neighbours,
                lives=lives,
                lease=self._settings["lease"],
                reopen=partial(self._reopen, network),
                pinholes=self._pinholes.opener,
            )
        except Exception:
            log.exception("what dead sessions left could not be removed")
        else:
            for line in report.lines():
                log.info("%s", line)
            for entry in report.entries:
                self._history.put(entry)
        while True:
            await trio.sleep(_ADDRESS_SECONDS)
            await self._keeper.looked()
            await self._keeper.answered()
            try:
                await self._ask_for_address(gateway, network, found)
            except Exception:
                log.exception("the router's external address could not be asked for")

    async def _ask_for_address(
        self, gateway: Gateway, network: "Network | None", found: Known
    ) -> None:
        """Under which address is this host found? It may be another one tomorrow."""
        address = await self._sharing.external_address(gateway)
        if address is not None and (self._known is None or self._known.external != address):
            self._known = replace(found, external=address)
            await self._remember(network, self._known)


async def _spared(work: Callable[[], Awaitable[None]]) -> None:
    """Do what a session can do without: its failure is no failure of the session."""
    try:
        await work()
    except Exception:
        log.exception("something that natsup can do without has failed")


def _why_here(network: "Network | None") -> str:
    """What to do about it where no router could be found anyway."""
    if network is None or not container.behind_host(os.environ, network.interface):
        return ""
    return (
        "; this container's network leads to its own host alone (a bridge): give it the host's"
        " network, or one on the LAN (macvlan), if its ports are to be opened"
    )


def _clock(wall: float) -> str:
    return time.strftime("%H:%M", time.localtime(wall))
