"""What the terminal can show. The tables of rich are made for it, and for nothing else: what leads
elsewhere gets plain text."""

import os
import sys
from collections.abc import Mapping
from typing import TextIO

from rich.console import Console

_ASCII = str.maketrans({"→": "->", "…": "...", "“": '"', "”": '"', "─": "-", "│": "|", "▶": ">"})


def utf8(environ: Mapping[str, str]) -> bool:
    """Does the user's locale say that the terminal shows UTF-8? Pure.

    Python makes the C locale into C.UTF-8, in the environment as well (PEP 538), and writes UTF-8
    (PEP 540); that says nothing of the terminal.
    """
    lang, kind = environ.get("LANG", ""), environ.get("LC_CTYPE", "")
    if kind in ("C.UTF-8", "C.utf8", "UTF-8") and lang in ("", "C", "POSIX"):
        kind = ""
    name = environ.get("LC_ALL") or kind or lang
    return name.lower().replace("-", "").partition("@")[0].endswith("utf8")


def in_ascii(text: str) -> str:
    """For a terminal that shows nothing else. Pure."""
    return text.translate(_ASCII).encode("ascii", "replace").decode()


def show(text: str, environ: Mapping[str, str] = os.environ) -> None:
    """Print plain text, as well as it can be encoded (PYTHONIOENCODING may say how)."""
    try:
        text.encode(sys.stdout.encoding, sys.stdout.errors or "strict")
        encodable = True
    except UnicodeEncodeError:
        encodable = False
    print(text if encodable and utf8(environ) else in_ascii(text))


def width(stream: TextIO, environ: Mapping[str, str] = os.environ) -> int:
    """How many columns there are, also where the terminal is a dumb one."""
    columns = environ.get("COLUMNS", "")
    if columns.isdecimal() and 0 < int(columns) < 10000:
        return int(columns)
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except OSError:
        return 80


def plain(environ: Mapping[str, str] = os.environ) -> bool:
    """Is there to be no colour, if this is a terminal? Pure."""
    return bool(environ.get("NO_COLOR")) or environ.get("TERM", "dumb") in ("", "dumb", "unknown")


def console(environ: Mapping[str, str] = os.environ) -> Console | None:
    """The terminal that the standard output is; None: it is none."""
    if not sys.stdout.isatty():
        return None
    return Console(
        file=sys.stdout,
        force_terminal=True,
        color_system=None if plain(environ) else "auto",
        width=width(sys.stdout, environ),
        highlight=False,
        markup=False,
        emoji=False,
    )


def full(environ: Mapping[str, str] = os.environ) -> bool:
    """Can the whole screen be painted?"""
    return sys.stdout.isatty() and environ.get("TERM", "dumb") not in ("", "dumb", "unknown")
