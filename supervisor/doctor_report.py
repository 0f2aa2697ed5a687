"""What `natsup doctor` prints: a picture and a table, or JSON. Pure."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from natsup.state.report import printable
from natsup.supervisor import quirks
from natsup.supervisor.doctor_facts import Facts
from natsup.supervisor.doctor_findings import Finding, Level, works
from natsup.supervisor.doctor_path import Station, path, to_do

_ALL_WELL = "Everything that natsup needs works here."
_COLOURS = {Level.OK: "32", Level.WARNING: "33", Level.PROBLEM: "31"}  # ECMA-48, SGR
_MARKS = {Level.OK: ("✓", "ok"), Level.WARNING: ("!", "!!"), Level.PROBLEM: ("✗", "XX")}
_UNKNOWN = ("?", "??")
_NARROW = 24  # columns, below which words go under their titles


@dataclass(frozen=True, slots=True)
class Paper:
    """What is printed on. ``utf8``: it shows more than ASCII, into which `natsup.supervisor.screen`
    makes all but the marks. ``width``: in columns; 0: as wide as need be."""

    utf8: bool = True
    colour: bool = False
    width: int = 0

    def paint(self, text: str, level: Level | None) -> str:
        colour = _COLOURS.get(level) if level is not None else None
        return f"\x1b[{colour}m{text}\x1b[0m" if self.colour and colour else text


def as_json(found: Sequence[Finding], facts: Facts) -> dict[str, Any]:
    """The document of `natsup doctor --json`: see docs/doctor.md."""
    network, router = facts.network, facts.router
    device = router.device if router is not None else None
    return {
        "ok": works(found),
        "next": [finding.id for finding in to_do(found)],
        "path": [
            {
                "name": station.name,
                "details": list(station.details),
                "reached": station.reached.value if station.reached is not None else None,
            }
            for station in path(facts)
        ],
        "interfaces": [
            {
                "interface": one.interface,
                "address": one.address,
                "gateway": one.gateway or None,
                "used": one.used,
                "answers": {
                    answer.protocol: {
                        "location": answer.location or None,
                        "reason": answer.reason or None,
                    }
                    for answer in one.answers
                },
            }
            for one in facts.asked
        ],
        "router": {
            "address": network.used.gateway if network.used is not None else None,
            "location": router.location or None if router is not None else None,
            "external": router.external if router is not None else None,
            "vendor": device.vendor or None if device is not None else None,
            "model": device.model or None if device is not None else None,
            "quirks": [one.id for one in quirks.of_device(device)] if device is not None else [],
        },
        "checks": [
            {
                "id": finding.id,
                "title": finding.title,
                "level": finding.level.value,
                "found": finding.found,
                "advice": finding.advice or None,
            }
            for finding in found
        ],
    }


def as_text(
    found: Sequence[Finding], stations: Sequence[Station] = (), paper: Paper | None = None
) -> str:
    """For people: the path, a line for each check, one below it for what to do, and where to
    begin."""
    paper = paper or Paper()
    levels = max(len(level.value) for level in Level)
    titles = max((len(finding.title) for finding in found), default=0)
    lines = [*picture(stations, paper), ""] if stations else []
    for finding in found:
        level = paper.paint(finding.level.value.ljust(levels), finding.level)
        start = f"{level}  {finding.title.ljust(titles)}  "
        indent = levels + titles + 4
        lines += _filled(start, indent, printable(finding.found), paper)
        if finding.advice:
            lines += _filled(" " * indent, indent, "→ " + printable(finding.advice), paper)
    return "\n".join([*lines, "", *_order(found, paper), *_filled("", 0, _summary(found), paper)])


def _filled(start: str, indent: int, text: str, paper: Paper) -> list[str]:
    """Words behind a start that takes ``indent`` columns, on as many lines as they need."""
    if not paper.width:
        return [start + text]
    below = indent > 0 and paper.width - indent < _NARROW
    parts = _wrapped(text, paper.width - (4 if below else indent)) or [""]
    if below:
        return [*([start.rstrip()] if start.strip() else []), *("    " + part for part in parts)]
    return [start + parts[0], *(" " * indent + part for part in parts[1:])]


def _wrapped(text: str, width: int) -> list[str]:
    """Words are left whole: some are to be copied."""
    return textwrap.wrap(text, max(width, 8), break_on_hyphens=False, break_long_words=False)


def picture(stations: Sequence[Station], paper: Paper) -> list[str]:
    """The path in a line, with what is known of each place below; or downwards, if it is long."""
    widths = [max(map(len, (one.name, *one.details))) for one in stations]
    link = len(_link(None, paper))
    if paper.width and sum(widths) + link * (len(stations) - 1) > paper.width:
        return _downwards(stations, paper)
    lines = [""]
    for number, (one, width) in enumerate(zip(stations, widths, strict=True)):
        last = number == len(stations) - 1
        lines[0] += printable(one.name)
        if not last:
            lines[0] += " " + "─" * (width - len(one.name)) + _link(stations[number + 1], paper)
    start = 0
    below = [" "] * max(len(one.details) for one in stations)
    for one, width in zip(stations, widths, strict=True):
        below = [
            row.ljust(start) + (one.details[n] if n < len(one.details) else "")
            for n, row in enumerate(below)
        ]
        start += width + 1 + link
    return [*lines, *(printable(row).rstrip() for row in below)]


def _link(to: Station | None, paper: Paper) -> str:
    """An arrow to a station; its length is always the same."""
    level = to.reached if to is not None else None
    mark = (_MARKS[level] if level is not None else _UNKNOWN)[not paper.utf8]
    painted = paper.paint(mark, level) if to is not None else mark
    return f"──{painted}──▶ "


def _downwards(stations: Sequence[Station], paper: Paper) -> list[str]:
    lines = []
    for number, one in enumerate(stations):
        if number:
            level = one.reached
            mark = (_MARKS[level] if level is not None else _UNKNOWN)[not paper.utf8]
            lines.append(f"  │ {paper.paint(mark, level)}")
        for words in (one.name, *one.details):
            lines += _wrapped(printable(words), paper.width)
    return lines


def _order(found: Sequence[Finding], paper: Paper) -> list[str]:
    """Where to begin."""
    todo = to_do(found)
    if not todo:
        return []
    first, *others = todo
    lines = _filled("", 0, f"Do this first: {first.title}: {printable(first.advice)}", paper)
    if others:
        names = ", ".join(dict.fromkeys(one.title for one in others))
        lines += _filled("", 0, f"Then look at: {names}", paper)
    return lines


def _summary(found: Sequence[Finding]) -> str:
    problems = sum(finding.level is Level.PROBLEM for finding in found)
    if not problems:
        return _ALL_WELL
    return (
        f"{problems} {'problem' if problems == 1 else 'problems'}: natsup does not work here yet."
    )
