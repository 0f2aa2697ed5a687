"""The other sessions on this host: each announces the ports it wants by a name of a unix socket.

The abstract names of unix(7) are just what is needed. They belong to a network namespace, like the
address that the sessions share on the router; whoever looks sees those of every user; and the
kernel takes them back when a session ends, however it ends. Nothing is ever sent.

Somebody may announce what he does not want. He can keep a mapping from being removed before its
lease ends, and nothing else.
"""

import logging
import socket

from natsup.state.model import Port

log = logging.getLogger("natsup.session")

_NAMES = "/proc/net/unix"


def _prefix(port: Port) -> str:
    return f"natsup/{port}/"


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
        """See `Neighbours.want`."""
        start = f"@{_prefix(port)}"
        try:
            with open(_NAMES, encoding="utf-8", errors="replace") as file:
                names = [line.split()[-1] for line in file]
        except OSError:
            return False
        return any(name.startswith(start) and name != start + self._session for name in names)

    def close(self) -> None:
        """Withdraw everything."""
        for port in list(self._sockets):
            self.withdraw(port)
