"""What `natsup doctor` asks of the kernel, and of the sandbox that may stand before it."""

import contextlib
import ctypes
import errno
import os
import socket
import sys
import tempfile
from pathlib import Path

import trio

from natsup.state.journal import sessions
from natsup.state.model import Port, Protocol
from natsup.state.report import printable
from natsup.supervisor import abi, libc
from natsup.supervisor.destroyed import DestroyEvents
from natsup.supervisor.doctor_facts import Folder, Kernel, Rights, Tried
from natsup.supervisor.doctor_trials import attempt, look_into
from natsup.supervisor.endings import Watched
from natsup.supervisor.filter import Filter, FilterRefused, build, under_natsup
from natsup.supervisor.glimpse import glimpse
from natsup.supervisor.listener import Listener
from natsup.supervisor.surroundings import ends_everything, parent_needed
from natsup.supervisor.target import cookie

# linux/io_uring.h; the call has the same number on every architecture
_SYS_IO_URING_REGISTER = 427
_IORING_REGISTER_PROBE = 8
_IORING_OP_BIND = 56  # Linux 6.11
_PROBE_HEADER, _PROBE_OP, _PROBE_OPS = 16, 8, 256  # bytes, bytes, and how many
_IO_URING_PARAMS = 120  # bytes


def look_at_kernel() -> Kernel:
    """Everything that needs no other process."""
    name = os.uname()
    built, version, reason = None, "", ""
    listener = _forbidden(name.machine)
    wait_killable = in_step = None
    gives_up = False
    if listener is None:
        built, version, reason = _libseccomp()
    if built is not None:
        wanted = abi.SECCOMP_FILTER_FLAG_NEW_LISTENER
        listener = attempt(lambda: _install(built, wanted))
        gives_up = listener.error == errno.EACCES
        if gives_up:
            listener = attempt(lambda: _install(built, wanted, give_up=True))
    if built is not None and listener is not None and listener.works:
        more = wanted | abi.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
        wait_killable = attempt(lambda: _install(built, more, give_up=gives_up))
        in_step = attempt(lambda: _wake_in_step(built, give_up=gives_up))
    return Kernel(
        name.release,
        name.machine,
        version,
        reason,
        attempt(_ask_for_natsup).works,
        listener,
        wait_killable,
        in_step,
        gives_up,
        pidfd_thread=attempt(lambda: os.pidfd_open(os.getpid(), abi.PIDFD_THREAD)),
        netns_cookie=attempt(_netns_cookie),
        endings=attempt(_see_an_ending),
        io_uring_bind=attempt(_io_uring_bind),
        io_uring_disabled=_number("/proc/sys/kernel/io_uring_disabled"),
    )


def _forbidden(machine: str) -> Tried | None:
    """Why seccomp() itself cannot be called, if so. libseccomp calls it too, and says less.

    An empty program is EINVAL to the kernel, whoever asks; anything else comes from a sandbox.
    """
    number = abi.SYS_SECCOMP.get(machine)
    if number is None:
        return None
    tried = attempt(lambda: libc.seccomp_set_filter(number, b"", 0))
    return None if tried.error == errno.EINVAL else tried


def _libseccomp() -> tuple[Filter | None, str, str]:
    """The filter, what built it, and why it cannot be built. The library tries system calls."""
    tried = attempt(_build)
    if tried.killed:
        return None, "", "a sandbox kills whoever loads it"
    try:
        built = build()
    except FilterRefused as error:
        return None, "", str(error)
    except Exception as error:  # the bindings raise what they like
        return None, "", f"libseccomp cannot build the filter: {error}"
    bindings = "seccomp" if "seccomp" in sys.modules else "pyseccomp"
    return built, f"libseccomp {_libseccomp_version()}, by the bindings {bindings!r}", ""


def _build() -> None:
    with contextlib.suppress(Exception):
        build()


def _libseccomp_version() -> str:
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_version.restype = ctypes.POINTER(ctypes.c_uint * 3)
    return ".".join(map(str, library.seccomp_version().contents))


def _install(wanted: Filter, flags: int, *, give_up: bool = False) -> int:
    if give_up:
        libc.prctl(abi.PR_SET_NO_NEW_PRIVS, 1)
    return libc.seccomp_set_filter(wanted.number, wanted.program, flags)


