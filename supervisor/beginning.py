"""What every session begins with, also one whose program has ended already: a name, and its log."""

import logging
import os
from pathlib import Path

from natsup.state.journal import default_directory
from natsup.supervisor import log as logs
from natsup.supervisor.options import Settings, unknown
from natsup.supervisor.surroundings import Surroundings

log = logging.getLogger("natsup.session")


def new_name() -> str:
    """A name that no session of this host has had."""
    return f"{os.getpid():x}-{os.urandom(3).hex()}"


def state_folder(surroundings: Surroundings) -> Path:
    """Where sessions keep their state. A relative one is relative to where natsup was typed."""
    return surroundings.folder / default_directory(os.environ, os.getuid())


def open_log(settings: Settings, surroundings: Surroundings, session: str) -> None:
    """From now on the log goes where it is to go."""
    folder = state_folder(surroundings)
    logs.set_up(surroundings.log_to, file=settings["log"], folder=folder, session=session)


def tell(command: list[str], pid: int, *, first: bool) -> None:
    """Log whose session this is, unless it is not the ``first`` of its supervisors, and what may be
    mistyped."""
    if first:
        log.info("session for %s (pid %d)", command[0], pid)
    for name in unknown(os.environ):
        log.warning("%s is no option: is it mistyped? natsup exec --help lists them all", name)
