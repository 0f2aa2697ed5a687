"""The session: one program's calls served, its sockets watched, its ports kept on the gateway.

    receiver's thread → calls → a task each → keeper → gateway
                                    ↓
                        endings → keeper.release

A slow router holds up the one call that waits for it. From the bind on behalf of the program to the
answer there is no checkpoint: nothing can come between, and no result is lost.
"""

import contextlib
import errno
import logging
import os
import signal
import socket
import time
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path

import trio

from natsup.state.happenings import AGAIN, Caller, Event, What
from natsup.state.history import History
from natsup.state.journal import ClientRecord, Header, Journal, default_directory
from natsup.state.keeper import Keeper, Wish
from natsup.state.ledger import Ledger, Policy
from natsup.state.model import Conflict, Ignored, Mapped, Outcome, Port, Protocol
from natsup.supervisor import afterwards, clock, handover
from natsup.supervisor import log as logs
from natsup.supervisor.afterwards import Seen, Sought
from natsup.supervisor.clients import ALL_BRIEF, MANY_AT_ONCE, Once
from natsup.supervisor.closings import Closings
from natsup.supervisor.destroyed import DestroyEvents
from natsup.supervisor.endings import Endings, Watched
from natsup.supervisor.finding import Finder
from natsup.supervisor.glimpse import Kind
from natsup.supervisor.inherited import Inherited
from natsup.supervisor.listener import Listener
from natsup.supervisor.neighbours import Announcements
from natsup.supervisor.options import Settings, unknown
from natsup.supervisor.page import Page
from natsup.supervisor.receiver import Call, Receiver
from natsup.supervisor.reservation import Reservation, reserve, reserve_unseen, unreserved
from natsup.supervisor.surroundings import Surroundings
from natsup.supervisor.target import cookie, program
from natsup.supervisor.verdict import publishable

log = logging.getLogger("natsup.session")

_CLEAN_UP_SECONDS = 5.0  # for the router to take back what the session had
_WRITE_UP_SECONDS = 1.0  # for the disk to take the last of the history
_LOOK_AT_CALLER_SECONDS = 0.05
_LOOK_AT_CLIENTS_SECONDS = 5.0
_MOST_CLIENTS = 1024  # that are written down at a time
_EPHEMERAL_TRIES = 8


@dataclass(frozen=True, slots=True)
class Held:
    """A call that is being served: how to give it up, and when that has been done."""

    call: Call
    scope: trio.CancelScope
    done: trio.Event


def serve(
    command: list[str],
    settings: Settings,
    surroundings: Surroundings,
    listener: Listener,
    page: Page,
    control: handover.End,
    receiver: Receiver,
    child: int | None,
) -> int:
    """Run the session to its end. Returns the supervisor's exit status."""
    pid = surroundings.pid if child is None else child
    folder = default_directory(os.environ, os.getuid())
    folder = surroundings.folder / folder  # a relative one is relative to where natsup was typed
    session = f"{os.getpid():x}-{os.urandom(3).hex()}"
    logs.set_up(
        surroundings.log_to,
        file=settings["log"],
        folder=folder,
        session=session,
    )
    journal = Journal.create(
        folder, Header(session, pid=pid, command=command, started=surroundings.started)
    )
    history = History(folder, session, command)
    log.info("session for %s (pid %d)", command[0], pid)
    for name in unknown(os.environ):
        log.warning("%s is no option: is it mistyped? natsup exec --help lists them all", name)
    try:
        whole = Session(
            settings,
            listener,
            page,
            control,
            receiver,
            child,
            journal,
            history,
            folder,
            session,
            pid,
            surroundings.inherited,
        )
        trio.run(whole.run)
    except BaseException:
        # The guard takes over: every call passes from here on, and the next session, or natsup
        # clean, removes what the journal names.
        log.exception("the supervisor failed")
        return 70
    finally:
        logging.shutdown()
    return 0


