"""The guard: it holds a copy of the listener, so that the program outlives its supervisor.

When the last copy of the listener closes, every trapped call of the program fails with ENOSYS for
good. The guard does nothing that could fail: it waits, and when the supervisor is gone without
having said that all is done, it lets every call pass, until nobody can make one.

In place the guard is a process of its own, made by the launcher. As parent it is the process that
`natsup exec` started as, and it also stands in for the program towards whoever started it: signals
that are sent to it go on to the program, it stops when the program stops, and ends as it ended.
"""

import contextlib
import os
import resource
import select
import signal
import sys

from natsup.supervisor import handover, libc
from natsup.supervisor.detach import from_the_program
from natsup.supervisor.listener import Listener, pass_everything
from natsup.supervisor.page import Page

_SI_KERNEL = 0x80  # siginfo's si_code for what the terminal sends to a whole group
_NAME = "natsup-guard"
_FINISH_SECONDS = 3.0  # what PID 1 gives the supervisor to clean up in


def supervisor_environment(environ: dict[str, str]) -> dict[str, str]:
    """The environment without what would change how Python runs, other than where it looks."""
    kept = {"PYTHONPATH", "PYTHONHOME"}
    return {k: v for k, v in environ.items() if not k.startswith("PYTHON") or k in kept}


def become_supervisor(listener: int, page: Page, control: int, *, program: int | None) -> None:
    """exec: this process goes on as the supervisor. ``program``: its child's pid, if it is one."""
    fds = (listener, page.fd, control)
    for fd in fds:
        os.set_inheritable(fd, True)
    words = [sys.executable, "-P", "-m", "natsup.supervisor.session", *map(str, fds)]
    if program is not None:
        words.append(str(program))
    os.execve(sys.executable, words, supervisor_environment(dict(os.environ)))


def in_place(launcher: handover.End, page: Page) -> None:
    """The guard's whole life, in a fresh child of the launcher. Returns when it may end."""
    from_the_program({launcher.fileno(), page.fd}, _NAME)
    word, _, listener_fd = handover.receive(launcher)
    if word != handover.LISTENER or listener_fd is None:
        return
    handover.send(launcher, handover.RECEIVED)
    word, _, _ = handover.receive(launcher)  # the end of the stream: it has become the program
    if word == handover.FAILED:
        return
    launcher.close()
    listener = Listener(listener_fd)
    here, there = handover.pair()
    try:
        child = os.fork()
    except OSError:
        child = -1  # too many processes: everything passes, as when the supervisor has died
    if child == 0:
        here.close()
        become_supervisor(listener_fd, page, there.fileno(), program=None)
    there.close()
    _Guard(listener, page, here, child).watch()


class _Guard:
    """Waits on the supervisor's words, and on its end."""

    def __init__(
        self, listener: Listener, page: Page, control: handover.End, supervisor: int
    ) -> None:
        self._listener = listener
        self._page = page
        self._control: handover.End | None = control
        self._supervisor = supervisor
        self._kept: list[int] = []
        self.done = False

    def watch(self) -> None:
        while self._control is not None:
            self.listen_to_supervisor()
        self._reap()
        if not self.done:
            pass_everything(self._listener, self._page, self._wait_for_call)

    def _wait_for_call(self) -> None:
        poll = select.poll()
        poll.register(self._listener.fd, select.POLLIN)
        poll.poll()

    def listen_to_supervisor(self) -> tuple[bytes, int, int | None]:
        """One message, or the end of the stream, after which there will be none."""
        assert self._control is not None
        message = handover.receive(self._control)
        word, _, fd = message
        if not word:
            self._control.close()
            self._control = None
        elif word == handover.KEEP and fd is not None:
            self._kept.append(fd)
        elif word == handover.DONE:
            self.done = True
        return message

    def _reap(self) -> None:
        if self._supervisor > 0:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._supervisor, 0)


class ParentGuard(_Guard):
    """The guard that is also `natsup exec` to the outside."""

    def __init__(
        self,
        listener: Listener,
        page: Page,
        control: handover.End,
        supervisor: int,
        signals: int,
        program: int,
        pidfd: int,
    ) -> None:
        super().__init__(listener, page, control, supervisor)
        self._signals = signals
        self._program = program
        self._pidfd = pidfd
        self._status: int | None = None
        self._passing = False

    def watch(self) -> int:  # type: ignore[override]
        """Until the program's first process has ended. Returns its wait status."""
        while self._status is None:
            poll = select.poll()
            poll.register(self._signals, select.POLLIN)
            if self._control is not None:
                poll.register(self._control, select.POLLIN)
            elif not self._listener.abandoned():
                poll.register(self._listener.fd, select.POLLIN)
            for fd, _ in poll.poll():
                if fd == self._signals:
                    self._signal()
                elif self._control is not None and fd == self._control.fileno():
                    self._word()
                elif self._control is None and not self._listener.abandoned():
                    self._pass_one()
        return self._status

    def _word(self) -> None:
        word, value, _ = self.listen_to_supervisor()
        if word == handover.STATUS:
            self._changed(value)
        elif not word:
            for notification_id in self._page.unanswered():
                self._listener.let_pass(notification_id)
            self._reap_children()  # the program may have ended before it became ours

    def _pass_one(self) -> None:
        if self._listener.receive_into(self._page):
            self._listener.let_pass(self._page.received()[0])

    def _signal(self) -> None:
        info = libc.SignalInfo(os.read(self._signals, libc.SignalInfo.SIZE))
        if info.number == signal.SIGCHLD:
            self._reap_children()
        elif info.code != _SI_KERNEL:  # a terminal's reaches the program by itself
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self._pidfd, info.number)

    def _reap_children(self) -> None:
        """The supervisor, and after its death the program and its orphans."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._program:
                self._changed(status)

    def _changed(self, status: int) -> None:
        if not os.WIFSTOPPED(status):
            self._status = status
            return
        number = os.WSTOPSIG(status)
        if number != signal.SIGSTOP:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})  # here we stop
        signal.pthread_sigmask(signal.SIG_BLOCK, {number})
        # A shell continues the whole group; somebody else may have continued natsup alone.
        if _stopped(self._program):
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGCONT)

    def finish(self) -> None:
        """Before PID 1 ends, and everything with it: have the supervisor clean up."""
        if self._control is None:
            return
        with contextlib.suppress(OSError):
            handover.send(self._control, handover.FINISH)
            self._control.settimeout(_FINISH_SECONDS)
            while self._control is not None and not self.done:
                self.listen_to_supervisor()

    def stay_behind(self) -> None:
        """The program's first process has ended and others live on: guard them, detached."""
        if self._listener.abandoned() or os.fork() != 0:
            return
        kept = {self._listener.fd, self._page.fd, *self._kept}
        if self._control is not None:
            kept.add(self._control.fileno())
        from_the_program(kept, _NAME)
        self._supervisor = -1  # not this process's child
        super().watch()
        os._exit(0)


def _stopped(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b") ")[2][:1] == b"T"
    except OSError:
        return False


def end_as(status: int) -> int:
    """End this process as a wait status says. Returns the exit status where a death cannot be
    imitated: PID 1 has no default deaths, and gets 128+n like in a shell."""
    if not os.WIFSIGNALED(status):
        return os.WEXITSTATUS(status)
    number = os.WTERMSIG(status)
    if os.getpid() != 1:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the program's core is the one
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    return 128 + number
