"""Sockets that the program is started with: no bind() of its own will tell of them.

By socket activation (sd_listen_fds(3)) they are passed from descriptor 3 on; other starters, like
inetd, pass them elsewhere. The launcher looks, since it has them; what it finds goes to the
supervisor as text, not as descriptors, which would keep the ports bound.
"""

import _socket as socket
import os
import stat
from _collections_abc import Mapping, Sequence

from natsup.supervisor import abi, libc
from natsup.supervisor.bare import suppress
from natsup.supervisor.detach import open_descriptors

_FIRST = 3  # SD_LISTEN_FDS_START
_WILDCARDS = ("0.0.0.0", "::")
# Protocols by SO_TYPE and SO_PROTOCOL
_TCP = {(socket.SOCK_STREAM, socket.IPPROTO_TCP), (socket.SOCK_STREAM, abi.IPPROTO_MPTCP)}
_UDP = {(socket.SOCK_DGRAM, socket.IPPROTO_UDP)}


class Inherited:
    """A TCP or UDP socket that is bound to the wildcard, takes IPv4, and is not connected."""

    __slots__ = ("cookie", "domain", "inode", "number", "protocol", "udp")

    def __init__(
        self, cookie: int, domain: int, protocol: int, number: int, inode: int, udp: int
    ) -> None:
        self.cookie = cookie
        self.domain = domain
        self.protocol = protocol
        self.number = number  # of the port, host order
        self.inode = inode
        self.udp = bool(udp)

    def to_text(self) -> str:
        parts = (self.cookie, self.domain, self.protocol, self.number, self.inode, int(self.udp))
        return ",".join(map(str, parts))

    @classmethod
    def from_text(cls, text: str) -> "Inherited":
        return cls(*map(int, text.split(",")))


def activated(environ: Mapping[str, str], pid: int) -> range:
    """The descriptors that a process was activated with. Pure."""
    if environ.get("LISTEN_PID") != str(pid):
        return range(0)
    count = environ.get("LISTEN_FDS", "")
    return range(_FIRST, _FIRST + min(int(count), 1 << 16)) if count.isdecimal() else range(0)


def every() -> list[int]:
    """All descriptors that the program will find open."""
    found = []
    for fd in open_descriptors():
        with suppress(OSError):  # that of the folder itself has gone
            if os.get_inheritable(fd):
                found.append(fd)
    return sorted(found)


def look(descriptors: Sequence[int]) -> list[Inherited]:
    """Which of these are sockets whose ports may be published, each once."""
    found: dict[int, Inherited] = {}
    home = _own_namespace() if descriptors else None
    for fd in descriptors:
        with suppress(OSError):
            if not stat.S_ISSOCK(os.fstat(fd).st_mode):
                continue
            sock = socket.socket(fileno=fd)
            try:
                one = _look(sock, home)
            finally:
                sock.detach()
            if one is not None:
                found[one.cookie] = one
    return list(found.values())


def _look(sock: socket.socket, home: int | None) -> Inherited | None:
    kind = (sock.type, sock.proto)
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or kind not in _TCP | _UDP:
        return None
    host, number, *_ = sock.getsockname()
    if host not in _WILDCARDS or not number or _connected(sock):
        return None
    if sock.family == socket.AF_INET6 and sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
        return None
    cookie = libc.option64(sock, abi.SO_COOKIE)
    if cookie is None or (home and libc.option64(sock, abi.SO_NETNS_COOKIE) != home):
        return None
    inode = os.fstat(sock.fileno()).st_ino
    return Inherited(cookie, sock.family, sock.proto, number, inode, int(kind in _UDP))


def _connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def _own_namespace() -> int | None:
    """The cookie of this network namespace; None before Linux 5.14, where sockets do not tell."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        return libc.option64(sock, abi.SO_NETNS_COOKIE)
    finally:
        sock.close()
