"""systemd's unit files, as far as wrapping a service takes: systemd.syntax(7), systemd.service(5).

Pure. Words are kept as they are written, with quotes, escapes and specifiers: systemd is to read
them once more.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

_PREFIXES = "@-:+!|"
_QUOTES = "\"'"


class BadUnit(Exception):
    """The message says what cannot be read."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command of an ExecStart= line."""

    prefixes: str  # such as "-@"
    words: tuple[str, ...]  # as written; not empty

    @property
    def is_natsup(self) -> bool:
        return self.name == "natsup" and self.words[1:2] == ("exec",)

    @property
    def name(self) -> str:
        """That of the program's file; "" if it is not plain to see."""
        name = self.words[0].rpartition("/")[2].strip(_QUOTES)
        return name if name and all(c.isalnum() or c in "._+-@%" for c in name) else ""


@dataclass(slots=True)
class Service:
    """The settings of a [Service] section, with its drop-ins, in their order."""

    settings: list[tuple[str, str]] = field(default_factory=list)

    def last(self, name: str) -> str:
        """A setting of which the last line counts; "" if there is none."""
        values = self.lines(name)
        return values[-1] if values else ""

    def lines(self, name: str) -> list[str]:
        """All lines of a setting, the empty ones too."""
        return [value for key, value in self.settings if key == name]

    def all(self, name: str) -> list[str]:
        """The lines of a setting that is a list, which an empty line begins anew."""
        found: list[str] = []
        for value in self.lines(name):
            found = [*found, value] if value else []
        return found

    def words(self, name: str) -> list[str]:
        """The words of a setting that is a list of them, as systemd has them but for specifiers.
        It passes over a line with a quote without an end."""
        found = list[str]()
        for value in self.all(name):
            with contextlib.suppress(BadUnit):
                found += map(unquoted, list(words_of(value)))
        return found

    def is_on(self, name: str) -> bool:
        return self.last(name).lower() in ("1", "yes", "y", "true", "t", "on")

    def commands(self) -> list[Command]:
        """The commands of ExecStart=. Raises `BadUnit`."""
        return [command for value in self.all("ExecStart") for command in commands_of(value)]


def read(text: str) -> Service:
    """Read unit files, one after the other. What is no setting is passed over, as by systemd."""
    service = Service()
    section = ""
    for line in _whole_lines(text):
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
            continue
        name, equals, value = line.partition("=")
        if equals and section == "Service":
            service.settings.append((name.rstrip(), value.strip()))
    return service


def _whole_lines(text: str) -> Iterator[str]:
    """Lines with those that continue them; without comments, also those in between."""
    begun = ""
    for raw in text.split("\n"):
        line = raw.lstrip()
        if line[:1] in ("#", ";"):
            continue
        if _continues(line):
            begun += line[:-1] + " "
            continue
        whole = (begun + line).strip()
        begun = ""
        if whole:
            yield whole
    if begun.strip():
        yield begun.strip()


def _continues(line: str) -> bool:
    """Does it end in a backslash that is not itself escaped?"""
    return (len(line) - len(line.rstrip("\\"))) % 2 == 1


def commands_of(value: str) -> list[Command]:
    """The commands of one ExecStart= line, which ``;`` may part. Raises `BadUnit`."""
    found, words = [], list[str]()
    for word in (*words_of(value), ";"):
        if word != ";":
            words.append(word)
        elif words:
            found.append(_command(words))
            words = []
    return found


def _command(words: list[str]) -> Command:
    first = words[0]
    quote = first[0] if first[0] in _QUOTES else ""
    path = first[len(quote) :].lstrip(_PREFIXES)
    prefixes = first[len(quote) : len(first) - len(path)]
    if not path.strip(_QUOTES):
        raise BadUnit(f"ExecStart={' '.join(words)} names no command")
    whole = (quote + path, *words[1:])
    if "@" in prefixes and len(whole) < 2:
        raise BadUnit(f"ExecStart={' '.join(words)} has no word after the command to be its name")
    return Command(prefixes, whole)


def words_of(value: str) -> Iterator[str]:
    """The words of a line as they are written. Raises `BadUnit` for a quote without an end."""
    word, quote, escaped = "", "", False
    for char in value:
        if escaped:
            word, escaped = word + char, False
        elif char == "\\":
            word, escaped = word + char, True
        elif quote:
            word, quote = word + char, "" if char == quote else quote
        elif char in " \t\n\r":
            if word:
                yield word
            word = ""
        else:
            word, quote = word + char, char if char in _QUOTES else ""
    if quote:
        raise BadUnit(f"{value} has a quote without an end")
    if word:
        yield word


def unquoted(word: str) -> str:
    """A word of a line without its quotes, and what its backslashes stand before as it is."""
    found, quote, escaped = "", "", False
    for char in word:
        if escaped:
            found, escaped = found + char, False
        elif char == "\\":
            escaped = True
        elif quote and char == quote:
            quote = ""
        elif not quote and char in _QUOTES:
            quote = char
        else:
            found += char
    return found


def quoted(word: str, *, expands: bool = True) -> str:
    """A word as systemd is to read it: without specifiers, variables, escapes. ``expands``: are
    variables put in here?"""
    text = word.replace("%", "%%")
    if expands:
        text = text.replace("$", "$$")
    return in_quotes(text)


def in_quotes(text: str) -> str:
    """A word as systemd is to read it, but for specifiers and variables; in quotes where it has to
    be."""
    if text and not set(text) & set(" \t\n\r\\;#" + _QUOTES):
        return text
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{text}"'
