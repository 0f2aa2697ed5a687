"""The session's next of kin: the guard, and as parent the program, whose fate is passed on."""

import logging
import os
import signal

import trio

from natsup.supervisor import handover

log = logging.getLogger("natsup.session")


class Kin:
    """``child``: the program's pid where it is this process's child. ``finish`` is set once the
    guard wants the session to end."""

    def __init__(self, control: handover.End, child: int | None) -> None:
        self._control = control
        self._child = child
        self._child_ended = trio.Event()
        self.finish = trio.Event()

    async def hear_guard(self) -> None:
        """Until the guard has gone."""
        self._control.setblocking(False)
        while True:
            await trio.lowlevel.wait_readable(self._control)
            word, _, _ = handover.receive(self._control)
            if word == handover.FINISH:
                self.finish.set()
            elif not word:
                log.warning("the guard has gone: should this process die, so do further binds")
                return

    def tell_guard(self, word: bytes, value: int | None = None, fd: int | None = None) -> bool:
        """False: it lives and does not listen, and may be told later."""
        try:
            handover.send(self._control, word, value, fd)
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
        guard = handover.maker(self._control)
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
