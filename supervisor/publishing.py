"""Publishing: what becomes of one call that natsup acts on, from its reservation to its answer.

A slow router holds up the one call that waits for it. From the bind on behalf of the program to the
answer there is no checkpoint: nothing can come between, and no result is lost.
"""

import contextlib
import errno
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile

import trio

from natsup.state import points
from natsup.state.happenings import Caller
from natsup.state.journal import Journal
from natsup.state.keeper import Keeper, Wish
from natsup.state.model import Conflict, Ignored, Mapped, Outcome, Port, Protocol
from natsup.supervisor import afterwards
from natsup.supervisor.afterwards import Seen, Sought
from natsup.supervisor.endings import Endings, Watched
from natsup.supervisor.finding import Finder
from natsup.supervisor.glimpse import Kind
from natsup.supervisor.inherited import Inherited
from natsup.supervisor.listener import Listener
from natsup.supervisor.options import Settings
from natsup.supervisor.page import BINDING, BINDING_LENT, Page
from natsup.supervisor.pinholes import Pinholes
from natsup.supervisor.receiver import Call, Receiver
from natsup.supervisor.reservation import Reservation, reserve, reserve_unseen, unreserved
from natsup.supervisor.takeover import record_of
from natsup.supervisor.target import EXHAUSTED, cookie, program
from natsup.supervisor.verdict import Publish, publishable
from natsup.supervisor.wishes import Wishes

log = logging.getLogger("natsup.session")

_LOOK_AT_CALLER_SECONDS, _LOOK_AT_ONCE = 0.05, 100
_EPHEMERAL_TRIES = 8


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """A call that is being served: how to give it up, and when that has been done."""

    call: Call
    scope: trio.CancelScope
    done: trio.Event


