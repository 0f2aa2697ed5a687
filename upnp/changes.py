"""Changes of this host's network: told by the kernel, settled, and compared with what is in use.

rtnetlink(7) tells of links, IPv4 addresses and routes, and costs nothing while they stay as they
are. It tells of much that does not matter here: the links of containers, addresses whose lifetime
was prolonged, other hosts' routes. So what is told is only a reason to look, once it has settled:
whether the way to the router is another one, or the link to it was gone.

Where netlink is forbidden the network is looked at every five minutes.
"""

import errno
import logging
import struct
from collections.abc import Awaitable, Callable

import trio

from natsup.upnp import bpf, rtnetlink
from natsup.upnp.network import Network, NoGateway
from natsup.upnp.rtnetlink import Link

log = logging.getLogger("natsup.upnp")

_QUIET = 0.3  # seconds without another change, after which what was told has settled
_SETTLING = 2.0  # seconds after which it is looked at in any case
_APART, _FAR_APART = 1.0, 30.0  # seconds between looks: doubled by each that finds nothing new
_EVERY = 300.0  # seconds between looks where nothing is told

# linux/netlink.h, linux/rtnetlink.h
_NEW_ROUTE, _DELETE_ROUTE = 24, 25
_GROUPS = 0x1 | 0x10 | 0x40  # RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE
_TYPE_AT, _PREFIX_AT = 4, 17  # nlmsg_type; and rtm_dst_len behind the header
_WHOLE_MESSAGE = 0xFFFFFFFF

Seen = Network | NoGateway | None


class Changes:
    """When to look at the network, and whether what is seen is another one. Pure.

    Times are in seconds, by any clock that is always the same one.
    """

    def __init__(self) -> None:
        self._first: float | None = None  # of what was told and has not been looked at
        self._last = 0.0
        self._looked = float("-inf")
        self._apart = _APART
        self._down: set[str] = set()
        self._back: set[str] = set()

    def told(self, link: Link | None, now: float) -> None:
        """Of a link; None: of an address or a route, or of something that was missed."""
        if link is not None:
            if not link.running:
                known = link.name in self._down
                self._down.add(link.name)
                self._back.discard(link.name)
            else:
                known = link.name not in self._down
                self._down.discard(link.name)
                if not known:
                    self._back.add(link.name)
            if known:
                return  # its statistics, its queue: nothing that counts
        if self._first is None:
            self._first = now
        self._last = now

    def next_deadline(self) -> float | None:
        """When to look; None: not before something is told."""
        if self._first is None:
            return None
        settled = min(self._last + _QUIET, self._first + _SETTLING)
        return max(settled, self._looked + self._apart)

    def looked(self, used: Seen, found: Network | NoGateway, now: float) -> str | None:
        """The network was looked at. What is new, as a clause for people; None if nothing is.

        ``used``: as it was when the router was searched for.
        """
        self._first, self._looked = None, now
        back, self._back = self._back, set()
        reason = difference(used, found)
        if reason is None and isinstance(found, Network) and found.interface in back:
            reason = f"the link {found.interface} was gone, and is back"
        if reason is None:
            self._apart = min(self._apart * 2, _FAR_APART)
        else:
            self._apart = _APART
        return reason


def difference(used: Seen, found: Network | NoGateway) -> str | None:
    """What is new in a network, as a clause for people; None if nothing is that matters. Pure."""
    if used is None or (isinstance(used, NoGateway) and isinstance(found, NoGateway)):
        return None
    if isinstance(found, NoGateway):
        return f"the way to the router has gone: {found.reason}"
    if isinstance(used, NoGateway):
        return f"there is a way to a router, {found.gateway} by {found.interface}"
    if (found.gateway, found.interface) != (used.gateway, used.interface):
        return f"the way to the Internet is another one, {found.gateway} by {found.interface}"
    if found.address != used.address:
        return f"this host has another address, {found.address}"
    if found.name and used.name and found.name != used.name:
        return f"another router answers at {found.gateway}"
    return None


def filter_program() -> bytes:
    """Classic BPF: all but routes to less than half of everything, of which some hosts have many.

    A half word is loaded in network order, while a message's type lies in the machine's own.
    """
    new, old = (
        int.from_bytes(struct.pack("=H", kind), "big") for kind in (_NEW_ROUTE, _DELETE_ROUTE)
    )
    return b"".join(
        (
            bpf.instruction(bpf.LD_HALF, _TYPE_AT),
            bpf.instruction(bpf.JEQ, new, 1, 0),
            bpf.instruction(bpf.JEQ, old, 0, 2),
            bpf.instruction(bpf.LD_BYTE, _PREFIX_AT),
            bpf.instruction(bpf.JGT, 1, 1, 0),
            bpf.instruction(bpf.RET, _WHOLE_MESSAGE),
            bpf.instruction(bpf.RET, 0),
        )
    )


async def watch(
    look: Callable[[], Awaitable[Network | NoGateway]],
    used: Callable[[], Seen],
    tell: Callable[[str], None],
) -> None:
    """Call ``tell`` with a clause for people whenever the network is another one, until cancelled.

    ``look``: at the network as it is; ``used``: as it was when the router was searched for.
    """
    try:
        with _open() as sock:
            await _listen(sock, look, used, tell)
    except OSError as error:
        log.info("the kernel does not tell of changes of the network: %s", error.strerror)
        await _look_now_and_then(look, used, tell)


async def _listen(
    sock: trio.socket.SocketType,
    look: Callable[[], Awaitable[Network | NoGateway]],
    used: Callable[[], Seen],
    tell: Callable[[str], None],
) -> None:
    changes = Changes()
    while True:
        deadline = changes.next_deadline()
        with trio.move_on_at(float("inf") if deadline is None else deadline):
            for told in await _hear(sock):
                changes.told(told, trio.current_time())
            continue
        reason = changes.looked(used(), await look(), trio.current_time())
        if reason is not None:
            tell(reason)


async def _look_now_and_then(
    look: Callable[[], Awaitable[Network | NoGateway]],
    used: Callable[[], Seen],
    tell: Callable[[str], None],
) -> None:
    while True:
        await trio.sleep(_EVERY)
        reason = difference(used(), await look())
        if reason is not None:
            tell(reason)


def _open() -> trio.socket.SocketType:
    """A socket that hears of changes. Raises OSError."""
    sock = rtnetlink.opened()
    try:
        bpf.attach(sock, filter_program())
        sock.bind((0, _GROUPS))
        sock.setblocking(False)
        return trio.socket.from_stdlib_socket(sock)
    except BaseException:
        sock.close()
        raise


async def _hear(sock: trio.socket.SocketType) -> list[Link | None]:
    try:
        return list(rtnetlink.told(await sock.recv(1 << 16)))
    except OSError as error:
        if error.errno != errno.ENOBUFS:
            raise
        return [None]  # some of it was lost
