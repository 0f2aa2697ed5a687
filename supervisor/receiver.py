"""The receiver: a thread that takes calls from the kernel and sorts them.

It answers at once what natsup does not act on, which is nearly everything, and leaves the rest to
the session, each call with its slot in the shared page. It uses the standard library alone, so
that it can work while the session's libraries are still being imported.
"""

import logging
import os
import socket
import time
from collections import deque
from errno import ENOTUNIQ

from natsup.state.model import Protocol
from natsup.supervisor.clients import RESOLVERS, Clients
from natsup.supervisor.listener import Listener, is_probe
from natsup.supervisor.page import Page
from natsup.supervisor.sockaddr import LONGEST, SHORTEST_INET, Address, read
from natsup.supervisor.target import (
    Inspector,
    Memory,
    Unreachable,
    borrow,
    cookie,
    program,
)
from natsup.supervisor.verdict import Pass, Publish, Rules, judge_address, judge_socket

log = logging.getLogger("natsup.calls")


class Call:
    """A bind() that natsup acts on. It owns ``sock``, a copy of the program's descriptor."""

    __slots__ = ("address", "answered", "name", "notification", "process", "slot", "sock", "wanted")

    def __init__(
        self,
        notification: int,
        slot: int,
        process: int,
        name: str,
        sock: socket.socket,
        address: Address,
        wanted: Publish,
    ) -> None:
        self.notification = notification
        self.slot = slot
        self.process = process
        self.name = name  # the program's, for people
        self.sock = sock
        self.address = address
        self.wanted = wanted
        self.answered = False

    def __str__(self) -> str:
        return f"{self.name} (pid {self.process})"


class Receiver:
    """Runs in a thread of its own; ``taken`` and ``wake`` are how the session gets its calls."""

    def __init__(self, listener: Listener, page: Page, rules: Rules) -> None:
        self._listener = listener
        self._page = page
        self.rules = rules
        self._memory = Memory()
        self._inspector = Inspector()
        self._complained = False
        self.clients = Clients()
        self.taken: deque[Call] = deque()
        self.wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.failed = False
        # Sockets bound on behalf of a call that was interrupted before it could be told; the
        # program will ask again. Only before Linux 5.19. Cookie: the address bound.
        self.untold: dict[int, bytes] = {}

    def run(self) -> None:
        """Until nobody can call any more. ``failed`` tells an end that nobody asked for."""
        try:
            while self._listener.receive_into(self._page):
                self._sort()
        except BaseException:
            log.exception("the receiver failed")
            self.failed = True
            os.eventfd_write(self.wake, 1)

    def _sort(self) -> None:
        received = self._page.received()
        notification = received[0]
        try:
            if is_probe(received):
                taken = self._listener.answer(notification, ENOTUNIQ)
            else:
                _, tid, _, number, arch, _ = received[:6]
                taken = self._consider(notification, tid, number, arch, received[6:])
        except Exception:
            log.exception("a call could not be judged and was passed")
            taken = False
        if not taken:
            self._listener.let_pass(notification)

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
            sock = borrow(self._listener, notification, tid, fd)
        except Unreachable as error:
            self._complain(error)
            return False
        return sock is not None and self._consider_socket(notification, tid, sock, address)

    def _consider_socket(
        self, notification: int, tid: int, sock: socket.socket, address: Address
    ) -> bool:
        taken = False
        try:
            try:
                facts = self._inspector.facts(sock, tid)
            except OSError:
                return False
            verdict = judge_socket(address, facts, self.rules)
            if isinstance(verdict, Pass):
                if facts.bound and self._tell(notification, sock, address):
                    return True
                return self._passing(tid, address, verdict)
            process, name = program(tid)
            if verdict.protocol is Protocol.UDP and self._is_client(process, name):
                return self._passing(tid, address, Pass("a client's port"))
            slot = self._page.keep(notification)
            if slot is None:
                return False
            self.taken.append(Call(notification, slot, process, name, sock, address, verdict))
            taken = True
        finally:
            if not taken:
                sock.close()
        os.eventfd_write(self.wake, 1)
        return True

    def _tell(self, notification: int, sock: socket.socket, address: Address) -> bool:
        """Answer a call that was interrupted, and is made again, with what became of it."""
        if not self.untold or self.untold.get(cookie(sock)) != address.raw:
            return False
        del self.untold[cookie(sock)]
        return self._listener.answer(notification, 0)

    def _is_client(self, process: int, name: str) -> bool:
        if name in RESOLVERS:
            return True
        now = time.monotonic()
        if not self.clients.is_client(process, now):
            return False
        self.clients.passed(process, now)
        return True

    def _passing(self, tid: int, address: Address, verdict: Pass) -> bool:
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%s: port %d passed: %s", program(tid)[1], address.port, verdict.reason)
        return False

    def _complain(self, error: Unreachable) -> None:
        if not self._complained:
            self._complained = True
            log.warning(
                "the kernel does not let natsup look into the program (%s): its ports are not"
                " published; give natsup CAP_SYS_PTRACE, or start it as the program's user",
                error,
            )
