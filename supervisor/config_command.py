"""`natsup config`: what is in force and from where, and whether a file is in order."""

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from natsup.supervisor import config, config_lines, ports, settings
from natsup.supervisor.complaints import complain
from natsup.supervisor.options import OPTIONS, BadOption, Given, Option, decide, values
from natsup.supervisor.options_check import check
from natsup.supervisor.screen import show
from natsup.supervisor.settings import Found

_DESCRIPTION = "What natsup is told by its configuration files and the environment."
_EPILOG = (
    "show: what is in force, for a program, and from where. check: what is wrong with a file, or"
    " with all that are in use; exit status: 0 nothing, 1 something, 125 there is none. reference:"
    " all settings."
)
_SHOWN = [option for option in OPTIONS if option.name != "config"]


def main(make: Callable[..., argparse.ArgumentParser], words: Sequence[str]) -> int:
    """Run the command. ``make``: makes a parser. Returns the exit status."""
    parser = make(prog="natsup config", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("--json", action="store_true", help="for programs (show)")
    parser.add_argument("what", choices=("show", "check", "reference"), metavar="WHAT")
    parser.add_argument("name", nargs="?", metavar="PROGRAM|FILE", help="for show, for check")
    given = parser.parse_intermixed_args(words)
    if given.json and given.what != "show":
        parser.error(f"{given.what} has no --json")
    if given.what == "reference":
        if given.name is not None:
            parser.error(f"reference takes no {given.name!r}")
        print(reference())
        return 0
    if given.what == "check":
        return _check(given.name, os.environ)
    try:
        command = [] if given.name is None else [given.name]
        found = settings.found([], command, os.environ)
    except BadOption as error:
        return complain(str(error))
    if given.json:
        print(json.dumps(as_json(found), indent=2))
    else:
        show(as_table(found))
    return 0


def _check(path: str | None, environ: Mapping[str, str]) -> int:
    if path is not None:
        paths = [path]
        if not os.path.exists(path):
            return complain(f"{path}: there is no such file; natsup config show names those in use")
    else:
        places = settings.places(environ, environ.get("NATSUP_CONFIG") or None)
        paths = [place for place in places if os.path.exists(place)]
        if not paths:
            return complain(f"there is no configuration file; write {places[-1]}, or name one")
    problems = 0
    for one in paths:
        found = config.look(one, os.geteuid())
        wrong: Sequence[object] = found if isinstance(found, list) else unusable(found, environ)
        if isinstance(found, config.Config) and not wrong:
            count = sum(map(len, found.sections.values()))
            show(f"{one}: in order, {count} settings")
        problems += len(wrong)
        for problem in wrong:
            show(str(problem))
    return 1 if problems else 0


def unusable(file: config.Config, environ: Mapping[str, str]) -> list[str]:
    """What would stop `natsup exec`, of a file that can be read: of each program's settings. Files
    to be written to are left alone: looking at them would make them."""
    found = dict[str, None]()
    for program in (None, *(name for name in file.sections if name is not None)):
        decided = decide(file.layers(program))
        told = values(decided, os.curdir)
        try:
            check({**told, "log": None, "events": None}, environ, decided)
        except BadOption as error:
            found[str(error)] = None  # for one program as for all
    return list(found)


def reference() -> str:
    """A table of all settings, in Markdown."""
    lines = ["| setting | in a file | what to give | default | what for |", "|---|---|---|---|---|"]
    for option in _SHOWN:
        cells = [
            f"`{option.name}`",
            config.kind(option),
            _wanted(option),
            _written(option, None) or "",
            option.help.partition(" [")[0],
        ]
        lines.append("| " + " | ".join(cells).replace("  ", " ") + " |")
    return "\n".join(lines)


def _wanted(option: Option) -> str:
    if not option.placeholder:
        return ""
    wanted = config.wanted(option)
    return option.placeholder if wanted == "a name" else wanted


def as_table(found: Found) -> str:
    """What is in force, for people: what was given first, the defaults behind it."""
    rows = []
    for option in sorted(_SHOWN, key=lambda option: option.key not in found.decided):
        layer = found.decided.get(option.key)
        sources = ", ".join(map(_source, layer)) if layer else "default"
        rows.append((option.name, _written(option, layer) or "-", sources))
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    lines = [f"{name:<{widths[0]}}  {value:<{widths[1]}}  {place}" for name, value, place in rows]
    read = ", ".join(found.files) or "none"
    return "\n".join([*lines, "", f"Configuration files that were read: {read}."])


def as_json(found: Found) -> dict[str, Any]:
    """The document of `natsup config show --json`."""
    return {
        "files": found.files,
        "program": found.command[0] if found.command else None,
        "settings": {
            option.name: {
                "value": _value(option, found.settings[option.key]),
                "from": [_source(given) for given in found.decided.get(option.key, ())],
            }
            for option in _SHOWN
        },
    }


def _value(option: Option, value: Any) -> Any:
    if isinstance(value, list) and value and isinstance(value[0], tuple):
        return [f"{protocol}/{low}-{high}" for protocol, low, high in ports.joined(value)]
    return value


def _written(option: Option, layer: Sequence[Given] | None) -> str:
    """A value as it was given; "" for none."""
    if layer:
        return ",".join(given.text for given in layer if given.text)
    default = option.default
    if default is None:
        return ""
    if isinstance(default, bool):
        return "yes" if default else "no"
    if isinstance(default, list):
        return ",".join(dict.fromkeys(map(_item, default)))
    return f"{default:g}" if isinstance(default, float) else str(default)


def _item(value: Any) -> str:
    """Of a list; ranges of ports without their protocol, as defaults are of both."""
    return f"{value[1]}-{value[2]}" if isinstance(value, tuple) else str(value)


def _source(given: Given) -> str:
    if not given.key:
        return given.where
    path, *key = given.key
    with open(path, encoding="utf-8-sig") as file:
        line = config_lines.line_of(file.read(), key)
    return f"{path}:{line}"
