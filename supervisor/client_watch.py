"""Who is a client now: seen in the sockets that end, told once, and looked after until it is over.

The rule itself is natsup.supervisor.clients.
"""

import logging
import os
import time
from dataclasses import replace

import trio

from natsup.state.happenings import AGAIN, Caller, Event, What
from natsup.state.history import History
from natsup.state.journal import ClientRecord, Journal
from natsup.state.model import Protocol
from natsup.supervisor.clients import ALL_BRIEF, MANY_AT_ONCE, Once
from natsup.supervisor.endings import Watched
from natsup.supervisor.receiver import Call, Receiver

log = logging.getLogger("natsup.session")

_LOOK_SECONDS = 5.0
_MOST = 1024  # that are written down at a time


class ClientWatch:
    """`run` must be running."""

    def __init__(self, receiver: Receiver, journal: Journal, history: History) -> None:
        self._receiver = receiver
        self._journal = journal
        self._history = history
        # UDP sockets by cookie: whose they are and since when
        self._udp: dict[int, tuple[int, str, float]] = {}
        self._clients: dict[int, ClientRecord] = {}  # as far as is known
        self._client_came = trio.Event()
        self._said = Once(again=AGAIN)

    def claimed(self, call: Call, watched: Watched) -> None:
        """A call's socket has come to hold a port."""
        port = watched.port
        if port.protocol is Protocol.UDP and not self._receiver.clients.serves(call.name):
            now = time.monotonic()
            self._udp[watched.cookie] = (call.process, call.name, now)
            self._look_at(call.process)
            if self._receiver.clients.got(call.process, port.number, now):
                self.tell(call.process, call.name, MANY_AT_ONCE)

    def gone(self, number: int) -> None:
        """The socket with this cookie is no more."""
        if number in self._udp:
            process, name, since = self._udp.pop(number)
            now = time.monotonic()
            if self._receiver.clients.ended(process, lived=now - since, now=now):
                self.tell(process, name, ALL_BRIEF)

    def tell(self, process: int, name: str, reason: str) -> None:
        """A process is a client. Once for each: it is one for as long as it goes on like that. Log
        and history tell of all with its name, like the children of a shell script, by the first."""
        known = self._clients.get(process)
        if known is not None and known.name == name:
            return
        if len(self._clients) < _MOST:
            wall = time.time()
            record = self._clients[process] = ClientRecord(name, process, reason, since=wall)
            self._journal.client(record, wall=wall)
            self._client_came.set()
        if self._said.first((name, reason), time.monotonic()):
            log.info("%s (pid %d): a client (%s), its UDP ports are passed", name, process, reason)
            self._history.add(Event(What.CLIENT, None, Caller(name, process), reason))

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._client_came.wait()
            await trio.sleep(_LOOK_SECONDS)
            for process in list(self._clients):
                self._look_at(process)
            if not self._clients:
                self._client_came = trio.Event()

    def _look_at(self, process: int) -> None:
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


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
