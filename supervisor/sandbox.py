"""Finding out what a sandbox allows, in a child: there are filters that kill whoever tries.

systemd's SystemCallFilter= does, without SystemCallErrorNumber=.
"""

import os
from _collections_abc import Callable

from natsup.supervisor import abi, child, libc
from natsup.supervisor.bare import signal, suppress

KILLED = -1
_BROKEN = 255


def filtered() -> bool:
    """Is this process under a seccomp filter (proc_pid_status(5))?"""
    with suppress(OSError), open("/proc/self/status", "rb") as file:
        return b"\nSeccomp:\t2\n" in file.read()
    return False


def attempt(function: Callable[[], int]) -> int:
    """What ``function`` returns, 0 to 254, in a child; 255 if it raises anything, and `KILLED` if a
    filter kills it for trying."""

    def run() -> None:
        try:
            with suppress(OSError):
                libc.prctl(abi.PR_SET_DUMPABLE, 0)  # no core of this death
            os._exit(function())
        finally:
            os._exit(_BROKEN)

    status = child.run(run)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGSYS:
        return KILLED
    return os.waitstatus_to_exitcode(status)
