"""The program's side of a call: its memory, its descriptors, its sockets.

Some facts about a borrowed descriptor (pidfd_getfd(2)): it is a second descriptor of the same open
file, so options set through it are the program's options, and the port stays bound as long as
either is open. What the program does meanwhile to its own number (close, dup2) does not reach it:
natsup acts on the socket that the call named, never on what stands under the number later.
"""

import contextlib
import errno
import os
import socket

from natsup.supervisor import abi, libc
from natsup.supervisor.glimpse import Kind
from natsup.supervisor.listener import Listener
from natsup.supervisor.sockaddr import LONGEST
from natsup.supervisor.verdict import Facts

_INT32 = 1 << 31
_IP_BIND_ADDRESS_NO_PORT = 24  # ip(7); Python has no name for it


# Errors that say nothing of the program: natsup has no descriptors left, or the machine no memory.
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})


class Unreachable(Exception):
    """The kernel does not let natsup look into the program: the call has to be passed."""


def _signed(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value & _INT32 else value


class Memory:
    """Reading the memory of threads that wait for an answer."""

    def __init__(self, *, by_call: bool = True) -> None:
        self._reader = libc.Reader(LONGEST) if by_call else None

    def bind_arguments(
        self, tid: int, number: int, arch: int, arguments: tuple[int, ...]
    ) -> tuple[int, int, int] | None:
        """Descriptor, address and length, as bind(2) has them; None if they cannot be read."""
        if arch != abi.AUDIT_ARCH_I386:
            return _signed(arguments[0]), arguments[1], _signed(arguments[2])
        if number != abi.SOCKETCALL_I386:
            return _signed(arguments[0]), arguments[1] & 0xFFFFFFFF, _signed(arguments[2])
        size = abi.SOCKETCALL_BIND_ARGS.size
        data = self.read(tid, arguments[1] & 0xFFFFFFFF, size)
        if data is None:
            return None
        fd, address, length = abi.SOCKETCALL_BIND_ARGS.unpack(data)
        return fd, address, length

    def read(self, tid: int, address: int, length: int) -> bytes | None:
        """Exactly ``length`` bytes, or None where they are not all readable.

        process_vm_readv(2) wants PTRACE_MODE_ATTACH; /proc/PID/mem may still be open where it is
        filtered, and the other way round. Raises `Unreachable`.
        """
        data = None
        if self._reader is not None:
            try:
                data = self._reader.read(tid, address, length)
            except OSError as error:
                if error.errno in (errno.EFAULT, errno.ESRCH):
                    return None
        if data is None:
            data = _read_file(tid, address, length)
        return data if len(data) == length else None


def _read_file(tid: int, address: int, length: int) -> bytes:
    try:
        fd = os.open(f"/proc/{tid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):  # the caller has gone
        return b""
    except OSError as error:
        if error.errno in EXHAUSTED:
            raise
        raise Unreachable(error.strerror) from error
    try:
        return os.pread(fd, length, address)
    except (OSError, OverflowError):
        return b""
    finally:
        os.close(fd)


def borrow(listener: Listener, notification_id: int, tid: int, fd: int) -> socket.socket | None:
    """The socket that the caller names ``fd``; None if that is no socket, or the caller has gone.

    Raises `Unreachable`.
    """
    try:
        pidfd = thread_pidfd(tid)
    except ProcessLookupError:
        return None
    try:
        if not listener.valid(notification_id):  # else the thread id may be another's by now
            return None
        copy = libc.pidfd_getfd(pidfd, fd)
    except OSError as error:
        if error.errno in (errno.EBADF, errno.ESRCH):
            return None
        if error.errno in EXHAUSTED:
            raise
        raise Unreachable(error.strerror) from error
    finally:
        os.close(pidfd)
    try:
        return socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        return None


def thread_pidfd(tid: int) -> int:
    """A pidfd whose descriptors are the thread's. Raises ProcessLookupError, `Unreachable`."""
    with contextlib.suppress(OSError):
        return os.pidfd_open(tid, abi.PIDFD_THREAD)
    try:
        leader = thread_group(tid)
        if leader != tid and not libc.same_descriptors(leader, tid):
            raise Unreachable("a thread with descriptors of its own")
        return os.pidfd_open(leader)
    except FileNotFoundError as error:
        raise ProcessLookupError from error
    except ProcessLookupError:
        raise
    except OSError as error:
        if error.errno in EXHAUSTED:
            raise
        raise Unreachable(error.strerror) from error


def thread_group(tid: int) -> int:
    """The process that a thread belongs to. Raises FileNotFoundError, ProcessLookupError."""
    for line in _beginning(f"/proc/{tid}/status").split(b"\n"):
        if line.startswith(b"Tgid:"):
            return int(line[5:])
    raise ProcessLookupError(tid)


def program(tid: int) -> tuple[int, str]:
    """The process that a thread belongs to and its name, for people; the thread and "?" if it has
    gone."""
    process = tid
    try:
        process = thread_group(tid)
        name = _beginning(f"/proc/{process}/comm")
    except OSError:
        return process, "?"
    return process, name.decode("utf-8", "replace").rstrip("\n")


def _beginning(path: str) -> bytes:
    """As much of a file as one read brings; Python's own files take three times as long."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 1024)
    finally:
        os.close(fd)


class Inspector:
    """What the kernel says of a socket, seen from natsup's own network namespace."""

    def __init__(self) -> None:
        self._home_link: str | None = None
        self._label: bytes | None = None
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
            self._home = libc.option64(own, abi.SO_NETNS_COOKIE)  # None before Linux 5.14
        with contextlib.suppress(OSError):
            self._home_link = os.readlink("/proc/self/ns/net")
        with contextlib.suppress(OSError):  # no security module has labels here
            self._label = _label(os.getpid())

    def facts(self, sock: socket.socket, tid: int) -> Facts:
        """See `Facts`. Raises OSError where the socket is of a kind that has no such options."""
        internet = sock.family in (socket.AF_INET, socket.AF_INET6)
        return Facts(
            sock.family,
            sock.type,
            sock.proto,
            bound=internet and sock.getsockname()[1] != 0,
            v6only=sock.family == socket.AF_INET6
            and bool(sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)),
            foreign=self._foreign(sock, tid),
            late=internet and _is_on(sock, socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT),
        )

    def facts_of(self, kind: Kind, tid: int) -> Facts:
        """The facts of a socket that cannot be copied, as far as they can be seen."""
        foreign = self._elsewhere(tid)
        return Facts(
            kind.domain, kind.kind, kind.protocol, bound=False, v6only=False, foreign=foreign
        )

    def labelled(self, tid: int) -> bool:
        """Has a thread another label than natsup, so that a security module may allow it less?"""
        if self._label is None:
            return False
        try:
            return _label(tid) != self._label
        except OSError:
            return True

    def _foreign(self, sock: socket.socket, tid: int) -> bool:
        if self._home is not None:
            return libc.option64(sock, abi.SO_NETNS_COOKIE) != self._home
        return self._elsewhere(tid)

    def _elsewhere(self, tid: int) -> bool:
        """Is a thread in another network namespace, so that it makes its sockets there?"""
        try:
            return os.readlink(f"/proc/{tid}/ns/net") != self._home_link
        except OSError:
            return True


def _label(tid: int) -> bytes:
    """The label that the security module has given a thread: proc_pid_attr(5). Raises OSError."""
    with open(f"/proc/{tid}/attr/current", "rb") as file:
        return file.read()


def cookie(sock: socket.socket) -> int:
    """The number that names this socket, and no other, for as long as the machine runs."""
    value = libc.option64(sock, abi.SO_COOKIE)
    if value is None:
        raise OSError(errno.ENOPROTOOPT, "this kernel has no socket cookies")
    return value


def _is_on(sock: socket.socket, level: int, option: int) -> bool:
    try:
        return bool(sock.getsockopt(level, option))
    except OSError:  # an old kernel's MPTCP lacks some
        return False
