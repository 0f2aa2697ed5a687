"""Configuration files: config.toml, and what is wrong with one.

    lease = 7200                        for every program
    ports = ["6881-6999", "udp/27960"]

    [program.rtorrent]                  for those that are started by this name
    servers = ["all"]

The keys are the options of `natsup exec`. A file is taken whole or not at all: with a mistake in it
nobody can know what its writer relies on.

The launcher reads it, and the program waits: what only mistakes need is imported for them.
"""

import errno
import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from natsup.supervisor.options import OPTIONS, UNIX, BadOption, Given, Layer, Option

_PROGRAM = "program"
_LARGEST = 1 << 16  # bytes
_MOST = 20  # mistakes that are named at a time
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
_SETTINGS = {option.name: option for option in OPTIONS if option.name != "config"}
_LINE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
_OVERFLOW = "/proc/sys/kernel/overflowuid"
_WHOLE = "0 0 4294967295"  # user_namespaces(7): of a process that is in none of its own

Key = tuple[str, ...]


class Problem:
    """Something that is wrong with a file. ``line``: None where it is the file as a whole."""

    __slots__ = ("line", "path", "what")

    def __init__(self, path: str, line: int | None, what: str) -> None:
        self.path = path
        self.line = line
        self.what = what

    def __str__(self) -> str:
        place = self.path if self.line is None else f"{self.path}:{self.line}"
        return f"{place}: {self.what}"


class Config:
    """A file that is in order."""

    def __init__(self, path: str, text: str, sections: Mapping[str | None, list[Given]]) -> None:
        self.path = path
        self.text = text
        self.sections = sections  # by the programs' names; None: for all of them

    def layers(self, program: str | None) -> list[Layer]:
        """What it says for one program; the last one comes first."""
        names = [None] if program is None else [None, program]
        return [self.sections[name] for name in names if name in self.sections]


def read(path: str) -> Config:
    """Raises `BadOption` for the first thing that is wrong with it."""
    found = look(path, os.geteuid(), most=1)
    if isinstance(found, Config):
        return found
    raise BadOption(str(found[0]))


