"""The receiver: a thread that takes calls from the kernel and sorts them.

It answers at once what natsup does not act on, which is nearly everything, and leaves the rest to
the session, each call with its slot in the shared page. It uses the standard library alone, so
that it can work while the session's libraries are still being imported.
"""

import logging
import os
import re
import socket
import threading
import time
from collections import deque
from errno import ENOTUNIQ

from natsup.state.model import Protocol
from natsup.supervisor import libc
from natsup.supervisor.abi import BIND, CLOSE, LANDLOCK_RESTRICT_SELF, NOTICED, plain
from natsup.supervisor.bell import Bell
from natsup.supervisor.clients import Clients, Once
from natsup.supervisor.glimpse import Kind, glimpse, kind_of
from natsup.supervisor.listener import Listener, is_probe
from natsup.supervisor.page import SLOTS, Page, Unanswered
from natsup.supervisor.sockaddr import LONGEST, SHORTEST_INET, Address, read
from natsup.supervisor.target import (
    EXHAUSTED,
    Inspector,
    Memory,
    Unreachable,
    borrow,
    cookie,
    program,
)
from natsup.supervisor.verdict import (
    Pass,
    Publish,
    Rules,
    judge_address,
    judge_socket,
    passes_at_sight,
)

log = logging.getLogger("natsup.calls")

_MOST_KNOWN = 1024  # clients that wait for the session to tell of them
_MOST_SAID = 100
_MOST_WAITING = 4096  # calls that the session has not heard of yet


class Call:
    """A bind() that natsup acts on. It owns ``sock``, a copy of the program's descriptor, if any.

    ``on_behalf``: natsup may bind the program's socket itself; else the call is passed in the end,
    and what came of it is looked at afterwards. ``slot``: in the page; without one it has been
    passed already.
    """

    __slots__ = (
        "address",
        "answered",
        "cookie",
        "kind",
        "name",
        "notification",
        "on_behalf",
        "process",
        "slot",
        "sock",
        "wanted",
    )

    def __init__(
        self,
        notification: int,
        slot: int | None,
        process: int,
        name: str,
        sock: socket.socket | None,
        kind: Kind,
        address: Address,
        wanted: Publish,
        *,
        on_behalf: bool,
    ) -> None:
        self.notification = notification
        self.slot = slot
        self.process = process
        self.name = name  # the program's, for people
        self.sock = sock
        self.kind = kind
        self.address = address
        self.wanted = wanted
        self.on_behalf = on_behalf
        self.answered = False
        self.cookie: int | None = (
            None  # of its socket, once that copy is closed, where there was one
        )

    def __str__(self) -> str:
        return f"{self.name} (pid {self.process})"

    def let_pass(self, listener: Listener) -> bool:
        """Leave it to the kernel. False: nobody waits for it any more."""
        if self.sock is not None:
            self.cookie = cookie(self.sock)
            self.sock.close()  # first: it would keep the port from the program
        self.answered = True
        return listener.let_pass(self.notification)