class Publisher:
    """Serves calls, each in a task of its own.

    ``claimed`` is told of every socket that came to hold a port for a call. ``endings``: None where
    the ends of sockets cannot be seen; ``events``: whether sock_diag(7) is to be had.
    """

    def __init__(
        self,
        settings: Settings,
        listener: Listener,
        page: Page,
        receiver: Receiver,
        keeper: Keeper,
        journal: Journal,
        finder: Finder,
        endings: Endings | None,
        pinholes: Pinholes,
        *,
        events: bool,
        claimed: Callable[[Call, Watched], None],
    ) -> None:
        self._settings = settings
        self._listener = listener
        self._page = page
        self._receiver = receiver
        self._keeper = keeper
        self._journal = journal
        self._finder = finder
        self._pinholes = pinholes
        self._rules = receiver.rules
        self._endings = endings
        self._events = events
        self._claimed = claimed
        self._exhausted = False  # has it been said that there is nothing to reserve ports with?
        self._held: dict[Call, Held] = {}  # in the order in which they came
        self._idle = trio.Event()
        self._idle.set()
        self._busy = trio.Event()  # the opposite

    async def idle(self) -> None:
        """Wait until no call is being served."""
        await self._idle.wait()

    async def serve(self, call: Call) -> None:
        """From the receiver to the answer, whatever happens."""
        held = self._held[call] = Held(call, trio.CancelScope(), trio.Event())
        if self._idle.is_set():
            self._idle = trio.Event()
            self._busy.set()
        if points.STOP_AT:
            points.reached("take")
        try:
            with held.scope:
                await self._publish(call)
        except Exception:
            log.exception("%s: a call failed", call)
        finally:
            if call.sock is not None:
                call.sock.close()  # before the answer: it keeps the port bound
            if not call.answered:
                self._listener.let_pass(call.notification)
            self._drop(call)
            del self._held[call]
            held.done.set()
            if not self._held:
                self._idle.set()
                self._busy = trio.Event()

    async def watch_callers(self) -> None:
        """Give calls up once nobody waits for their answers any more: the kernel does not tell.
        Until cancelled. One task for all, because a thousand may wait."""
        while True:
            await self._busy.wait()
            for number, held in enumerate(list(self._held.values())):
                if number % _LOOK_AT_ONCE == 0:
                    await trio.sleep(_LOOK_AT_CALLER_SECONDS)
                if not (held.call.answered or self._listener.valid(held.call.notification)):
                    held.scope.cancel()

    async def _publish(self, call: Call) -> None:
        """Reserve, ask, bind, answer. Returns without an answer where the call is to pass.

        Port 0: what is not to be had stays reserved until another port is found, so that the kernel
        chooses a new one each time. Where none is found in a few tries, and in the time that any
        call may take, the call passes: without natsup a bind() of port 0 does not fail.
        """
        fixed = call.wanted.port
        unseen = call.sock is None and call.address.ipv4 is None
        if fixed is not None and (unseen or call.answered):
            if self._settings["dry_run"]:
                log.info("%s would be published for %s", fixed, call)
            elif call.answered:
                await self._publish_passed(call, _sought(call, fixed, call.cookie))
            else:
                await self._pass_and_publish(call, fixed)
            return
        until: float | None = None
        with contextlib.ExitStack() as reserved:
            for _ in range(_EPHEMERAL_TRIES):
                if points.STOP_AT:
                    points.reached("reserve")
                reservation = await self._reserve(call)
                if reservation is None:
                    return  # the kernel will tell the program the same
                if points.STOP_AT:
                    points.reached("reserved")
                reserved.enter_context(reservation)
                port = fixed or Port(call.wanted.protocol, reservation.port)
                if not publishable(port, self._rules):
                    if fixed:
                        return
                    continue
                if self._settings["dry_run"]:
                    log.info("%s would be published for %s", port, call)
                    return
                with await self._wish(call.wanted, port, _caller(call)) as wish:
                    if points.STOP_AT:
                        points.reached("ask")
                    searched = not call.wanted.ipv4 or await self._finder.searched()
                    until = until or trio.current_time() + self._settings["timeout"]
                    outcome = await self._outcome(wish, until, searched=searched)
                    if not isinstance(outcome, Conflict):
                        if not isinstance(outcome, Mapped):
                            log.info("%s for %s: not mapped yet: %s", port, call, outcome)
                        if call.on_behalf:
                            self._bind(call, reservation, port, wish)
                        else:
                            await self._pass_and_look(call, reservation, port, wish)
                        return
                log.info("%s for %s: refused: %s", port, call, outcome)
                if fixed or trio.current_time() >= until:
                    break
        if fixed:
            self._answer(call, errno.EADDRINUSE)
        else:
            log.info("port 0 for %s: no port that is free on the router was found", call)

    async def _wish(self, wanted: Publish, port: Port, caller: Caller) -> Wish | Wishes:
        mapping = self._keeper.wish(port, caller)
        if not wanted.ipv6:
            return mapping
        pinhole = await self._pinholes.wish(port.pinhole, caller)
        return Wishes(mapping if wanted.ipv4 else None, pinhole)

    def _wanted(self, port: Port) -> bool:
        return self._keeper.wanted(port) or self._pinholes.wanted(port.pinhole)

    async def _reserve(self, call: Call) -> Reservation | None:
        while True:
            try:
                if call.sock is None:
                    return reserve_unseen(call.kind, call.address.raw)
                return reserve(call.sock, call.address.raw)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    if error.errno in EXHAUSTED and not self._exhausted:
                        log.warning("binds pass, and are not published: %s", error.strerror)
                        self._exhausted = True
                    return None
            if call.sock is None and call.wanted.port and self._wanted(call.wanted.port):
                return unreserved(call.address.raw)  # one of several sockets of one port, perhaps
            # The port may be reserved for a call whose caller was killed, or (before Linux 5.19)
            # interrupted, and makes its call again just now.
            dead = [
                held
                for held in self._held.values()
                if held.call is not call
                and not held.call.answered
                and held.call.address.port == call.address.port
                and not self._listener.valid(held.call.notification)
            ]
            # Or for another thread's bind of the same socket. Who comes second is to hear from the
            # kernel that it is bound; waiting for those before alone, no two wait for each other.
            before = takewhile(lambda held: held.call is not call, self._held.values())
            same = [
                held
                for held in before
                if held.call.kind.inode == call.kind.inode and not held.call.answered
            ]
            if not dead and not same:
                return None
            for held in dead:
                held.scope.cancel()
            for held in (*dead, *same):
                await held.done.wait()

    async def _outcome(self, wish: Wish | Wishes, until: float, *, searched: bool) -> Outcome:
        """What becomes of a wish in the time that a call may take for it. The first calls of a
        session also wait for the search for a gateway."""
        if not searched:
            return Ignored("the search for a router goes on")
        left = round(max(0.0, until - trio.current_time()), 3)
        return await wish.outcome(left, telling=left >= self._settings["timeout"] / 2)

    def _bind(self, call: Call, reservation: Reservation, port: Port, wish: Wish | Wishes) -> None:
        """Bind on behalf of the program and tell it. No checkpoint, no way out in between."""
        if not self._listener.valid(call.notification):
            call.answered = True  # nobody waits: nothing is bound, and the wish is withdrawn
            return
        assert call.sock is not None
        kind = call.kind
        watched = Watched(
            cookie(call.sock), port, kind.domain, kind.protocol, kind.inode, call.process
        )
        self._watch(watched)  # first, so that no end is missed
        if points.STOP_AT:
            points.reached("bind")
        assert call.slot is not None
        self._page.stage(call.slot, BINDING_LENT if reservation.lends(call.sock) else BINDING)
        result = reservation.hand_over(call.sock)
        if points.STOP_AT:
            points.reached("claim")
        if result == 0:
            self._claim(call, watched, wish)
        else:
            self._unwatch(watched)
        if points.STOP_AT:
            points.reached("answer")
        if not self._answer(call, result) and result == 0:
            self._receiver.untold[watched.cookie] = call.address.raw
        if points.STOP_AT:
            points.reached("answered")

    def _watch(self, watched: Watched) -> None:
        if self._endings is not None:
            try:
                self._endings.watch(watched)
            except OSError as error:
                log.warning("the end of %s will not be seen: %s", watched.port, error.strerror)

    def _unwatch(self, watched: Watched) -> None:
        if self._endings is not None:
            self._endings.unwatch(watched.cookie)

    def _claim(self, call: Call, watched: Watched, wish: Wish | Wishes) -> None:
        sought = _sought(call, watched.port, watched.cookie)
        self._journal.socket(record_of(sought, watched.cookie, call.name, wish.ports))
        if points.STOP_AT:
            points.reached("recorded")
        wish.claim(watched.cookie)
        self._claimed(call, watched)

    async def adopt(self, one: Inherited, process: int) -> None:
        """Publish the port of a socket that a program was started with."""
        port = Port(Protocol.UDP if one.udp else Protocol.TCP, one.number)
        if not publishable(port, self._rules) or self._keeper.holds(one.cookie):
            return
        if self._settings["dry_run"]:
            log.info("%s, which the program was started with, would be published", port)
            return
        kind = Kind(one.domain, 0, one.protocol, one.inode)
        any_address = bytes(4 if one.domain == socket.AF_INET else 16)
        sought = Sought(kind, process, port, any_address, one.cookie)
        watched = sought.watched(one.cookie)
        ipv6 = one.domain == socket.AF_INET6 and self._rules.pinholes
        wanted = Publish(port.protocol, port, ipv6=ipv6)
        with await self._wish(wanted, port, Caller(program(process)[1], process)) as wish:
            self._watch(watched)
            if not await afterwards.alive(sought, events=self._events):
                self._unwatch(watched)
            elif self._watches(watched):
                self._journal.socket(record_of(sought, one.cookie, program(process)[1], wish.ports))
                wish.claim(watched.cookie)
                if points.STOP_AT:
                    points.reached("adopted")

    async def _pass_and_look(
        self, call: Call, reservation: Reservation, port: Port, wish: Wish | Wishes
    ) -> None:
        """Let the kernel carry the call out, and see what has become of the socket.

        Between letting go of the port and the kernel's bind() another program could take it; this
        one then gets EADDRINUSE, and the wish comes to nothing.
        """
        # Written down first: should natsup end just after it, the port is some socket's.
        number = -call.kind.inode if call.sock is None else cookie(call.sock)
        before = record_of(_sought(call, port, None), number, call.name, wish.ports)
        self._journal.socket(before)
        claimed = None
        try:
            sought = self._let_pass(call, port, reservation)
            if sought is not None:
                seen = await afterwards.bound(sought, events=self._events)
                if seen is not None:
                    claimed = await self._claim_seen(call, sought, seen, wish)
        finally:
            if claimed != number:
                self._journal.ended(number)

    async def _pass_and_publish(self, call: Call, port: Port) -> None:
        """Let the kernel carry a call out, and publish the port then: of an IPv6 socket that cannot
        be copied it is not known before whether it takes IPv4, too."""
        sought = self._let_pass(call, port, None)
        if sought is not None:
            await self._publish_passed(call, sought)

    async def _publish_passed(self, call: Call, sought: Sought) -> None:
        """Publish what the kernel makes of a call that was let pass."""
        port = sought.port
        seen = await afterwards.bound(sought, events=self._events)
        if seen is None:
            return
        wanted = Publish(port.protocol, port, ipv4=not seen.v6only, ipv6=self._rules.pinholes)
        if wanted.ipv4 or wanted.ipv6:
            with await self._wish(wanted, port, _caller(call)) as wish:
                await self._claim_seen(call, sought, seen, wish)

    def _let_pass(self, call: Call, port: Port, reservation: Reservation | None) -> Sought | None:
        """Let a call pass that is looked at afterwards; None if nobody waits for it any more."""
        if reservation is not None:
            reservation.let_go()
        # It stays in the page until it is claimed, for the next supervisor to see.
        passed = call.let_pass(self._listener)
        if points.STOP_AT:
            points.reached("passed")
        return _sought(call, port, call.cookie) if passed else None

    async def _claim_seen(
        self, call: Call, sought: Sought, seen: Seen, wish: Wish | Wishes
    ) -> int | None:
        """Claim a port for a socket that was seen to be bound, and may have ended by now. Returns
        its cookie if it has not."""
        watched = sought.watched(seen.cookie)
        self._watch(watched)
        if points.STOP_AT:
            points.reached("seen")
        again = await afterwards.look(sought, events=self._events)
        if again is None:
            self._unwatch(watched)
        elif self._watches(watched):
            self._claim(call, watched, wish)
            return watched.cookie
        return None

    def _watches(self, watched: Watched) -> bool:
        """Is the end of a socket still to come, as far as natsup can know?"""
        return self._endings is None or self._endings.watches(watched.cookie)

    def _drop(self, call: Call) -> None:
        """Forget a call that has been answered."""
        if call.slot is not None:
            self._page.drop(call.slot)
        call.slot = None

    def _answer(self, call: Call, number: int) -> bool:
        if call.sock is not None:
            call.sock.close()  # before the answer: it keeps the port bound
        call.answered = True
        return self._listener.answer(call.notification, number)


def _sought(call: Call, port: Port, number: int | None) -> Sought:
    """The socket of a call. ``number``: its cookie, where it is known."""
    raw = call.address.raw
    address = raw[4:8] if call.address.domain == socket.AF_INET else raw[8:24]
    return Sought(call.kind, call.process, port, address, number)


def _caller(call: Call) -> Caller:
    return Caller(call.name, call.process)