class Session:
    """Everything that one `natsup exec` does after its program has been started."""

    def __init__(
        self,
        settings: Settings,
        listener: Listener,
        page: Page,
        control: handover.End,
        receiver: Receiver,
        child: int | None,
        journal: Journal,
        history: History,
        folder: Path,
        session: str,
        pid: int,
        inherited: list[Inherited],
    ) -> None:
        self._pid = pid
        self._inherited = inherited
        self._settings = settings
        self._listener = listener
        self._page = page
        self._receiver = receiver
        self._child = child
        self._journal = journal
        self._history = history
        self._control = control
        self._neighbours = Announcements(session)
        self._keeper = Keeper(
            Ledger(Policy(lease=settings["lease"])),
            journal,
            clock=clock.now,
            sleep_until=clock.sleep_until,
            neighbours=self._neighbours,
            tell=history.add,
        )
        self._rules = receiver.rules
        self._closes = receiver.closes
        self._endings: Endings | None = None
        self._finder = Finder(
            settings, self._keeper, self._rules, folder, self._neighbours, history
        )
        self._held: list[Held] = []
        self._finish = trio.Event()
        self._child_ended = trio.Event()
        # UDP sockets by cookie: whose they are and since when, to tell clients from servers
        self._udp: dict[int, tuple[int, str, float]] = {}
        self._clients: dict[int, ClientRecord] = {}  # that are clients now, as far as is known
        self._client_came = trio.Event()
        self._said = Once(again=AGAIN)

    async def run(self) -> None:
        if self._journal.fileno() is not None:
            self._tell_guard(handover.KEEP, fd=self._journal.fileno())
            self._journal.hand_on = lambda fd: self._tell_guard(handover.KEEP, fd=fd)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._history.run)
            nursery.start_soon(self._keeper.run)
            await self._run_with_keeper()
            log.info("nobody is left: cleaning up")
            left = not await self._keeper.close(_CLEAN_UP_SECONDS)
            await self._history.close(_WRITE_UP_SECONDS)
            nursery.cancel_scope.cancel()
        if left:
            log.warning("the router did not take everything back; natsup clean tries again")
        self._neighbours.close()
        self._journal.end(left=left)
        self._tell_guard(handover.DONE)

    async def _run_with_keeper(self) -> None:
        """Serve until nobody can call any more, or PID 1 is about to end."""
        try:
            if self._closes is None:
                self._endings = DestroyEvents()
            else:
                log.info("the ends of sockets are seen by trapping close()")
                self._endings = Closings(self._closes, pidfds=self._receiver.pidfds)
        except OSError as error:
            log.warning(
                "the kernel does not tell when sockets end (%s): ports stay forwarded until the"
                " program ends",
                error.strerror,
            )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._take_calls, nursery)
            if not self._settings["dry_run"]:
                nursery.start_soon(self._finder.run)
            nursery.start_soon(self._hear_guard)
            nursery.start_soon(self._watch_clients)
            if self._endings is not None:
                nursery.start_soon(self._watch_endings, self._endings)
            if self._child is not None:
                nursery.start_soon(self._reap, self._child)
            nursery.start_soon(self._wait_for_last_user)
            for one in self._inherited:
                nursery.start_soon(self._adopt, one)
            await self._finish.wait()
            await self._wait_for_child()
            nursery.cancel_scope.cancel()

    async def _wait_for_last_user(self) -> None:
        fd = self._listener.end()
        try:
            await trio.lowlevel.wait_readable(fd)
        finally:
            os.close(fd)
        self._finish.set()

    # --- calls ---

    async def _take_calls(self, nursery: trio.Nursery) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._receiver.wake)
            os.eventfd_read(self._receiver.wake)
            if self._receiver.failed:
                raise RuntimeError("no calls are received any more")
            while self._receiver.taken:
                nursery.start_soon(self._serve_call, self._receiver.taken.popleft())
            while self._receiver.known:
                self._tell_of_client(*self._receiver.known.popleft())
            while self._receiver.rings:
                self._tell_of_io_uring(*self._receiver.rings.popleft())

    async def _serve_call(self, call: Call) -> None:
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
                with self._keeper.wish(port, Caller(call.name, call.process)) as wish:
                    searched = await self._finder.searched()
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

    async def _reserve(self, call: Call) -> Reservation | None:
        while True:
            try:
                if call.sock is None:
                    return reserve_unseen(call.kind, call.address.raw)
                return reserve(call.sock, call.address.raw)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    return None
            if call.sock is None and call.wanted.port and self._keeper.wanted(call.wanted.port):
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

    async def _outcome(self, wish: Wish, until: float, *, searched: bool) -> Outcome:
        """What becomes of a wish in the time that a call may take for it. The first calls of a
        session also wait for the search for a gateway."""
        if not searched:
            return Ignored("the search for a router goes on")
        return await wish.outcome(round(max(0.0, until - trio.current_time()), 3))

    def _bind(self, call: Call, reservation: Reservation, port: Port, wish: Wish) -> None:
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

    def _claim(self, call: Call, watched: Watched, wish: Wish) -> None:
        port = watched.port
        wish.claim(watched.cookie)
        if port.protocol is Protocol.UDP and not self._receiver.clients.serves(call.name):
            now = time.monotonic()
            self._udp[watched.cookie] = (call.process, call.name, now)
            self._look_at_client(call.process)
            if self._receiver.clients.got(call.process, port.number, now):
                self._tell_of_client(call.process, call.name, MANY_AT_ONCE)

    async def _adopt(self, one: Inherited) -> None:
        """Publish the port of a socket that the program was started with."""
        port = Port(Protocol.UDP if one.udp else Protocol.TCP, one.number)
        if not publishable(port, self._rules):
            return
        if self._settings["dry_run"]:
            log.info("%s, which the program was started with, would be published", port)
            return
        kind = Kind(one.domain, 0, one.protocol, one.inode)
        any_address = bytes(4 if one.domain == socket.AF_INET else 16)
        sought = Sought(kind, self._pid, port, any_address, one.cookie)
        watched = sought.watched(one.cookie)
        with self._keeper.wish(port, Caller(program(self._pid)[1], self._pid)) as wish:
            self._watch(watched)
            if not await afterwards.alive(sought, events=self._closes is None):
                self._unwatch(watched)
            elif self._watches(watched):
                wish.claim(watched.cookie)

    async def _pass_and_look(
        self, call: Call, reservation: Reservation, port: Port, wish: Wish
    ) -> None:
        """Let the kernel carry the call out, and see what has become of the socket.

        Between letting go of the port and the kernel's bind() another program could take it; this
        one then gets EADDRINUSE, and the wish comes to nothing.
        """
        sought = self._let_pass(call, port, reservation)
        if sought is not None:
            seen = await afterwards.bound(sought, events=self._closes is None)
            if seen is not None:
                await self._claim_seen(call, sought, seen, wish)

    async def _pass_and_publish(self, call: Call, port: Port) -> None:
        """Let the kernel carry a call out, and publish the port then: of an IPv6 socket that cannot
        be copied it is not known before whether it takes IPv4, too."""
        sought = self._let_pass(call, port, None)
        if sought is None:
            return
        seen = await afterwards.bound(sought, events=self._closes is None)
        if seen is not None and not seen.v6only:
            with self._keeper.wish(port, Caller(call.name, call.process)) as wish:
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
        address = call.address.raw[4:8] if call.address.domain == socket.AF_INET else b""
        if not address:
            address = call.address.raw[8:24]
        return Sought(call.kind, call.process, port, address, number) if passed else None

    async def _claim_seen(self, call: Call, sought: Sought, seen: Seen, wish: Wish) -> None:
        """Claim a port for a socket that was seen to be bound, and may have ended by now."""
        watched = sought.watched(seen.cookie)
        self._watch(watched)
        again = await afterwards.look(sought, events=self._closes is None)
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

    # --- the ends of sockets ---

    async def _watch_endings(self, source: Endings) -> None:
        while True:
            for watched in await source.next():
                self._gone(watched.cookie)

    def _gone(self, number: int) -> None:
        self._keeper.release(number)
        self._receiver.untold.pop(number, None)
        if number in self._udp:
            process, name, since = self._udp.pop(number)
            now = time.monotonic()
            if self._receiver.clients.ended(process, lived=now - since, now=now):
                self._tell_of_client(process, name, ALL_BRIEF)

    def _tell_of_io_uring(self, process: int, name: str) -> None:
        log.warning(
            "%s (pid %d) uses io_uring: what it binds that way is not seen, nor published; natsup"
            " exec --no-io-uring keeps programs from it",
            name,
            process,
        )
        self._journal.io_uring(name, process, wall=time.time())

    def _tell_of_client(self, process: int, name: str, reason: str) -> None:
        """Once for each: it is one for as long as it goes on like that. Log and history tell of all
        with its name, like the children of a shell script, by the first of them."""
        known = self._clients.get(process)
        if known is not None and known.name == name:
            return
        if len(self._clients) < _MOST_CLIENTS:
            wall = time.time()
            record = self._clients[process] = ClientRecord(name, process, reason, since=wall)
            self._journal.client(record, wall=wall)
            self._client_came.set()
        if self._said.first((name, reason), time.monotonic()):
            log.info("%s (pid %d): a client (%s), its UDP ports are passed", name, process, reason)
            self._history.add(Event(What.CLIENT, None, Caller(name, process), reason))

    async def _watch_clients(self) -> None:
        while True:
            await self._client_came.wait()
            await trio.sleep(_LOOK_AT_CLIENTS_SECONDS)
            for process in list(self._clients):
                self._look_at_client(process)
            if not self._clients:
                self._client_came = trio.Event()

    def _look_at_client(self, process: int) -> None:
        """Has it been quiet, or ended? Then it is shown as a client no more."""
        record = self._clients.get(process)
        if record is None:
            return
        clients = self._receiver.clients
        if _lives(process) and (
            clients.by_name(record.name) is not None or clients.is_client(process, time.monotonic())
        ):
            return
        del self._clients[process]
        self._receiver.known_once.forget((process, record.name))
        wall = time.time()
        self._journal.client(replace(record, until=wall), wall=wall)

    # --- guard and child ---

    async def _hear_guard(self) -> None:
        self._control.setblocking(False)
        while True:
            await trio.lowlevel.wait_readable(self._control)
            word, _, _ = handover.receive(self._control)
            if word == handover.FINISH:
                self._finish.set()
            elif not word:
                log.warning("the guard has gone: should this process die, so do further binds")
                return

    def _tell_guard(self, word: bytes, value: int | None = None, fd: int | None = None) -> bool:
        """False: it lives and does not listen, and may be told later."""
        try:
            handover.send(self._control, word, value, fd)
        except OSError as error:
            log.debug("the guard cannot be told %s: %s", word.decode(), error.strerror)
            return isinstance(error, (BrokenPipeError, ConnectionResetError))
        return True

    async def _reap(self, child: int) -> None:
        """As the subreaper of the program's tree: nobody stays a zombie, the guard is told."""
        with trio.open_signal_receiver(signal.SIGCHLD) as arrivals:
            self._collect(child)
            async for _ in arrivals:
                self._collect(child)

    def _collect(self, child: int) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == child:
                self._mirror(status)

    def _mirror(self, status: int) -> None:
        """What happened to the program happens to natsup.

        SIGSTOP and SIGCONT both go to it from here, so that the later one counts. A stop by another
        signal the guard has to repeat itself, and sees to it that a SIGCONT is not lost on it.
        """
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            self._child = None
            self._child_ended.set()
        guard = handover.maker(self._control)
        if os.getppid() != guard:  # it is dead, and its number may be another's
            return
        if os.WIFSTOPPED(status) and os.WSTOPSIG(status) == signal.SIGSTOP:
            os.kill(guard, signal.SIGSTOP)
            return
        if not os.WIFCONTINUED(status):
            self._tell_guard(handover.STATUS, status)
        if not os.WIFSTOPPED(status):
            os.kill(guard, signal.SIGCONT)  # the stopped do not hear of an end either

    async def _wait_for_child(self) -> None:
        """See the program's end. The filter has lost its last user before wait() knows of it: in
        do_exit(), kernel/exit.c, of Linux 6.11."""
        if self._child is not None:
            await self._child_ended.wait()


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
