"""The other sessions on this host: each announces the ports it wants by a name of a unix socket.

The abstract names of unix(7) are just what is needed. They belong to a network namespace, like the
address that the sessions share on the router; whoever looks sees those of every user; and the
kernel takes them back when a session ends, however it ends. Nothing is ever sent.

A session that removes a port from the router says so, by a name that only one can have, and looks
after that who wants the port. One that wants it announces that first, and looks after that whether
somebody is removing it. So of two that do both at the same time at least one sees the other, and no
mapping is removed that another session has just asked for. The end of a removal is seen as the end
of a connection to that name.

A session also says at which gateway it is, by a name for each family of addresses: what it wants
there is no reason to leave something at another one. Who has not said so may be at any.

Somebody may announce what he does not want, or say that he removes it. He can keep a mapping from
being removed before its lease ends, and delay a new one by a second, and nothing else.
"""

import contextlib
import errno
import hashlib
import logging
import math
import resource
import socket
from collections.abc import Iterator

import trio

from natsup.state.model import Port

log = logging.getLogger("natsup.session")

_NAMES = "/proc/net/unix"
_SPARE = 256  # descriptors for calls and for the router, for which they are more useful
_PATIENCE = 1.0  # seconds for another session's removal, which takes some hundredths


def _prefix(port: Port) -> str:
    return f"natsup/{port}/"


def _at(ipv6: bool) -> str:
    return f"natsup-at/{6 if ipv6 else 4}/"


def _short(where: str) -> str:
    """A name of unix(7) has no room for two addresses of IPv6."""
    return hashlib.sha256(where.encode()).hexdigest()[:16]


def _removal(port: Port) -> str:
    return f"\0natsup-removal/{port}"


class Announcements:
    """What this session announces, and what others do. See `natsup.state.gateway.Neighbours`.

    ``session``: its name, which is no other's.
    """

    def __init__(self, session: str) -> None:
        self._session = session
        self._sockets: dict[Port, socket.socket] = {}
        self._places: dict[bool, tuple[str, socket.socket]] = {}  # for IPv6, or not
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most = math.inf if limit < 0 else max(limit - _SPARE, limit // 2)

    def announce(self, port: Port) -> None:
        """See `Neighbours.announce`."""
        if port in self._sockets:
            return
        try:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        except OSError as error:  # no descriptors left, or a sandbox
            log.debug("%s cannot be announced: %s", port, error.strerror)
            return
        try:
            sock.bind(f"\0{_prefix(port)}{self._session}")
        except OSError as error:
            log.debug("%s cannot be announced: %s", port, error.strerror)
            sock.close()
            return
        if sock.fileno() >= self._most:
            sock.close()
        else:
            self._sockets[port] = sock

    def withdraw(self, port: Port) -> None:
        """See `Neighbours.withdraw`."""
        sock = self._sockets.pop(port, None)
        if sock is not None:
            sock.close()

    def use(self, where: str, *, ipv6: bool) -> None:
        """See `Neighbours.use`."""
        known, sock = self._places.pop(ipv6, ("", None))
        if sock is not None and known == where:
            self._places[ipv6] = where, sock
            return
        if sock is not None:
            sock.close()
        with contextlib.ExitStack() as stack:
            try:
                sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
                sock.bind(f"\0{_at(ipv6)}{_short(where)}/{self._session}")
            except OSError as error:
                log.debug("the gateway cannot be announced: %s", error.strerror)
            else:
                stack.pop_all()
                self._places[ipv6] = where, sock

    def want(self, port: Port, where: str = "") -> bool:
        """Does another session want it? ``where``: see `Neighbours.removing`."""
        start = f" @{_prefix(port)}".encode()
        try:
            with open(_NAMES, "rb", buffering=0) as file:
                text = file.read()
        except OSError:
            return False
        # A session has a name for each of its ports: thousands, perhaps.
        if text.count(start) == text.count(start + self._session.encode() + b"\n"):
            return False
        others = _rest(text, start) - {self._session.encode()}
        if where:
            places = _rest(text, f" @{_at(port.ipv6)}".encode())
            here = f"{_short(where)}/".encode()
            elsewhere = {place.partition(b"/")[2] for place in places if not place.startswith(here)}
            others -= elsewhere - {place.removeprefix(here) for place in places}
        return bool(others)

    @contextlib.contextmanager
    def removing(self, port: Port, where: str = "") -> Iterator[bool]:
        """See `Neighbours.removing`."""
        with contextlib.ExitStack() as stack:
            try:
                sock = stack.enter_context(socket.socket(socket.AF_UNIX))
                sock.bind(_removal(port))
                sock.listen()
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    yield False
                    return
                log.debug("%s: its removal cannot be announced: %s", port, error.strerror)
            yield not self.want(port, where)

    async def removed(self, port: Port) -> None:
        """See `Neighbours.removed`. For a second at most."""
        try:
            sock = trio.socket.socket(trio.socket.AF_UNIX)
        except OSError:
            return
        with sock, trio.move_on_after(_PATIENCE), contextlib.suppress(OSError):
            await sock.connect(_removal(port))  # mostly nobody is there
            await sock.recv(1)

    def close(self) -> None:
        """Withdraw everything."""
        for port in list(self._sockets):
            self.withdraw(port)
        for _, sock in self._places.values():
            sock.close()
        self._places.clear()


def _rest(text: bytes, start: bytes) -> set[bytes]:
    """What follows in the lines that have this."""
    return {part.partition(b"\n")[0] for part in text.split(start)[1:]}
