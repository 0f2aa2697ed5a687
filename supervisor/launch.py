"""From `natsup exec` to the program's own first instruction, in both layouts.

In place this process becomes the program: whoever started it sees the pid, status, signals, stops
and session of the program itself. The guard is a grandchild, invisible to the program's wait().

As parent, this process stays, as the guard:

    natsup exec (guard)  →  supervisor (subreaper)  →  program

The supervisor has to be the program's ancestor where only an ancestor may look into a process
(Yama), and it has to have an heir where the end of PID 1 kills everything. The program is forked
before the supervisor leaves for a session of its own, and so stays in the caller's session and
process group, on its terminal.

Nothing is imported here that is not needed before the program runs. And from the filter's
installation to exec nothing may call what it traps, close() perhaps among it: nobody answers yet.
"""

import errno
import os
from _collections_abc import Iterable

from natsup.supervisor import abi, child, handover, libc
from natsup.supervisor.bare import signal, suppress
from natsup.supervisor.complaints import FAILED, complain
from natsup.supervisor.filter import FilterRefused, cache_file, install, load
from natsup.supervisor.page import Page
from natsup.supervisor.surroundings import ends_everything, look

TYPE_CHECKING = False  # what type checkers take for true; importing typing takes a millisecond
if TYPE_CHECKING:
    from typing import NoReturn

# Exit statuses of natsup's own, as env(1), nohup(1) and timeout(1) have them.
NOT_EXECUTABLE, NOT_FOUND = 126, 127
CRASHED = 70  # EX_SOFTWARE (sysexits.h)

# Python ignores these at start, and what is ignored stays ignored across exec.
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


class LaunchFailed(Exception):
    """The program was not started. The message says why; ``status`` is what to exit with."""

    def __init__(self, message: str, status: int = FAILED) -> None:
        super().__init__(message)
        self.status = status


def run(
    command: list[str],
    words: list[str],
    *,
    as_parent: bool,
    track_close: str,
    io_uring: bool,
    inherited: bool,
    events: int | str | None,
    argv0: str | None = None,
) -> int:
    """Start ``command`` under supervision. Returns only as parent, with the exit status.

    ``words``: all that followed ``natsup exec``, which the supervisor reads for itself.
    ``track_close``: how the ends of sockets are to be seen. ``io_uring``: may the program use it?
    ``inherited``: are all sockets that it is started with to be published, or those of socket
    activation alone? ``events``: where they are told; a descriptor for it is not the program's.
    ``argv0``: its name, if it is not the command's. Raises `LaunchFailed`.
    """
    program = _Program(command, io_uring=io_uring, argv0=argv0)
    try:
        _occupy_standard_descriptors()
        carried = events if isinstance(events, int) else None
        if carried is not None:
            os.set_inheritable(carried, False)
        surroundings = look(track_close, inherited=inherited, events=carried)
        program.closes = surroundings.closes
        page = Page.create([os.fsencode(text) for text in (*surroundings.texts(), *words)])
    except OSError as error:
        raise LaunchFailed(f"cannot start the supervisor: {error}") from error
    if as_parent:
        return _as_parent(program, page)
    _in_place(program, page)


def run_inside(command: list[str], *, argv0: str | None) -> "NoReturn":
    """Become ``command`` under a natsup that supervises this process already: the kernel allows
    one, and the outer one serves all inside. Raises `LaunchFailed`."""
    program = _Program(command, io_uring=True, argv0=argv0)
    _forget_coerced_locale()
    program.exec()


class _Program:
    """What is to be run, and how it is to find what natsup changes in this process for itself."""

    def __init__(self, command: list[str], *, io_uring: bool, argv0: str | None = None) -> None:
        self._command = command
        self._argv0 = command[0] if argv0 is None else argv0
        self.io_uring = io_uring
        self.closes = False  # is its close() to be trapped?
        # Who ignores SIGCHLD has no children to wait for (wait(2)), and natsup has.
        self._childless = signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def exec(self) -> "NoReturn":
        """Become the program, with what Python changed put back. Raises `LaunchFailed`."""
        for number in _IGNORED_BY_PYTHON:
            signal.signal(number, signal.SIG_DFL)
        if self._childless:
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        words = [os.fsencode(word) for word in (self._argv0, *self._command[1:])]
        error = libc.execvp(os.fsencode(self._command[0]), words)
        for number in _IGNORED_BY_PYTHON:
            signal.signal(number, signal.SIG_IGN)
        name = self._command[0]
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            advice = "is it installed, and in PATH?"
            raise LaunchFailed(f"{name}: command not found; {advice}", NOT_FOUND)
        reason = f"{name}: cannot be run: {error.strerror}"
        raise LaunchFailed(f"{reason}; is it a program, and executable?", NOT_EXECUTABLE)


