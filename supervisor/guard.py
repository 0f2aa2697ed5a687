"""The guard: it holds a copy of the listener, so that the program outlives its supervisor.

When the last copy of the listener closes, every trapped call of the program fails with ENOSYS for
good. The guard does nothing that could fail: it waits, and when the supervisor is gone it lets
every call pass, and starts another one, which takes over what the dead one's journal tells.

In place the guard is a process of its own, made by the launcher. As parent it is the process that
`natsup exec` started as, and it also stands in for the program towards whoever started it: signals
that are sent to it go on to the program, it stops when the program stops, and ends as it ended.
"""

import os
import resource
import select
import sys
import time
from _collections_abc import Collection, Sequence

from natsup.state import points
from natsup.supervisor import abi, handover, libc, unanswered
from natsup.supervisor.bare import signal, suppress
from natsup.supervisor.detach import from_the_program, ignore_signals, let_go
from natsup.supervisor.listener import Listener
from natsup.supervisor.page import Page
from natsup.supervisor.restarts import Restarts
from natsup.supervisor.surroundings import Surroundings

_SI_KERNEL = 0x80  # siginfo's si_code for what the terminal sends
_NAME = "natsup-guard"
_FINISH_SECONDS = 3.0  # what PID 1 gives the supervisor to clean up in
_LOOK_SECONDS = 0.05  # between looks whether a program that is stopped runs again
_END_SECONDS = 5  # from the supervisor's last word until its process has ended
_STATUS_SECONDS = 5.0  # from the program's end in wait() to the word of it, which follows at once
_UNKNOWN_STATUS = 125 << 8  # wait(2)'s form of natsup's own exit status for its failures

# How a supervisor comes to a session
FIRST = "first"
AFTER = "after"  # another one, which has ended
AGAIN = "again"  # as the same process, by its own wish


def supervisor_environment(environ: dict[str, str], folder: str) -> dict[str, str]:
    """The environment without what would change how Python runs, other than where it looks.

    ``folder``: what its paths are relative to, absolute; the supervisor will be elsewhere.
    """
    found = {k: v for k, v in environ.items() if not k.startswith("PYTHON")}
    for name in ("PYTHONPATH", "PYTHONHOME"):
        if environ.get(name):
            paths = environ[name].split(os.pathsep)
            found[name] = os.pathsep.join(os.path.join(folder, path) for path in paths)
    return found


def carried(page: Page) -> list[int]:
    """The descriptors of the user's that go from one process of natsup's to the next."""
    try:
        surroundings, _ = Surroundings.split([os.fsdecode(text) for text in page.texts()])
    except ValueError:  # nothing stands there, and a guard must not fail of it
        return []
    return [] if surroundings.events is None else [surroundings.events]


def become_supervisor(
    listener: int,
    page: Page,
    control: int,
    *,
    program: int | None,
    journals: Sequence[int] = (),
    how: str = FIRST,
) -> None:
    """exec: this process goes on as the supervisor. ``program``: its child's pid, if it is one.
    ``journals``: what a supervisor before it left, open; ``how``: FIRST, AFTER or AGAIN."""
    fds = (listener, page.fd, control)
    for fd in (*fds, *journals, *carried(page)):
        os.set_inheritable(fd, True)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # until there is who hears it
    child = "-" if program is None else str(program)
    words = [sys.executable, "-P", "-m", "natsup.supervisor.session", how, *map(str, fds), child]
    surroundings, _ = Surroundings.split([os.fsdecode(text) for text in page.texts()])
    environ = supervisor_environment(dict(os.environ), surroundings.folder)
    if how != FIRST:
        environ = points.of_successor(environ)
    os.execve(sys.executable, [*words, *map(str, journals)], environ)


def become_last_word(page: Page, journals: Sequence[int]) -> None:
    """exec: this process goes on as the one that tells the log that no supervisor follows."""
    for fd in journals:
        os.set_inheritable(fd, True)
    texts = [os.fsdecode(text) for text in page.texts()]
    words = [sys.executable, "-P", "-m", "natsup.supervisor.last_word"]
    surroundings, _ = Surroundings.split(texts)
    environ = supervisor_environment(dict(os.environ), surroundings.folder)
    journal = journals[-1] if journals else -1
    os.execve(sys.executable, [*words, str(journal), *texts], environ)


def in_place(launcher: handover.End, page: Page) -> None:
    """The guard's whole life, in a fresh child of the launcher. Returns when it may end."""
    from_the_program({launcher.fileno(), page.fd, *carried(page)}, _NAME)
    word, _, listener_fd = handover.receive(launcher)
    if word != handover.LISTENER or listener_fd is None:
        return
    handover.send(launcher, handover.RECEIVED)
    word, _, _ = handover.receive(launcher)  # the end of the stream: it has become the program
    if word == handover.FAILED:
        _Guard(Listener(listener_fd), page, None, -1).guard()  # the launcher has to end, too
        return
    launcher.close()
    guard = _Guard(Listener(listener_fd), page, None, -1)
    guard.start(FIRST)
    guard.guard()


