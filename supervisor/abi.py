"""The kernel's numbers and layouts that natsup speaks. Nothing here runs or decides.

Sources: include/uapi/linux/seccomp.h, audit.h, pidfd.h, prctl.h and seccomp_unotify(2).
An errno is positive everywhere in natsup; only `RESPONSE` carries it negated, as the kernel wants.
"""

import struct
import sys

# --- seccomp(2) ---------------------------------------------------------------------------------

# Its number, by uname(2)'s machine
SYS_SECCOMP = {"x86_64": 317, "aarch64": 277, "riscv64": 277, "i686": 354, "armv7l": 383}
SECCOMP_SET_MODE_FILTER = 1
SECCOMP_GET_ACTION_AVAIL = 2  # Linux 4.14
SECCOMP_RET_USER_NOTIF = 0x7FC00000
SECCOMP_FILTER_FLAG_NEW_LISTENER = 1 << 3  # Linux 5.0
SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV = 1 << 5  # Linux 5.19

# struct seccomp_notif: id, pid (of the *thread*), flags, then struct seccomp_data: the number of
# the system call, the architecture, the instruction pointer and six arguments.
NOTIFICATION = struct.Struct("=QIIiIQ6Q")
# The same, of a bind(): id, thread, number and architecture in one, address and its length
BIND_NOTIFICATION = struct.Struct("=QI4xQ16xQI28x")
# struct seccomp_notif_resp: id, return value, negated errno, flags
RESPONSE = struct.Struct("=QqiI")
NOTIFICATION_ID = struct.Struct("=Q")
SECCOMP_USER_NOTIF_FLAG_CONTINUE = 1
SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP = 1  # Linux 6.6


def _ioc(direction: int, number: int, size: int) -> int:
    """_IOC() of asm-generic/ioctl.h for the seccomp type ``'!'``: x86, arm and their kin."""
    return direction << 30 | size << 16 | ord("!") << 8 | number


_WRITE, _READ_WRITE = 1, 3
NOTIF_RECV = _ioc(_READ_WRITE, 0, NOTIFICATION.size)
NOTIF_SEND = _ioc(_READ_WRITE, 1, RESPONSE.size)
NOTIF_ID_VALID = _ioc(_WRITE, 2, NOTIFICATION_ID.size)
NOTIF_SET_FLAGS = _ioc(_WRITE, 4, 8)

# --- architectures ------------------------------------------------------------------------------

AUDIT_ARCH_I386 = 0x40000003
_AUDIT_ARCH_X86_64, _AUDIT_ARCH_AARCH64, _AUDIT_ARCH_ARM = 0xC000003E, 0xC00000B7, 0x40000028
_X32 = 0x40000000
# close(2): its numbers with the architectures they are of
CLOSE = frozenset(
    {
        (3, _AUDIT_ARCH_X86_64),
        (3 | _X32, _AUDIT_ARCH_X86_64),
        (6, AUDIT_ARCH_I386),
        (57, _AUDIT_ARCH_AARCH64),
        (6, _AUDIT_ARCH_ARM),
    }
)
# bind(2) of 64 bits: its number and architecture, as they stand beside each other
BIND = frozenset(
    int.from_bytes(struct.pack("=iI", number, arch), sys.byteorder)
    for number, arch in ((49, _AUDIT_ARCH_X86_64), (200, _AUDIT_ARCH_AARCH64))
)
SOCKETCALL_I386 = 102  # arch/x86/entry/syscalls/syscall_32.tbl
SYS_BIND = 2  # socketcall(2)'s own number for bind
SOCKETCALL_BIND_ARGS = struct.Struct("=iIi")  # descriptor, address, length, all of 32 bits

# What else is trapped; the numbers are the same on every architecture, but for x32's bit
IO_URING_SETUP, LANDLOCK_RESTRICT_SELF = 425, 446

NOTICED = frozenset(
    number | bit for number in (IO_URING_SETUP, LANDLOCK_RESTRICT_SELF) for bit in (0, _X32)
)


def plain(number: int) -> int:
    """A system call's number without x32's bit."""
    return number & ~_X32


# --- processes ----------------------------------------------------------------------------------

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
CAP_SYS_PTRACE = 19
PIDFD_THREAD = 0o200  # O_EXCL; Linux 6.9: a pidfd of one thread, with that thread's descriptors
SYS_PIDFD_GETFD = 438  # the same number on every architecture
KCMP_FILES = 2

# --- sockets that Python does not name --------------------------------------------------------

SO_COOKIE = 57  # Linux 4.12
SO_NETNS_COOKIE = 71  # Linux 5.14
IPPROTO_MPTCP = 262

# --- our own ------------------------------------------------------------------------------------

# Inside an outer natsup a new listener is refused (EBUSY), as it is inside any other supervisor.
# Which of the two it is, a call tells that no program makes: bind() of no socket, to an address of
# this length. The kernel alone says EBADF, natsup ENOTUNIQ. It is told by its arguments, so that
# the guard can tell it too, and a supervisor that may not look into the program's memory.
PROBE_DESCRIPTOR = -1
PROBE_LENGTH = int.from_bytes(b"nats", "little")  # of socklen_t, and positive