def look(path: str, uid: int, most: int = _MOST) -> Config | list[Problem]:
    """Read a file for this user; or what is wrong with it, ``most`` mistakes at most."""
    try:
        with open(path, "rb", opener=lambda name, _: os.open(name, _FLAGS)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                return [Problem(path, None, "this is no regular file; give one, or none")]
            refusal = distrusted(status, uid, _unmapped())
            data = file.read(_LARGEST + 1)
    except OSError as error:
        advice = "give one that is there, or none"
        if error.errno in (errno.EACCES, errno.EPERM):
            advice = f"make it readable for user {uid}, or remove it"
        return [Problem(path, None, f"it cannot be read: {error.strerror}; {advice}")]
    if refusal:
        return [Problem(path, None, refusal)]
    if len(data) > _LARGEST:
        return [Problem(path, None, f"it is larger than {_LARGEST} bytes; is it a configuration?")]
    return understand(path, data, most)


def distrusted(status: os.stat_result, uid: int, unmapped: int | None) -> str:
    """Why a file is not read for a user: somebody else can write it, and hooks are commands. ""
    if it is. ``unmapped``: whose files seem to be of users that this namespace does not know.

    Many people's umask lets their own group write, which is theirs alone; another's is not. Pure.
    """
    whose = status.st_uid
    alone = status.st_gid == 0 or whose == uid != 0
    mode = stat.S_IWOTH | (0 if alone else stat.S_IWGRP)
    if whose not in (0, uid, unmapped):
        return f"it belongs to user {whose}, and is not read for user {uid}; chown it"
    if status.st_mode & mode:
        others = "others" if status.st_mode & stat.S_IWOTH else "its group"
        return f"{others} can write it, so it is not read; chmod go-w it"
    return ""


def _unmapped() -> int | None:
    try:
        with open("/proc/self/uid_map") as file:
            if " ".join(file.read().split()) == _WHOLE:
                return None
        with open(_OVERFLOW) as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def understand(path: str, data: bytes, most: int = _MOST) -> Config | list[Problem]:
    """What is in a file; or what is wrong with it, ``most`` mistakes at most. Pure."""
    try:
        text = data.decode("utf-8").removeprefix("\ufeff").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return [Problem(path, line, "this is not UTF-8; save the file as UTF-8")]
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # its own are ValueErrors, too
        return [_not_toml(path, text, str(error))]
    problems: list[Problem] = []
    sections: dict[str | None, list[Given]] = {None: []}
    for key, option, value in _entries(document):
        try:
            if option is None:
                raise BadOption(_unknown(key, value))
            name = key[1] if len(key) == 3 else None
            given = Given(option, as_text(option, value), option.name, (path, *key))
            sections.setdefault(name, []).append(_placed(given, path))
        except BadOption as error:
            from natsup.supervisor.config_lines import line_of

            problems.append(Problem(path, line_of(text, key), str(error)))
            if len(problems) == most:
                break
    problems.sort(key=lambda problem: problem.line or 0)
    return problems or Config(path, text, sections)


def _placed(given: Given, path: str) -> Given:
    """With the file's name, for what is found out later; and wherever one stands the same."""
    where = given.text.removeprefix(UNIX)
    if given.option.name in ("log", "events") and not (os.path.isabs(where) or where.isdecimal()):
        raise BadOption(f"{given.where}: {given.text!r} will not do; give an absolute path")
    given.where = f"{path}: {given.where}"
    return given


def _not_toml(path: str, text: str, message: str) -> Problem:
    place = _LINE.search(message)
    if place is None:
        return Problem(path, None, "this is not TOML; see https://toml.io")
    line = int(place[1]) if place[1] else len(text.splitlines()) or 1
    reason = message[: place.start()]
    return Problem(path, line, f"this is not TOML: {reason}; write: name = value, see toml.io")


def _entries(document: dict[str, Any]) -> Iterator[tuple[Key, Option | None, Any]]:
    """Every setting; None in place of the option where it is none."""
    for name, value in document.items():
        if name != _PROGRAM or not isinstance(value, dict):
            yield (name,), _SETTINGS.get(name), value
            continue
        for program, section in value.items():
            if not isinstance(section, dict) or not program or "/" in program:
                yield (name, program), None, section
                continue
            for key, inner in section.items():
                yield (name, program, key), _SETTINGS.get(key), inner


def _unknown(key: Key, value: Any) -> str:
    """What to say of what is no setting."""
    from difflib import get_close_matches

    *outer, name = key
    if len(key) == 2 and isinstance(value, dict):
        return f"[{_PROGRAM}.{name}]: {name!r} will not do; give the name of a program, no path"
    if len(key) == 2:
        return f"{name!r} stands in no program's section; give [{_PROGRAM}.NAME]"
    if key == (_PROGRAM,):
        return f"{_PROGRAM!r} is no setting; give sections [{_PROGRAM}.NAME]"
    if isinstance(value, dict) and not outer:
        near = get_close_matches(name, [_PROGRAM], 1)
        better = f"[{_PROGRAM}.NAME]" if near else f"[{_PROGRAM}.{name}], if it is a program"
        return f"unknown section {name!r} (did you mean {better}?)"
    near = get_close_matches(name.replace("_", "-").lower(), _SETTINGS, 1)
    meant = f" (did you mean {near[0]}?)" if near else ""
    return f"unknown setting {name!r}{meant}; natsup config reference lists them"


def kind(option: Option) -> str:
    """What a file gives for it."""
    if not option.placeholder:
        return "true or false"
    if isinstance(option.default, list):
        return "list"
    return "number" if isinstance(option.default, (int, float)) else "text"


def as_text(option: Option, value: Any) -> str:
    """The text that a command line would have for a value of TOML. Raises `BadOption`."""
    try:
        text, shown = _text(option, value)
    except (ValueError, RecursionError):  # a number of thousands of digits; tables in tables
        text, shown = None, "such a value"
    if text is None:
        raise BadOption(f"{option.name}: {shown} will not do; give {wanted(option)}")
    return text


def _text(option: Option, value: Any) -> tuple[str | None, str]:
    """The text, or None; and the value for people."""
    if isinstance(value, bool):
        if not option.placeholder:
            return ("yes" if value else "no"), ""
    elif option.placeholder:
        if isinstance(value, str) and kind(option) != "number" and value:
            return value, ""
        if isinstance(value, (int, float)) and kind(option) != "text":
            return repr(value), ""
        if isinstance(value, list) and kind(option) == "list":
            parts = [part if isinstance(part, str) else repr(part) for part in value]
            plain = all(isinstance(v, (str, int)) and not isinstance(v, bool) for v in value)
            if plain and all(parts):
                return ",".join(parts), ""
    from json import dumps

    shown = dumps(value, default=str, ensure_ascii=False)
    if len(shown) > 40:
        shown = shown[:39] + "…"
    return None, shown


def wanted(option: Option) -> str:
    """What a value has to be, in words."""
    if not option.placeholder:
        return kind(option)
    try:
        option.read("")
    except ValueError as error:
        return str(error)
    raise AssertionError(option.name)
