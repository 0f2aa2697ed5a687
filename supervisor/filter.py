"""The seccomp filter: which system calls stop and wait for natsup.

It is built by libseccomp and exported as a program, because libseccomp before 2.6 cannot ask for
WAIT_KILLABLE_RECV; `install` hands it to seccomp(2).

Three facts shape it. A filter is inherited by every descendant and cannot be taken back, so it
traps as little as possible. A 64-bit kernel also runs programs of its 32-bit sister, whose numbers
differ, and on i386 bind() may hide inside socketcall(). And libseccomp's default for an
architecture that is not listed is to kill; natsup only ever lets through.
"""

import errno
import os
import stat
import struct
import sys
from _collections_abc import Mapping
from types import ModuleType
from zlib import crc32

from natsup.supervisor import abi, libc, sandbox
from natsup.supervisor.bare import suppress

# The architectures a kernel runs programs of, by uname(2)'s machine; others have only their own.
ARCHITECTURES = {"x86_64": ("X86_64", "X86", "X32"), "aarch64": ("AARCH64", "ARM")}


REVISION = 2  # to be raised with every change to the rules below: built filters are cached

_NUMBER = struct.Struct("=I")
_LONGEST = 8192


class FilterRefused(Exception):
    """The filter cannot be installed here. The message says why and what to do."""


def _bindings() -> ModuleType:
    """libseccomp's own Python bindings where the distribution has them, else pyseccomp."""
    try:
        import seccomp

        return seccomp  # type: ignore[no-any-return]
    except ImportError:
        pass
    # pyseccomp looks its libraries up with ctypes.util, which runs ldconfig or a compiler and takes
    # longer than all the rest of a launch. The dynamic linker knows both names.
    import ctypes

    known = {"c": "libc.so.6", "seccomp": "libseccomp.so.2"}
    util = ModuleType("ctypes.util")
    util.find_library = known.get  # type: ignore[attr-defined]
    sys.modules["ctypes.util"] = ctypes.util = util  # type: ignore[attr-defined]
    try:
        import pyseccomp

        return pyseccomp  # type: ignore[no-any-return]
    except (ImportError, OSError, RuntimeError) as error:
        raise FilterRefused(
            f"libseccomp cannot be loaded ({error}): install it"
            " (Debian and Ubuntu: libseccomp2, Fedora and Arch: libseccomp)"
        ) from error
    finally:
        del sys.modules["ctypes.util"], ctypes.util  # type: ignore[attr-defined]


def build(machine: str | None = None, *, closes: bool = False, io_uring: bool = True) -> "Filter":
    """The filter, built by libseccomp. Raises `FilterRefused`.

    ``machine`` as uname(2) names it, if not this one. ``closes``: it traps close() as well.
    ``io_uring``: without, io_uring_setup() fails with ENOSYS, as if the kernel had none.
    libseccomp tries seccomp() itself when it is loaded, so that a sandbox shows here, if not later.
    """
    refusal = _refusal()
    if refusal is not None:
        raise FilterRefused(refusal)
    try:
        return _build(_bindings(), machine or os.uname().machine, closes, io_uring)
    except (OSError, RuntimeError) as error:
        raise FilterRefused(f"libseccomp cannot build the filter: {error}") from error


def _build(lib: ModuleType, own: str, closes: bool, io_uring: bool) -> "Filter":
    rules = lib.SyscallFilter(lib.ALLOW)
    rules.set_attr(lib.Attr.ACT_BADARCH, lib.ALLOW)
    if own in ARCHITECTURES:
        rules.remove_arch(lib.Arch.NATIVE)
        for name in ARCHITECTURES[own]:
            rules.add_arch(getattr(lib.Arch, name))
    rules.add_rule(lib.NOTIFY, "bind")  # for i386 it covers socketcall(SYS_BIND) too
    # These two are passed, and noted: see natsup.supervisor.receiver. An old library may not know
    # them by name.
    with suppress(OSError, RuntimeError, ValueError):
        rules.add_rule(lib.NOTIFY, "landlock_restrict_self")
    with suppress(OSError, RuntimeError, ValueError):
        rules.add_rule(lib.NOTIFY if io_uring else lib.ERRNO(errno.ENOSYS), "io_uring_setup")
    if closes:
        rules.add_rule(lib.NOTIFY, "close")
    fd = os.memfd_create("natsup-filter", os.MFD_CLOEXEC)
    with open(fd, "r+b", buffering=0) as file:
        rules.export_bpf(file)
        file.seek(0)
        return Filter(lib.resolve_syscall(lib.Arch.NATIVE, "seccomp"), file.read())


