"""The other sessions on this host: each announces the ports it wants by a name of a unix socket.

The abstract names of unix(7) are just what is needed. They belong to a network namespace, like the
address that the sessions share on the router; whoever looks sees those of every user; and the
kernel takes them back when a session ends, however it ends. Nothing is ever sent.

A session that removes a port from the router says so, by a name that only one can have, and looks
after that who wants the port. One that wants it announces that first, and looks after that whether
somebody is removing it. So of two that do both at the same time at least one sees the other, and no
mapping is removed that another session has just asked for. The end of a removal is seen as the end
of a connection to that name.

Somebody may announce what he does not want, or say that he removes it. He can keep a mapping from
being removed before its lease ends, and delay a new one by a second, and nothing else.
"""

import contextlib
import errno
import logging
import socket
from collections.abc import Iterator

import trio

from natsup.state.model import Port

log = logging.getLogger("natsup.session")

_NAMES = "/proc/net/unix"
_PATIENCE = 1.0  # seconds for another session's removal, which takes some hundredths


def _prefix(port: Port) -> str:
    return f"natsup/{port}/"


def _removal(port: Port) -> str:
    return f"\0natsup-removal/{port}"


class Announcements:
    """What this session announces, and what others do. See `natsup.state.gateway.Neighbours`.

    ``session``: its name, which is no other's.
    """

    def __init__(self, session: str) -> None:
        self._session = session
        self._sockets: dict[Port, socket.socket] = {}

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
        else:
            self._sockets[port] = sock

    def withdraw(self, port: Port) -> None:
        """See `Neighbours.withdraw`."""
        sock = self._sockets.pop(port, None)
        if sock is not None:
            sock.close()

    def want(self, port: Port) -> bool:
        """Does another session want it?"""
        start = f"@{_prefix(port)}"
        try:
            with open(_NAMES, encoding="utf-8", errors="replace") as file:
                names = [line.split()[-1] for line in file]
        except OSError:
            return False
        return any(name.startswith(start) and name != start + self._session for name in names)

    @contextlib.contextmanager
    def removing(self, port: Port) -> Iterator[bool]:
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
            yield not self.want(port)

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
