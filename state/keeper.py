"""The keeper: carries the ledger's effects out, and tells it what came of them.

The journal first, then the gateway. Requests run on when the call that caused them has stopped
waiting, and their late answers go to the ledger like all others.
"""

import contextlib
import logging
import math
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from types import TracebackType

import trio

from natsup.state import points
from natsup.state.departure import Departure, Former
from natsup.state.gateway import Gateway, Neighbours, host, place
from natsup.state.happenings import Caller, Event, Teller
from natsup.state.journal import GatewayRecord, Journal, PortRecord
from natsup.state.ledger import Add, Check, Effect, Leave, Ledger, Note, Remove, Request, State
from natsup.state.model import Conflict, Ignored, Mapped, Outcome, Port, Removal, Unknown
from natsup.state.outside import warning

log = logging.getLogger("natsup.state")

# Additions and removals: a gateway is asked one thing at a time, and what waits for its turn here
# may be needless by then.
_AT_ONCE = 8


Work = Callable[[], Awaitable[None]]


class Wish:
    """One call's wish for a port: `with keeper.wish(port) as wish`.

    Left without `claim`, it is withdrawn.
    """

    def __init__(self, keeper: "Keeper", port: Port, caller: Caller | None) -> None:
        self._keeper = keeper
        self.port = port
        self.caller = caller
        self._answer: Outcome | None = None
        self._answered = trio.Event()
        self._open = False
        self._heard = 0  # how many answers the gateway had given when it began
        self._asked = 0  # how many requests had left by then

    def __enter__(self) -> "Wish":
        self._open = True
        self._keeper._begin(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._open:
            self._open = False
            self._keeper._end(self, None)

    async def outcome(self, budget: float, *, telling: bool = True) -> Outcome:
        """What the gateway makes of it, or `Ignored` if that takes longer than ``budget`` s.
        ``telling``: a gateway that has not been heard at all for so long counts as silent.

        On a `Conflict` the call is to fail with EADDRINUSE."""
        with trio.move_on_after(budget):
            await self._answered.wait()
        if self._answer is None:
            reason = f"no answer within {budget:g} s"
            if telling:
                self._keeper._late(self, reason)
            return Ignored(reason)
        if isinstance(self._answer, Conflict):
            self._keeper._refused(self, self._answer)
        return self._answer

    @property
    def ports(self) -> list[str]:
        """What it is for, as `Port` is written."""
        return [str(self.port)]

    def claim(self, holder: int) -> None:
        """The call came to a bound socket with this cookie."""
        self._open = False
        self._keeper._end(self, holder)

    def _tell(self, outcome: Outcome) -> None:
        self._answer = outcome
        self._answered.set()


class Keeper:
    """Keeps the ports of one session. `run` must be running; the rest does not block.

    ``clock`` tells seconds, and ``sleep_until`` sleeps until it tells so many. What one of the
    ``neighbours`` wants is not removed, but left to it, and what one of them is removing just now
    is asked for after that. ``tell`` gets what happens to the ports,
    and must not block.
    """

    def __init__(
        self,
        ledger: Ledger,
        journal: Journal,
        *,
        clock: Callable[[], float],
        sleep_until: Callable[[float], Awaitable[None]],
        neighbours: Neighbours,
        wall: Callable[[], float] = time.time,
        tell: Callable[[Event], None] = lambda event: None,
    ) -> None:
        self._ledger = ledger
        self._journal = journal
        self._clock = clock
        self._sleep_until = sleep_until
        self._neighbours = neighbours
        self._wall = wall
        self._tell_of = tell
        self._teller = Teller()
        self._gateway: Gateway | None = None
        self._identity: tuple[str, str, str] | None = None  # of the gateway that was found last
        self._restored: GatewayRecord | None = None  # that a supervisor before this one used
        self._device = ""
        self._departure: Departure | None = None
        self._adding: dict[Port, Gateway] = {}  # where an addition of each was sent last
        self._checking: dict[Port, trio.CancelScope] = {}  # what is looked for
        self._former = Former()
        self._wishes: dict[Port, list[Wish]] = {}
        self._todo_send, self._todo = trio.open_memory_channel[Work](1 << 20)
        self._changed = trio.Event()
        self._answers = 0
        self._asked = 0  # how many requests have left
        self._unanswered: dict[int, Port] = {}  # those of them that the gateway has not answered
        self._turns = trio.CapacityLimiter(_AT_ONCE)
        self._removals = trio.CapacityLimiter(1)
        self._lost = trio.Event()
        self._looking = trio.Event()
        self._external: str | None = None  # "": it will not say
        self._warned: set[str] = set()  # of which external addresses

    # --- what the session calls ---

    def wish(self, port: Port, caller: Caller | None = None) -> Wish:
        """``caller``: for whom, as the history tells it."""
        return Wish(self, port, caller)

    def restore(
        self,
        ports: Mapping[Port, PortRecord],
        holders: Mapping[Port, Collection[int]],
        gateway: GatewayRecord | None,
    ) -> None:
        """Go on with what a supervisor before this one kept on a gateway. ``holders``: the sockets
        that have the ports by now. No gateway must have been found yet."""
        now, wall = self._clock(), self._wall()
        if gateway is not None:
            self._identity, self._external = _identity(gateway), gateway.external_address
            self._restored = gateway
            if gateway.external_address:
                self._teller.presume_address(gateway.external_address)
        for port in sorted({*ports, *holders}):
            known = ports.get(port)
            expires = None if known is None else known.expires
            if known is not None and known.exists:
                self._teller.mapped_before(port)
            for_port = holders.get(port, ())
            if for_port:
                self._neighbours.announce(port)
            self._carry_out(
                self._ledger.restore(
                    port,
                    for_port,
                    exists=known is not None and known.exists,
                    expires=None if expires is None else now + expires - wall,
                    reason="" if known is None else known.reason,
                    handle="" if known is None else known.handle,
                    released=known is not None and known.released,
                    now=now,
                )
            )

    def wanted(self, port: Port) -> bool:
        """Does somebody hold or ask for this port?"""
        entry = self._ledger.entry(port)
        return entry is not None and entry.held

    def _wanted(self, port: Port) -> bool:
        """Is it to be on the gateway? Not where the user has released it."""
        entry = self._ledger.entry(port)
        return entry is not None and entry.wanted

    def holds(self, holder: int) -> bool:
        """Does the socket with this cookie hold a port?"""
        return self._ledger.holds(holder)

    def release(self, holder: int) -> None:
        """The socket with this cookie is no more."""
        if points.STOP_AT:
            points.reached("release")
        self._journal.ended(holder)
        self._carry_out(self._ledger.release(holder, self._clock()))
        if points.STOP_AT:
            points.reached("released")

    def give_back(self, port: Port) -> bool:
        """The user releases it. False: nobody has it."""
        return self._tell_user(self._ledger.give_back(port, self._clock()))

    def retry(self, port: Port) -> bool:
        """The user wants it tried now, or takes its release back. False: nobody has it."""
        effects = self._ledger.retry(port, self._clock())
        if effects is not None and self.wanted(port):
            self._neighbours.announce(port)
        return self._tell_user(effects)

    def _tell_user(self, effects: list[Effect] | None) -> bool:
        self._carry_out(effects or ())
        return effects is not None

    async def decided(self, port: Port) -> None:
        """Wait until the gateway is not asked for a port any more."""
        while (entry := self._ledger.entry(port)) is not None and entry.under_way:
            await self._changed.wait()

    def state(self, port: Port) -> tuple[State, str]:
        """In which state it is, and why."""
        entry = self._ledger.entry(port)
        return (State.GONE, "") if entry is None else (entry.state, entry.reason)

    def gateway_found(
        self,
        gateway: Gateway,
        *,
        external: str | None = None,
        device: str = "",
        delay: float = 0.0,
    ) -> None:
        """From now on the ports are kept on this gateway. ``external``: what its external address
        was at another time. ``device``: which one it is, whatever its address; "" if that is not
        known. ``delay``: seconds until what it has already is looked for."""
        before, known = self._gateway, self._device
        was, self._identity = self._identity, _identity(gateway)
        moved = was is not None and was != self._identity
        another = moved or (bool(device and known) and device != known)
        self._device = device or known
        self._neighbours.use(place(gateway), ipv6=":" in gateway.internal_address)
        if another:
            reason = "it is another one" if before is None else _what_is_new(before, gateway)
            self._happened(self._teller.another_gateway(self._clock(), reason))
        if moved and before is not None:
            self._depart(before)
        elif moved and self._restored is not None:
            # There is nothing to take it back by. When it was left nobody knows.
            self._former.leave(self._restored, self._ledger.existing(), -math.inf)
        if external is not None:
            self._teller.presume_address(external)
        self._gateway = gateway
        if another:
            self._external = None
        self._lost = trio.Event()
        self._journal.gateway(
            GatewayRecord(
                gateway.protocol, gateway.location, gateway.internal_address, self._external
            )
        )
        self._carry_out(self._ledger.gateway_found(self._clock(), another=another, delay=delay))

    def _depart(self, before: Gateway) -> None:
        """Take back what was made on a gateway that is not used any more."""
        left = self._ledger.existing()
        self._former.leave(before, left | self._being_added(before), self._clock())
        self._departure = Departure(
            before, left, removing=self._neighbours.removing, gone=self._former.forget
        )
        self._todo_send.send_nowait(self._departure.run)

    def _being_added(self, gateway: Gateway) -> dict[Port, float | None]:
        """What a gateway may yet forward, as its answer is awaited, and until when."""
        until = self._clock() + self._ledger.policy.lease
        return {port: until for port, where in self._adding.items() if where is gateway}

    def former(self, gateway: Gateway) -> dict[Port, str]:
        """What a gateway that was found may forward to the address that this host had just before:
        each port's. Asked before `gateway_found` is told."""
        former, before, now = Former(), self._gateway, self._clock()
        if before is not None:
            former.leave(before, self._ledger.existing() | self._being_added(before), now)
        return self._former.recent(gateway, now) | former.recent(gateway, now)

    def handles(self, gateway: Gateway) -> dict[Port, str]:
        """What a gateway that was found calls what this session has on it already. Asked before
        `gateway_found` is told."""
        if self._identity not in (None, _identity(gateway)):
            return {}  # another one's numbers mean something else
        entries = ((port, self._ledger.entry(port)) for port in self._ledger.existing())
        return {port: entry.handle for port, entry in entries if entry is not None}

    def gateway_missing(self, reason: str) -> None:
        """There is no gateway to keep ports on; calls that wait go on without."""
        ports, effects = self._ledger.gateway_missing(reason)
        self._carry_out(effects)
        for port in ports:
            self._tell(port, Ignored(reason))

    async def lost(self) -> None:
        """Wait until the gateway has left a request without an answer."""
        await self._lost.wait()

    async def answered(self) -> None:
        """Wait until no call waits for the gateway that waits now. Others may come all the time."""
        waiting = [wish for wishes in self._wishes.values() for wish in wishes]
        while any(wish._open and wish._answer is None for wish in waiting):
            await self._changed.wait()

    def compare(self) -> None:
        """There is a sign that the gateway was restarted: look for every mapping."""
        self._carry_out(self._ledger.compare(self._clock()))

    def mapped(self) -> list[Port]:
        """The ports that the gateway is to forward now."""
        return [entry.port for entry in self._ledger if entry.state is State.MAPPED]

    def compared(self, missing: Iterable[Port]) -> None:
        """Another session looks for the mappings of this one, and has missed these."""
        self._carry_out(self._ledger.compared(missing, self._clock()))

    def forgive(self) -> None:
        """Another session has seen a sign that the gateway was restarted, and looks for all."""
        self._ledger.forgive()

    def compare_by(self, when: float) -> None:
        """It does so no more: they are to be looked for by then, on this keeper's clock."""
        self._ledger.compare_by(when)
        self._carry_out([])

    def looks(self) -> None:
        """The gateway was asked for the mappings of other sessions: see `looked`."""
        self._looking.set()
        self._looking = trio.Event()

    async def looked(self) -> None:
        """Wait until mappings are looked for again: the gateway is asked in any case."""
        await self._looking.wait()

    def external_address(self, address: str | None) -> None:
        """The gateway told under which address the Internet finds it, or would not."""
        gateway, told = self._gateway, address or ""
        if gateway is None or told == self._external or (self._external and not told):
            return
        before, self._external = self._external, told
        if before:
            log.info("the router's external address is %s now, and was %s", told, before)
        if warning(told) and told not in self._warned:
            self._warned.add(told)
            log.warning("the router's external address (%s): %s", told or "none", warning(told))
        if told:
            self._happened(self._teller.external_address(told))
        self._journal.gateway(
            GatewayRecord(gateway.protocol, gateway.location, gateway.internal_address, told)
        )

    async def run(self) -> None:
        """Timers and requests, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_clock)
            async for work in self._todo:
                nursery.start_soon(work)
                # All that there are at once, so that the gateway sees how many ports it is asked
                # about, and may look for them together.
                with contextlib.suppress(trio.WouldBlock):
                    while True:
                        nursery.start_soon(self._todo.receive_nowait())

    async def close(self, budget: float) -> bool:
        """Take everything back from the gateway, for as long as it answers within ``budget``
        seconds each time. True: all is gone."""
        self._teller.close()
        self._carry_out(self._ledger.close(self._clock()))
        answers = trio.CancelScope()
        while not (self._ledger.settled or answers.cancelled_caught):
            with trio.move_on_after(budget) as answers:
                await self._changed.wait()
        return self._ledger.empty

    # --- wishes ---

    def _begin(self, wish: Wish) -> None:
        self._wishes.setdefault(wish.port, []).append(wish)
        wish._heard, wish._asked = self._answers, self._asked
        self._neighbours.announce(wish.port)
        self._teller.asked(wish.port, wish.caller)
        outcome, effects = self._ledger.ask(wish.port, self._clock())
        if outcome is not None:
            wish._tell(outcome)
        self._carry_out(effects)

    def _end(self, wish: Wish, holder: int | None) -> None:
        waiting = self._wishes[wish.port]
        waiting.remove(wish)
        if not waiting:
            del self._wishes[wish.port]
        now = self._clock()
        if holder is None:
            self._carry_out(self._ledger.withdraw(wish.port, now))
        else:
            self._carry_out(self._ledger.claim(wish.port, holder, now))

    def _late(self, wish: Wish, reason: str) -> None:
        # What waited for another session says nothing of the gateway.
        asked = any(
            number <= wish._asked or port == wish.port for number, port in self._unanswered.items()
        )
        if asked and wish._heard == self._answers:
            self._ledger.late(reason)

    def _refused(self, wish: Wish, outcome: Conflict) -> None:
        self._happened(self._teller.refused(wish.port, wish.caller, outcome, self._clock()))

    def _tell(self, port: Port, outcome: Outcome) -> None:
        for wish in self._wishes.get(port, ()):
            if wish._answer is None:
                wish._tell(outcome)

    # --- effects ---

    def _carry_out(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Check):
                self.looks()
            if isinstance(effect, Leave):
                if effect.port in self._checking:
                    self._checking[effect.port].cancel()
            elif isinstance(effect, Note):
                over = effect.state in (State.GONE, State.RELEASING) and not effect.claims
                if over or effect.released:
                    self._neighbours.withdraw(effect.port)
                self._journal.note(effect, now=self._clock(), wall=self._wall())
                self._happened(self._teller.noted(effect, self._clock()))
            else:
                self._todo_send.send_nowait(partial(self._request, effect, self._gateway))
        self._changed.set()
        self._changed = trio.Event()

    def _happened(self, events: Iterable[Event]) -> None:
        for event in events:
            self._tell_of(event)

    async def _watch_clock(self) -> None:
        while True:
            deadline, changed = self._ledger.next_deadline(), self._changed
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel_after, changed, nursery.cancel_scope)
                if deadline is None:
                    continue
                await self._sleep_until(deadline)
                # Rounded, the time may lack a hair of the deadline.
                self._carry_out(self._ledger.tick(max(deadline, self._clock())))

    async def _request(self, request: Request, gateway: Gateway | None) -> None:
        """Ask the gateway, and hand its answer on: nothing can come between the two. What is
        needless by its turn is not asked. ``gateway``: the one that it is meant for."""
        if isinstance(request, Check):
            await self._look(request, gateway)
            return
        async with self._turns:
            if self._wanted(request.port) is isinstance(request, Remove):
                self._needless(request.port, gateway)
            else:
                answered = await self._request_now(request)
                # One that does not answer is asked all: it has none wait long for others' answers.
                self._turns.total_tokens = _AT_ONCE if answered else math.inf

    async def _look(self, check: Check, gateway: Gateway | None) -> None:
        """All wait for the gateway at the same time, and each until nobody wants its port."""
        with trio.CancelScope() as scope:
            self._checking[check.port] = scope
            if not self._wanted(check.port):
                scope.cancel()
            try:
                await self._request_now(check)
            finally:
                del self._checking[check.port]
        if scope.cancelled_caught:
            self._needless(check.port, gateway)

    def _needless(self, port: Port, gateway: Gateway | None) -> None:
        if self._replaced(gateway):  # then what stands of the port is of the other one
            self._carry_out(self._ledger.void(port, self._clock()))
            return
        outcome, effects = self._ledger.needless(port, self._clock())
        if outcome is not None:
            self._tell(port, outcome)
        self._carry_out(effects)

    async def _request_now(self, request: Request) -> bool:
        """Was it answered? What another gateway has left unanswered does not count."""
        port = request.port
        if isinstance(request, Remove):
            gateway = self._gateway
            if points.STOP_AT:
                points.reached("remove")
            removal = await self._remove(port)
            if points.STOP_AT:
                points.reached("removed")
            log.info("%s: removal: %s", port, removal.value)
            if self._replaced(gateway):
                self._carry_out(self._ledger.void(port, self._clock()))
                return True
            silent = removal is Removal.FAILED
            self._answers += not silent
            self._happened(self._teller.removed(port, removal, self._clock()))
            effects = self._ledger.removed(port, removal, self._clock())
        else:
            if points.STOP_AT:
                points.reached(self._point(request))
            outcome, gateway = await self._ask(request)
            if points.STOP_AT:
                points.reached(f"{self._point(request)}ed")
            if gateway is not None and self._replaced(gateway):
                log.info(
                    "%s: by %s, which is not used any more: %s", port, gateway.location, outcome
                )
                if isinstance(request, Add) and isinstance(outcome, (Mapped, Unknown)):
                    await self._take_back(gateway, port)
                self._carry_out(self._ledger.void(port, self._clock()))
                return True
            silent = isinstance(outcome, (Ignored, Unknown)) and outcome.silent
            self._answers += not silent
            if isinstance(request, Add):
                self._log_added(port, outcome)
                self._teller.added(port, outcome)
                effects = self._ledger.added(port, outcome, self._clock())
                self._tell(port, outcome)
            else:
                self._happened(self._teller.checked(port, outcome, self._clock()))
                effects = self._ledger.checked(port, outcome, self._clock())
                self._log_checked(port, outcome)
            if silent:
                self._lost.set()
        self._carry_out(effects)
        return not silent

    def _replaced(self, gateway: Gateway | None) -> bool:
        """Is another one used by now than the one that was asked?"""
        if gateway is None or self._gateway is None:
            return False
        return _identity(gateway) != _identity(self._gateway)

    async def _take_back(self, gateway: Gateway, port: Port) -> None:
        """It was added late, where ports are not kept any more. Until that is over it is not asked
        for anywhere else: the two may be one router."""
        departure = Departure(
            gateway, [port], removing=self._neighbours.removing, gone=self._former.forget
        )
        await departure.run()

    def _point(self, request: Add | Check) -> str:
        if isinstance(request, Check):
            return "check"
        entry = self._ledger.entry(request.port)
        return "renew" if entry is not None and entry.exists else "add"

    def _log_added(self, port: Port, outcome: Outcome) -> None:
        entry = self._ledger.entry(port)
        if entry is not None and entry.claims and isinstance(outcome, Conflict):
            told = entry.held_by == outcome.holder and entry.state is State.CONFLICT
            level = logging.DEBUG if told else logging.WARNING
            log.log(level, "%s: %s, and is open on this LAN alone", port, outcome)
        else:
            log.info("%s: %s", port, outcome)

    def _log_checked(self, port: Port, outcome: Outcome) -> None:
        if isinstance(outcome, Mapped):
            log.debug("%s: looked again: %s", port, outcome)
        elif isinstance(outcome, Conflict):
            log.warning("%s: looked again: %s, and is not taken back", port, outcome)
        else:
            entry = self._ledger.entry(port)
            why = entry.reason if entry is not None and entry.reason else outcome
            log.info("%s: looked again: %s", port, why)

    async def _ask(self, request: Add | Check) -> tuple[Outcome, Gateway | None]:
        """The answer, and whose it is."""
        port, gateway = request.port, self._gateway
        try:
            if isinstance(request, Add):
                if self._departure is not None:
                    await self._departure.over(port)
                await self._neighbours.removed(port)
                gateway = self._gateway  # it may be another one since
            if gateway is None:
                return Unknown("no gateway"), None
            if isinstance(request, Check):
                with self._asking(port):
                    return await gateway.check(port), gateway
            self._adding[port] = gateway
            try:
                with self._asking(port):
                    outcome = await gateway.add(port, lease=request.lease)
            finally:
                del self._adding[port]
            if isinstance(outcome, Mapped) and not self._replaced(gateway):
                self._former.forget(port)
            return self._former.judge(port, outcome, gateway, self._clock()), gateway
        except Exception:
            log.exception("%s: the gateway's code failed", port)
            return Unknown("an error inside natsup; see the log"), gateway

    async def _remove(self, port: Port) -> Removal:
        """One at a time, unless the gateway is silent: other sessions wait for a removal that was
        announced, and not for long."""
        async with self._removals:
            removal = await self._remove_now(port)
            self._removals.total_tokens = math.inf if removal is Removal.FAILED else 1
            return removal

    async def _remove_now(self, port: Port) -> Removal:
        if self._gateway is None:
            return Removal.FAILED
        try:
            where = place(self._gateway)
            with self._neighbours.removing(port, where) as free, self._asking(port):
                return await self._gateway.remove(port) if free else Removal.HANDED_OVER
        except Exception:
            log.exception("%s: the gateway's code failed", port)
            return Removal.FAILED

    @contextlib.contextmanager
    def _asking(self, port: Port) -> Iterator[None]:
        """A request leaves, and is answered by the end of the block."""
        self._asked += 1
        number = self._asked
        self._unanswered[number] = port
        try:
            yield
        finally:
            del self._unanswered[number]


async def cancel_after(event: trio.Event, scope: trio.CancelScope) -> None:
    """Cancel a scope once an event has happened."""
    await event.wait()
    scope.cancel()


def _what_is_new(before: Gateway, gateway: Gateway) -> str:
    """For people: in what another gateway is another one."""
    if host(before.location) != host(gateway.location):
        return "this host has another router now"
    if before.internal_address != gateway.internal_address:
        return f"this host has another address now, {gateway.internal_address}"
    if before.protocol != gateway.protocol:
        return f"the router is asked by {gateway.protocol} now"
    return "there is another router in the place of the old one"


def _identity(gateway: Gateway | GatewayRecord) -> tuple[str, str, str]:
    # What one protocol has made another may not remove.
    return gateway.protocol, host(gateway.location), gateway.internal_address
