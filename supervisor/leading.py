"""One session asks a router for all sessions of its user on this host: the leader.

Whether a router was restarted, whether it still holds what it was given, and what its external
address is, is the same for all of them. So one of them watches the router and compares, and tells
the others, who ask only for what is missing by the leader's word. Each still maps, renews and
removes its own ports.

The leader has a name among the abstract names of unix(7), which belong to the network namespace,
like the address that the sessions share on the router: a name is bound by one of them only, and is
free as soon as he ends, however he ends. The others are connected to it, and so hear of its end,
and the first of them to bind the name leads. While nothing happens nothing is sent. Both sides look
whose the other one is (SO_PEERCRED): somebody else's session is neither followed nor told anything.
Where it cannot be followed, a session does everything by itself.

    leader                    others
       ├── external ────────────▶│   once, and when it is another
       ├── ask ─────────────────▶│   every five minutes, and after a restart of the router
       │◀────────────── ports ───┤   that it has on the router
       ├── missing ─────────────▶│   those of them that are not there (none, mostly)
       ├── restarted ───────────▶│   a sign of it
"""

import json
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import trio

from natsup.state.model import Port

log = logging.getLogger("natsup.session")

_LONGEST = 1 << 21  # bytes of a line: all ports that there are
_PATIENCE = 2.0  # seconds for another session to take or to say something
_APART = 0.02  # seconds between those that have to ask the router: not all are to do so at once
_BACKLOG = 4096  # of those who connect, before they have to try again; the kernel's limit is lower
_TRIES, _PAUSE = 50, 0.02  # seconds, while a leader's name is bound, and not listened on yet


@dataclass
class Ears:
    """What a session does about the leader's words. Nothing of it blocks."""

    ports: Callable[[], list[Port]]  # that this session has on the router
    following: Callable[[], None]  # from now on
    compared: Callable[[list[Port]], None]  # these are missing
    restarted: Callable[[str], None]  # a sign of it, as a clause for people
    external: Callable[[str], None]  # the router's external address


class Line:
    """A connection to another session: one JSON object a line."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self._stream = trio.SocketStream(sock)
        self._saying = trio.Lock()
        self._rest = b""
        self.ports: set[Port] = set()  # by its last answer
        self.answered = trio.Event()  # and another one made, when it is asked

    async def say(self, **words: Any) -> None:
        """One after the other. Raises OSError if the other one has gone or takes nothing."""
        try:
            with trio.fail_after(_PATIENCE):
                async with self._saying:
                    await self._stream.send_all(json.dumps(words).encode() + b"\n")
        except (trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ConnectionError("the other session takes nothing") from error

    async def hear(self) -> dict[str, Any]:
        """Wait for what the other one says next. Raises OSError at the end, and at nonsense."""
        while b"\n" not in self._rest:
            try:
                data = await self._stream.receive_some()
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise ConnectionError("the other session is gone") from error
            self._rest += data
            if not data or len(self._rest) > _LONGEST:
                raise ConnectionError("the other session is gone")
        line, _, self._rest = self._rest.partition(b"\n")
        try:
            words = json.loads(line)
        except ValueError as error:
            raise ConnectionError("the other session talks nonsense") from error
        return words if isinstance(words, dict) else {}

    def close(self) -> None:
        self._stream.socket.close()


@dataclass
class Leader:
    """What the leader has of the others. Without any, all of it does nothing."""

    lines: set[Line] = field(default_factory=set)
    external: str | None = None
    told_external: bool = False

    async def compare(self, look: Callable[[list[Port]], Awaitable[set[Port] | None]]) -> None:
        """Ask the others for their ports, and tell them which of those are missing. ``look``: looks
        for ports at the router, and returns those that are missing; None if it will not say."""
        asked: dict[Line, set[Port]] = {}

        async def ask(line: Line) -> None:
            line.answered = trio.Event()
            await line.say(ask=True)
            with trio.move_on_after(_PATIENCE) as patience:
                await line.answered.wait()
            if patience.cancelled_caught:
                raise ConnectionError("the other session does not answer")
            if line in self.lines:
                asked[line] = line.ports

        await self._each(self.lines, ask)
        missing = await look(sorted(set().union(*asked.values()))) if asked else None
        if missing is None:
            return  # they compare by themselves if they hear nothing
        for line, ports in asked.items():
            found = sorted(map(str, ports & missing))
            await self._each([line], partial(Line.say, missing=found))
            if found:
                await trio.sleep(_APART)

    async def tell_restarted(self, reason: str) -> None:
        """They look at the router's clock, or for the router, each by itself."""
        for line in list(self.lines):
            await self._each([line], partial(Line.say, restarted=reason))
            await trio.sleep(_APART)

    async def tell_external(self, address: str | None) -> None:
        """What it is, or that the router does not say."""
        if self.told_external and address == self.external:
            return
        self.external, self.told_external = address, True
        await self._each(self.lines, partial(Line.say, external=address))

    async def attend(self, line: Line) -> None:
        """Have another session follow, and hear what it answers, until it has gone."""
        self.lines.add(line)
        if self.told_external:
            await self._each([line], partial(Line.say, external=self.external))
        try:
            while True:
                words = await line.hear()
                line.ports = set(_ports(words.get("ports")))
                line.answered.set()
        except OSError:
            self._forget(line)

    async def _each(self, lines: Iterable[Line], do: Callable[[Line], Awaitable[None]]) -> None:
        """Do something with several at a time. Those who are gone are forgotten."""

        async def attempt(line: Line) -> None:
            try:
                await do(line)
            except OSError:
                self._forget(line)

        async with trio.open_nursery() as nursery:
            for line in list(lines):
                nursery.start_soon(attempt, line)

    def _forget(self, line: Line) -> None:
        self.lines.discard(line)
        line.close()
        line.answered.set()