def _occupy_standard_descriptors() -> None:
    """Where 0, 1 or 2 is closed, put something there that closes at exec: what natsup opens must
    not land on numbers that guard and supervisor replace, and the program is to find them closed.
    """
    while (fd := os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)) <= 2:
        pass
    os.close(fd)


def _in_place(program: _Program, page: Page) -> "NoReturn":
    here, there = handover.pair()

    def start_guard() -> None:
        if os.fork() == 0:
            here.close()
            from natsup.supervisor import guard

            try:
                guard.in_place(there, page)
            except BaseException as error:
                _tell_of_crash(error)

    try:
        child.run(start_guard)  # it goes at once: the program could wait for a child of its own
    except OSError as error:
        raise LaunchFailed(f"cannot start the guard: {error.strerror}") from error
    there.close()
    _become_program(program, [here])


def _become_program(program: _Program, watchers: list[handover.End]) -> "NoReturn":
    """Install the filter, hand its listener to every watcher, and exec.

    Raises `LaunchFailed` before the filter is there. After that this process can only end: any call
    that is trapped could wait for an answer for ever.
    """
    closes, io_uring = program.closes, program.io_uring
    machine = os.uname().machine
    path = cache_file(os.environ, os.geteuid(), machine, closes=closes, io_uring=io_uring)
    try:
        wanted = load(path, closes=closes, io_uring=io_uring)
        _forget_coerced_locale()
        listener = install(wanted)
    except FilterRefused as error:
        raise LaunchFailed(str(error)) from error
    text, status = "an error inside natsup", CRASHED
    try:
        for watcher in watchers:
            handover.send(watcher, handover.LISTENER, fd=listener)
            if handover.receive(watcher)[0] != handover.RECEIVED:
                raise LaunchFailed("the guard ended before the program could start")
        program.exec()  # which closes the listener here
    except OSError as error:
        text = f"the guard could not be reached: {error.strerror}"
    except LaunchFailed as error:
        text, status = str(error), error.status
    except BaseException as error:
        text = f"an error inside natsup, {error!r}; please report it"
        if not closes:  # or to read and write would be to close, and to wait for ever
            with suppress(Exception):
                from natsup.supervisor import crash

                text = f"{text}, with {crash.write(error)}"
    finally:
        for watcher in watchers:
            with suppress(Exception):
                handover.send(watcher, handover.FAILED)
        with suppress(Exception):
            os.write(2, f"natsup: {text}\n".encode(errors="backslashreplace"))
        os._exit(status)


def _tell_of_crash(error: BaseException, *, quietly: bool = False) -> int:
    """In a child of natsup's own. Returns its exit status."""
    from natsup.supervisor import crash

    return crash.end_quietly(error) if quietly else crash.end(error)


def _forget_coerced_locale() -> None:
    """In the C locale Python sets LC_CTYPE for its children (PEP 538); this one did not ask."""
    if "LC_CTYPE" not in os.environ:
        return
    with suppress(OSError), open("/proc/self/environ", "rb") as file:
        if not any(entry.startswith(b"LC_CTYPE=") for entry in file.read().split(b"\0")):
            libc.unsetenv_quietly(b"LC_CTYPE")


