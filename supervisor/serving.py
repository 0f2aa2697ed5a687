"""The session: one program's calls served, its sockets watched, its ports kept on the gateway.

receiver's thread → calls → a task each → keeper → gateway
                                ↓
                    endings → keeper.release
"""

import logging
import os
import signal
import sys
import time
from pathlib import Path

import trio

from natsup.state import aside, points
from natsup.state.history import History
from natsup.state.journal import Header, Journal, SessionRecord, boot
from natsup.state.keeper import Keeper
from natsup.state.ledger import Ledger, Policy
from natsup.state.secret import secret
from natsup.supervisor import beginning, clock, guard, handover, takeover
from natsup.supervisor.client_watch import ClientWatch
from natsup.supervisor.closings import Closings
from natsup.supervisor.destroyed import DestroyEvents
from natsup.supervisor.endings import Endings
from natsup.supervisor.finding import Finder
from natsup.supervisor.inherited import Inherited
from natsup.supervisor.kin import Kin
from natsup.supervisor.listener import Listener
from natsup.supervisor.mirror import Mirror
from natsup.supervisor.neighbours import Announcements
from natsup.supervisor.options import Settings
from natsup.supervisor.orders import Orders
from natsup.supervisor.page import Page
from natsup.supervisor.pinholes import Pinholes
from natsup.supervisor.publishing import Publisher
from natsup.supervisor.receiver import Receiver
from natsup.supervisor.surroundings import Surroundings
from natsup.supervisor.target import program
from natsup.supervisor.telling import Telling

log = logging.getLogger("natsup.session")

_CLEAN_UP_SECONDS = 5.0  # for the router to take back what the session had
_FINISH_CALLS_SECONDS = 3.0  # for the calls that are being served, before the session begins anew
_LAST_WORDS_SECONDS = 1.0  # for hooks, where everything ends with PID 1
_WRITE_UP_SECONDS = 1.0  # for the disk to take the last of the history