class Sessions:
    """This session's part among those of its user at one router: to follow, or to lead, which it
    also does where there are no others. ``lead``: what the leader does, until cancelled."""

    def __init__(self, ears: Ears, lead: Callable[[Leader], Awaitable[None]]) -> None:
        self._ears = ears
        self._lead = lead
        self.leader: Leader | None = None  # if it is this session
        self._told_external = trio.Event()

    async def told_external(self, patience: float) -> bool:
        """Has the leader told the external address, or that the router does not say? False: this
        session is to ask, because it leads, or hears nothing for so many seconds."""
        with trio.move_on_after(patience):
            await self._told_external.wait()
        return self.leader is None and self._told_external.is_set()

    async def run(self, router: str) -> None:
        """Lead or follow at this router, until cancelled."""
        name = _name(router)
        tries = 0
        while tries < _TRIES:
            tries += 1
            listener = listen(name)
            if listener is not None:
                with listener:
                    await self._be_leader(listener)
            try:
                line = await _connect(name)
            except PermissionError:
                log.debug("another user has the leader's name: this session is on its own")
                break
            except OSError:  # he has just gone, or is about to come
                await trio.sleep(_PAUSE)
                continue
            tries = 0
            try:
                await self._follow(line)
            finally:
                line.close()
        await self._be_leader(None)

    async def _be_leader(self, listener: trio.socket.SocketType | None) -> None:
        self.leader = leader = Leader()
        self._told_external.set()
        try:
            async with trio.open_nursery() as nursery:
                if listener is not None:
                    nursery.start_soon(_accept, listener, leader, nursery)
                await self._lead(leader)
        finally:
            for line in leader.lines:
                line.close()

    async def _follow(self, line: Line) -> None:
        """Until the leader has gone."""
        self.leader = None
        if self._told_external.is_set():
            self._told_external = trio.Event()
        self._ears.following()
        try:
            while True:
                words = await line.hear()
                if "ask" in words:
                    await line.say(ports=[str(port) for port in self._ears.ports()])
                if "missing" in words:
                    self._ears.compared(_ports(words["missing"]))
                if "restarted" in words:
                    self._ears.restarted(str(words["restarted"]))
                if "external" in words:
                    if words["external"] is not None:
                        self._ears.external(str(words["external"]))
                    self._told_external.set()
        except OSError as error:
            log.debug("the leader is not followed any more: %s", error)
        finally:
            self._told_external.set()


async def _accept(listener: trio.socket.SocketType, leader: Leader, nursery: trio.Nursery) -> None:
    while True:
        try:
            sock, _ = await listener.accept()
        except OSError as error:  # no descriptors left, say
            log.debug("no session can follow this one: %s", error.strerror)
            await trio.sleep(_PATIENCE)
            continue
        if _is_ours(sock):
            nursery.start_soon(leader.attend, Line(sock))
        else:
            sock.close()


def _name(router: str) -> str:
    return f"\0natsup-leader/{os.getuid()}/{router}"


def listen(name: str) -> trio.socket.SocketType | None:
    """Take a name of unix(7). None: somebody else has it, or it is not to be had."""
    sock: socket.socket | None = None
    try:
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(name)
        sock.listen(_BACKLOG)
    except OSError:
        if sock is not None:
            sock.close()
        return None
    return trio.socket.from_stdlib_socket(sock)


async def _connect(name: str) -> Line:
    """Raises OSError if nobody has the name, or too many wait to be accepted, and PermissionError
    if another user has it."""
    sock = trio.socket.socket(trio.socket.AF_UNIX)
    try:
        await sock.connect(name)
        # Where too many wait, connect(2) gives EAGAIN, and no connection is coming: unix(7).
        sock.getpeername()
        if not _is_ours(sock):
            raise PermissionError
    except BaseException:
        sock.close()
        raise
    return Line(sock)


def owner(sock: "trio.socket.SocketType | socket.socket") -> int:
    """The user at the other end: unix(7), SO_PEERCRED."""
    peer = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", peer)[1])


def _is_ours(sock: trio.socket.SocketType) -> bool:
    return owner(sock) == os.getuid()


def _ports(words: object) -> list[Port]:
    """Raises ConnectionError if they are none."""
    try:
        return [Port.read(str(word)) for word in words]  # type: ignore[attr-defined]
    except (TypeError, ValueError) as error:
        raise ConnectionError("the other session talks nonsense") from error
