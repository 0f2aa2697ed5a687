"""sock_diag(7): asking the kernel which sockets there are. Needs no privilege.

The launcher uses it too, to see whether there is any; hence the C module under `socket`.
"""

import _socket as socket
import os
import struct
import sys
from _collections_abc import Callable, Hashable, Iterable, Iterator, Set

NETLINK_SOCK_DIAG = 4  # linux/netlink.h
EVERY_STATE = 0xFFFFFFFF
NO_STATE = 0

# A message: struct nlmsghdr (16 bytes), then struct inet_diag_msg, linux/inet_diag.h.
HEADER = struct.Struct("=IHHII")
PORT_AT, PEER_PORT_AT, COOKIE_AT = 20, 22, 60
_STATE_AT, _SOURCE_AT, _INODE_AT = 17, 24, 84
_PORT = struct.Struct("!H")
_COOKIE = struct.Struct("=II")  # the low half first, whatever the byte order
_INODE = struct.Struct("=I")
_LONG_ENOUGH = _INODE_AT + _INODE.size
_ATTRIBUTE = struct.Struct("=HH")
_SKV6ONLY = 11  # INET_DIAG_SKV6ONLY

# A request: struct nlmsghdr, then struct inet_diag_req_v2; of its struct inet_diag_sockid only the
# port is filled in.
_REQUEST = struct.Struct("=BBBBI2s46x")
_SOCK_DIAG_BY_FAMILY = 20
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQUEST_AND_DUMP = 0x301


class Diag:
    """What one message says of one socket."""

    __slots__ = ("cookie", "inode", "peer_port", "port", "source", "state", "v6only")

    def __init__(
        self,
        cookie: int,
        inode: int,
        port: int,
        peer_port: int,
        state: int,
        source: bytes,
        v6only: bool | None,
    ) -> None:
        self.cookie = cookie
        self.inode = inode  # 0: nobody has it open
        self.port = port  # host order
        self.peer_port = peer_port  # 0: none
        self.state = state  # TCP_ESTABLISHED and so on, net/tcp_states.h
        self.source = source  # its address: 16 bytes, the first 4 of them for IPv4
        self.v6only = v6only  # None: it does not say


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The netlink messages in a datagram, as (type, whole message). Stops at a broken one."""
    while len(data) >= HEADER.size:
        length, kind, *_ = HEADER.unpack_from(data)
        if not HEADER.size <= length <= len(data):
            return
        yield kind, data[:length]
        data = data[(length + 3) & ~3 :]


def read_diag(message: bytes) -> Diag | None:
    """A struct inet_diag_msg with its header, or None if it is too short to be one."""
    if len(message) < _LONG_ENOUGH:
        return None
    low, high = _COOKIE.unpack_from(message, COOKIE_AT)
    (port,) = _PORT.unpack_from(message, PORT_AT)
    (peer,) = _PORT.unpack_from(message, PEER_PORT_AT)
    (inode,) = _INODE.unpack_from(message, _INODE_AT)
    source = message[_SOURCE_AT : _SOURCE_AT + 16]
    state = message[_STATE_AT]
    return Diag(high << 32 | low, inode, port, peer, state, source, _v6only(message))


def _v6only(message: bytes) -> bool | None:
    """What the attributes after the struct say of IPV6_V6ONLY (net/ipv4/inet_diag.c)."""
    rest = message[_LONG_ENOUGH:]
    while len(rest) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(rest)
        if length < _ATTRIBUTE.size:
            break
        if kind == _SKV6ONLY and length > _ATTRIBUTE.size:
            return bool(rest[_ATTRIBUTE.size])
        rest = rest[(length + 3) & ~3 :]
    return None


def dump(family: int, protocol: int, states: int = EVERY_STATE, *, port: int = 0) -> Iterator[Diag]:
    """The sockets of a family and protocol (IPPROTO_TCP or IPPROTO_UDP). Raises OSError.

    ``states``: one bit for each that is wanted, by its number in net/tcp_states.h. ``port``: only
    those that are bound to it, and a few others; 0: all. The kernel is quick to leave others out.

    It lists TCP sockets that listen first, and then those that are bound and do not: one that
    begins to listen in between is in neither part (inet_diag_dump_icsk(), net/ipv4/inet_diag.c).
    Where that matters, see `find`.
    """
    request = _REQUEST.pack(family, protocol, 0, 0, states, port.to_bytes(2, "big"))
    header = HEADER.pack(HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, _REQUEST_AND_DUMP, 1, 0)
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG)
    try:
        sock.send(header + request)
        while True:
            for kind, message in messages(sock.recv(1 << 17)):
                if kind in (_NLMSG_DONE, _NLMSG_ERROR):  # both with an errno, negated
                    number = -int.from_bytes(message[16:20], sys.byteorder, signed=True)
                    if number > 0:
                        raise OSError(number, os.strerror(number))
                    return
                diag = read_diag(message)
                if diag is not None:
                    yield diag
    finally:
        sock.close()


def find(
    family: int,
    protocol: int,
    wanted: Set[Hashable],
    keys: Callable[[Diag], Iterable[Hashable]],
    *,
    ports: Iterable[int] = (0,),
) -> dict[Hashable, Diag]:
    """Which of the sockets that are ``wanted`` are listed, each by its key. Raises OSError.

    ``keys``: the keys of one that is listed. ``ports``: those that they have, 0: any. What is
    missing is looked for once more, since `dump` may pass one over.
    """
    ports, found = tuple(ports), dict[Hashable, Diag]()
    for _ in range(2):
        for port in ports if wanted - found.keys() else ():
            for one in dump(family, protocol, port=port):
                found.update((key, one) for key in keys(one) if key in wanted)
    return found


def available() -> bool:
    """Will the kernel tell here when sockets end?

    A sandbox may forbid the netlink socket (systemd's RestrictAddressFamilies=), and a kernel may
    lack the part for a protocol, which it would need for the events too (net/core/sock_diag.c,
    sock_diag_broadcast_destroy_work()). Asked for sockets in no state it answers at once.
    """
    try:
        for protocol in (socket.IPPROTO_TCP, socket.IPPROTO_UDP):
            list(dump(socket.AF_INET, protocol, NO_STATE))
    except OSError:
        return False
    return True
