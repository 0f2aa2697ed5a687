"""`natsup log`: what happened to ports, across sessions."""

import argparse
import json
import os
import sys
import time
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from natsup.state import chronicle
from natsup.state.following import Follower
from natsup.state.history import Entry
from natsup.state.journal import default_directory
from natsup.state.model import Port, Protocol
from natsup.supervisor import screen, tables, watching
from natsup.supervisor.complaints import SEE_FOLDER, complain

_DESCRIPTION = (
    "What happened to ports, the newest last: mapped, refused, ignored, lost, removed; when, for"
    " which program and why. All sessions of this user write it down, in history.jsonl in natsup's"
    " state folder: the latest 1 to 2 MB, some thousand lines."
)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def main(parser: argparse.ArgumentParser, words: Sequence[str]) -> int:
    """Run the command. ``parser`` has no arguments yet. Returns the exit status."""
    parser.description = _DESCRIPTION
    parser.add_argument("--json", action="store_true", help="for programs: an object a line")
    parser.add_argument("-n", metavar="N", type=_count, dest="last", help="the last N alone")
    parser.add_argument(
        "--port", metavar="PORT[/PROTO]", type=ports, help="of this port alone: 6881, 6881/udp"
    )
    parser.add_argument(
        "--since", metavar="WHEN", type=_since, help="for so long (30m, 2h, 7d) or since a day"
    )
    parser.add_argument("--program", metavar="NAME", help="of this program, or session, alone")
    parser.add_argument(
        "-f", "--follow", action="store_true", help="go on with what happens, until Ctrl-C"
    )
    options = parser.parse_args(words)
    wanted = Wanted(options.port, options.since, options.program)
    directory = default_directory(os.environ, os.getuid())
    follower = Follower(directory)
    try:
        chosen = deque(filter(wanted.has, follower.entries()), maxlen=options.last)
        if chosen or options.json or options.follow:
            _print(chosen, as_json=options.json)
        elif not (follower.there and wanted.some):
            print(_nothing(directory, os.getuid()))
        else:
            print("Nothing like that; natsup log shows everything.")
        if options.follow:
            return _follow(directory, follower, wanted, as_json=options.json)
    except OSError as error:
        reason = f"the history in {directory} cannot be read: {error.strerror}"
        return complain(f"{reason}; {SEE_FOLDER}")
    except KeyboardInterrupt:
        if not options.follow:
            raise
    finally:
        follower.close()
    return 0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be shown; None: whatever it is."""

    ports: frozenset[Port] | None
    since: float | None  # wall clock
    program: str | None  # the name of one, or of a session, or of what that runs

    @property
    def some(self) -> bool:
        return (self.ports, self.since, self.program) != (None, None, None)

    def has(self, entry: Entry) -> bool:
        ran = entry.command[0].rpartition("/")[2] if entry.command else ""
        names = (chronicle.program_of(entry), ran, entry.session)
        return (
            (self.ports is None or entry.event.port in self.ports)
            and (self.since is None or entry.time >= self.since)
            and (self.program is None or self.program in names)
        )


def _print(entries: Collection[Entry], *, as_json: bool) -> None:
    if as_json:
        for entry in entries:
            print(json.dumps(chronicle.as_json(entry)))
    elif entries:
        console = screen.console()
        if console is None:
            screen.show(chronicle.as_text(entries))
        else:
            paper = tables.Paper(console, utf8=screen.utf8(os.environ))
            console.print(tables.of_entries(paper, entries))


def _follow(directory: Path, follower: Follower, wanted: Wanted, *, as_json: bool) -> int:
    """Until somebody stops it. Raises OSError."""
    try:
        changes = watching.Changes(directory)
    except OSError as error:
        return complain(watching.none_left(directory, error))
    try:
        with watching.waiting(changes) as waits:
            while True:
                _print(list(filter(wanted.has, follower.entries())), as_json=as_json)
                sys.stdout.flush()
                waits.wait(None)
    finally:
        changes.close()


def _nothing(directory: Path, uid: int) -> str:
    """What to say where there is no history, or nothing in it. Pure."""
    lines = [chronicle.NOTHING, f"This is the history in {directory}."]
    if uid != 0:
        lines.append("That of root, and of services that run as root:  sudo natsup log")
    return "\n".join(lines)


def _count(text: str) -> int:
    if text.isdecimal() and 0 < int(text) < 1 << 31:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no number of lines; give 1 or more")


def ports(text: str) -> frozenset[Port]:
    first, slash, second = text.lower().partition("/")
    number, protocol = (second, first) if first in ("tcp", "udp") else (first, second)
    if not number.isdecimal() or not 0 < int(number) < 65536 or (slash and not protocol):
        raise argparse.ArgumentTypeError(f"{text!r} is no port; give 6881, 6881/tcp or 6881/udp")
    try:
        wanted = [Protocol(protocol)] if slash else list(Protocol)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{protocol!r} is no protocol; give tcp or udp") from None
    return frozenset(Port(one, int(number), v6) for one in wanted for v6 in (False, True))


def _since(text: str) -> float:
    """Seconds of the wall clock."""
    number, unit = text[:-1], text[-1:]
    if unit in _UNITS and number.isdecimal() and len(number) < 10:
        return time.time() - int(number) * _UNITS[unit]
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time; give 30m, 2h, 7d, 2025-12-31 or 2025-12-31T18:00"
        ) from None
