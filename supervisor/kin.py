"""The session's next of kin: the guard, and as parent the program, whose fate is passed on.

A guard that has gone gets a successor at once: without one, the end of this process would be the
end of the program's further binds, too.
"""

import logging
import os
import signal
from collections.abc import Callable

import trio

from natsup.supervisor import handover
from natsup.supervisor.restarts import Restarts

log = logging.getLogger("natsup.session")


class Kin:
    """``child``: the program's pid where it is this process's child. ``finish`` is set once the
    guard wants the session to end."""

    def __init__(
        self, control: handover.End, child: int | None, start_guard: Callable[[int], int]
    ) -> None:
        """``start_guard``: starts a guard that hears this descriptor, and returns its pid; raises
        OSError."""
        self.control = control
        self._start_guard = start_guard
        self._guard = -1  # a child of this process
        self._restarts = Restarts(trio.current_time())
        self._child = child
        self._child_ended = trio.Event()
        self.finish = trio.Event()
        self.finish_now = False  # does everything end soon, as with PID 1?

    async def hear_guard(self) -> None:
        """Hear one guard after the other."""
        self.control.setblocking(False)
        while True:
            await trio.lowlevel.wait_readable(self.control)
            word, _, _ = handover.receive(self.control)
            if word == handover.FINISH:
                self.finish.set()
                self.finish_now = True
            elif not word:
                await self._follow_guard()

    async def _follow_guard(self) -> None:
        """The guard has gone. Start another one, after longer and longer pauses if they do not
        stay."""
        at = self._restarts.ended(trio.current_time())
        if at is None:
            log.warning("the guards end: should this process die, so do further binds")
            await trio.sleep_forever()
        else:
            await trio.sleep_until(at)
        log.warning("the guard has gone: starting another one")
        self._restarts.began(trio.current_time())
        before = self.control
        self.control, there = handover.pair()
        before.close()
        self.control.setblocking(False)
        try:
            self._guard = self._start_guard(there.fileno())
        except OSError as error:
            log.warning("no guard can be started: %s", error.strerror)
        finally:
            there.close()

    def tell_guard(self, word: bytes, value: int | None = None, fd: int | None = None) -> bool:
        """False: it lives and does not listen, and may be told later."""
        try:
            handover.send(self.control, word, value, fd)
        except OSError as error:
            log.debug("the guard cannot be told %s: %s", word.decode(), error.strerror)
            return isinstance(error, (BrokenPipeError, ConnectionResetError))
        return True

    async def reap(self) -> None:
        """As the subreaper of the program's tree: nobody stays a zombie, the guard is told."""
        child = self._child
        if child is None:
            return
        with trio.open_signal_receiver(signal.SIGCHLD) as arrivals:
            self._collect(child)
            async for _ in arrivals:
                self._collect(child)

    def _collect(self, child: int) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == child:
                self._mirror(status)

    def _mirror(self, status: int) -> None:
        """What happened to the program happens to natsup.

        SIGSTOP and SIGCONT both go to it from here, so that the later one counts. A stop by another
        signal the guard has to repeat itself, and sees to it that a SIGCONT is not lost on it.
        """
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            self._child = None
            self._child_ended.set()
        guard = handover.maker(self.control)
        if os.getppid() != guard:  # it is dead, and its number may be another's
            return
        if os.WIFSTOPPED(status) and os.WSTOPSIG(status) == signal.SIGSTOP:
            os.kill(guard, signal.SIGSTOP)
            return
        if not os.WIFCONTINUED(status):
            self.tell_guard(handover.STATUS, status)
        if not os.WIFSTOPPED(status):
            os.kill(guard, signal.SIGCONT)  # the stopped do not hear of an end either

    async def wait_for_child(self) -> None:
        """See the program's end. The filter has lost its last user before wait() knows of it: in
        do_exit(), kernel/exit.c, of Linux 6.11."""
        if self._child is not None:
            await self._child_ended.wait()
