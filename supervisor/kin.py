"""The session's next of kin: the guard, and as parent the program, whose fate is passed on.

A guard that has gone gets a successor at once: without one, the end of this process would be the
end of the program's further binds, too.
"""

import contextlib
import logging
import os
import signal
from collections.abc import Callable

import trio

from natsup.state import points
from natsup.supervisor import handover
from natsup.supervisor.mirror import Mirror
from natsup.supervisor.restarts import Restarts

log = logging.getLogger("natsup.session")


class Kin:
    """``mirror`` is there where the program is this process's child. ``finish`` is set once the
    guard wants the session to end."""

    def __init__(
        self,
        control: handover.End,
        mirror: Mirror | None,
        start_guard: Callable[[int], int],
        abandoned: Callable[[], bool],
    ) -> None:
        """``start_guard``: starts a guard that hears this descriptor, and returns its pid; raises
        OSError. ``abandoned``: is there nobody left to guard?"""
        self.control = control
        if mirror is not None:
            mirror.reach_guard_by(lambda: self.control)
        self._start_guard = start_guard
        self._guard = -1  # a child of this process
        self._restarts = Restarts(trio.current_time())
        self._mirror = mirror
        self._abandoned = abandoned
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
            elif not word and self._abandoned():
                return  # as parent it ends with the program
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
        if points.STOP_AT:
            points.reached("follow")
        self._restarts.began(trio.current_time())
        self._bury_guard()
        before = self.control
        try:
            self.control, there = handover.pair()
        except OSError as error:
            log.warning("no guard can be started: %s", error.strerror)
            return  # the end of the stream is still to be heard
        before.close()
        self.control.setblocking(False)
        try:
            self._guard = self._start_guard(there.fileno())
            if points.STOP_AT:
                points.reached("followed")
        except OSError as error:
            log.warning("no guard can be started: %s", error.strerror)
        finally:
            there.close()

    def _bury_guard(self) -> None:
        """It has closed its end of the stream by ending."""
        if self._guard > 0:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._guard, 0)
            self._guard = -1

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
        mirror = self._mirror
        if mirror is None:
            return
        with trio.open_signal_receiver(signal.SIGCHLD) as arrivals:
            self._collect(mirror)
            async for _ in arrivals:
                self._collect(mirror)

    def _collect(self, mirror: Mirror) -> None:
        mirror.collect(everybody=True)
        if mirror.ended:
            self._child_ended.set()

    async def wait_for_child(self) -> None:
        """See the program's end. The filter has lost its last user before wait() knows of it: in
        do_exit(), kernel/exit.c, of Linux 6.11."""
        if self._mirror is not None:
            await self._child_ended.wait()
