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

from natsup.state.happenings import Caller
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
from natsup.supervisor.page import Page
from natsup.supervisor.pinholes import Pinholes
from natsup.supervisor.receiver import Call, Receiver
from natsup.supervisor.reservation import Reservation, reserve, reserve_unseen, unreserved
from natsup.supervisor.target import cookie, program
from natsup.supervisor.verdict import Publish, publishable
from natsup.supervisor.wishes import Wishes

log = logging.getLogger("natsup.session")

_LOOK_AT_CALLER_SECONDS = 0.05
_EPHEMERAL_TRIES = 8


@dataclass(frozen=True, slots=True)
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
        self._finder = finder
        self._pinholes = pinholes
        self._rules = receiver.rules
        self._endings = endings
        self._events = events
        self._claimed = claimed
        self._held: list[Held] = []

    async def serve(self, call: Call) -> None:
        """From the receiver to the answer, whatever happens."""
        held = Held(call, trio.CancelScope(), trio.Event())
        self._held.append(held)
        try:
            with held.scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._watch_caller, held)
                    await self._publish(call)
                    nursery.cancel_scope.cancel()
        except Exception:
            log.exception("%s: a call failed", call)
        finally:
            if call.sock is not None:
                call.sock.close()  # before the answer: it keeps the port bound
            if not call.answered:
                self._listener.let_pass(call.notification)
            self._drop(call)
            self._held.remove(held)
            held.done.set()

    async def _watch_caller(self, held: Held) -> None:
        """Give the call up once nobody waits for its answer any more: the kernel does not tell."""
        while self._listener.valid(held.call.notification):  # noqa: ASYNC110 - that is why
            await trio.sleep(_LOOK_AT_CALLER_SECONDS)
        if not held.call.answered:
            held.scope.cancel()

    async def _publish(self, call: Call) -> None:
        """Reserve, ask, bind, answer. Returns without an answer where the call is to pass.

        Port 0: what is not to be had stays reserved until another port is found, so that the kernel
        chooses a new one each time. Where none is found in a few tries, and in the time that any
        call may take, the call passes: without natsup a bind() of port 0 does not fail.
        """
        if call.sock is None and call.address.ipv4 is None and call.wanted.port is not None:
            if self._settings["dry_run"]:
                log.info("%s would be published for %s", call.wanted.port, call)
                return
            await self._pass_and_publish(call, call.wanted.port)
            return
        fixed = call.wanted.port
        until: float | None = None
        with contextlib.ExitStack() as reserved:
            for _ in range(_EPHEMERAL_TRIES):
                reservation = await self._reserve(call)
                if reservation is None:
                    return  # the kernel will tell the program the same
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
                    return None
            if call.sock is None and call.wanted.port and self._wanted(call.wanted.port):
                return unreserved(call.address.raw)  # one of several sockets of one port, perhaps
            # The port may be reserved for a call whose caller was killed, or (before Linux 5.19)
            # interrupted, and makes its call again just now.
            dead = [
                held
                for held in self._held
                if held.call is not call
                and not held.call.answered
                and held.call.address.port == call.address.port
                and not self._listener.valid(held.call.notification)
            ]
            # Or for another thread's bind of the same socket. Who comes second is to hear from the
            # kernel that it is bound; waiting for those before alone, no two wait for each other.
            before = takewhile(lambda held: held.call is not call, self._held)
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
        return await wish.outcome(round(max(0.0, until - trio.current_time()), 3))

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
        result = reservation.hand_over(call.sock)
        if result == 0:
            self._claim(call, watched, wish)
        else:
            self._unwatch(watched)
        if not self._answer(call, result) and result == 0:
            self._receiver.untold[watched.cookie] = call.address.raw

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
        wish.claim(watched.cookie)
        self._claimed(call, watched)

    async def adopt(self, one: Inherited, process: int) -> None:
        """Publish the port of a socket that a program was started with."""
        port = Port(Protocol.UDP if one.udp else Protocol.TCP, one.number)
        if not publishable(port, self._rules):
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
                wish.claim(watched.cookie)

    async def _pass_and_look(
        self, call: Call, reservation: Reservation, port: Port, wish: Wish | Wishes
    ) -> None:
        """Let the kernel carry the call out, and see what has become of the socket.

        Between letting go of the port and the kernel's bind() another program could take it; this
        one then gets EADDRINUSE, and the wish comes to nothing.
        """
        sought = self._let_pass(call, port, reservation)
        if sought is not None:
            seen = await afterwards.bound(sought, events=self._events)
            if seen is not None:
                await self._claim_seen(call, sought, seen, wish)

    async def _pass_and_publish(self, call: Call, port: Port) -> None:
        """Let the kernel carry a call out, and publish the port then: of an IPv6 socket that cannot
        be copied it is not known before whether it takes IPv4, too."""
        sought = self._let_pass(call, port, None)
        if sought is None:
            return
        seen = await afterwards.bound(sought, events=self._events)
        if seen is None:
            return
        wanted = Publish(port.protocol, port, ipv4=not seen.v6only, ipv6=self._rules.pinholes)
        if wanted.ipv4 or wanted.ipv6:
            with await self._wish(wanted, port, _caller(call)) as wish:
                await self._claim_seen(call, sought, seen, wish)

    def _let_pass(self, call: Call, port: Port, reservation: Reservation | None) -> Sought | None:
        """Let a call pass that is looked at afterwards; None if nobody waits for it any more."""
        number = None
        if call.sock is not None:
            number = cookie(call.sock)
            call.sock.close()
        if reservation is not None:
            reservation.let_go()
        call.answered = True
        passed = self._listener.let_pass(call.notification)
        self._drop(call)
        raw = call.address.raw
        address = raw[4:8] if call.address.domain == socket.AF_INET else raw[8:24]
        return Sought(call.kind, call.process, port, address, number) if passed else None

    async def _claim_seen(
        self, call: Call, sought: Sought, seen: Seen, wish: Wish | Wishes
    ) -> None:
        """Claim a port for a socket that was seen to be bound, and may have ended by now."""
        watched = sought.watched(seen.cookie)
        self._watch(watched)
        again = await afterwards.look(sought, events=self._events)
        if again is None:
            self._unwatch(watched)
        elif self._watches(watched):
            self._claim(call, watched, wish)

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


def _caller(call: Call) -> Caller:
    return Caller(call.name, call.process)
