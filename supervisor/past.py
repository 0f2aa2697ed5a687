"""`natsup log`: what happened to ports, across sessions."""

import argparse
import json
import os
import sys
import time
from collections import deque
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

from natsup.state import chronicle, history
from natsup.state.history import Entry
from natsup.state.journal import default_directory
from natsup.state.model import Port, Protocol

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
    options = parser.parse_args(words)
    directory = default_directory(os.environ, os.getuid())
    try:
        entries = history.read(directory)
        chosen = None
        if entries is not None:
            chosen = _choose(entries, options.port, options.since, options.last)
    except OSError as error:
        print(
            f"natsup: the history in {directory} cannot be read: {error.strerror}", file=sys.stderr
        )
        return 125
    if options.json:
        for entry in chosen or ():
            print(json.dumps(chronicle.as_json(entry)))
    elif chosen:
        print(chronicle.as_text(chosen))
    elif chosen is None or (options.port is None and options.since is None):
        print(_nothing(directory, os.getuid()))
    else:
        print("Nothing like that; natsup log shows everything.")
    return 0


def _choose(
    entries: Iterable[Entry],
    ports: frozenset[Port] | None,
    since: float | None,
    last: int | None,
) -> deque[Entry]:
    return deque(
        (
            entry
            for entry in entries
            if (ports is None or entry.event.port in ports)
            and (since is None or entry.time >= since)
        ),
        maxlen=last,
    )


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
