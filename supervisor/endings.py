"""When sockets end. There are two ways to see it: `destroyed` and `closings`."""

import contextlib
import socket
from typing import NamedTuple, Protocol

from natsup.state.model import Port
from natsup.state.model import Protocol as Transport
from natsup.supervisor.abi import IPPROTO_MPTCP


class Watched(NamedTuple):
    """A socket whose end is waited for."""

    cookie: int
    port: Port
    domain: int  # AF_INET or AF_INET6
    kernel_protocol: int  # IPPROTO_TCP, IPPROTO_UDP or IPPROTO_MPTCP
    inode: int  # what fstat(2) and /proc call it
    process: int  # that bound it; others may have it as well

    @property
    def multipath(self) -> bool:
        return self.kernel_protocol == IPPROTO_MPTCP


class Endings(Protocol):
    """Sockets of this network namespace, watched until they end."""

    def watch(self, watched: Watched) -> None:
        """From now on the end of this socket is reported. Raises OSError."""

    def unwatch(self, cookie: int) -> None:
        """Its end is of no interest any more."""

    def watches(self, cookie: int) -> bool:
        """Has the end of this socket not been reported yet?"""

    async def next(self) -> list[Watched]:
        """Wait for ends. Returns the sockets that have ended, which are watched no more."""

    def close(self) -> None:
        """Nothing is watched any more."""


def port_is_free(one: Watched, *, reuse: bool = False) -> bool:
    """Can the port be bound here and now? Then nothing holds it, listed or not.

    While this looks, another bind() of the port would be refused, so it is the last resort: for
    sockets that are not listed where the list is not to be relied on. ``reuse``: what is
    left in TIME_WAIT is no reason to wait a minute; but nor is then another socket that is bound
    with SO_REUSEADDR and does not listen.
    """
    kind = socket.SOCK_DGRAM if one.port.protocol is Transport.UDP else socket.SOCK_STREAM
    with contextlib.suppress(OSError), socket.socket(one.domain, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
        if one.domain == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        probe.bind(("", one.port.number))
        return True
    return False
