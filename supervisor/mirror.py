"""As parent: what happens to the program happens to natsup, which waits in the guard to be told.

The caller is to see it at once, from the first moment on, and not when the supervisor has imported
what it needs for ports. So this works without trio, from a signal handler (`watch`) until trio's
takes its place.
"""

import contextlib
import os
import signal
from collections.abc import Callable

from natsup.supervisor import handover


class Mirror:
    """``child``: the program's pid, a child of this process. ``control``: hears the guard."""

    def __init__(self, child: int, control: handover.End) -> None:
        self.child = child
        self._control: Callable[[], handover.End] = lambda: control
        self._looking = False
        self._look_again = False
        self.ended = False

    def reach_guard_by(self, control: Callable[[], handover.End]) -> None:
        """The guard may be another one by now: who knows which."""
        self._control = control

    def watch(self) -> None:
        """Mirror what happens from now on, and what has happened already."""
        signal.signal(signal.SIGCHLD, lambda *_: self.collect(everybody=False))
        self.collect(everybody=False)

    def collect(self, *, everybody: bool) -> None:
        """Take what wait() has. ``everybody``: reap all children, who may be orphans; without, none
        is taken from whoever else waits for a child of this process.

        A signal may come in the middle of it. What wait() tells must be told on in that order.
        """
        self._look_again = True
        if self._looking:
            return
        self._looking = True
        try:
            while self._look_again:
                self._look_again = False
                while self._collect_one(-1 if everybody else self.child):
                    pass
        finally:
            self._looking = False

    def _collect_one(self, whom: int) -> bool:
        try:
            pid, status = os.waitpid(whom, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
        except ChildProcessError:
            return False
        if pid and pid == self.child and not self.ended:
            self._repeat(status)
        return pid != 0

    def _repeat(self, status: int) -> None:
        """SIGSTOP and SIGCONT both go to the guard from here, so that the later one counts. A stop
        by another signal the guard has to repeat itself, and sees to it that a SIGCONT is not lost
        on it. It is told of every stop first: whose SIGCONT comes next depends on that.
        """
        self.ended = os.WIFEXITED(status) or os.WIFSIGNALED(status)
        control = self._control()
        guard = handover.maker(control)
        if os.getppid() != guard:  # it is dead, and its number may be another's
            return
        if not os.WIFCONTINUED(status):
            with contextlib.suppress(OSError):  # it has just died
                handover.send(control, handover.STATUS, status)
        if os.WIFSTOPPED(status) and os.WSTOPSIG(status) == signal.SIGSTOP:
            os.kill(guard, signal.SIGSTOP)
        elif not os.WIFSTOPPED(status):
            os.kill(guard, signal.SIGCONT)  # the stopped do not hear of an end either
