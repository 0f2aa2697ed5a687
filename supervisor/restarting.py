"""`natsup restart`: a new supervisor for a session that goes on, after natsup has been replaced.

The supervisor itself begins anew, as the same process with another image (execve(2)): what it is to
the program, its parent perhaps, stays so. It is told by a signal, SIGUSR2.
"""

import argparse
import os
import select
import signal
import time
from collections.abc import Iterable

from natsup.state.journal import SessionRecord, default_directory, read, sessions
from natsup.state.report import printable
from natsup.supervisor.complaints import SEE_FOLDER, complain
from natsup.supervisor.page import VERSION

_SECONDS = 30.0  # for a supervisor to be there again, which lets hooks end first
_NAME = "natsup\n"


def command(parser: argparse.ArgumentParser, words: list[str]) -> int:
    """The command line's part. Returns the exit status."""
    parser.add_argument("session", nargs="?", help="its name or pid, by natsup status [all]")
    wanted = parser.parse_args(words).session
    try:
        chosen = running(wanted)
    except NotRunning as error:
        return complain(str(error))
    if not chosen:
        print("No session is running.")
    return max([_restart(session) for session in chosen], default=0)


class NotRunning(Exception):
    """No such session, for a reason that it tells."""


def running(wanted: str | None) -> list[SessionRecord]:
    """This user's sessions that a word on the command line means; None: all. Raises NotRunning."""
    directory = default_directory(os.environ, os.getuid())
    try:
        living = [session for session in sessions(directory) if session.alive]
    except OSError as error:
        reason = f"the state folder {directory} cannot be read: {error.strerror}"
        raise NotRunning(f"{reason}; {SEE_FOLDER}") from error
    chosen = choose(living, wanted)
    if wanted is not None and not chosen:
        raise NotRunning(f"no session {wanted!r} is running; natsup status lists them")
    return chosen


def choose(living: Iterable[SessionRecord], wanted: str | None) -> list[SessionRecord]:
    """The sessions that a word on the command line means; None: all. Pure."""
    return [
        session
        for session in living
        if wanted is None or wanted in (session.header.session, str(session.header.pid))
    ]


def _restart(session: SessionRecord) -> int:
    name = name_of(session)
    if session.page != VERSION:
        return complain(f"{name}: begun by another version of natsup, which goes on with it")
    try:
        pidfd = os.pidfd_open(session.supervisor)
    except (OSError, ValueError):
        return complain(f"{name}: its supervisor is not there just now; its guard sees to it")
    try:
        with open(f"/proc/{session.supervisor}/comm") as file:
            if file.read() != _NAME:
                return complain(f"{name}: its supervisor is not there just now")
        before = _begun(session)
        signal.pidfd_send_signal(pidfd, signal.SIGUSR2)
        ended = select.poll()
        ended.register(pidfd, select.POLLIN)
        deadline = time.monotonic() + _SECONDS
        while time.monotonic() < deadline:
            if _begun(session) > before:
                print(f"{name}: restarted")
                return 0
            if ended.poll(20):
                return complain(f"{name}: its supervisor ended; its guard starts another one")
    except OSError as error:
        return complain(f"{name}: {error.strerror}")
    finally:
        os.close(pidfd)
    return complain(f"{name}: nothing has come of it within {_SECONDS:.0f} s; see its log")


def name_of(session: SessionRecord) -> str:
    """For people."""
    program = session.header.command[0].rpartition("/")[2]
    return f"{printable(program)} (session {session.header.session})"


def _begun(session: SessionRecord) -> int:
    """How often a supervisor has begun to serve a session."""
    assert session.path is not None
    found = read(session.path)
    return 0 if found is None else found.supervisors
