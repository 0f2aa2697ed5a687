"""Taking a session over whose supervisor has ended: which sockets hold its ports now?

Those that the journal tells of, if they live. And those whose calls were let pass because nobody
served them: when they are looked at, the kernel has bound them, or has not.
"""

import contextlib
import logging
import os
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from functools import partial

from natsup.state import aside
from natsup.state.journal import Journal, SessionRecord, SocketRecord
from natsup.state.keeper import Keeper
from natsup.state.model import Port
from natsup.supervisor import afterwards, closings, diag, inherited, libc
from natsup.supervisor.abi import IPPROTO_MPTCP
from natsup.supervisor.afterwards import Sought
from natsup.supervisor.destroyed import KERNEL_PROTOCOLS
from natsup.supervisor.endings import Endings
from natsup.supervisor.glimpse import Kind
from natsup.supervisor.inherited import Inherited
from natsup.supervisor.page import UNJUDGED, Unanswered
from natsup.supervisor.pinholes import Pinholes
from natsup.supervisor.target import Unreachable, thread_group, thread_pidfd
from natsup.upnp import rtnetlink

log = logging.getLogger("natsup.session")


def record_of(sought: Sought, number: int, name: str, ports: list[str]) -> SocketRecord:
    """What the journal is to know of a socket. ``number``: its cookie. ``ports``: that it holds."""
    kind, address = sought.kind, sought.address.hex()
    return SocketRecord(
        number, ports, address, kind.domain, kind.protocol, kind.inode, sought.process, name
    )


def sought(record: SocketRecord) -> Sought:
    """The socket that the journal tells of."""
    kind = Kind(record.domain, 0, record.protocol, record.inode)
    address = bytes.fromhex(record.address)
    return Sought(kind, record.process, _port(record), address, record.cookie)


def _port(record: SocketRecord) -> Port:
    """What it is bound to, whatever is published of it."""
    return replace(Port.read(record.ports[0]), ipv6=False)


async def resume(
    record: SessionRecord,
    journal: Journal,
    keeper: Keeper,
    pinholes: Pinholes,
    endings: Endings | None,
    *,
    events: bool,
) -> None:
    """Go on with the ports of a session, for those of its sockets that live. ``events``: whether
    sock_diag(7) is to be had."""
    holders: dict[Port, list[int]] = {}
    sockets = {known.cookie: sought(known) for known in record.sockets.values()}
    if endings is not None:
        for number, socket in sockets.items():
            with contextlib.suppress(OSError):  # then its end is not seen
                endings.watch(socket.watched(number))  # first, so that no end is missed
    listed = await aside.run(_listed, sockets, events)
    for known in record.sockets.values():
        socket = sockets[known.cookie]
        if known.cookie in listed or await afterwards.alive(socket, events=events):
            for port in known.ports:
                holders.setdefault(Port.read(port), []).append(known.cookie)
            continue
        if endings is not None:
            endings.unwatch(known.cookie)
        journal.ended(known.cookie)
    for ipv6, restore in (
        (False, partial(keeper.restore, gateway=record.gateway)),
        (True, pinholes.restore),
    ):
        restore(
            {port: known for port, known in record.ports.items() if port.ipv6 is ipv6},
            {port: cookies for port, cookies in holders.items() if port.ipv6 is ipv6},
        )
    wall = time.time()
    for client in record.clients.values():  # they will be seen to be clients again
        journal.client(replace(client, until=wall), wall=wall)
    log.info(
        "the session goes on after another supervisor's end: %s",
        ", ".join(_told(holders)) or "no port is in use",
    )


def _listed(sockets: Mapping[int, Sought], events: bool) -> set[int]:
    """Those whom the kernel lists as they were, by their cookies: all at once, for there may be
    thousands. It blocks. The others need a closer look."""
    found = set[int]()
    for domain, transport in {(one.kind.domain, one.port.protocol) for one in sockets.values()}:
        with contextlib.suppress(OSError):
            for seen in diag.dump(domain, KERNEL_PROTOCOLS[transport]) if events else ():
                known = sockets.get(seen.cookie)
                if known and (known.port.number, known.kind.inode) == (seen.port, seen.inode):
                    found.add(seen.cookie)
    return found


def bound_meanwhile(
    calls: Collection[Unanswered], *, ephemeral: bool
) -> list[tuple[Inherited, int]]:
    """The sockets of calls that were let pass, with their processes, where the kernel has bound
    them to what may be published. ``ephemeral``: also to a port that it has chosen."""
    low, high = _chosen_ports()
    found = []
    for call in calls:
        with contextlib.suppress(OSError, Unreachable):
            process = thread_group(call.thread)
            if not _made(call):
                continue
            for one in _sockets(call):
                chosen = call.stage == UNJUDGED and low <= one.number <= high
                if call.port in (0, one.number) and (ephemeral or not chosen):
                    found.append((one, process))
    return found


def _made(call: Unanswered) -> bool:
    """Is a thread the one that made a call, and not one that has its number by now? OSError."""
    with open(f"/proc/{call.thread}/stat", "rb") as file:
        began = int(file.read().rpartition(b") ")[2].split()[19])
    if (call.noted - began) & 0x7FFFFFFF > 0x3FFFFFFF:
        return False  # it began later
    if os.readlink(f"/proc/{call.thread}/ns/net") != os.readlink("/proc/self/ns/net"):
        return False
    with open(f"/proc/{call.thread}/status", "rb") as file:
        return b"\nSeccomp:\t2\n" in file.read()


def _sockets(call: Unanswered) -> list[Inherited]:
    pidfd = thread_pidfd(call.thread)
    try:
        copy = libc.pidfd_getfd(pidfd, call.descriptor)
    finally:
        os.close(pidfd)
    try:
        return inherited.look([copy])
    finally:
        os.close(copy)


def _chosen_ports() -> tuple[int, int]:
    """From which the kernel chooses: ip(7), ip_local_port_range. All, where that is not known."""
    try:
        with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
            low, high = map(int, file.read().split())
    except (OSError, ValueError):
        return 0, 65535
    return low, high


def lives(record: SocketRecord) -> bool:
    """Is a socket there that a journal names, on the port that it names? It may block."""
    port = _port(record)
    wanted = (port.number, record.inode)

    def keys(found: diag.Diag) -> Iterator[tuple[int, int]]:
        yield found.port, found.inode

    with contextlib.suppress(OSError):
        if rtnetlink.avoided():
            shown = closings.listed(record.domain, port.protocol)
            return shown.get(record.inode) == (bytes.fromhex(record.address), port.number)
        protocol = KERNEL_PROTOCOLS[port.protocol]
        for found in diag.find(
            record.domain, protocol, {wanted}, keys, ports=[port.number]
        ).values():
            return record.cookie in (found.cookie, -found.inode) or (
                record.protocol == IPPROTO_MPTCP  # its listing has the subflow's cookie
            )
    return False


def _told(holders: dict[Port, list[int]]) -> Collection[str]:
    return [str(port) for port in sorted(holders)]
