"""The monitor: what `natsup ui` shows, made with textual.

journals and history  →  rows  →  table, and the details of the one that is chosen
      ↑ inotify                        ↓ r, t
   sessions        ←  orders  ←  release, retry
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import tzinfo
from functools import partial
from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import DataTable, Footer, Input, Static

from natsup.state import chronicle, report
from natsup.state.history import Entry
from natsup.state.journal import SessionRecord
from natsup.state.model import Port
from natsup.supervisor import tables
from natsup.supervisor.ordering import Untold
from natsup.supervisor.watching import SETTLE_SECONDS, Changes

_TICK_SECONDS = 10.0  # until the countdowns of leases are painted again
_MOST_HISTORY = 5000  # entries, of which those of a port are shown
_SHOWN_HISTORY = 50
_SURE_SECONDS = 10.0  # in which `r` for the second time means it
_PID, _PORT = 1, 2  # of the cells


@dataclass(frozen=True, slots=True)
class Source:
    """Where the monitor has it all from. The first two raise OSError; ``history`` gives what has
    come since it was called last; ``order`` has a session carry something out, may take seconds,
    and raises Untold. ``changes``: None, and only F5 looks again."""

    sessions: Callable[[], list[SessionRecord]]
    history: Callable[[], list[Entry]]
    order: Callable[[SessionRecord, str, Port], tuple[str, str]]
    now: Callable[[], float]
    zone: tzinfo | None = None
    changes: Changes | None = None


@dataclass(slots=True)
class Line:
    """A port of a session, as the table has it."""

    session: SessionRecord
    row: report.Row
    cells: tables.Cells
    words: str = field(init=False)  # to be searched
    numbers: str = field(init=False)

    def __post_init__(self) -> None:
        """What a session was started with names ports, too: of all its lines, and of none."""
        told = [words for words, _ in self.cells]
        command = report.printable(self.session.header.command[0].rpartition("/")[2])
        self.words = " ".join([command, self.key, *told]).lower()
        self.numbers = " ".join(told[_PID : _PORT + 1])

    @property
    def key(self) -> str:
        return f"{self.session.header.session} {self.row.port}"


def lines_of(records: list[SessionRecord], now: float, zone: tzinfo | None) -> list[Line]:
    """What there is to show. Pure."""
    found = []
    for record in records:
        for row in report.rows(record):
            cells = tables.cells(row, now, zone)
            if not record.alive:
                cells[0] = (f"{row.program} (ended)", "red")
            found.append(Line(record, row, cells))
    return found


def matching(lines: list[Line], search: str) -> list[Line]:
    """Those in which every word of a search is found, and a number as port or pid. Pure."""
    words = search.lower().split()
    return [
        line
        for line in lines
        if all(word in (line.numbers if word.isdecimal() else line.words) for word in words)
    ]


def summary(records: list[SessionRecord], shown: int, lines: list[Line]) -> str:
    """One line of all. Pure."""
    living = sum(record.alive for record in records)
    parts = [f"{living} session" + "s" * (living != 1)]
    if living < len(records):
        parts.append(f"{len(records) - living} ended without cleaning up (natsup clean)")
    ports = f"{len(lines)} port" + "s" * (len(lines) != 1)
    parts.append(ports if shown == len(lines) else f"{shown} of {ports}")
    return ", ".join(parts)


def details(line: Line, history: list[Entry], now: float, zone: tzinfo | None) -> Text:
    """Of one port, with what has happened to it, the newest first. Pure."""
    record, row = line.session, line.row
    text = Text().append(f"{row.port.kind} {row.port.number} of {row.program}", "bold")
    text.append(f"  {row.state}", tables.STYLES.get(row.state, ""))
    text.append(f" ({row.why})" if row.why else "")
    text.append("" if row.since is None else f", since {report.clock(row.since, now, zone)}")
    lasts = report.lasts(row.expires, now)
    text.append(f", its lease lasts {lasts} yet\n" if lasts else "\n")
    if row.external:
        text.append(f"{row.external} → {row.internal or '?'}\n")
    text.append(
        "session {}  {}  ({})\n".format(record.header.session, *report.title(record, now, zone))
    )
    for words, bad in report.circumstances(record):
        text.append(f"{words}\n", "yellow" if bad else "")
    for words in report.programs(record, now, zone):
        text.append(f"{words}\n", "dim")
    text.append("\nhistory of this port\n", "bold")
    told = deque((entry for entry in history if entry.event.port == row.port), _SHOWN_HISTORY)
    for entry in reversed(told):
        when, program, pid, _, what, why = chronicle.row(entry, zone)
        text.append(f"{when}  {program} {pid}  ", "dim")
        text.append(what, tables.HAPPENED.get(entry.event.what, ""))
        text.append(f"  {why}\n")
    if not told:
        text.append("nothing that is still known\n", "dim")
    return text


class Monitor(App[None]):
    """See `natsup.supervisor.ui`."""

    TITLE = "natsup"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #summary { padding: 0 1; text-style: bold; }
    #search { display: none; }
    #ports { height: 1fr; }
    #panel { height: 1fr; border-top: solid $primary; padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "search", "search"),
        Binding("escape", "all", "all", show=False),
        Binding("r", "order('release')", "release"),
        Binding("t", "order('retry')", "retry"),
        Binding("c", "copy", "copy external address"),
        Binding("f5", "look", "look again", show=False),
        Binding("q", "quit", "quit"),
        Binding("ctrl+c", "quit", show=False, priority=True),
    ]

    def __init__(self, source: Source) -> None:
        super().__init__()
        self._source = source
        self._records: list[SessionRecord] = []
        self._history: deque[Entry] = deque(maxlen=_MOST_HISTORY)
        self._shown: dict[str, Line] = {}  # by key, in order
        self._chosen = ""  # the key of the line whose details are shown
        self._asked = ("", 0.0)  # the key of the line that is to be released, and when
        self._soon = False
        self.failed: Exception | None = None  # an error of ours that ended it

    # textual would show a traceback at its end: `natsup.supervisor.ui` raises the error instead,
    # and it is reported as everywhere.

    def _handle_exception(self, error: Exception) -> None:
        self.failed = self.failed or error
        super()._handle_exception(error)

    def _fatal_error(self) -> None:
        self._close_messages_no_wait()

    def compose(self) -> ComposeResult:
        yield Static(id="summary", markup=False)
        yield Input(id="search", placeholder="program, port, state, address; Escape shows all")
        yield DataTable(id="ports", cursor_type="row", zebra_stripes=True)
        with VerticalScroll(id="panel"):
            yield Static(id="details", markup=False)
        yield Footer()

    def on_mount(self) -> None:
        self._table.add_columns(*tables.COLUMNS)
        self._table.focus()
        self.action_look()
        self.set_interval(_TICK_SECONDS, self._paint)
        if self._source.changes is not None:
            asyncio.get_running_loop().add_reader(self._source.changes.fileno(), self._hear)

    def on_unmount(self) -> None:
        if self._source.changes is not None:
            asyncio.get_running_loop().remove_reader(self._source.changes.fileno())

    @property
    def _table(self) -> "DataTable[Text]":
        return self.query_one("#ports", DataTable)

    # --- what has changed ---

    def _hear(self) -> None:
        assert self._source.changes is not None
        if self._source.changes.take() and not self._soon:
            self._soon = True
            self.set_timer(SETTLE_SECONDS, self.action_look)

    def action_look(self) -> None:
        self._soon = False
        try:
            self._records = self._source.sessions()
            self._history.extend(self._source.history())
        except OSError as error:
            self.notify(f"the state folder cannot be read: {error.strerror}", severity="error")
        self._paint()

    def _paint(self) -> None:
        """The same line stays chosen; if it has gone, the one in its place is."""
        now, zone, table = self._source.now(), self._source.zone, self._table
        lines = lines_of(self._records, now, zone)
        shown = matching(lines, self.query_one("#search", Input).value)
        cells = {line.key: line for line in shown}
        place = max(0, min(table.cursor_row, len(shown) - 1))
        if list(cells) == list(self._shown):
            for number, line in enumerate(shown):
                for column, (words, style) in enumerate(line.cells):
                    table.update_cell_at((number, column), Text(words, style), update_width=True)  # type: ignore[arg-type]
        else:
            table.clear()
            for line in shown:
                table.add_row(*(Text(words, style) for words, style in line.cells), key=line.key)
        self._shown = cells
        keys = list(cells)
        if self._chosen in cells:
            place = keys.index(self._chosen)
        self._chosen = keys[place] if keys else ""
        table.move_cursor(row=place)
        self.query_one("#summary", Static).update(summary(self._records, len(shown), lines))
        self._paint_details()

    def _paint_details(self) -> None:
        line = self._shown.get(self._chosen)
        text = Text(report.NOTHING if not self._records else "no port is chosen", "dim")
        if line is not None:
            text = details(line, list(self._history), self._source.now(), self._source.zone)
        self.query_one("#details", Static).update(text)

    # --- what the user does ---

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        key = event.row_key.value
        late = event.cursor_row != event.data_table.cursor_row  # it has been moved since
        if key in self._shown and key != self._chosen and not late:
            self._chosen = key
            self._asked = ("", 0.0)
            self._paint_details()

    def on_input_changed(self, event: Input.Changed) -> None:
        """The first that is found is chosen, and not what was before; with all of them it stays."""
        self._asked = ("", 0.0)
        if event.value:
            self._chosen = ""
            self._table.move_cursor(row=0)
        self._paint()

    def on_input_submitted(self) -> None:
        self._table.focus()

    def action_search(self) -> None:
        search = self.query_one("#search", Input)
        search.display = True
        search.focus()

    def action_all(self) -> None:
        search = self.query_one("#search", Input)
        search.value = ""
        search.display = False
        self._table.focus()

    def action_order(self, what: str) -> None:
        line = self._shown.get(self._chosen)
        if line is None:
            return
        key, when = self._asked
        now = self._source.now()
        self._asked = ("", 0.0)
        if what == "release" and not (key == line.key and 0 <= now - when < _SURE_SECONDS):
            self._asked = (line.key, now)
            port = f"{line.row.port.kind} {line.row.port.number} of {line.row.program}"
            self.notify(f"{port}: press r again to release it", markup=False)
            return
        self.run_worker(partial(self._order, line, what), thread=True)

    def _order(self, line: Line, what: str) -> None:
        """In a thread: the router may take its time."""
        port = line.row.port
        try:
            state, reason = self._source.order(line.session, what, port)
        except Untold as error:
            self.call_from_thread(self.notify, str(error), severity="error", markup=False)
            return
        why = f" ({report.printable(reason)})" if reason else ""
        told = f"{port.kind} {port.number} of {line.row.program}: {report.printable(state)}{why}"
        self.call_from_thread(self.notify, told, markup=False)
        self.call_from_thread(self.action_look)

    def action_copy(self) -> None:
        line = self._shown.get(self._chosen)
        if line is None or not line.row.external:
            self.notify("this port has no external address", severity="warning")
            return
        self.copy_to_clipboard(line.row.external)
        self.notify(f"{line.row.external} is in the clipboard, if the terminal lets it (OSC 52)")
