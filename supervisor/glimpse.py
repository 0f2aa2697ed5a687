"""What can be seen of a program's socket where it cannot be copied.

Container profiles forbid pidfd_getfd(2), and keep process_vm_readv(2) and /proc. There the name of
a socket's protocol is an extended attribute of its file (net/socket.c, sockfs_xattr_get()), and its
inode leads to it in what the kernel lists. Its options cannot be seen, nor whether it is bound.
"""

import errno
import os
import socket

from natsup.supervisor.abi import IPPROTO_MPTCP

_ATTRIBUTE = "system.sockprotoname"
_TCP, _UDP = (socket.SOCK_STREAM, socket.IPPROTO_TCP), (socket.SOCK_DGRAM, socket.IPPROTO_UDP)
_MPTCP = (socket.SOCK_STREAM, IPPROTO_MPTCP)
_NAMES = {
    b"TCP": (socket.AF_INET, *_TCP),
    b"TCPv6": (socket.AF_INET6, *_TCP),
    b"UDP": (socket.AF_INET, *_UDP),
    b"UDPv6": (socket.AF_INET6, *_UDP),
    b"MPTCP": (socket.AF_INET, *_MPTCP),
    b"MPTCPv6": (socket.AF_INET6, *_MPTCP),
}


class Kind:
    """What a socket is: SO_DOMAIN, SO_TYPE and SO_PROTOCOL, and its inode."""

    __slots__ = ("domain", "inode", "kind", "protocol")

    def __init__(self, domain: int, kind: int, protocol: int, inode: int) -> None:
        self.domain = domain
        self.kind = kind
        self.protocol = protocol
        self.inode = inode


def kind_of(sock: socket.socket) -> Kind:
    """The kind of a socket that has been copied."""
    return Kind(sock.family, sock.type, sock.proto, os.fstat(sock.fileno()).st_ino)


def glimpse(tid: int, fd: int) -> Kind | None:
    """The kind of the socket that a thread has under ``fd``; None if it is no TCP or UDP socket.

    Raises PermissionError where even that is not to be seen.
    """
    path = f"/proc/{tid}/fd/{fd}"
    try:
        name = os.getxattr(path, _ATTRIBUTE).rstrip(b"\0")
        inode = os.stat(path).st_ino
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            raise PermissionError(error.errno, error.strerror) from error
        return None
    found = _NAMES.get(name)
    return None if found is None else Kind(*found, inode)
