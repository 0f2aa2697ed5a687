"""Manual pages as groff and mandoc read them: man(7). Pure."""

import re
import textwrap
from collections.abc import Iterable, Sequence

_SPECIAL = {"\\": "\\e", "-": "\\-", "^": "\\(ha", "~": "\\(ti", "`": "\\(ga", "'": "\\(aq"}


def title(name: str, section: int, source: str) -> str:
    """The first line of a page."""
    return f'.TH {name.upper()} {section} "" "{source}" "natsup"'


def section(name: str) -> str:
    return f".SH {_line(name)}"


def below(name: str) -> str:
    """The heading of a part of a section."""
    return f".SS {_line(name)}"


def text(paragraph: str) -> str:
    """A paragraph; ``words in backticks`` come to be bold."""
    return f".PP\n{_line(paragraph)}"


def term(head: str, body: str) -> str:
    """An entry of a list: a head, in backticks if it is bold, and what there is to say of it."""
    return f".TP\n{_line(head)}\n{_line(body)}"


def code(lines: Iterable[str]) -> str:
    """Lines that stay as they are."""
    return "\n".join([".PP", ".in +4n", ".EX", *map(_plain, lines), ".EE", ".in"])


def page(parts: Sequence[str]) -> str:
    """All of it. A heading begins a paragraph by itself."""
    return re.sub(r"^(\.S[HS] .*\n)\.PP\n", r"\1", "\n".join(parts), flags=re.MULTILINE)


def _line(words: str) -> str:
    pieces = re.split(r"`([^`]+)`", words)
    bold = [f"\\fB{_escaped(one)}\\fR" if n % 2 else _escaped(one) for n, one in enumerate(pieces)]
    lines = textwrap.wrap("".join(bold), 79, break_long_words=False, break_on_hyphens=False)
    return "\n".join(map(_guarded, lines))


def _plain(line: str) -> str:
    return _guarded(_escaped(line))


def _escaped(words: str) -> str:
    return "".join(_SPECIAL.get(char, char) for char in words)


def _guarded(line: str) -> str:
    """A line that begins like a request is none."""
    return f"\\&{line}" if line.startswith((".", "'")) else line
