"""The tables that people see, made with rich: what `natsup status` and `natsup log` tell.

Where the columns have no room side by side, each row becomes a list: nothing is left out, nor cut.
"""

from collections.abc import Iterable, Sequence
from datetime import tzinfo

from rich import box
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from natsup.state import chronicle, report
from natsup.state.happenings import What
from natsup.state.history import Entry
from natsup.state.journal import SessionRecord
from natsup.state.ledger import State
from natsup.supervisor.screen import in_ascii

STYLES = {
    State.MAPPED: "green",
    State.PENDING: "cyan",
    State.CONFLICT: "red",
    State.IGNORED: "yellow",
    State.RELEASING: "dim",
    State.RELEASED: "magenta",
}
HAPPENED = {
    What.MAPPED: "green",
    What.PUT_BACK: "green",
    What.REFUSED: "red",
    What.CONFLICT: "red",
    What.LOST: "red",
    What.IGNORED: "yellow",
    What.NOT_RENEWED: "yellow",
    What.NOT_REMOVED: "yellow",
    What.NOT_OURS: "yellow",
    What.RELEASED: "magenta",
}
# Each column, and how narrow it may be; 0: as wide as what is in it
COLUMNS = {
    "program": 8,
    "pid": 0,
    "port": 0,
    "external address": 21,  # any of IPv4
    "state": 0,
    "why": 20,
    "since": 5,
    "lease": 0,
}
_ADDRESS, _WHY = 3, 5
_NARROW = {  # where one of the two is empty in nearly every row, they can be one column
    "program": 8,
    "pid": 0,
    "port": 0,
    "state": 0,
    "address, or why not": 21,
    "since": 5,
    "lease": 0,
}
_LOG_COLUMNS = {"when": 0, "program": 8, "pid": 0, "port": 0, "what": 0, "why": 14}
_BETWEEN = 2  # columns from one to the next: a space and a line


Cells = list[tuple[str, str]]  # of a row, each with its style


class Paper:
    """What tables are drawn on. ``utf8``: whether it shows more than ASCII."""

    def __init__(self, console: Console, *, utf8: bool) -> None:
        self._console = console
        self._utf8 = utf8

    def text(self, words: str, style: str = "") -> Text:
        """Words that are broken where they have no room."""
        return Text(words if self._utf8 else in_ascii(words), style, overflow="fold")

    def table(self, *shapes: tuple[dict[str, int], Sequence[Cells]]) -> RenderableType:
        """The first of these tables for which there is room; else the first of them as a list.
        Each is its columns and rows. A column that is empty is left out."""
        for columns, rows in shapes:
            names, filled = _filled(columns, rows)
            if _needed(columns, names, filled) <= self._console.width:
                return self._table(columns, names, filled)
        return Group(*(self._listed(*_filled(shapes[0][0], [row])) for row in shapes[0][1]))

    def _table(
        self, columns: dict[str, int], names: list[str], rows: Sequence[Cells]
    ) -> RenderableType:
        lines = box.SIMPLE_HEAD if self._utf8 else box.ASCII2
        made = Table(box=lines, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
        for name in names:
            made.add_column(
                name,
                min_width=columns[name] or None,
                no_wrap=not columns[name],
                overflow="fold",
            )
        for row in rows:
            made.add_row(*(self.text(*cell) for cell in row))
        return made

    def _listed(self, names: list[str], rows: Sequence[Cells]) -> RenderableType:
        lines = [
            self.text(f"{name}: {words}", style)
            for row in rows
            for name, (words, style) in zip(names, row, strict=True)
        ]
        return Group(*lines, "")


def _filled(columns: dict[str, int], rows: Sequence[Cells]) -> tuple[list[str], list[Cells]]:
    """The names of the columns in which there is something, and the rows without the others."""
    kept = [n for n in range(len(columns)) if any(row[n][0] for row in rows)]
    return [list(columns)[n] for n in kept], [[row[n] for n in kept] for row in rows]


def _needed(columns: dict[str, int], names: list[str], rows: Sequence[Cells]) -> int:
    """How wide a table is when no column is narrower than it may be."""
    found = 0
    for n, name in enumerate(names):
        widest, least = max(cell_len(row[n][0]) for row in rows), columns[name]
        if least:
            found += max(min(widest, least), *(len(word) for word in (*name.split(), "")))
        else:
            found += max(widest, len(name))
    return found + _BETWEEN * (len(names) - 1) + 1


def cells(row: report.Row, now: float, zone: tzinfo | None = None) -> Cells:
    """A port's row, in the order of `COLUMNS`."""
    dead = "" if row.pid is not None else "dim"
    return [
        (row.program, dead),
        ("" if row.pid is None else f"{row.pid}{f' +{row.others}' * bool(row.others)}", ""),
        (f"{row.port.kind} {row.port.number}", "bold"),
        (row.external, ""),
        (row.state.value, STYLES.get(row.state, "")),
        (row.why, ""),
        ("" if row.since is None else report.clock(row.since, now, zone), ""),
        (report.lasts(row.expires, now), ""),
    ]


def _narrow(row: Cells) -> Cells:
    """In the order of `_NARROW`."""
    told = ", ".join(filter(None, (row[_ADDRESS][0], row[_WHY][0])))
    return [*row[:_ADDRESS], row[_ADDRESS + 1], (told, ""), *row[_WHY + 1 :]]


def of_sessions(
    paper: Paper, records: Iterable[SessionRecord], now: float, zone: tzinfo | None = None
) -> RenderableType:
    """Every session, one below the other."""
    parts: list[RenderableType] = []
    for record in records:
        name, life = report.title(record, now, zone)
        if parts:
            parts.append(Text(""))
        parts.append(paper.text(f"{name}  ({life})", "bold" if record.alive else "bold red"))
        parts += [
            paper.text(words, "yellow" if bad else "dim")
            for words, bad in report.circumstances(record)
        ]
        rows = [cells(row, now, zone) for row in report.rows(record)]
        narrow = [_narrow(row) for row in rows]
        if rows:
            parts.append(paper.table((COLUMNS, rows), (_NARROW, narrow)))
        else:
            parts.append(paper.text(report.NO_PORTS))
        parts += [paper.text(words, "dim") for words in report.programs(record, now, zone)]
    return Group(*(parts or [paper.text(report.NOTHING)]))


def of_entries(
    paper: Paper, entries: Iterable[Entry], zone: tzinfo | None = None
) -> RenderableType:
    """What happened, the newest last."""
    rows = []
    for entry in entries:
        when, program, pid, port, what, why = chronicle.row(entry, zone)
        style = HAPPENED.get(entry.event.what, "")
        rows.append(
            [(when, "dim"), (program, ""), (pid, ""), (port, "bold"), (what, style), (why, "")]
        )
    return paper.table((_LOG_COLUMNS, rows))
