"""The user's commands for what happens to ports: --on-mapped, --on-conflict, --on-released.

They run beside the supervisor, outside the filter, and nothing waits for them but the end of the
session, and that not for long. What happens to one port is told in order, one command after the
other; of different ports a few run at once. What they print goes to natsup's log.

A command outlives the supervisor, should that be killed; so its limit is also kept by timeout(1),
which kills the process group as the supervisor does, only later.
"""

import contextlib
import logging
import os
import resource
import shutil
import signal
from collections import deque
from collections.abc import Mapping

import trio

from natsup.state.history import Entry
from natsup.state.model import Port
from natsup.supervisor.hook_output import Output
from natsup.supervisor.occasions import occasion, variables

log = logging.getLogger("natsup.hooks")

LIMIT = 10.0  # seconds that a command may take
_LATER = 1.0  # seconds after the limit, if there is no supervisor by then
_KILL_SECONDS = 1.0  # from SIGKILL to the end
_AT_ONCE = 4
_WAITING = 256  # events of all ports
_MOST_LEFT = 16  # commands that have ended, and whose output something in the background has
_PRELUDE = 'cd -- "$0" 2>/dev/null; exec sh -c "$1"'
# ulimit's option and its unit, in bytes or seconds or none, as POSIX and all common shells have it
_ULIMIT = {
    resource.RLIMIT_AS: ("v", 1024),
    resource.RLIMIT_CPU: ("t", 1),
    resource.RLIMIT_DATA: ("d", 1024),
    resource.RLIMIT_FSIZE: ("f", 512),
    resource.RLIMIT_NOFILE: ("n", 1),
}
# What a command would inherit and take for itself, were it to run natsup.
_NOT_ITS_OWN = ("NATSUP_EVENTS", "NATSUP_ON_MAPPED", "NATSUP_ON_CONFLICT", "NATSUP_ON_RELEASED")


class Hooks:
    """``commands``: by the options' keys, for sh(1). ``folder``: where they run, if it is still
    there. ``limits``: the soft ones (setrlimit(2)) that are theirs, in place of the supervisor's.
    `run` must be running; `tell` never blocks nor raises."""

    def __init__(
        self,
        commands: Mapping[str, str],
        folder: str,
        environ: Mapping[str, str],
        limits: Mapping[int, int],
        *,
        limit: float = LIMIT,
    ) -> None:
        self._commands = commands
        self._folder = folder
        self._environ = {k: v for k, v in environ.items() if k not in _NOT_ITS_OWN}
        self._limit = limit
        self._prelude = "".join(f"{line}; " for line in _ulimits(limits)) + _PRELUDE
        self._timeout = shutil.which("timeout", path=environ.get("PATH"))
        self._waiting: dict[Port, deque[Entry]] = {}  # a port is here while a task is busy with it
        self._new: deque[Port] = deque()  # ports that no task is busy with yet
        self._come = trio.Event()
        self._idle = trio.Event()
        self._places = trio.CapacityLimiter(_AT_ONCE)
        self._lost = 0
        self._left = 0

    def tell(self, entry: Entry) -> None:
        """Have the command for an event run soon, if there is one."""
        port, name = entry.event.port, occasion(entry)
        if port is None or name is None or name not in self._commands:
            return
        if sum(map(len, self._waiting.values())) >= _WAITING:
            if not self._lost:
                log.warning("the hooks are too slow: events are left out")
            self._lost += 1
            return
        if port not in self._waiting:
            self._waiting[port] = deque()
            self._new.append(port)
        self._waiting[port].append(entry)
        self._come.set()

    async def run(self) -> None:
        """Run commands, until cancelled; what runs then is killed."""
        async with trio.open_nursery() as nursery:
            while True:
                await self._come.wait()
                self._come = trio.Event()
                while self._new:
                    nursery.start_soon(self._serve, nursery, self._new.popleft())

    async def close(self, budget: float) -> None:
        """Wait until all commands have ended, for ``budget`` seconds at most."""
        with trio.move_on_after(budget):
            while self._waiting:
                await self._idle.wait()

    async def _serve(self, nursery: trio.Nursery, port: Port) -> None:
        while self._waiting[port]:
            async with self._places:
                await self._run(nursery, self._waiting[port].popleft())
        del self._waiting[port]
        self._idle.set()
        self._idle = trio.Event()

    async def _run(self, nursery: trio.Nursery, entry: Entry) -> None:
        key = occasion(entry)
        assert key is not None
        name = f"--{key.replace('_', '-')} for {entry.event.port}"
        deadline = trio.current_time() + self._limit
        try:
            outside, inside = os.pipe2(os.O_CLOEXEC)
            output = Output(name, outside)
            goes_on = False
            try:
                try:
                    pid = self._start(self._commands[key], variables(entry), inside)
                finally:
                    os.close(inside)
                goes_on = await _Child(name, pid, output).end(self._limit)
            finally:
                if goes_on and self._left < _MOST_LEFT:
                    self._left += 1
                    nursery.start_soon(self._read_on, output, deadline)
                else:
                    output.close()
        except OSError as error:
            log.warning("%s cannot be run: %s", name, error.strerror)

    async def _read_on(self, output: Output, deadline: float) -> None:
        """What a command has left in the background would be killed by SIGPIPE."""
        try:
            with trio.move_on_at(deadline):
                await output.follow()
        finally:
            self._left -= 1
            output.close()

    def _start(self, command: str, told: Mapping[str, str], output: int) -> int:
        """Start a command in a process group of its own, without what the supervisor ignores."""
        words = ["/bin/sh", "-c", self._prelude, self._folder, command]
        if self._timeout is not None:
            words = [self._timeout, "-s", "KILL", f"{self._limit + _LATER:g}", *words]
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.posix_spawn(
                words[0],
                words,
                {**self._environ, **told},
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, null, 0),
                    (os.POSIX_SPAWN_DUP2, output, 1),
                    (os.POSIX_SPAWN_DUP2, output, 2),
                ],
                setpgroup=0,
                setsigmask=(),
                setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP},
            )
        finally:
            os.close(null)


