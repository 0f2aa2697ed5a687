"""Leaving the program's company: what guard and supervisor do before anything else."""

import os
import resource
from _collections_abc import Collection, Iterable

from natsup.supervisor.bare import signal, suppress

_LEFT_ALONE = {
    signal.SIGKILL,
    signal.SIGSTOP,
    signal.SIGCHLD,  # the supervisor reaps
    # Faults of natsup's own. A process that ignored them would loop on them. Not SIGABRT: abort(3)
    # ends a process that ignores it, too, and a service manager's watchdog sends it to all.
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGILL,
    signal.SIGFPE,
    signal.SIGSYS,
    signal.SIGTRAP,
}

_MOST_DESCRIPTORS = 1 << 20  # sysctl fs.nr_open, as kernels come


def from_the_program(keep: Collection[int], name: str, *, stderr: bool = False) -> None:
    """A session of our own, no descriptor of the program's, no signal that is meant for it.

    ``name``: what ps(1) is to show, at most 15 bytes.

    ``keep`` are descriptors to keep; with ``stderr`` that one too (PID 1 logs there). Ignored
    signals stay ignored across exec, which is what the supervisor relies on.
    """
    with suppress(OSError), open("/proc/self/comm", "w") as file:
        file.write(name)
    os.setsid()
    os.chdir("/")  # or the program's folder could not be unmounted
    ignore_signals()
    let_go(keep, stderr=stderr)


def ignore_signals() -> None:
    """None is meant for us; and none that was sent before is to come later."""
    for number in signal.valid_signals() - _LEFT_ALONE:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())


def let_go(keep: Collection[int], *, stderr: bool = False) -> None:
    """Close what is the program's: a reader of its output waits for the last writer, and a port is
    taken until the last copy of its socket has gone. The arguments as above."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for standard in (0, 1) if stderr else (0, 1, 2):
        os.dup2(null, standard)
    for fd in open_descriptors():
        if fd > 2 and fd not in keep:
            with suppress(OSError):  # the folder's own is closed already
                os.close(fd)


def open_descriptors() -> Iterable[int]:
    """All that may be open. Not `os.closerange`: where close_range(2) is missing or forbidden it
    tries every number there is, which takes minutes."""
    try:
        return [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:  # no /proc
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return range(_MOST_DESCRIPTORS if limit < 0 else min(limit, _MOST_DESCRIPTORS))
