"""What has become of a bind() that was left to the kernel: is the socket bound, and known by what?

The kernel does not tell when a call that was let pass has been carried out, nor with what result.
That is soon, and so natsup looks a few times, ever more rarely.
"""

import contextlib
import os

import trio

from natsup.state.model import Port, Protocol
from natsup.supervisor import closings, diag
from natsup.supervisor.destroyed import KERNEL_PROTOCOLS
from natsup.supervisor.endings import Watched, port_is_free
from natsup.supervisor.glimpse import Kind
from natsup.supervisor.receiver import Call
from natsup.supervisor.target import cookie

_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 1.0  # seconds, doubling
_PATIENCE = 1.0  # seconds; from then on what is not bound is not going to be


async def watchable(call: Call, port: Port, *, events: bool) -> Watched | None:
    """Wait until the socket of a call that was passed is bound to ``port``; None if that does not
    happen. ``events``: whether sock_diag(7) is to be had."""
    begin, pause = trio.current_time(), _FIRST_PAUSE
    while True:
        await trio.sleep(pause)
        found = await look(call, port, events=events)
        if found is not None:
            return found
        late = trio.current_time() - begin > _PATIENCE
        if late and (call.sock is not None or not _may_be_bound(call, port)):
            return None
        pause = min(pause * 2, _LONGEST_PAUSE)


async def look(call: Call, port: Port, *, events: bool) -> Watched | None:
    """The socket of a call, if it is seen to be bound to ``port`` by now."""
    kind = call.kind
    number: int | None = None
    if call.sock is not None:
        with contextlib.suppress(OSError):
            if call.sock.getsockname()[1] == port.number:
                number = cookie(call.sock)
    else:
        number = await listed(kind, port, events=events)
    if number is None:
        return None
    return Watched(number, port, kind.domain, kind.protocol, kind.inode, call.process)


async def listed(kind: Kind, port: Port, *, events: bool) -> int | None:
    """What a socket is known by, if the kernel lists it with this inode and port."""
    with contextlib.suppress(OSError):
        return await trio.to_thread.run_sync(_by_events if events else _by_proc, kind, port)
    return None


def _by_events(kind: Kind, port: Port) -> int | None:
    """The cookie."""
    for found in diag.dump(kind.domain, KERNEL_PROTOCOLS[port.protocol]):
        if found.inode == kind.inode and found.port == port.number:
            return found.cookie
    return None


def _by_proc(kind: Kind, port: Port) -> int | None:
    """Without sock_diag no cookie is to be had; the inode, below zero, does as well."""
    found = closings.listed(kind.domain, port.protocol).get(kind.inode)
    return -kind.inode if found == port.number else None


def _may_be_bound(call: Call, port: Port) -> bool:
    """Could it be bound and not be listed, as before Linux 6.8 while it does not listen?"""
    kind = call.kind
    if not os.path.exists(f"/proc/{call.process}"):
        return False
    one = Watched(0, port, kind.domain, kind.protocol, kind.inode, call.process)
    return port.protocol is Protocol.TCP and not port_is_free(one)


async def alive(watched: Watched, *, events: bool) -> bool:
    """Is a socket still there that was bound before it was watched?"""
    kind = Kind(watched.domain, 0, watched.kernel_protocol, watched.inode)
    if await listed(kind, watched.port, events=events) is not None:
        return True
    return watched.port.protocol is Protocol.TCP and not port_is_free(watched)
