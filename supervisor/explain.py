"""`natsup explain`: what a code or a word means, why it is so, and what to do."""

import argparse
import errno
import os
import signal
import textwrap
from collections.abc import Sequence
from difflib import get_close_matches

from natsup.supervisor.complaints import complain
from natsup.supervisor.explanations import TOPICS, Topic
from natsup.supervisor.explanations_router import CODES

_DESCRIPTION = "What a code of a router's, an exit status or a word means, and what to do about it."
_WIDTH = 80
ALL = (*TOPICS, *CODES)


def main(parser: argparse.ArgumentParser, words: Sequence[str]) -> int:
    """Run the command. ``parser`` has no arguments yet. Returns the exit status."""
    parser.description = _DESCRIPTION
    parser.add_argument("topic", nargs="?", metavar="CODE|TOPIC", help="without: a list of them")
    parser.add_argument("--markdown", action="store_true", help="all of it, as a page")
    options = parser.parse_args(words)
    if options.markdown and options.topic is not None:
        parser.error("--markdown takes no topic")
    if options.markdown:
        print(as_markdown())
    elif options.topic is None:
        print(as_list())
    else:
        found = lookup(options.topic)
        if not found:
            near = nearest(options.topic)
            meant = f" (did you mean {', '.join(near)}?)" if near else ""
            return complain(
                f"nothing is known of {options.topic!r}{meant}; natsup explain lists all"
            )
        print("\n\n".join(map(as_text, found)))
    return 0


def lookup(text: str) -> list[Topic]:
    """All that a name or a number may mean. Pure."""
    name = "-".join(text.strip().lower().split()).removeprefix("error-")
    found = [topic for topic in ALL if name in map(str.lower, topic.names)]
    return found + [
        topic for topic in (_signal(name), _errno(name)) if topic and topic not in found
    ]


def nearest(text: str) -> list[str]:
    """The names that are most like one that means nothing. Pure."""
    names = dict.fromkeys(name for topic in ALL for name in topic.names)
    return get_close_matches("-".join(text.lower().split()), list(names), 3)


def _signal(name: str) -> Topic | None:
    """Exit statuses of programs that a signal has ended, as shells count them."""
    number = name.removeprefix("status-")
    if not number.isdecimal() or len(number) > 3 or int(number) == 128 + signal.SIGINT:
        return None
    try:
        which = signal.Signals(int(number) - 128).name
    except ValueError:
        return None
    return Topic(
        (f"status-{number}", number),
        f"Exit status {number}: ended by {which}",
        f"Shells count 128 and the signal's number, {int(number) - 128}, of a program that a signal"
        " has ended. natsup exec ends as its program does.",
        "Find out who sent it, or why the program failed: coredumpctl and journalctl may know.",
    )


def _errno(name: str) -> Topic | None:
    """What the kernel says, of which natsup may have something of its own to tell."""
    number = int(name) if name.isdecimal() and len(name) < 4 else getattr(errno, name.upper(), 0)
    symbol = errno.errorcode.get(number)
    if symbol is None:
        return None
    for topic in ALL:
        if symbol.lower() in map(str.lower, topic.names):
            return topic
    return Topic(
        (symbol, str(number)),
        f"{symbol} ({number}): {os.strerror(number)}",
        "The kernel answered a call with it. What was called, and with what, stands beside it.",
        f"The manual has the meaning for each call: man 2 bind, for one; man 3 errno has {symbol}.",
    )


def as_text(topic: Topic) -> str:
    """A topic, for people."""
    parts = [topic.reason, f"What to do: {topic.remedy}"]
    filled = [
        textwrap.fill(part, _WIDTH, break_on_hyphens=False, break_long_words=False)
        for part in parts
    ]
    return "\n\n".join([topic.title, *filled])


def as_list() -> str:
    """All topics, a line each."""
    width = max(len(topic.names[0]) for topic in ALL)
    lines = [f"  {topic.names[0]:<{width}}  {topic.title}" for topic in ALL]
    return "\n".join(["natsup explain CODE|TOPIC tells of each:", "", *lines])


def as_markdown() -> str:
    """docs/explain.md: all topics."""
    lines = ["# What it means, and what to do", "", "`natsup explain` prints these texts:"]
    lines.append("`natsup explain 718`, `natsup explain double-nat`.")
    for topic in ALL:
        names = ", ".join(f"`{name}`" for name in topic.names)
        lines += ["", f"## {topic.title}", "", names, "", topic.reason, "", f"{topic.remedy}"]
    return "\n".join(lines)
