"""What has become of a bind() that was left to the kernel: is the socket bound, and known by what?

The kernel does not tell when a call that was let pass has been carried out, nor with what result.
That is soon, and so natsup looks a few times, ever more rarely. It keeps no copy of the socket
meanwhile, which would keep the port from the program once it has closed its own.
"""

import os
from collections.abc import Iterator
from typing import NamedTuple

import trio

from natsup.state import aside
from natsup.state.model import Port, Protocol
from natsup.supervisor import closings, diag
from natsup.supervisor.destroyed import KERNEL_PROTOCOLS, lists_bound
from natsup.supervisor.endings import Watched, port_is_free
from natsup.supervisor.glimpse import Kind

_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 1.0  # seconds, doubling
_PATIENCE = 1.0  # seconds; from then on what is not bound is not going to be


class Sought(NamedTuple):
    """A socket that is perhaps about to be bound."""

    kind: Kind
    process: int  # whose bind() it is
    port: Port
    address: bytes  # 4 or 16 bytes: what it is to be bound to
    cookie: int | None  # None: not known

    def watched(self, number: int) -> Watched:
        kind = self.kind
        return Watched(number, self.port, kind.domain, kind.protocol, kind.inode, self.process)


class Seen(NamedTuple):
    """A socket that the kernel lists. ``v6only`` is None where it does not say."""

    cookie: int
    v6only: bool | None


async def bound(sought: Sought, *, events: bool) -> Seen | None:
    """Wait until a socket is bound; None if that does not happen. ``events``: whether sock_diag(7)
    is to be had. Raises nothing."""
    begin, pause = trio.current_time(), _FIRST_PAUSE
    while True:
        await trio.sleep(pause)
        found = await look(sought, events=events)
        if found is not None:
            return found
        if trio.current_time() - begin > _PATIENCE and not await aside.run(
            _may_be_bound, sought, events
        ):
            return None
        pause = min(pause * 2, _LONGEST_PAUSE)


async def look(sought: Sought, *, events: bool) -> Seen | None:
    """The socket, if the kernel lists it as bound to the address and port."""
    try:
        return await aside.run(_by_events if events else _by_proc, sought)
    except OSError:
        return None


def _by_events(sought: Sought) -> Seen | None:
    kind, port, address = sought.kind, sought.port, sought.address
    wanted = (port.number, address, kind.inode)

    def keys(found: diag.Diag) -> Iterator[tuple[int, bytes, int]]:
        yield found.port, found.source[: len(address)], found.inode

    protocol = KERNEL_PROTOCOLS[port.protocol]
    listed = diag.find(kind.domain, protocol, {wanted}, keys, ports=[port.number])
    for found in listed.values():
        return Seen(found.cookie if sought.cookie is None else sought.cookie, found.v6only)
    return None


def _by_proc(sought: Sought) -> Seen | None:
    """Without sock_diag no cookie is to be had; the inode, below zero, does as well."""
    kind, port = sought.kind, sought.port
    found = closings.listed(kind.domain, port.protocol).get(kind.inode)
    if found != (sought.address, port.number):
        return None
    return Seen(-kind.inode if sought.cookie is None else sought.cookie, None)


def _may_be_bound(sought: Sought, events: bool) -> bool:
    """Could it be bound and not be listed? Before Linux 6.8 a TCP socket that does not listen can;
    in /proc/net there is none in any kernel."""
    if sought.port.protocol is Protocol.UDP or (events and lists_bound()):
        return False
    return os.path.exists(f"/proc/{sought.process}") and not port_is_free(sought.watched(0))


async def alive(sought: Sought, *, events: bool) -> bool:
    """Is a socket still there that was bound before it was watched?"""
    if await look(sought, events=events) is not None:
        return True
    return await aside.run(_may_be_bound, sought, events)