class _Guard:
    """Hears the supervisor, and after its end answers in its stead."""

    def __init__(
        self, listener: Listener, page: Page, control: handover.End | None, supervisor: int
    ) -> None:
        self._listener = listener
        self._page = page
        self._own_page = Page(page.fd, guards=True)
        self._control = control
        self._supervisor = -1
        self._supervisor_end = -1
        self._follow(supervisor)
        self._served = control is not None  # does the supervisor take the calls?
        self._kept: list[int] = []
        # How a supervisor comes to the session, if it is started here
        self._how = FIRST if control is None else AFTER
        self._done = False  # has it said that all is cleaned up?
        self._last = False  # is no other supervisor to follow?
        self._gave_up = False
        self._restarts = Restarts(time.monotonic())
        self._restart_at: float | None = None

    def begin(self) -> None:
        """After another guard, which may have left a call unanswered."""
        self._listener.pass_last(self._own_page)

    def guard(self) -> None:
        """Until nobody can make a call any more, and the supervisor has ended."""
        while (
            self._control is not None
            or self._restart_at is not None
            or not self._listener.abandoned()
        ):
            self._take_turn()
        if self._gave_up:
            self._clean()

    def _take_turn(self, *others: int, seconds: float | None = None) -> set[int]:
        """Wait for something to do, and do it. Returns which of ``others`` are readable; nothing
        has come within ``seconds`` if `None` of them is."""
        poll = select.poll()
        for fd in others:
            poll.register(fd, select.POLLIN)
        control = calls = -1
        if self._control is not None:
            control = self._control.fileno()
            poll.register(control, select.POLLIN)
        if not self._served and not self._listener.abandoned():
            calls = self._listener.fd
            poll.register(calls, select.POLLIN)
        if self._restart_at is not None:
            pause = max(0.0, self._restart_at - time.monotonic())
            seconds = pause if seconds is None else min(seconds, pause)
        if control < 0 and calls < 0 and not others and seconds is None:
            return set()  # the last caller has gone just now, and nothing would end the wait
        timeout = None if seconds is None else int(seconds * 1000) + 1
        events = dict(poll.poll(timeout))
        ready = set(events)
        # Not when the last caller has gone: before Linux 6.11 that wait has no end.
        if events.get(calls, 0) & select.POLLIN:
            self._listener.pass_next(self._own_page)
        if control in ready:
            self._hear_all()
        if self._restart_at is not None and self._restart_at <= time.monotonic():
            self.start(self._how)
        return ready

    def _hear_all(self) -> None:
        """All that is there: a signal that has come as well may be about any of it."""
        poll = select.poll()
        while self._control is not None:
            poll.register(self._control, select.POLLIN)
            if not poll.poll(0):
                return
            self._hear()

    def _hear(self) -> None:
        """One word of the supervisor's, or the end of the stream, after which there is none."""
        assert self._control is not None
        word, value, fd = handover.receive(self._control)
        if word == handover.KEEP and fd is not None:
            self.keep([fd])
        elif word == handover.DONE:
            self._done = True
        elif word == handover.PASS:
            self._served = False
        elif word == handover.TAKING:
            self._served = True
            with suppress(OSError):
                handover.send(self._control, handover.RECEIVED)
        elif word == handover.STATUS:
            self._program_changed(value)
        elif not word:
            self._control.close()
            self._control = None
            self._take_over()

    def keep(self, journals: Sequence[int]) -> None:
        """Hold the session's journal, which is locked. Another takes the place of the last one, but
        only once the guard has it: until there is yet another, both count."""
        self._kept += journals
        while len(self._kept) > 2:
            os.close(self._kept.pop(0))

    def _take_over(self) -> None:
        """The supervisor has ended, or is about to: the end of the stream comes before that of
        other descriptors, by which it may hold ports."""
        self._await_supervisor()
        if points.STOP_AT:
            points.reached("settle")
        if self._served:
            unanswered.settle(self._listener, self._page)
            if points.STOP_AT:
                points.reached("settled")
            self._listener.pass_last(self._page)
        self._served = False
        if not self._done and not self._last:
            self._plan_start()

    def _plan_start(self) -> None:
        self._restart_at = self._restarts.ended(time.monotonic())
        if self._restart_at is None:
            self._give_up()

    def _follow(self, supervisor: int) -> None:
        """This is the supervisor from now on; -1: none."""
        self._supervisor = supervisor
        with suppress(OSError):
            self._supervisor_end = -1 if supervisor < 0 else os.pidfd_open(supervisor)

    def _await_supervisor(self) -> None:
        """Its descriptors are closed when a pidfd says that it has ended, and before wait() does.
        (do_exit(), kernel/exit.c: exit_files() and exit_task_work() come before exit_notify().)"""
        if self._supervisor_end >= 0:
            poll = select.poll()
            poll.register(self._supervisor_end, select.POLLIN)
            over = poll.poll(_END_SECONDS * 1000)
            os.close(self._supervisor_end)
            self._supervisor = self._supervisor if over else -1
        if self._supervisor > 0:
            with suppress(ChildProcessError):
                os.waitpid(self._supervisor, 0)
        self._supervisor = self._supervisor_end = -1

    def start(self, how: str) -> None:
        """Start a supervisor. Without descriptors or processes for it, that is tried again later,
        and everything passes, as when it has died."""
        self._restart_at = None
        if points.STOP_AT:
            points.reached("restart")
        self._restarts.began(time.monotonic())
        ends: tuple[handover.End, ...] = ()
        try:
            here, there = ends = handover.pair()
            child = os.fork()
        except OSError:
            for end in ends:
                end.close()
            self._served = False
            self._how = how
            self._plan_start()
            return
        self._how = AFTER
        self._served = how == FIRST
        if child == 0:
            try:
                here.close()
                kept = {*self._kept, *carried(self._page)}
                self._leave({self._listener.fd, self._page.fd, there.fileno(), *kept})
                become_supervisor(
                    self._listener.fd,
                    self._page,
                    there.fileno(),
                    program=None,
                    journals=self._kept,
                    how=how,
                )
            finally:
                os._exit(1)
        there.close()
        self._follow(child)
        self._control = here

    def _leave(self, keep: Collection[int]) -> None:
        """In a fresh child, which is to become a supervisor: leave the program's company."""

    def _give_up(self) -> None:
        """Say so where people look: in the session's own journal, and in the log."""
        self._gave_up = True
        line = f'\n{{"time": {time.time():.3f}, "given_up": true}}\n'
        for fd in self._kept[-1:]:
            with suppress(OSError):
                os.write(fd, line.encode())
        with suppress(OSError):
            child = os.fork()
            if child == 0:
                try:
                    if os.fork() == 0:  # nobody waits for this one
                        self._leave(self._kept)
                        become_last_word(self._page, self._kept)
                finally:
                    os._exit(0)
            os.waitpid(child, 0)

    def _clean(self) -> None:
        """There is no session any more whose end would clean up: become who does that."""
        for fd in self._kept:
            os.close(fd)  # which unlocks the journal
        with suppress(OSError):
            words = [sys.executable, "-P", "-m", "natsup.supervisor.cli", "clean"]
            os.execv(sys.executable, words)

    def _program_changed(self, status: int) -> None:
        """In place nobody has to be told: the caller is the program's own parent."""


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
        self._mirrored_stop = False  # and not been continued since

    def program_status(self) -> int:
        """Guard until the program's first process has ended. Returns its wait status.

        The supervisor tells it, or wait() once the supervisor is dead. Should its word be lost,
        the pidfd has the last: it is readable at the program's end.
        """
        watched = [self._signals, self._pidfd]
        seconds: float | None = None
        while self._status is None:
            ready = self._take_turn(*watched, seconds=seconds)
            if self._signals in ready:
                self._signal()
            if self._pidfd in ready:
                watched.remove(self._pidfd)
                seconds = _STATUS_SECONDS
            elif seconds is not None and not ready and self._collected():
                return _UNKNOWN_STATUS
        return self._status

    def _collected(self) -> bool:
        """Has somebody waited for the program, so that its status is not to be had any more?"""
        try:
            signal.pidfd_send_signal(self._pidfd, 0)
        except ProcessLookupError:
            return True
        return False

    def _signal(self) -> None:
        info = libc.SignalInfo(os.read(self._signals, libc.SignalInfo.SIZE))
        if info.number == signal.SIGCHLD:
            self._reap_children()
        elif self._is_for_the_program(info):
            with suppress(OSError):
                signal.pidfd_send_signal(self._pidfd, info.number)

    def _is_for_the_program(self, info: libc.SignalInfo) -> bool:
        """A terminal's signals go to a whole process group, and reach the program by themselves.
        But its hang-up goes to the session's leader alone (tty_signal_session_leader() in
        drivers/tty/tty_jobctrl.c), which then is expected to tell the rest."""
        if info.code == _SI_KERNEL:
            hang_up = info.number in (signal.SIGHUP, signal.SIGCONT)
            return hang_up and os.getsid(0) == os.getpid()
        if info.number != signal.SIGCONT:
            return True
        mirrored, self._mirrored_stop = self._mirrored_stop, False
        if info.sender == self._supervisor:
            return False  # that one was for natsup: the program runs again
        # A shell continues the whole job, in which the program comes before natsup, being younger
        # (__kill_pgrp_info() in kernel/signal.c, attach_pid() in kernel/pid.c).
        return not mirrored or _stopped(self._program)

    def _take_over(self) -> None:
        super()._take_over()
        self._reap_children()  # the program may have ended before it became ours

    def _leave(self, keep: Collection[int]) -> None:
        from_the_program(keep, "natsup", stderr=os.getppid() == 1)

    def _reap_children(self) -> None:
        """The supervisor, and after its death the program and its orphans."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid != self._program:
                continue
            if not os.WIFSTOPPED(status):
                self._status = status
            elif os.WSTOPSIG(status) != signal.SIGSTOP:
                self._have_it_continued()
                self._stop(os.WSTOPSIG(status))

    def _have_it_continued(self) -> None:
        """Continue this process when the program runs again, or has ended. The supervisor does so
        as the program's parent, and is that no more."""
        here = os.getpid()
        with suppress(OSError):
            if os.fork() == 0:
                let_go(())
                while _stopped(self._program) and os.getppid() == here:
                    time.sleep(_LOOK_SECONDS)
                if os.getppid() == here:
                    os.kill(here, signal.SIGCONT)
                os._exit(0)

    def _program_changed(self, status: int) -> None:
        if not os.WIFSTOPPED(status):
            self._status = status
        elif os.WSTOPSIG(status) == signal.SIGSTOP:
            self._mirrored_stop = True  # the supervisor sends the signal, too
        else:
            self._stop(os.WSTOPSIG(status))

    def _stop(self, number: int) -> None:
        """Stop by ``number``: SIGTSTP, SIGTTIN or SIGTTOU. SIGSTOP the supervisor sends here.

        The program may be continued at any moment, and the supervisor then continues this process.
        Should that come too early, this one would stop for ever. So the stop is made pending
        first, which a blocked signal is; then the program is looked at; and a SIGCONT that comes
        after the look takes the pending stop away (signal(7), and prepare_signal() in
        kernel/signal.c).
        """
        self._mirrored_stop = True
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        if _stopped(self._program):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})  # here we stop
            signal.pthread_sigmask(signal.SIG_BLOCK, {number})
        else:
            signal.sigtimedwait({number}, 0)

    def finish(self) -> None:
        """Before everything ends with this process: have the supervisor clean up."""
        if self._control is None:
            return
        self._last = True
        with suppress(OSError):  # it may have ended by itself; its last word is there
            handover.send(self._control, handover.FINISH)
        with suppress(OSError):
            self._control.settimeout(_FINISH_SECONDS)
            while self._control is not None and not self._done:
                self._hear()
        if self._done:
            # Some that wait for all in a container take the last status that they see (firejail).
            self._await_supervisor()

    def stay_behind(self) -> None:
        """The program's first process has ended, and others may live on: guard them, detached, and
        see to it that somebody cleans up."""
        if self._done or os.fork() != 0:
            return
        kept = {self._listener.fd, self._page.fd, self._supervisor_end, *self._kept}
        kept.update(carried(self._page))
        if self._control is not None:
            self._control.settimeout(None)
            kept.add(self._control.fileno())
        from_the_program(kept, _NAME)
        self._supervisor = -1  # nobody's child here; its end is seen all the same
        self.guard()
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
        with suppress(OSError, ValueError):
            # The program's core is the one. A core_pattern that is a pipe minds no limit (core(5)).
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            libc.prctl(abi.PR_SET_DUMPABLE, 0)
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    return 128 + number


def main(arguments: list[str]) -> None:
    """Guard for the supervisor that started this process: its guard has gone."""
    with suppress(OSError), open("/proc/self/comm", "w") as file:
        file.write(_NAME)
    listener, page, control, *journals = map(int, arguments)
    for fd in (listener, page, control, *journals):
        os.set_inheritable(fd, False)
    ignore_signals()
    shared = Page(page)
    for fd in carried(shared):
        os.set_inheritable(fd, False)
    end = handover.End(fileno=control)
    # Not this process's parent, which is another one if the supervisor has ended by now.
    guard = _Guard(Listener(listener), shared, end, handover.maker(end))
    guard.keep(journals)
    guard.begin()
    if points.STOP_AT:
        points.reached("guarding")
    guard.guard()


if __name__ == "__main__":
    main(sys.argv[1:])