def serve(
    command: list[str],
    settings: Settings,
    surroundings: Surroundings,
    listener: Listener,
    page: Page,
    control: handover.End,
    receiver: Receiver,
    mirror: Mirror | None,
    journals: list[int] | None,
    *,
    finish: bool,
) -> int:
    """Run the session to its end. Returns the supervisor's exit status.

    ``journals``: descriptors that another supervisor of this session has left; None if there was
    none before."""
    pid = surroundings.pid if mirror is None else mirror.child
    folder = beginning.state_folder(surroundings)
    resumed = None if journals is None else Journal.resume(journals)
    before = None if resumed is None else resumed[1]
    session = beginning.new_name() if before is None else before.header.session
    beginning.open_log(settings, surroundings, session)
    if resumed is None:
        header = Header(session, pid, command, surroundings.started, boot())
        journal = Journal.create(folder, header)
    else:
        journal = resumed[0]
    for fd in journals or ():
        if fd != journal.fileno():
            os.close(fd)
    number = 1 if before is None else before.supervisors + 1
    journal.supervisor(os.getpid(), number, page.version)
    if points.STOP_AT:
        points.reached("created")
    telling = Telling(settings, surroundings)
    history = History(folder, session, command, tell=telling.tell)
    if journals is not None and resumed is None:
        log.warning(
            "the journal of this session is lost: its ports stay on the router until their lease"
            " ends; further ones are published as always"
        )
    beginning.tell(command, pid, first=journals is None)
    try:
        whole = Session(
            settings,
            listener,
            page,
            control,
            receiver,
            mirror,
            journal,
            history,
            telling,
            folder,
            session,
            pid,
            surroundings.inherited,
            before,
            finish=finish,
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
        mirror: Mirror | None,
        journal: Journal,
        history: History,
        telling: Telling,
        folder: Path,
        session: str,
        pid: int,
        inherited: list[Inherited],
        before: SessionRecord | None,
        *,
        finish: bool,
    ) -> None:
        """``before``: what stood in the journal when another supervisor left it. ``finish``: the
        guard wants no more than an end."""
        self._finish = finish
        self._before = before
        self._control = control
        self._mirror = mirror
        self._pid = pid
        self._inherited = inherited
        self._settings = settings
        self._listener = listener
        self._page = page
        self._receiver = receiver
        self._journal = journal
        self._history = history
        self._telling = telling
        self._clients = ClientWatch(receiver, journal, history)
        self._neighbours = Announcements(session)
        self._keeper, self._pinhole_keeper = (
            Keeper(
                Ledger(Policy(lease=settings["lease"])),
                journal,
                clock=clock.now,
                sleep_until=clock.sleep_until,
                neighbours=self._neighbours,
                tell=history.add,
            )
            for _ in range(2)
        )
        self._pinholes = Pinholes(settings, self._pinhole_keeper, lambda: secret(folder))
        self._orders = Orders(
            session, lambda port: self._pinhole_keeper if port.ipv6 else self._keeper
        )
        self._finder = Finder(
            settings,
            self._keeper,
            receiver.rules,
            folder,
            self._neighbours,
            history,
            self._pinholes,
        )

    async def run(self) -> None:
        self._kin = Kin(self._control, self._mirror, self._start_guard, self._listener.abandoned)
        if self._finish:
            self._kin.finish.set()
            self._kin.finish_now = True
        if self._journal.fileno() is not None:
            self._kin.tell_guard(handover.KEEP, fd=self._journal.fileno())
            self._journal.hand_on = lambda fd: self._kin.tell_guard(handover.KEEP, fd=fd)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._history.run)
            nursery.start_soon(self._telling.run)
            nursery.start_soon(self._keeper.run)
            nursery.start_soon(self._pinhole_keeper.run)
            await self._run_with_keeper()
            log.info("nobody is left: cleaning up")
            if points.STOP_AT:
                points.reached("end")
            left = not await self._clean_up()
            await self._history.close(_WRITE_UP_SECONDS)
            if self._kin.finish_now:
                await self._telling.close(_LAST_WORDS_SECONDS)
            else:
                await self._telling.close()
            nursery.cancel_scope.cancel()
        if left:
            log.warning("the router did not take everything back; natsup clean tries again")
        self._neighbours.close()
        if points.STOP_AT:
            points.reached("cleaned")
        self._journal.end(left=left)
        if points.STOP_AT:
            points.reached("over")
        self._kin.tell_guard(handover.DONE)

    async def _clean_up(self) -> bool:
        """Take everything back from the router. True: all is gone."""
        gone: list[bool] = []

        async def close(keeper: Keeper) -> None:
            gone.append(await keeper.close(_CLEAN_UP_SECONDS))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(close, self._keeper)
            nursery.start_soon(close, self._pinhole_keeper)
        return all(gone)

    async def _run_with_keeper(self) -> None:
        """Serve until nobody can call any more, or PID 1 is about to end."""
        endings = self._open_endings()
        publisher = Publisher(
            self._settings,
            self._listener,
            self._page,
            self._receiver,
            self._keeper,
            self._journal,
            self._finder,
            endings,
            self._pinholes,
            events=self._receiver.closes is None,
            claimed=self._clients.claimed,
        )
        if self._before is not None:
            if points.STOP_AT:
                points.reached("restore")
            await takeover.resume(
                self._before,
                self._journal,
                self._keeper,
                self._pinholes,
                endings,
                events=self._receiver.closes is None,
            )
            if points.STOP_AT:
                points.reached("restored")
        meanwhile = await aside.run(self._bound_meanwhile)
        if points.STOP_AT and self._before is not None:
            points.reached("adopt")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._begin_anew_when_told, publisher)
            nursery.start_soon(self._orders.run)
            nursery.start_soon(self._take_calls, publisher, nursery)
            nursery.start_soon(publisher.watch_callers)
            if not self._settings["dry_run"]:
                nursery.start_soon(self._finder.run)
                nursery.start_soon(self._pinholes.run)
            nursery.start_soon(self._clients.run)
            nursery.start_soon(self._kin.hear_guard)
            nursery.start_soon(self._kin.reap)
            if endings is not None:
                nursery.start_soon(self._watch_endings, endings)
            nursery.start_soon(self._wait_for_last_user)
            for one in self._inherited:
                nursery.start_soon(publisher.adopt, one, self._pid)
            nursery.start_soon(self._adopt, publisher, meanwhile)
            await self._kin.finish.wait()
            await self._kin.wait_for_child()
            if self._before is not None:  # then there may be something to remove, by whatever end
                await self._finder.searched()
            nursery.cancel_scope.cancel()

    def _open_endings(self) -> Endings | None:
        """How the ends of sockets are seen; None where they cannot be."""
        closes = self._receiver.closes
        if closes is not None:
            log.info("the ends of sockets are seen by trapping close()")
            return Closings(closes, pidfds=self._receiver.pidfds)
        try:
            return DestroyEvents()
        except OSError as error:
            log.warning(
                "the kernel does not tell when sockets end (%s): ports stay forwarded until the"
                " program ends",
                error.strerror,
            )
            return None

    async def _wait_for_last_user(self) -> None:
        fd = self._listener.end()
        try:
            await trio.lowlevel.wait_readable(fd)
        finally:
            os.close(fd)
        self._kin.finish.set()

    def _bound_meanwhile(self) -> list[tuple[Inherited, int]]:
        """The sockets of calls that nobody served, because there was no supervisor."""
        left, rules = self._receiver.left, self._receiver.rules
        if not left:
            return []
        clients = self._receiver.clients
        found = takeover.bound_meanwhile(left, ephemeral=rules.ephemeral)
        return [
            (one, process)
            for one, process in found
            if not (one.udp and clients.by_name(program(process)[1]) is not None)
        ]

    async def _adopt(self, publisher: Publisher, found: list[tuple[Inherited, int]]) -> None:
        """Publish what was bound meanwhile. Until that is written down, the next supervisor is to
        find it, too."""
        async with trio.open_nursery() as nursery:
            for one, process in found:
                nursery.start_soon(publisher.adopt, one, process)
        self._page.seen_to(self._receiver.left)
        self._receiver.left = []

    def _start_guard(self, control: int) -> int:
        """Start a guard in the place of one that has gone. Returns its pid; raises OSError."""
        journal = self._journal.fileno()
        fds = [self._listener.fd, self._page.fd, control, *([] if journal is None else [journal])]
        copies = [os.dup(fd) for fd in fds]
        carried = guard.carried(self._page)
        try:
            for fd in (*copies, *carried):
                os.set_inheritable(fd, True)
            words = [sys.executable, "-P", "-m", "natsup.supervisor.guard", *map(str, copies)]
            return os.posix_spawn(sys.executable, words, os.environ)
        finally:
            for fd in copies:
                os.close(fd)
            for fd in carried:
                os.set_inheritable(fd, False)

    async def _begin_anew_when_told(self, publisher: Publisher) -> None:
        """SIGUSR2: go on as a new process image, of the natsup that is installed by now."""
        with trio.open_signal_receiver(signal.SIGUSR2) as arrivals:
            async for _ in arrivals:
                await self._begin_anew(publisher)

    async def _begin_anew(self, publisher: Publisher) -> None:
        log.info("beginning anew")
        await self._telling.close()
        with trio.move_on_after(_FINISH_CALLS_SECONDS):
            await publisher.idle()
        await self._history.close(_WRITE_UP_SECONDS)
        await self._telling.close(_WRITE_UP_SECONDS)
        journal = self._journal.fileno()
        if points.STOP_AT:
            points.reached("anew")
        before = signal.getsignal(signal.SIGUSR2)
        # No checkpoint from here on: what comes now is the guard's, and what has come is left.
        self._kin.tell_guard(handover.PASS)
        self._receiver.paused = True
        try:
            guard.become_supervisor(
                self._listener.fd,
                self._page,
                self._kin.control.fileno(),
                program=None if self._mirror is None else self._mirror.child,
                journals=[] if journal is None else [journal],
                how=guard.AGAIN,
            )
        except OSError as error:
            log.warning("natsup cannot begin anew: %s", error.strerror)
            signal.signal(signal.SIGUSR2, before)
            self._kin.tell_guard(handover.TAKING)
            self._receiver.start()

    async def _take_calls(self, publisher: Publisher, nursery: trio.Nursery) -> None:
        """Hear the receiver."""
        while True:
            await trio.lowlevel.wait_readable(self._receiver.wake)
            os.eventfd_read(self._receiver.wake)
            if self._receiver.failed:
                raise RuntimeError("no calls are received any more")
            while self._receiver.taken:
                nursery.start_soon(publisher.serve, self._receiver.taken.popleft())
            while self._receiver.known:
                self._clients.tell(*self._receiver.known.popleft())
            while self._receiver.rings:
                self._tell_of_io_uring(*self._receiver.rings.popleft())

    async def _watch_endings(self, source: Endings) -> None:
        while True:
            for watched in await source.next():
                self._gone(watched.cookie)

    def _gone(self, number: int) -> None:
        self._keeper.release(number)
        self._pinholes.release(number)
        self._receiver.untold.pop(number, None)
        self._clients.gone(number)

    def _tell_of_io_uring(self, process: int, name: str) -> None:
        log.warning(
            "%s (pid %d) uses io_uring: what it binds that way is not seen, nor published; natsup"
            " exec --no-io-uring keeps programs from it",
            name,
            process,
        )
        self._journal.io_uring(name, process, wall=time.time())
