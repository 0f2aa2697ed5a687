"""The session: one program's calls served, its sockets watched, its ports kept on the gateway.

receiver's thread → calls → a task each → keeper → gateway
                                ↓
                    endings → keeper.release
"""

import logging
import os
import time
from pathlib import Path

import trio

from natsup.state.history import History
from natsup.state.journal import Header, Journal, default_directory
from natsup.state.keeper import Keeper
from natsup.state.ledger import Ledger, Policy
from natsup.state.secret import secret
from natsup.supervisor import clock, handover
from natsup.supervisor import log as logs
from natsup.supervisor.client_watch import ClientWatch
from natsup.supervisor.closings import Closings
from natsup.supervisor.destroyed import DestroyEvents
from natsup.supervisor.endings import Endings
from natsup.supervisor.finding import Finder
from natsup.supervisor.inherited import Inherited
from natsup.supervisor.kin import Kin
from natsup.supervisor.listener import Listener
from natsup.supervisor.neighbours import Announcements
from natsup.supervisor.options import Settings, unknown
from natsup.supervisor.page import Page
from natsup.supervisor.pinholes import Pinholes
from natsup.supervisor.publishing import Publisher
from natsup.supervisor.receiver import Receiver
from natsup.supervisor.surroundings import Surroundings

log = logging.getLogger("natsup.session")

_CLEAN_UP_SECONDS = 5.0  # for the router to take back what the session had
_WRITE_UP_SECONDS = 1.0  # for the disk to take the last of the history


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
        self._journal = journal
        self._history = history
        self._kin = Kin(control, child)
        self._clients = ClientWatch(receiver, journal, history)
        self._neighbours = Announcements(session)
        self._keeper = Keeper(
            Ledger(Policy(lease=settings["lease"])),
            journal,
            clock=clock.now,
            sleep_until=clock.sleep_until,
            neighbours=self._neighbours,
            tell=history.add,
        )
        self._pinhole_keeper = Keeper(
            Ledger(Policy(lease=settings["lease"])),
            journal,
            clock=clock.now,
            sleep_until=clock.sleep_until,
            neighbours=self._neighbours,
            tell=history.add,
        )
        self._pinholes = Pinholes(settings, self._pinhole_keeper, lambda: secret(folder))
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
        if self._journal.fileno() is not None:
            self._kin.tell_guard(handover.KEEP, fd=self._journal.fileno())
            self._journal.hand_on = lambda fd: self._kin.tell_guard(handover.KEEP, fd=fd)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._history.run)
            nursery.start_soon(self._keeper.run)
            nursery.start_soon(self._pinhole_keeper.run)
            await self._run_with_keeper()
            log.info("nobody is left: cleaning up")
            left = not await self._clean_up()
            await self._history.close(_WRITE_UP_SECONDS)
            nursery.cancel_scope.cancel()
        if left:
            log.warning("the router did not take everything back; natsup clean tries again")
        self._neighbours.close()
        self._journal.end(left=left)
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
            self._finder,
            endings,
            self._pinholes,
            events=self._receiver.closes is None,
            claimed=self._clients.claimed,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._take_calls, publisher, nursery)
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
            await self._kin.finish.wait()
            await self._kin.wait_for_child()
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
