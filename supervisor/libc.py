"""The system calls that Python's standard library lacks, through libc.

Each raises `OSError` with the errno, as `os` does; the man page it follows stands beside it.
ctypes releases the interpreter's lock during a call, which `Listener` depends on.
"""

import _socket
import ctypes
import os
import sys
from _collections_abc import Callable, Sequence

from natsup.supervisor import abi
from natsup.supervisor.bare import partial

_libc = ctypes.CDLL(None, use_errno=True)


class _SockFprog(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


_libc.syscall.restype = ctypes.c_long
_libc.process_vm_readv.restype = ctypes.c_ssize_t
_libc.bind.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
_libc.execvp.argtypes = (ctypes.c_char_p, ctypes.POINTER(ctypes.c_char_p))


def error() -> OSError:
    """Why a call failed just now."""
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def _checked(result: int) -> int:
    if result == -1:
        raise error()
    return result


def prctl(option: int, value: int) -> None:
    """prctl(2) for the options that take one number."""
    zero = ctypes.c_ulong(0)
    _checked(_libc.prctl(ctypes.c_int(option), ctypes.c_ulong(value), zero, zero, zero))


def seccomp_set_filter(number: int, program: bytes, flags: int) -> int:
    """seccomp(2), SECCOMP_SET_MODE_FILTER. ``program``: struct sock_filter, 8 bytes each.

    ``number`` is seccomp's own system call number. Returns the listener, where one is asked for.
    """
    fprog = _SockFprog(len(program) // 8, program)
    return _checked(
        _libc.syscall(
            ctypes.c_long(number),
            ctypes.c_uint(abi.SECCOMP_SET_MODE_FILTER),
            ctypes.c_uint(flags),
            ctypes.byref(fprog),
        )
    )


def seccomp_notifications_available(number: int) -> int:
    """seccomp(2), SECCOMP_GET_ACTION_AVAIL: the one call of it that changes nothing. 0 or errno."""
    action = ctypes.c_uint32(abi.SECCOMP_RET_USER_NOTIF)
    operation = ctypes.c_uint(abi.SECCOMP_GET_ACTION_AVAIL)
    found = _libc.syscall(ctypes.c_long(number), operation, ctypes.c_uint(0), ctypes.byref(action))
    return 0 if found == 0 else ctypes.get_errno()


def ioctl(fd: int, request: int, address: int) -> Callable[[], int]:
    """ioctl(2) on memory at ``address``, to be called as often as need be; -1: see `error`.

    `fcntl.ioctl` would copy the memory, or keep the lock. What ctypes need not convert at every
    call is made once.
    """
    wanted = ctypes.c_ulong.from_param(request)  # which ctypes passes on as it is
    return partial(_libc.ioctl, fd, wanted, ctypes.c_void_p.from_param(address))


def pidfd_getfd(pidfd: int, fd: int) -> int:
    """pidfd_getfd(2): a copy, close-on-exec, of another process's descriptor."""
    return _checked(
        _libc.syscall(
            ctypes.c_long(abi.SYS_PIDFD_GETFD),
            ctypes.c_int(pidfd),
            ctypes.c_int(fd),
            ctypes.c_uint(0),
        )
    )


def same_descriptors(one: int, other: int) -> bool:
    """kcmp(2), KCMP_FILES: do two threads share a descriptor table? The number is per machine."""
    number = {"x86_64": 312, "aarch64": 272, "i686": 349, "armv7l": 378}.get(os.uname().machine)
    if number is None:
        return False
    zero = ctypes.c_ulong(0)
    kind = ctypes.c_int(abi.KCMP_FILES)
    found = _libc.syscall(
        ctypes.c_long(number), ctypes.c_int(one), ctypes.c_int(other), kind, zero, zero
    )
    return bool(found == 0)


class Reader:
    """process_vm_readv(2) into one buffer that is kept, for the path every bind() takes.

    What ctypes need not convert at every call is made once; that is a third of its time.
    """

    def __init__(self, capacity: int) -> None:
        buffer = (ctypes.c_char * capacity)()
        self._data = memoryview(buffer).cast("B")
        vectors = (ctypes.c_size_t * 4)()  # two struct iovec, base and length: here and there
        vectors[0] = ctypes.addressof(buffer)
        self._vectors = memoryview(vectors).cast("B").cast("P")
        first, size = ctypes.addressof(vectors), ctypes.sizeof(vectors)
        here, there = (ctypes.c_void_p.from_param(at) for at in (first, first + size // 2))
        one, no_flags = (ctypes.c_ulong.from_param(n) for n in (1, 0))
        self._rest = (here, one, there, one, no_flags)
        self._read = _libc.process_vm_readv

    def read(self, tid: int, address: int, length: int) -> bytes:
        """``length`` bytes, at most the capacity, of a thread's memory. Raises OSError."""
        vectors = self._vectors
        vectors[2] = address
        vectors[1] = vectors[3] = length
        count = self._read(tid, *self._rest)
        if count == -1:
            raise error()
        return self._data[:count].tobytes()


def option64(sock: _socket.socket, option: int) -> int | None:
    """A number of 64 bits that SOL_SOCKET has of a socket; None where the kernel knows no such."""
    try:
        data = sock.getsockopt(_socket.SOL_SOCKET, option, 8)
    except OSError:
        return None
    return int.from_bytes(data, sys.byteorder)


def bind(fd: int, address: bytes, length: int | None = None) -> int:
    """bind(2) to raw bytes. Returns 0 or the errno: it is the answer somebody waits for.

    ``length``: what the kernel is told, if not the address's own.
    """
    size = len(address) if length is None else length
    return 0 if _libc.bind(fd, address, size) == 0 else ctypes.get_errno()


def execvp(file: bytes, arguments: Sequence[bytes]) -> OSError:
    """execvp(3): PATH, and /bin/sh for a script without an interpreter line. Returns on error."""
    vector = (ctypes.c_char_p * (len(arguments) + 1))(*arguments, None)
    _libc.execvp(file, vector)
    return error()


def unsetenv_quietly(name: bytes) -> None:
    """unsetenv(3)."""
    _libc.unsetenv(ctypes.c_char_p(name))


class SignalInfo:
    """What one read of a signalfd tells (signalfd(2), struct signalfd_siginfo)."""

    SIZE = 128

    def __init__(self, data: bytes) -> None:
        self.number = int.from_bytes(data[0:4], sys.byteorder)
        # si_code: 0x80 (SI_KERNEL) for what a terminal sends to its foreground group
        self.code = int.from_bytes(data[8:12], sys.byteorder, signed=True)
        self.sender = int.from_bytes(data[12:16], sys.byteorder)  # a pid; 0: the kernel


def signalfd(numbers: Sequence[int]) -> int:
    """signalfd(2) for these signals, which the caller has blocked; close-on-exec."""
    mask = ctypes.create_string_buffer(128)  # sigset_t of glibc and musl alike
    for number in numbers:
        _libc.sigaddset(mask, ctypes.c_int(number))
    return _checked(_libc.signalfd(ctypes.c_int(-1), mask, ctypes.c_int(os.O_CLOEXEC)))


class _TimerSpec(ctypes.Structure):
    _fields_ = (
        ("interval_seconds", ctypes.c_long),
        ("interval_nanoseconds", ctypes.c_long),
        ("seconds", ctypes.c_long),
        ("nanoseconds", ctypes.c_long),
    )


def timerfd(clock: int, when: float, *, cancel_on_set: bool = False) -> int:
    """timerfd_create(2), close-on-exec, readable once ``clock`` tells ``when`` (seconds), or, with
    ``cancel_on_set``, once it is set (ECANCELED)."""
    fd = _checked(_libc.timerfd_create(ctypes.c_int(clock), ctypes.c_int(os.O_CLOEXEC)))
    # All zero would switch it off.
    nanoseconds = max(1, round(when * 1e9))
    spec = _TimerSpec(0, 0, nanoseconds // 1_000_000_000, nanoseconds % 1_000_000_000)
    # TFD_TIMER_ABSTIME, TFD_TIMER_CANCEL_ON_SET
    flags = ctypes.c_int(1 | 2 * cancel_on_set)
    try:
        _checked(_libc.timerfd_settime(ctypes.c_int(fd), flags, ctypes.byref(spec), None))
    except OSError:
        os.close(fd)
        raise
    return fd


def inotify_init() -> int:
    """inotify_init1(2): a descriptor that does not block, close-on-exec."""
    return _checked(_libc.inotify_init1(ctypes.c_int(os.O_NONBLOCK | os.O_CLOEXEC)))


def inotify_add_watch(fd: int, path: bytes, mask: int) -> int:
    """inotify_add_watch(2). Returns the watch's number, the same for the same folder."""
    return _checked(_libc.inotify_add_watch(ctypes.c_int(fd), path, ctypes.c_uint32(mask)))