class Filter:
    """A BPF program (struct sock_filter, 8 bytes an instruction), and seccomp(2)'s own number."""

    __slots__ = ("number", "program")

    def __init__(self, number: int, program: bytes) -> None:
        self.number = number
        self.program = program

    def to_bytes(self) -> bytes:
        """For the cache: a checksum, the number, the program."""
        body = _NUMBER.pack(self.number) + self.program
        return _NUMBER.pack(crc32(body)) + body

    @classmethod
    def from_bytes(cls, data: bytes) -> "Filter | None":
        """What `to_bytes` gave; None if it is damaged."""
        body = data[_NUMBER.size :]
        program = body[_NUMBER.size :]
        if not program or len(program) % 8 or _NUMBER.pack(crc32(body)) != data[: _NUMBER.size]:
            return None
        return cls(_NUMBER.unpack_from(body)[0], program)


def cache_file(
    environ: Mapping[str, str],
    uid: int,
    machine: str,
    *,
    closes: bool = False,
    io_uring: bool = True,
) -> str | None:
    """Where the built filter is kept: loading libseccomp takes a quarter of a whole launch. Pure.

    Root has a place of its own, whatever HOME says, so that sudo leaves nothing in the user's.
    """
    name = f"natsup/filter-{REVISION}-{machine}"
    name += "-close" * closes + "-no-io-uring" * (not io_uring)
    if uid == 0:
        return f"/var/cache/{name}"
    folder = environ.get("XDG_CACHE_HOME") or ""
    if not os.path.isabs(folder):
        if not environ.get("HOME"):
            return None
        folder = environ["HOME"] + "/.cache"
    return f"{folder}/{name}"


def load(path: str | None, *, closes: bool = False, io_uring: bool = True) -> Filter:
    """The filter from the cache, else from libseccomp, and then into the cache.

    A cache that another user could have written is not used. Raises `FilterRefused`.
    """
    if path is None:
        return build(closes=closes, io_uring=io_uring)
    with suppress(OSError), open(path, "rb") as file:
        status = os.fstat(file.fileno())
        if status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            found = Filter.from_bytes(file.read(_LONGEST))
            if found is not None:
                return found
    built = build(closes=closes, io_uring=io_uring)
    with suppress(OSError):  # nothing is lost but time
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        temporary = f"{path}.{os.getpid()}"
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "wb") as file:
            file.write(built.to_bytes())
        os.rename(temporary, path)
    return built


_HELP = {
    errno.EBUSY: (
        "another program already supervises this one by seccomp notification"
        " and the kernel allows only one: run natsup outside of it, not inside"
    ),
    errno.ENOSYS: "this kernel has no seccomp filters: natsup needs Linux 5.10 or newer",
    errno.EINVAL: "this kernel has no seccomp user notification: natsup needs Linux 5.10 or newer",
    errno.EPERM: (
        "this sandbox forbids seccomp(): under systemd add 'seccomp' to SystemCallFilter=,"
        " in a container allow it in the seccomp profile"
    ),
    errno.EACCES: "this sandbox forbids seccomp() without privileges and no_new_privs",
}


def install(wanted_filter: Filter) -> int:
    """Install the filter on this process, for good. Returns its listener (close-on-exec).

    no_new_privs is set only where the kernel asks for it (EACCES: no CAP_SYS_ADMIN), because it
    would also take the powers of sudo away. Raises `FilterRefused`.
    """
    refusal = _refusal()
    if refusal is not None:
        raise FilterRefused(refusal)
    wanted = abi.SECCOMP_FILTER_FLAG_NEW_LISTENER | abi.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
    tries = [wanted, abi.SECCOMP_FILTER_FLAG_NEW_LISTENER]  # before Linux 5.19 the first is EINVAL
    privileged = True
    while True:
        try:
            return libc.seccomp_set_filter(wanted_filter.number, wanted_filter.program, tries[0])
        except OSError as error:
            if error.errno == errno.EINVAL and len(tries) > 1:
                del tries[0]
            elif error.errno == errno.EACCES and privileged:
                libc.prctl(abi.PR_SET_NO_NEW_PRIVS, 1)
                privileged = False
            else:
                raise FilterRefused(
                    _HELP.get(error.errno or 0, f"seccomp() failed: {error.strerror}")
                ) from error


def _refusal() -> str | None:
    """Why a sandbox will not let this process call seccomp(), if there is one."""
    number = abi.SYS_SECCOMP.get(os.uname().machine)
    if number is None or not sandbox.filtered():
        return None
    found = sandbox.attempt(lambda: libc.seccomp_notifications_available(number))
    return _HELP[errno.EPERM] if found == sandbox.KILLED else _HELP.get(found)


def under_natsup() -> bool:
    """Is the supervisor that watches this process a natsup?"""
    return libc.bind(abi.PROBE_DESCRIPTOR, b"", abi.PROBE_LENGTH) == errno.ENOTUNIQ