def _as_parent(program: _Program, page: Page) -> int:
    from natsup.supervisor import guard

    control, supervisor_control = handover.pair()
    to_guard, from_program = handover.pair()
    libc.prctl(abi.PR_SET_CHILD_SUBREAPER, 1)  # the heir, should the supervisor die
    every = signal.valid_signals()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, every)
    signals = libc.signalfd(sorted(every - {signal.SIGKILL, signal.SIGSTOP}))
    supervisor = os.fork()
    if supervisor == 0:
        control.close()
        from_program.close()
        os.close(signals)
        _supervise_child(program, page, supervisor_control, to_guard, before)
    supervisor_control.close()
    to_guard.close()
    word, _, listener_fd = handover.receive(from_program)
    if word != handover.LISTENER or listener_fd is None:
        return _status_of_failure(supervisor, control)
    handover.send(from_program, handover.RECEIVED)
    if handover.receive(from_program)[0] == handover.FAILED:
        return _status_of_failure(supervisor, control)
    from_program.close()
    word, pid, pidfd = handover.receive(control)
    if word != handover.PROGRAM or pidfd is None:
        return _status_of_failure(supervisor, control)
    from natsup.supervisor.detach import let_go
    from natsup.supervisor.listener import Listener

    let_go({listener_fd, page.fd, control.fileno(), signals, pidfd, *guard.carried(page)})
    listener = Listener(listener_fd)
    parent = guard.ParentGuard(listener, page, control, supervisor, signals, pid, pidfd)
    status = parent.program_status()
    if ends_everything():
        parent.finish()
    if os.getpid() != 1:
        parent.stay_behind()
    return guard.end_as(status)


def _status_of_failure(supervisor: int, control: handover.End) -> int:
    """The program did not start; the child that tried has said why and left its status, or has
    been killed, perhaps by a signal to all of them."""
    from natsup.supervisor import guard

    _, status = os.waitpid(supervisor, 0)
    word = handover.STATUS
    while word:
        word, ended, _ = handover.receive(control)
        if word == handover.STATUS and not os.WIFSTOPPED(ended):
            return guard.end_as(ended)
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else FAILED


def _supervise_child(
    program: _Program,
    page: Page,
    control: handover.End,
    to_guard: handover.End,
    mask: Iterable[int],
) -> "NoReturn":
    """In the child of `natsup exec`: fork the program, then become its supervisor."""
    from natsup.supervisor import guard
    from natsup.supervisor.detach import from_the_program

    status = FAILED
    runs = False
    launcher = os.getppid()
    try:
        libc.prctl(abi.PR_SET_CHILD_SUBREAPER, 1)
        to_supervisor, from_program = handover.pair()
        pid = os.fork()
        if pid == 0:
            control.close()
            from_program.close()
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            _rename_pid(launcher)
            _run_child(program, [to_supervisor, to_guard])
        to_supervisor.close()
        to_guard.close()
        kept = {control.fileno(), from_program.fileno(), page.fd, *guard.carried(page)}
        from_the_program(kept, "natsup", stderr=os.getppid() == 1)
        word, _, listener = handover.receive(from_program)
        if word == handover.LISTENER and listener is not None:
            handover.send(from_program, handover.RECEIVED)
            if handover.receive(from_program)[0] != handover.FAILED:
                from_program.close()
                runs = True
                handover.send(control, handover.PROGRAM, pid, os.pidfd_open(pid))
                guard.become_supervisor(listener, page, control.fileno(), program=pid)
        _, ended = os.waitpid(pid, 0)
        if os.WIFSIGNALED(ended):
            handover.send(control, handover.STATUS, ended)
        status = os.WEXITSTATUS(ended) if os.WIFEXITED(ended) else FAILED
    except BaseException as error:
        status = _tell_of_crash(error, quietly=runs)
    finally:
        os._exit(status)


def _rename_pid(launcher: int) -> None:
    """What the service manager meant for the launcher's pid is meant for the program's:
    sd_listen_fds(3), sd_watchdog_enabled(3)."""
    for name in ("LISTEN_PID", "SYSTEMD_EXEC_PID", "WATCHDOG_PID"):
        if os.environ.get(name) == str(launcher):
            os.environ[name] = str(os.getpid())
            if name == "LISTEN_PID":
                os.environ.pop("LISTEN_PIDFDID", None)  # which tells the same of a pidfd


def _run_child(program: _Program, watchers: list[handover.End]) -> "NoReturn":
    try:
        _become_program(program, watchers)
    except LaunchFailed as error:
        os._exit(complain(str(error), error.status))
    except BaseException as error:
        os._exit(_tell_of_crash(error))
    finally:
        os._exit(CRASHED)
