"""`natsup ui`: whether it can be shown here, and what it is made of."""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from natsup.state.journal import default_directory, sessions
from natsup.supervisor import screen
from natsup.supervisor.complaints import SEE_FOLDER, complain

_DESCRIPTION = (
    "Every session's ports on the whole screen, as they change: search, details and the history of"
    " a port, release, retry, and its external address for the clipboard."
)


def main(parser: argparse.ArgumentParser, words: Sequence[str]) -> int:
    """Run the command. ``parser`` has no arguments yet. Returns the exit status."""
    parser.description = _DESCRIPTION
    parser.parse_args(words)
    missing = unshowable()
    if missing:
        return complain(f"natsup ui {missing}")
    from natsup.state.following import Follower
    from natsup.supervisor import ordering
    from natsup.supervisor.monitor import Monitor, Source
    from natsup.supervisor.watching import Changes, none_left

    directory = default_directory(os.environ, os.getuid())
    try:
        sessions(directory)
    except OSError as error:
        return complain(
            f"the state folder {directory} cannot be read: {error.strerror}; {SEE_FOLDER}"
        )
    try:
        changes = Changes(directory)
    except OSError as error:
        return complain(none_left(directory, error))
    follower = Follower(directory)
    source = Source(
        lambda: sessions(directory), follower.entries, ordering.tell, time.time, changes=changes
    )
    try:
        monitor = Monitor(source)
        monitor.run()
    finally:
        follower.close()
        changes.close()
    if monitor.failed is not None:
        raise monitor.failed
    return monitor.return_code or 0


def unshowable() -> str:
    """Why it cannot be shown here, and what to do about it; "" if it can."""
    if find_spec("textual") is None:
        return f"needs textual, which is not installed; to install it:  {_install()}"
    if not (screen.full() and sys.stdin.isatty() and sys.stderr.isatty()):
        return "needs a terminal, and no dumb one; natsup status shows the same anywhere"
    if not screen.utf8(os.environ):
        return "needs a terminal with UTF-8, by LANG; natsup status --watch does without"
    return ""


def _install() -> str:
    """The command that installs textual where this natsup is."""
    prefix = Path(sys.prefix)
    if prefix.parent.name == "venvs" and "pipx" in prefix.parts:
        return f"pipx inject {prefix.name} textual"
    if "uv" in prefix.parts and prefix.parent.name == "tools":
        return "uv tool install --with textual natsup"
    return f"{prefix / 'bin' / 'python'} -m pip install textual"