def _wake_in_step(wanted: Filter, *, give_up: bool) -> None:
    fd = _install(wanted, abi.SECCOMP_FILTER_FLAG_NEW_LISTENER, give_up=give_up)
    _require(Listener(fd).wake_in_step(), errno.EINVAL)


def _ask_for_natsup() -> None:
    _require(under_natsup(), errno.ENOENT)


def _netns_cookie() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.getsockopt(socket.SOL_SOCKET, abi.SO_NETNS_COOKIE, 8)


def _see_an_ending() -> None:
    """Have a socket end, and the kernel tell."""

    async def wait() -> None:
        source = DestroyEvents()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            number = cookie(sock)
            port = Port(Protocol.UDP, 1)
            source.watch(Watched(number, port, socket.AF_INET, socket.IPPROTO_UDP, 0, 0))
        ended: list[Watched] = []
        with trio.move_on_after(1):
            ended = await source.next()
        _require([one.cookie for one in ended] == [number], errno.ETIME)

    trio.run(wait)


def _io_uring_bind() -> None:
    """Ask io_uring whether it knows IORING_OP_BIND: io_uring_register(2), IORING_REGISTER_PROBE."""
    calls = ctypes.CDLL(None, use_errno=True)
    calls.syscall.restype = ctypes.c_long
    number = ctypes.c_long
    parameters = ctypes.create_string_buffer(_IO_URING_PARAMS)
    fd = calls.syscall(number(abi.IO_URING_SETUP), ctypes.c_uint(1), parameters)
    _require(fd >= 0, ctypes.get_errno())
    probe = ctypes.create_string_buffer(_PROBE_HEADER + _PROBE_OP * _PROBE_OPS)
    kind, most = ctypes.c_uint(_IORING_REGISTER_PROBE), ctypes.c_uint(_PROBE_OPS)
    result = calls.syscall(number(_SYS_IO_URING_REGISTER), ctypes.c_uint(fd), kind, probe, most)
    _require(result == 0, ctypes.get_errno())
    flags = int.from_bytes(
        probe.raw[_PROBE_HEADER + _PROBE_OP * _IORING_OP_BIND + 2 :][:2], "little"
    )
    _require(bool(flags & 1), errno.EOPNOTSUPP)  # IO_URING_OP_SUPPORTED


def look_at_rights() -> Rights:
    """What natsup may do to a program, in the layout that it would choose here."""
    as_parent = parent_needed()
    text = ctypes.create_string_buffer(b"natsup")  # at the same address in every child
    address, length = ctypes.addressof(text), len(text)

    def read_memory(pid: int) -> None:
        _require(libc.Reader(length).read(pid, address, length) == text.raw, errno.EIO)

    def memory_file(pid: int) -> None:
        fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
        _require(os.pread(fd, length, address) == text.raw, errno.EIO)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:

        def take_socket(pid: int) -> None:
            libc.pidfd_getfd(os.pidfd_open(pid), sock.fileno())

        def see_socket(pid: int) -> None:
            _require(glimpse(pid, sock.fileno()) is not None, errno.ENODATA)

        return Rights(
            uid=os.geteuid(),
            no_new_privs=_status("NoNewPrivs", 10) == 1,
            may_trace=bool(_status("CapEff", 16) >> abi.CAP_SYS_PTRACE & 1),
            yama=_number("/proc/sys/kernel/yama/ptrace_scope"),
            ends_everything=ends_everything(),
            as_parent=as_parent,
            read_memory=look_into(read_memory, as_parent=as_parent),
            memory_file=look_into(memory_file, as_parent=as_parent),
            take_socket=look_into(take_socket, as_parent=as_parent),
            see_socket=look_into(see_socket, as_parent=as_parent),
        )


def look_at_folder(path: Path) -> Folder:
    """Write something there, as a session would, and see what sessions have written."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(b"natsup")
        found = sessions(path)
    except OSError as error:
        return Folder(str(path), error.strerror or str(error))
    users = [
        f"{printable(name)} (pid {pid})"
        for session in found
        if session.alive
        for pid, name in session.io_uring.items()
    ]
    return Folder(str(path), "", tuple(users))


def _require(condition: bool, number: int) -> None:
    if not condition:
        raise OSError(number, os.strerror(number))


def _number(path: str) -> int | None:
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):
        return None


def _status(name: str, base: int) -> int:
    """A number in /proc/self/status; 0 if it is not there."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            key, _, value = line.partition(":")
            if key == name:
                return int(value, base)
    return 0