def _ulimits(limits: Mapping[int, int]) -> list[str]:
    """What sh(1) sets its soft limits by. Pure."""
    return [
        f"ulimit -S -{letter} {-(-limits[limit] // unit)} 2>/dev/null"
        for limit, (letter, unit) in _ULIMIT.items()
        if limit in limits
    ]


class _Child:
    """A command that runs, and what it prints."""

    def __init__(self, name: str, pid: int, output: Output) -> None:
        self._name = name
        self._pid = pid
        self._output = output

    async def end(self, limit: float) -> bool:
        """Wait for its end, and kill its whole group if that takes longer than ``limit``. True: it
        has ended by itself, and others may still print where it did."""
        try:
            pidfd = os.pidfd_open(self._pid)
        except ProcessLookupError:  # collected by who is the parent of all orphans
            return True
        ended = False
        try:
            with trio.move_on_after(limit):
                await self._wait(pidfd)
                ended = True
        finally:
            if not ended:
                log.warning("%s is killed: it has %g s", self._name, limit)
                with contextlib.suppress(OSError):  # it ends just now
                    signal.pidfd_send_signal(pidfd, 0)
                    os.killpg(self._pid, signal.SIGKILL)
                with trio.CancelScope(shield=True), trio.move_on_after(_KILL_SECONDS):
                    await trio.lowlevel.wait_readable(pidfd)
            os.close(pidfd)
            self._collect()
        return ended and not self._output.ended

    async def _wait(self, pidfd: int) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._output.follow)
            await trio.lowlevel.wait_readable(pidfd)
            nursery.cancel_scope.cancel()

    def _collect(self) -> None:
        """Log the rest of what it printed, and how it ended."""
        status = 0
        with contextlib.suppress(ChildProcessError):  # collected by who is the parent of all
            _, status = os.waitpid(self._pid, os.WNOHANG)
        self._output.catch_up()
        code = os.waitstatus_to_exitcode(status)
        if code > 0:
            log.warning("%s ended with status %d", self._name, code)
        elif code < 0:
            log.warning("%s was killed by signal %d", self._name, -code)
