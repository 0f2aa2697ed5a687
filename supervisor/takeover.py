"""Taking a session over whose supervisor has ended: which of its sockets still hold their ports?"""

import logging
import time
from collections.abc import Collection
from dataclasses import replace

from natsup.state.journal import Journal, SessionRecord, SocketRecord
from natsup.state.keeper import Keeper
from natsup.state.model import Port
from natsup.supervisor import afterwards
from natsup.supervisor.afterwards import Sought
from natsup.supervisor.endings import Endings
from natsup.supervisor.glimpse import Kind

log = logging.getLogger("natsup.session")


def record_of(sought: Sought, number: int, name: str) -> SocketRecord:
    """What the journal is to know of a socket. ``number``: its cookie."""
    kind, port = sought.kind, str(sought.port)
    address = sought.address.hex()
    return SocketRecord(
        number, port, address, kind.domain, kind.protocol, kind.inode, sought.process, name
    )


def sought(record: SocketRecord) -> Sought:
    """The socket that the journal tells of."""
    kind = Kind(record.domain, 0, record.protocol, record.inode)
    address = bytes.fromhex(record.address)
    return Sought(kind, record.process, Port.read(record.port), address, record.cookie)


async def resume(
    record: SessionRecord,
    journal: Journal,
    keeper: Keeper,
    endings: Endings | None,
    *,
    events: bool,
) -> None:
    """Go on with the ports of a session, for those of its sockets that live. ``events``: whether
    sock_diag(7) is to be had."""
    holders: dict[Port, list[int]] = {}
    for known in record.sockets.values():
        socket = sought(known)
        watched = socket.watched(known.cookie)
        if endings is not None:
            endings.watch(watched)  # first, so that no end is missed
        if await afterwards.alive(socket, events=events):
            holders.setdefault(socket.port, []).append(known.cookie)
            continue
        if endings is not None:
            endings.unwatch(known.cookie)
        journal.ended(known.cookie)
    keeper.restore(record, holders)
    wall = time.time()
    for client in record.clients.values():  # they will be seen to be clients again
        journal.client(replace(client, until=wall), wall=wall)
    log.info(
        "the session goes on after another supervisor's end: %s",
        ", ".join(_told(holders)) or "no port is in use",
    )


def _told(holders: dict[Port, list[int]]) -> Collection[str]:
    return [str(port) for port in sorted(holders)]
