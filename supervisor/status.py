"""`natsup status`: every session's ports, once, or as they change."""

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from natsup.state import report
from natsup.state.journal import SessionRecord, default_directory, sessions
from natsup.supervisor.complaints import SEE_FOLDER, complain

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from natsup.supervisor.watching import Changes

_DESCRIPTION = "Every session's ports, and what state each is in."
_LONGEST_PAUSE = 10.0  # seconds until the countdowns of leases are painted again


def main(parser: argparse.ArgumentParser, words: Sequence[str]) -> int:
    """Run the command. ``parser`` has no arguments yet. Returns the exit status."""
    parser.description = _DESCRIPTION
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument(
        "--watch", action="store_true", help="show it anew at every change, until Ctrl-C"
    )
    options = parser.parse_args(words)
    directory = default_directory(os.environ, os.getuid())
    try:
        if options.watch:
            return _watch(directory, as_json=options.json)
        _print(sessions(directory), as_json=options.json)
    except KeyboardInterrupt:
        if not options.watch:
            raise
    except OSError as error:
        return complain(
            f"the state folder {directory} cannot be read: {error.strerror}; {SEE_FOLDER}"
        )
    return 0


def _print(found: list[SessionRecord], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(report.as_json(found), indent=2))
        return
    from natsup.supervisor import screen

    console = screen.console()
    if console is None:
        screen.show(report.as_text(found, now=time.time()))
    else:
        console.print(_picture(console, found))


def _picture(console: "Console", found: list[SessionRecord]) -> "RenderableType":
    from natsup.supervisor import screen, tables

    return tables.of_sessions(
        tables.Paper(console, utf8=screen.utf8(os.environ)), found, time.time()
    )


def _watch(directory: Path, *, as_json: bool) -> int:
    """Raises OSError if the folder cannot be read."""
    from natsup.supervisor import screen
    from natsup.supervisor.watching import Changes, none_left

    sessions(directory)  # what is wrong with the folder is said first
    try:
        changes = Changes(directory)
    except OSError as error:
        return complain(none_left(directory, error))
    try:
        if screen.full() and not as_json:
            _paint(directory, changes)
        else:
            _repeat(directory, changes, as_json=as_json)
    finally:
        changes.close()
    return 0


def _repeat(directory: Path, changes: "Changes", *, as_json: bool) -> None:
    """Print what there is after each change of it, where no screen can be painted. As JSON it is a
    line each time. Raises OSError."""
    from natsup.supervisor.watching import waiting

    before = None
    with waiting(changes) as waits:
        while True:
            found = sessions(directory)
            now = json.dumps(report.as_json(found))
            if now != before:
                if as_json:
                    print(now)
                else:
                    if before is not None:
                        print()
                    _print(found, as_json=False)
                sys.stdout.flush()
            before = now
            waits.wait(None)


def _paint(directory: Path, changes: "Changes") -> None:
    """On the whole screen. Raises OSError."""
    from rich.live import Live

    from natsup.supervisor import screen
    from natsup.supervisor.watching import Why, waiting

    console = screen.console()
    assert console is not None
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    live = Live(
        console=console,
        screen=True,
        auto_refresh=False,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    with waiting(changes, (signal.SIGWINCH, signal.SIGTSTP)) as waits, live:
        found = sessions(directory)
        while True:
            console.width = screen.width(sys.stdout)
            live.update(_cropped(console, _picture(console, found)), refresh=True)
            why = waits.wait(_pause(found))
            if Why.STOPPED in why:
                live.stop()
                os.kill(os.getpid(), signal.SIGSTOP)
                live.start()
            if why & (Why.CHANGED | Why.STOPPED):
                found = sessions(directory)


def _pause(found: list[SessionRecord]) -> float:
    """Until the words for a lease are others: seconds are shown for the last two minutes."""
    now = time.time()
    ends = [known.expires - now for one in found for known in one.ports.values() if known.expires]
    return 1.0 if any(0 < left < 121 for left in ends) else _LONGEST_PAUSE


def _cropped(console: "Console", picture: "RenderableType") -> "RenderableType":
    """What there is room for, and how much there is not."""
    from rich.console import Group
    from rich.segment import Segments

    lines = console.render_lines(picture, console.options, pad=False, new_lines=True)
    room = console.height
    if len(lines) <= room:
        return picture
    for below in range(1, max(room, 1) + 1):  # lines that this needs itself, where it is narrow
        more = f"{len(lines) - room + below} lines more: natsup status shows all"
        if len(console.render_lines(more, console.options)) <= below:
            break
    shown = [segment for line in lines[: room - below] for segment in line]
    return Group(Segments(shown), more)
