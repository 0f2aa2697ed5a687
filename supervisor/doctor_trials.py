"""Trying things that may be refused, in a child: there are sandboxes that kill instead."""

import errno
import os
import resource
import signal
from collections.abc import Callable

from natsup.supervisor import child
from natsup.supervisor.doctor_facts import Tried

_PATIENCE = 2  # seconds; nothing that is tried waits for anybody
# Exit statuses: below these they are errnos.
_KILLED, _BROKEN = 254, 255


class _Killed(Exception):
    """A child of the child was."""


def attempt(function: Callable[[], object]) -> Tried:
    """Call ``function`` in a child. That it returns is its success, an OSError its refusal."""

    def run() -> None:
        status = _BROKEN
        try:
            _leave_no_core()
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(_PATIENCE)
            function()
            status = 0
        except OSError as error:
            status = error.errno or _BROKEN
        except _Killed:
            status = _KILLED
        finally:
            os._exit(status)

    try:
        status = child.run(run)
    except OSError as error:
        return Tried(error.errno or errno.EIO)
    if os.WIFSIGNALED(status):
        late = os.WTERMSIG(status) == signal.SIGALRM
        return Tried(errno.ETIME) if late else Tried(killed=True)
    code = os.WEXITSTATUS(status)
    if code == _KILLED:
        return Tried(killed=True)
    return Tried(errno.EIO if code == _BROKEN else code)


def look_into(function: Callable[[int], object], *, as_parent: bool) -> Tried:
    """Call ``function`` with the pid of a process that is to the caller what the program is to the
    supervisor: its child as parent, else one that it does not descend from."""

    def from_above() -> None:
        wait, alive = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(alive)
            os.read(wait, 1)  # until the other end has gone, however it went
            os._exit(0)
        try:
            function(pid)
        finally:
            os.close(alive)
            os.waitpid(pid, 0)

    def from_below() -> None:
        pid = os.getpid()
        tried = attempt(lambda: function(pid))
        if tried.killed:
            raise _Killed
        if tried.error:
            raise OSError(tried.error, os.strerror(tried.error))

    return attempt(from_above if as_parent else from_below)


def _leave_no_core() -> None:
    """A limit of 1 also stops a core_pattern that is a pipe (fs/coredump.c). PR_SET_DUMPABLE would
    keep everybody from looking into this process, which may be what is tried."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0 if hard == 0 else 1, hard))
