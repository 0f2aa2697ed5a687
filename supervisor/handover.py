"""Descriptors and words between launcher, guard and supervisor: unix(7), SOCK_SEQPACKET.

One datagram is one message: a short word and what belongs to it, and at most one descriptor.
The end of the stream is a message too: the other side has gone, or has become the program.

The C module under `socket` does: the Python one around it takes two milliseconds to import, a
quarter of Python's own start, and adds nothing that is needed here. The same holds for array.
"""

import _socket as socket
import struct
import sys

# From the process that becomes the program
LISTENER = b"listener"  # with the listener
FAILED = b"failed"  # it will not become the program: exec failed

# From guard or supervisor to it, and from the guard to a supervisor that wants to take the calls
RECEIVED = b"received"

# From the supervisor to the guard
PROGRAM = b"program"  # with the pid, and a pidfd of the program's first process
STATUS = b"status"  # with a wait status of that process (as parent only)
KEEP = b"keep"  # with a descriptor that must outlive the supervisor, as the one before it: the
# journal, which is locked
DONE = b"done"  # nothing is left to guard
PASS = b"pass"  # it will not take calls for a while: the guard is to let them pass
TAKING = b"taking"  # it is about to take the calls, which the guard has let pass meanwhile

# From the guard to the supervisor
FINISH = b"finish"  # clean up now: when the guard ends, everything is killed

_LONGEST = 256
_DESCRIPTOR = struct.Struct("@i")

End = socket.socket


def pair() -> tuple[End, End]:
    """Two connected ends, both close-on-exec."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def maker(end: End) -> int:
    """The pid of the process that made the pair (unix(7), SO_PEERCRED)."""
    credentials = end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)  # pid, uid, gid
    return int.from_bytes(credentials[:4], sys.byteorder)


def send(end: End, word: bytes, value: int | None = None, fd: int | None = None) -> None:
    """Send one message. Raises OSError, BrokenPipeError among them."""
    data = word if value is None else b"%b %d" % (word, value)
    rights = []
    if fd is not None:
        rights.append((socket.SOL_SOCKET, socket.SCM_RIGHTS, _DESCRIPTOR.pack(fd)))
    end.sendmsg([data], rights, socket.MSG_NOSIGNAL)


def receive(end: End) -> tuple[bytes, int, int | None]:
    """Wait for a message: word, value (0 where it has none), descriptor (close-on-exec).

    At the end of the stream the word is empty. Raises OSError.
    """
    fd = None
    try:
        data, ancillary = _take(end, _DESCRIPTOR.size)
    except ConnectionResetError:
        # The other side has gone and left something unread. That is told once, and before what it
        # said itself (__skb_try_recv_datagram() in net/core/datagram.c).
        try:
            data, ancillary = _take(end, _DESCRIPTOR.size)
        except ConnectionResetError:
            return b"", 0, None
    for level, kind, payload in ancillary:
        wanted = (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
        if wanted and len(payload) >= _DESCRIPTOR.size:
            (fd,) = _DESCRIPTOR.unpack_from(payload)
    word, _, value = data.partition(b" ")
    return word, int(value or b"0"), fd


def _take(end: End, room: int) -> tuple[bytes, list[tuple[int, int, bytes]]]:
    """One datagram and its ancillary data, of which there are ``room`` bytes. Raises OSError."""
    flags = socket.MSG_CMSG_CLOEXEC
    data, ancillary, _, _ = end.recvmsg(_LONGEST, socket.CMSG_SPACE(room), flags)
    return data, ancillary