class Receiver:
    """Runs in a thread of its own; ``taken`` and ``wake`` are how the session gets its calls."""

    def __init__(
        self,
        listener: Listener,
        page: Page,
        rules: Rules,
        clients: Clients,
        closes: Bell | None = None,
        *,
        borrows: bool = True,
        reads: bool = True,
        pidfds: bool = True,
    ) -> None:
        """What a sandbox kills for is not to be tried: ``borrows`` pidfd_getfd(2), ``reads``
        process_vm_readv(2), ``pidfds`` pidfd_open(2)."""
        self.pidfds = pidfds
        self._listener = listener
        self._page = page
        self._let_pass = listener.passer()
        self.rules = rules
        self.closes = closes  # where close() is trapped as well: rung after each
        self._memory = Memory(by_call=reads)
        # For what passes at sight, where it may be read by the quickest call and is not logged
        quick = reads and not log.isEnabledFor(logging.DEBUG)
        self._reader = libc.Reader(LONGEST) if quick else None
        self._inspector = Inspector()
        self._said: set[str] = set()
        self._ringed: set[int] = set()  # processes that use io_uring
        self._borrows = borrows
        self._confined = False  # has anybody under the filter restricted itself by Landlock?
        self.taken: deque[Call] = deque()
        self.clients = clients
        # Clients that were known by their names, for the session to tell of: process, name, why
        self.known: deque[tuple[int, str, str]] = deque(maxlen=_MOST_KNOWN)
        self.known_once = Once()  # with the name, too: the numbers of processes are used again
        # Programs that were seen to use io_uring, for the session to tell of: process, name
        self.rings: deque[tuple[int, str]] = deque()
        self.wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.failed = False
        self._thread: threading.Thread | None = None
        # Calls that were let pass before this receiver came, for the session to look at
        self.left: list[Unanswered] = []
        self.paused = False  # the next call that is received is left in the page
        # Sockets bound on behalf of a call that was interrupted before it could be told; the
        # program will ask again. Only before Linux 5.19. Cookie: the address bound.
        self.untold: dict[int, bytes] = {}

    def run(self) -> None:
        """Until nobody can call any more. ``failed`` tells an end that nobody asked for."""
        try:
            while self._listener.receive_into(self._page):
                if self.paused:
                    return
                if not self._passed_at_once():
                    self._sort()
        except BaseException:
            log.exception("the receiver failed")
            self.failed = True
            os.eventfd_write(self.wake, 1)

    def start(self) -> None:
        """Begin, or go on after `paused`. A call that was taken and left is sorted first, perhaps
        for a receiver before this one."""
        self.paused = False
        if self._thread is not None and self._thread.is_alive():
            return
        if self._listener.valid(self._page.last()):
            self._sort()
        self._thread = threading.Thread(target=self.run, name="receiver", daemon=True)
        self._thread.start()

    def _passed_at_once(self) -> bool:
        """What nearly every call is: a bind() that its address alone lets pass. False: look closer.

        It says what `_sort` would, in half the time, and leaves to it what needs more than this.
        """
        notification, tid, kind, pointer, length = self._page.received_bind()
        if not (kind in BIND and SHORTEST_INET <= length <= LONGEST) or self._reader is None:
            return False
        try:
            raw = self._reader.read(tid, pointer, length)
        except OSError:
            return False
        if len(raw) != length or not passes_at_sight(raw, self.rules):
            return False
        self._let_pass(notification)
        return True

    def _sort(self) -> None:
        received = self._page.received()
        notification = received[0]
        if self.closes is not None and received[3:5] in CLOSE:
            self._listener.let_pass(notification)
            self.closes.ring()
            return
        try:
            if is_probe(received):
                taken = self._listener.answer(notification, ENOTUNIQ)
            else:
                _, tid, _, number, arch, _ = received[:6]
                if number in NOTICED:
                    self._notice(plain(number), tid)
                    taken = False
                else:
                    taken = self._consider(notification, tid, number, arch, received[6:])
        except Exception as error:
            self._say_unjudged(error)
            taken = False
        if not taken:
            self._listener.let_pass(notification)

    def _say_unjudged(self, error: Exception) -> None:
        if isinstance(error, MemoryError) or getattr(error, "errno", None) in EXHAUSTED:
            why = getattr(error, "strerror", None) or "no memory"
            self._say(
                "exhausted",
                logging.WARNING,
                f"binds pass, and are not published, for as long as natsup lacks what it takes to"
                f" look at them: {why}",
            )
        elif repr(error) not in self._said and len(self._said) < _MOST_SAID:
            self._said.add(repr(error))
            log.error("a call could not be judged and was passed", exc_info=error)

    def _notice(self, number: int, tid: int) -> None:
        """The program does something that changes what natsup can do for it."""
        process, name = program(tid)
        if number == LANDLOCK_RESTRICT_SELF:
            # It is inherited, and nothing tells later who has it: from now on it is everybody's.
            self._confined = True
            self._say(
                "landlock",
                logging.INFO,
                f"{name} (pid {process}) restricts itself by Landlock: binds are"
                " left to the kernel from now on, and published for what it makes of them",
            )
        elif process not in self._ringed and io_uring_binds(os.uname().release):
            if len(self._ringed) >= _MOST_SAID:
                return
            self._ringed.add(process)
            self.rings.append((process, name))
            os.eventfd_write(self.wake, 1)

    def _consider(
        self, notification: int, tid: int, number: int, arch: int, arguments: tuple[int, ...]
    ) -> bool:
        """Judge a call. True: it is answered or taken; False: let it pass."""
        try:
            call = self._memory.bind_arguments(tid, number, arch, arguments)
            if call is None:
                return False
            fd, pointer, length = call
            if not SHORTEST_INET <= length <= LONGEST:
                return False
            raw = self._memory.read(tid, pointer, length)
            if raw is None:
                return False
            address = read(raw)
            if address is None:
                return False
            passed = judge_address(address, self.rules)
            if passed is not None:
                return self._passing(tid, address, passed)
            return self._consider_socket(notification, tid, fd, address)
        except Unreachable as error:
            self._say(
                "unreachable",
                logging.WARNING,
                f"the kernel does not let natsup look into the program ({error}): its ports are not"
                " published; give natsup CAP_SYS_PTRACE, or start it as the program's user",
            )
            return False

    def _consider_socket(self, notification: int, tid: int, fd: int, address: Address) -> bool:
        if not self._borrows:
            return self._consider_unseen(notification, tid, fd, address)
        try:
            sock = borrow(self._listener, notification, tid, fd)
        except Unreachable:
            return self._consider_unseen(notification, tid, fd, address)
        if sock is None:
            return False
        taken = False
        try:
            try:
                facts = self._inspector.facts(sock, tid)
            except OSError as error:
                if error.errno in EXHAUSTED:
                    raise
                return False
            verdict = judge_socket(address, facts, self.rules)
            if isinstance(verdict, Pass):
                if facts.bound and self._tell(notification, sock, address):
                    return True
                return self._passing(tid, address, verdict)
            taken = self._take(notification, tid, fd, sock, kind_of(sock), address, verdict)
            return taken
        finally:
            if not taken:
                sock.close()

    def _consider_unseen(self, notification: int, tid: int, fd: int, address: Address) -> bool:
        """Judge a call of a socket that cannot be copied, by what can be seen of it."""
        try:
            kind = glimpse(tid, fd)
        except PermissionError as error:
            raise Unreachable(error.strerror) from error
        if kind is None:
            return False
        facts = self._inspector.facts_of(kind, tid)
        verdict = judge_socket(address, facts, self.rules)
        if isinstance(verdict, Pass):
            return self._passing(tid, address, verdict)
        self._say(
            "unseen",
            logging.INFO,
            "the kernel does not let natsup copy the program's sockets (pidfd_getfd): binds are"
            " left to it, and published for what it makes of them; give natsup CAP_SYS_PTRACE"
            " (docker: --cap-add SYS_PTRACE), or allow pidfd_getfd where it is forbidden",
        )
        return self._take(notification, tid, fd, None, kind, address, verdict)

    def _take(
        self,
        notification: int,
        tid: int,
        fd: int,
        sock: socket.socket | None,
        kind: Kind,
        address: Address,
        wanted: Publish,
    ) -> bool:
        """Leave a call to the session. False: it is to pass, after all."""
        process, name = program(tid)
        if wanted.protocol is Protocol.UDP and self._is_client(process, name):
            return self._passing(tid, address, Pass("a client's port"))
        on_behalf = sock is not None and not self._confined and not self._labelled(tid)
        if wanted.port is None and not on_behalf:
            return self._passing(tid, address, Pass("port 0, and not to be bound by natsup"))
        slot = self._page.keep(notification, tid, fd, wanted.port.number if wanted.port else 0)
        if slot is None:
            # Were it held, it would be lost with this process. It passes, and is published then.
            self._say(
                "full",
                logging.WARNING,
                f"{SLOTS} binds wait for the router: others are left to the kernel, and published"
                " for what it makes of them",
            )
            if wanted.port is None or len(self.taken) >= _MOST_WAITING:
                return False
            on_behalf = False
        call = Call(
            notification, slot, process, name, sock, kind, address, wanted, on_behalf=on_behalf
        )
        if slot is None and not call.let_pass(self._listener):
            return True  # the caller has gone
        self.taken.append(call)
        os.eventfd_write(self.wake, 1)
        return True

    def _labelled(self, tid: int) -> bool:
        if not self._inspector.labelled(tid):
            return False
        self._say(
            "label",
            logging.INFO,
            "a security module confines the program otherwise than natsup: binds are left to the"
            " kernel, and published for what it makes of them",
        )
        return True

    def _tell(self, notification: int, sock: socket.socket, address: Address) -> bool:
        """Answer a call that was interrupted, and is made again, with what became of it."""
        if not self.untold or self.untold.get(cookie(sock)) != address.raw:
            return False
        del self.untold[cookie(sock)]
        return self._listener.answer(notification, 0)

    def _is_client(self, process: int, name: str) -> bool:
        reason = self.clients.by_name(name)
        if reason is not None:
            if self.known_once.first((process, name)):
                self.known.append((process, name, reason))
                os.eventfd_write(self.wake, 1)
            return True
        if self.clients.serves(name):
            return False
        now = time.monotonic()
        if not self.clients.is_client(process, now):
            return False
        self.clients.passed(process, now)
        return True

    def _passing(self, tid: int, address: Address, verdict: Pass) -> bool:
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%s: port %d passed: %s", program(tid)[1], address.port, verdict.reason)
        return False

    def _say(self, what: str, level: int, message: str) -> None:
        """Log what is worth saying once of each kind."""
        if what not in self._said:
            self._said.add(what)
            log.log(level, "%s", message)


def io_uring_binds(release: str) -> bool:
    """Has a kernel of this release (uname(2)) IORING_OP_BIND, which no filter sees? Pure."""
    numbers = re.match(r"(\d+)\.(\d+)", release)
    return numbers is None or (int(numbers[1]), int(numbers[2])) >= (6, 11)
