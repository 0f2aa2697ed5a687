"""What its user tells a session, by `natsup release`, `natsup retry` and `natsup ui`.

A session listens by an abstract name of unix(7), which has its own name in it, and takes orders
from its own user and from root (SO_PEERCRED), one JSON object a line:

    {"release": "tcp/6881"}   off the router, whatever sockets have it
    {"retry": "tcp/6881"}     ask the router now; takes a release back

Each is answered by a line, once the router has been heard, or after some seconds: what state the
port is in by then, and why. Whatever goes wrong here, the session goes on without it.
"""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import trio

from natsup.state.keeper import Keeper
from natsup.state.model import Port
from natsup.supervisor.leading import Line, listen, owner

log = logging.getLogger("natsup.session")

RELEASE, RETRY = "release", "retry"
WAIT_SECONDS = 5.0  # for the router to answer
_PATIENCE = 10.0  # seconds for the next order
_AT_ONCE = 8  # of those who give orders
_AGAIN_SECONDS = 60.0  # after a mistake, or where the name cannot be had


def name(session: str) -> str:
    """Where a session listens."""
    return f"\0natsup-orders/{session}"


@dataclass(frozen=True, slots=True)
class Order:
    what: str  # RELEASE or RETRY
    port: Port


def read(words: dict[str, Any]) -> Order | None:
    """None: it is none that is known. Pure."""
    for what in (RELEASE, RETRY):
        if what in words:
            try:
                return Order(what, Port.read(str(words[what])))
            except ValueError:
                return None
    return None


class Orders:
    """``keeper_of`` tells who keeps a port."""

    def __init__(self, session: str, keeper_of: Callable[[Port], Keeper]) -> None:
        self._session = session
        self._keeper_of = keeper_of

    async def run(self) -> None:
        """Take orders until cancelled."""
        while True:
            listener = listen(name(self._session))
            if listener is not None:
                with listener:
                    await self._listen(listener)
            log.debug("no orders are taken for a while")
            await trio.sleep(_AGAIN_SECONDS)

    async def _listen(self, listener: trio.socket.SocketType) -> None:
        """Until that fails, for want of descriptors, say."""
        room = trio.Semaphore(_AT_ONCE)
        async with trio.open_nursery() as nursery:
            while True:
                await room.acquire()
                try:
                    sock, _ = await listener.accept()
                except OSError:
                    break
                nursery.start_soon(self._serve, sock, room)

    async def _serve(self, sock: trio.socket.SocketType, room: trio.Semaphore) -> None:
        line = Line(sock)
        try:
            if owner(sock) in (0, os.getuid()):
                await self._obey(line)
        except OSError:
            pass  # it has gone
        except Exception:
            log.exception("an order could not be carried out")
        finally:
            line.close()
            room.release()

    async def _obey(self, line: Line) -> None:
        """Raises OSError once the other end has gone."""
        while True:
            words = None
            with trio.move_on_after(_PATIENCE):
                words = await line.hear()
            if words is None:
                return
            order = read(words)
            if order is None:
                await line.say(error="that is no order of this version of natsup")
            else:
                await line.say(**await self._carry_out(order))

    async def _carry_out(self, order: Order) -> dict[str, str]:
        keeper = self._keeper_of(order.port)
        known = (keeper.give_back if order.what == RELEASE else keeper.retry)(order.port)
        if not known:
            return {"error": f"no socket of this session has {order.port}"}
        log.info("%s: %s, by the user's order", order.port, order.what)
        with trio.move_on_after(WAIT_SECONDS):
            await keeper.decided(order.port)
        state, reason = keeper.state(order.port)
        return {"state": state.value, "reason": reason}
