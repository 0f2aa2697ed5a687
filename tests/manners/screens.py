"""Programs that own the whole screen: not one byte of anybody else's."""

import contextlib
import os
from pathlib import Path

from tests.manners.ways import Terminal, Way

_LINES = "".join(f"line {number} of the text\n" for number in range(200))


def _bytes(way: Way, words: list[str], turns: list[tuple[str, str]]) -> bytes:
    """Of a terminal on which this runs. ``turns``: wait for this, and type that."""
    environ = {**way.environ, "TERM": "vt100", "LESSHISTFILE": "-", "HOME": str(way.folder)}
    with Terminal([*way.prefix, *words], environ) as terminal:
        for pattern, typed in turns:
            terminal.until(pattern)
            terminal.type(typed)
        terminal.rest()
        assert terminal.process.wait(20) == 0
        return terminal.output


def screens(way: Way, bare: Way) -> dict[str, str]:
    """The same bytes, whoever runs them."""
    text = bare.folder / "text"
    text.write_text(_LINES)
    less = ["less", str(text)]
    vim = ["vim.tiny", "-u", "NONE", "-i", "NONE", "-n", str(text)]
    programs = {
        "less": (less, [("line 22 .*text:? ?", " "), ("line 45 .*:", "q")]),
        "vim": (vim, [("line 22 .*", "G"), ("199 of the text.*", ":q!\r")]),
    }
    found = {}
    for name, (words, turns) in programs.items():
        ours, plain = _bytes(way, words, turns), _bytes(bare, words, turns)
        same = ours == plain
        found[f"{name}: the bytes on the terminal"] = (
            "the program's" if same else f"{len(ours)}, not {len(plain)}"
        )
    return found


def rtorrent(way: Way, bare: Way) -> dict[str, str]:
    """Its screen shows the time, so that bytes are no measure. Nobody else has the terminal."""
    folder = way.folder / f"rtorrent {way.name}"
    folder.mkdir()
    words = ["rtorrent", "-n", "-d", str(folder), "-o", "dht=disable"]
    environ = {**way.environ, "TERM": "vt100", "HOME": str(folder)}
    with Terminal([*way.prefix, *words], environ) as terminal:
        terminal.until("rTorrent.*Throttle")
        users = _users_of(terminal.name)
        terminal.type("\x11")
        terminal.rest()
    return {"rTorrent: who has the terminal open": ", ".join(sorted(users))}


def _users_of(terminal: str) -> set[str]:
    """The names of all processes that have it open."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if terminal in {os.readlink(fd) for fd in (folder / "fd").iterdir()}:
                found.add((folder / "comm").read_text().split()[0])
    return found
