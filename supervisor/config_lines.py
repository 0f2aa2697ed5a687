"""Where in a TOML document its keys stand, which tomllib does not tell."""

import re
import tomllib
from collections.abc import Iterator, Sequence
from typing import Any

# What can hold a line's end, or a bracket, that ends or opens nothing; and those that do
_TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?!")'
    r"|'''.*?'''(?!')"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
    r"|#[^\n]*"
    r"|[\[\]{}\n]",
    re.DOTALL,
)


def line_of(text: str, key: Sequence[str]) -> int | None:
    """The line in which a key of a document stands; None: there is no such key. Pure.

    A statement of TOML is a document, too: each is read once, and says which keys it defines.
    """
    table: list[str] = []  # that the last header opened
    for line, statement in _statements(text):
        try:
            document = tomllib.loads(statement)
        except (ValueError, RecursionError):  # of a document that is none
            return None
        if statement.startswith("["):
            table = _header(document)
            if list(key) == table[: len(key)]:
                return line
        elif list(key[: len(table)]) == table and _has(document, key[len(table) :]):
            return line
    return None


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Each with the line in which it begins, counted from 1."""
    start, line, depth = 0, 1, 0
    for token in _TOKEN.finditer(f"{text}\n"):
        if token[0] in ("[", "{"):
            depth += 1
        elif token[0] in ("]", "}"):
            depth -= 1
        elif token[0] == "\n" and depth <= 0:
            statement = text[start : token.start()]
            if statement.strip() and not statement.lstrip().startswith("#"):
                yield line, statement.strip()
            line += statement.count("\n") + 1
            start = token.end()


def _header(document: dict[str, Any]) -> list[str]:
    """The names in the brackets."""
    names = []
    inner: Any = document
    while isinstance(inner, dict) and inner:
        ((name, inner),) = inner.items()
        names.append(name)
    return names


def _has(document: Any, key: Sequence[str]) -> bool:
    for part in key:
        if not isinstance(document, dict) or part not in document:
            return False
        document = document[part]
    return bool(key)
