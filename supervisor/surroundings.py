"""What the launcher finds out about where it was started, and only it can see."""

import os
import resource
import time
from _collections_abc import Mapping

from natsup.supervisor import diag, sandbox
from natsup.supervisor.abi import CAP_SYS_PTRACE
from natsup.supervisor.inherited import Inherited, activated, every
from natsup.supervisor.inherited import look as find_sockets

_YAMA = "/proc/sys/kernel/yama/ptrace_scope"
_FIRST_PID_NAMESPACE = "pid:[4026531836]"  # PROC_PID_INIT_INO, include/linux/proc_ns.h


# Soft limits are the program's (ulimit -S); the supervisor takes what it may have.
LIMITS = (
    resource.RLIMIT_AS,
    resource.RLIMIT_CPU,
    resource.RLIMIT_DATA,
    resource.RLIMIT_FSIZE,
    resource.RLIMIT_NOFILE,
)


def parent_needed() -> bool:
    """Must natsup stay the program's parent here?"""
    if ends_everything():
        return True
    try:
        with open(_YAMA, "rb") as file:
            restricted = int(file.read()) == 1
    except (OSError, ValueError):
        return False
    return restricted and not _may_trace()


def ends_everything() -> bool:
    """Is all that runs here killed with natsup, or soon after it, as a container ends?

    Certain for PID 1. A child of PID 1 may be what a small init (docker --init, tini) waits for;
    PID 1 may also be a shell or a service manager that goes on. The init cannot be asked which it
    is, and so every child of a container's PID 1 counts, except under systemd, which says what it
    is. Where that is wrong, natsup ends later than its program, by the time the router takes, and
    daemons that the program leaves behind are not served any more; their binds pass. What is not
    seen is an init whose child is a shell that waits for natsup.
    """
    if os.getpid() == 1:
        return True
    if os.getppid() != 1 or not {"INVOCATION_ID", "NOTIFY_SOCKET"}.isdisjoint(os.environ):
        return False
    return not first_processes()


def first_processes() -> bool:
    """Are this process's numbers the machine's, and not those of a container or sandbox?"""
    try:
        return os.readlink("/proc/self/ns/pid") == _FIRST_PID_NAMESPACE
    except OSError:
        return True


def _may_trace() -> bool:
    with open("/proc/self/status", "rb") as file:
        for line in file:
            if line.startswith(b"CapEff:"):
                return bool(int(line[7:], 16) >> CAP_SYS_PTRACE & 1)
    return False


class Surroundings:
    """What the supervisor is told: it will have no standard error, and no folder to be in."""

    __slots__ = (
        "events",
        "folder",
        "inherited",
        "limits",
        "log_to",
        "pid",
        "started",
        "track_close",
    )

    def __init__(
        self,
        pid: int,
        started: float,
        log_to: str,
        folder: str,
        track_close: str,
        inherited: "list[Inherited]",
        events: int | None,
        limits: dict[int, int],
    ) -> None:
        self.pid = pid  # the launcher's; in place, the program's
        self.started = started  # seconds of the wall clock
        self.log_to = log_to
        self.folder = folder  # what relative paths are relative to
        self.track_close = track_close  # events or seccomp: how the ends of sockets are seen
        self.inherited = inherited  # by the program, and to be published
        self.events = events  # the descriptor that events are told on, of the same number behind
        self.limits = limits  # soft ones of `LIMITS` that are below the hard ones

    @property
    def closes(self) -> bool:
        """Is close() to be trapped?"""
        return self.track_close == "seccomp"

    def texts(self) -> list[str]:
        inherited = " ".join(one.to_text() for one in self.inherited)
        started = repr(self.started)
        events = "" if self.events is None else str(self.events)
        told = [str(self.pid), started, self.log_to, self.folder, self.track_close]
        limits = " ".join(f"{limit}:{soft}" for limit, soft in self.limits.items())
        return [*told, inherited, events, limits]

    @classmethod
    def split(cls, texts: list[str]) -> "tuple[Surroundings, list[str]]":
        """What `texts` gave, and what followed it."""
        pid, started, log_to, folder, track_close, sockets, events, soft, *rest = texts
        inherited = [Inherited.from_text(text) for text in sockets.split()]
        fd = int(events) if events else None
        pairs = (text.split(":") for text in soft.split())
        limits = {int(limit): int(value) for limit, value in pairs}
        told = cls(int(pid), float(started), log_to, folder, track_close, inherited, fd, limits)
        return told, rest


def look(track_close: str, *, inherited: bool, events: int | None = None) -> Surroundings:
    """Look round, in the launcher. The arguments are as the options of those names have them."""
    try:
        stderr = os.fstat(2)
    except OSError:
        stderr = None
    try:
        folder = os.getcwd()
    except OSError:  # it has been removed
        folder = "/"
    pid = os.getpid()
    log_to = log_destination(os.environ, stderr, pid=pid)
    track_close = _tracking(track_close)
    descriptors = every() if inherited else activated(os.environ, pid)
    found = find_sockets(descriptors)
    limits = _soft_limits()
    return Surroundings(pid, time.time(), log_to, folder, track_close, found, events, limits)


def _soft_limits() -> dict[int, int]:
    found = {limit: resource.getrlimit(limit) for limit in LIMITS}
    return {limit: soft for limit, (soft, hard) in found.items() if soft != hard}


def _tracking(wanted: str) -> str:
    """How the ends of sockets are to be seen. Where it is death to ask for events, not by them,
    even if they are wanted."""
    if wanted == "seccomp":
        return wanted
    if not sandbox.filtered():
        return "events" if wanted == "events" or diag.available() else "seccomp"
    status = sandbox.attempt(lambda: 0 if diag.available() else 1)
    if status == 0 or (wanted == "events" and status != sandbox.KILLED):
        return "events"
    return "seccomp"


def log_destination(environ: Mapping[str, str], stderr: os.stat_result | None, *, pid: int) -> str:
    """``journal``, ``stderr`` or ``file``: see natsup.supervisor.log. Pure."""
    if stderr is None:
        return "file"
    if environ.get("JOURNAL_STREAM") == f"{stderr.st_dev}:{stderr.st_ino}":
        return "journal"
    return "stderr" if pid == 1 else "file"
