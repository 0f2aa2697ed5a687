"""What people see of `natsup status` and `natsup log`, on good terminals and bad ones."""

import errno
import io
import json
import os
import signal
import subprocess
import sys
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from rich.console import Console

from natsup.state.happenings import Caller, Event, What
from natsup.state.history import Entry, append, line_of
from natsup.state.journal import GatewayRecord, Header, Journal, SocketRecord, read
from natsup.state.ledger import Note, State
from natsup.state.model import Port, Protocol
from natsup.supervisor import libc, past, status, ui
from natsup.supervisor.screen import in_ascii, utf8
from natsup.supervisor.watching import Changes
from tests.supervisor.conftest import NATSUP
from tests.supervisor.terminal import Terminal

TCP, UDP = Port(Protocol.TCP, 6881), Port(Protocol.UDP, 51413)
FULL = "the router's table is full"
ENTER, LEAVE = b"\x1b[?1049h", b"\x1b[?1049l"  # the alternate screen: xterm's control sequences
HIDE, SHOW = b"\x1b[?25l", b"\x1b[?25h"  # the cursor
BOXES = "─│┌━"


@pytest.fixture
def folder(environ: dict[str, str]) -> Path:
    environ.update(TERM="xterm-256color", LANG="C.UTF-8")
    for name in ("NO_COLOR", "COLUMNS", "LINES", "LC_ALL", "LC_CTYPE", "FORCE_COLOR", "COLORTERM"):
        environ.pop(name, None)
    return Path(environ["NATSUP_STATE_DIR"])


@pytest.fixture
def journal(folder: Path) -> Iterator[Journal]:
    """A session that lives as long as the test: two ports, one of which the router refuses."""
    made = begin(folder, "one")
    note(made, TCP, State.MAPPED)
    note(made, UDP, State.IGNORED, FULL)
    yield made
    if made.fileno() is not None:
        made.end(left=False)


@pytest.mark.parametrize(("width", "height"), [(80, 6), (25, 6), (12, 6), (25, 1)])
def test_what_there_is_no_room_for_is_told_as_a_whole(width: int, height: int) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=width, height=height)
    picture = status._cropped(console, "\n".join("x" * 20))
    lines = [
        "".join(segment.text for segment in line).strip() for line in console.render_lines(picture)
    ]
    assert len([line for line in lines if line]) <= max(height, 2)
    assert lines[-1].endswith("all")
    kept = lines.count("x")
    assert " ".join(lines[kept:]) == f"{20 - kept} lines more: natsup status shows all"


def begin(folder: Path, session: str) -> Journal:
    header = Header(session, 4711, ["/usr/bin/rtorrent", "-n"], time.time())
    made = Journal.create(folder, header)
    made.gateway(GatewayRecord("upnp", "http://192.168.77.1:5000/x", "192.168.77.2", "11.22.33.1"))
    ports = [str(TCP), str(UDP)]
    made.socket(SocketRecord(1, ports, "00000000", 2, 6, 1, 4712, "rtorrent"))
    return made


def note(journal: Journal, port: Port, state: State, reason: str = "") -> None:
    mapped = state is State.MAPPED
    expires = 3000.0 if mapped else None
    journal.note(Note(port, state, reason, expires, 1, exists=mapped), now=0.0, wall=time.time())


def happen(folder: Path, what: What, reason: str = "") -> None:
    event = Event(what, TCP, Caller("rtorrent", 4712), reason, lease=3600)
    append(folder, [line_of(Entry(time.time(), "one", ("rtorrent",), event))])


def squeezed(text: str) -> str:
    """Without what breaks words."""
    return "".join(text.split())


def shown(environ: dict[str, str], *words: str, columns: int = 100, lines: int = 60) -> Terminal:
    """The terminal on which a command has run to its end, well."""
    with Terminal([NATSUP, *words], environ, columns=columns, lines=lines) as terminal:
        assert terminal.end() == 0, terminal.text
    return terminal


FACTS = ("4712", "tcp 6881", "11.22.33.1:6881", "mapped", "49 min", "udp 51413", "ignored", FULL)


def test_a_table(environ: dict[str, str], journal: Journal) -> None:
    terminal = shown(environ, "status")
    first, router, head, line, *rows = terminal.text.splitlines()
    assert first.startswith("rtorrent -n  (pid 4711, since ")
    assert router == "router http://192.168.77.1:5000/x, external address 11.22.33.1"
    assert head.split() == [
        *("program", "pid", "port", "external", "address", "state", "why", "since", "lease")
    ]
    assert set(line) == {"─"}
    assert rows[0].split()[:5] == ["rtorrent", "4712", "tcp", "6881", "11.22.33.1:6881"]
    for fact in FACTS:
        assert squeezed(fact) in squeezed("".join(rows)), fact
    assert terminal.screen.buffer[4][rows[0].index("mapped")].fg == "green"


@pytest.mark.parametrize("change", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"TERM": ""}])
def test_no_colour(environ: dict[str, str], journal: Journal, change: dict[str, str]) -> None:
    terminal = shown({**environ, **change}, "status")
    for fact in FACTS:
        assert squeezed(fact) in squeezed(terminal.text), fact
    assert b"\x1b[3" not in terminal.output
    if "TERM" in change:
        assert b"\x1b" not in terminal.output
    assert "─" in terminal.text


@pytest.mark.parametrize(
    ("words", "change"),
    [(["status"], {"LANG": "C"}), (["status"], {"LANG": ""}), (["log"], {"LC_ALL": "C"})],
)
def test_no_utf_8(
    environ: dict[str, str],
    folder: Path,
    journal: Journal,
    change: dict[str, str],
    words: list[str],
) -> None:
    happen(folder, What.LOST, "die Straße → zu")
    terminal = shown({**environ, **change}, *words)
    assert terminal.output.isascii()
    assert "tcp 6881" in terminal.text
    if words == ["log"]:
        assert "die Stra?e -> zu" in terminal.text
    piped = subprocess.run(
        [NATSUP, *words], env={**environ, **change}, capture_output=True, check=True, timeout=60
    )
    assert piped.stdout.isascii()


@pytest.mark.parametrize(
    ("words", "columns", "term"),
    [
        (["status"], 20, "xterm-256color"),
        (["status"], 20, "dumb"),
        (["status"], 80, "xterm-256color"),
        (["log"], 20, "xterm-256color"),
        (["log"], 80, "xterm-256color"),
    ],
)
def test_nothing_is_lost_where_it_is_narrow(
    environ: dict[str, str],
    folder: Path,
    journal: Journal,
    words: list[str],
    term: str,
    columns: int,
) -> None:
    happen(folder, What.LOST, FULL)
    terminal = shown({**environ, "TERM": term}, *words, columns=columns, lines=200)
    facts = FACTS if words == ["status"] else ("rtorrent", "4712", "tcp 6881", "lost", FULL)
    if columns == 20:
        for fact in facts:
            assert squeezed(fact) in squeezed(terminal.text), fact
    else:
        for fact in facts:  # words are not torn, but may stand below each other
            for word in fact.split():
                assert word in terminal.text, word
    assert max(map(len, terminal.text.splitlines())) <= columns


def test_the_columns_that_the_user_says(environ: dict[str, str], journal: Journal) -> None:
    terminal = shown({**environ, "COLUMNS": "30"}, "status")
    assert max(map(len, terminal.text.splitlines())) <= 30


def test_plain_text_where_it_is_no_terminal(environ: dict[str, str], journal: Journal) -> None:
    for extra in {}, {"FORCE_COLOR": "1", "CLICOLOR_FORCE": "1"}:
        done = subprocess.run(
            [NATSUP, "status"], env={**environ, **extra}, capture_output=True, text=True, timeout=60
        )
        lines = done.stdout.splitlines()
        assert lines[1] == "  router http://192.168.77.1:5000/x, external address 11.22.33.1"
        assert lines[3] == f"  udp 51413  → 192.168.77.2:51413  ignored  1 socket  {FULL}"
        assert "\x1b" not in done.stdout


def test_what_happened_as_a_table(environ: dict[str, str], folder: Path) -> None:
    folder.mkdir()
    happen(folder, What.MAPPED)
    happen(folder, What.LOST, FULL)
    terminal = shown(environ, "log", "--program", "rtorrent")
    head, _, *rows = terminal.text.splitlines()
    assert head.split() == ["when", "program", "pid", "port", "what", "why"]
    assert [row.split()[2:6] for row in rows] == [["rtorrent", "4712", "tcp", "6881"]] * 2
    assert terminal.screen.buffer[3][rows[1].index("lost")].fg == "red"
    assert shown(environ, "log", "--program", "x").text.startswith("Nothing like that;")


# --- as it changes ---


def test_changes_are_seen_as_they_come(
    environ: dict[str, str], folder: Path, journal: Journal
) -> None:
    with Terminal([NATSUP, "status", "--watch"], environ) as terminal:
        before = terminal.settings
        terminal.shows("tcp 6881", "ignored", FULL)
        note(journal, UDP, State.MAPPED)
        terminal.until(lambda: "ignored" not in terminal.text)
        terminal.shows("11.22.33.1:51413")
        terminal.resize(30, 40)
        terminal.shows("program: rtorrent")
        terminal.resize(100, 30)
        terminal.until(lambda: "program: rtorrent" not in terminal.text)
        another = begin(folder, "two")
        terminal.until(lambda: terminal.text.count("rtorrent -n") == 2)
        fd = another.fileno()
        assert fd is not None
        os.close(fd)  # as if it was killed
        terminal.shows("ended without cleaning up")
        journal.end(left=False)
        terminal.until(lambda: terminal.text.count("rtorrent -n") == 1)
        terminal.interrupt()
        assert terminal.end() == 0
        assert terminal.output.count(ENTER) == terminal.output.count(LEAVE) == 1
        assert terminal.output.rindex(SHOW) > terminal.output.rindex(HIDE)
        assert terminal.settings == before
    assert b"Traceback" not in terminal.output


def test_what_is_not_shown_is_no_change(folder: Path, journal: Journal) -> None:
    with closing(Changes(folder)) as changes:
        (folder / "log").write_text("a line\n")
        (folder / "sessions" / "x.new").write_text("")
        assert not changes.take()
        list((folder / "sessions").iterdir())
        read(folder / "sessions" / "one.jsonl")
        assert not changes.take()
        note(journal, UDP, State.MAPPED)
        assert changes.take()
        assert not changes.take()
        happen(folder, What.LOST)
        assert changes.take()


def test_the_folder_may_come_later(environ: dict[str, str], folder: Path) -> None:
    environ["NATSUP_STATE_DIR"] = str(folder / "deep" / "er")
    with Terminal([NATSUP, "status", "--watch"], environ) as terminal:
        terminal.shows("No session.")
        made = begin(folder / "deep" / "er", "one")
        terminal.shows("rtorrent -n")
        made.end(left=False)
        terminal.shows("No session.")
        terminal.interrupt()
        assert terminal.end() == 0


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_the_terminal_is_left_clean(
    environ: dict[str, str], journal: Journal, ending: signal.Signals
) -> None:
    with Terminal([NATSUP, "status", "--watch"], environ) as terminal:
        terminal.shows("tcp 6881")
        os.kill(terminal.child(), ending)
        status = terminal.end()
        assert status == (0 if ending is signal.SIGINT else 128 + ending)
    assert terminal.output.rindex(LEAVE) > terminal.output.rindex(ENTER)
    assert terminal.output.rindex(SHOW) > terminal.output.rindex(HIDE)


def test_it_gives_the_screen_back_when_it_is_stopped(
    environ: dict[str, str], journal: Journal
) -> None:
    shell = 'set -m; "$@"; echo stopped; read line; fg >/dev/null; echo over'
    words = ["bash", "--norc", "-c", shell, "bash", NATSUP, "status", "--watch"]
    with Terminal(words, environ) as terminal:
        terminal.shows("tcp 6881")
        terminal.type("\x1a")
        terminal.until(lambda: b"stopped\r\n" in terminal.output)
        assert terminal.output.index(LEAVE) < terminal.output.index(b"stopped")
        terminal.type("\n")
        terminal.until(lambda: terminal.output.count(ENTER) == 2)
        note(journal, UDP, State.MAPPED)
        terminal.shows("11.22.33.1:51413")
        terminal.interrupt()
        terminal.until(lambda: terminal.output.count(LEAVE) == 2)


def test_more_than_there_is_room_for(environ: dict[str, str], journal: Journal) -> None:
    for number in range(40):
        note(journal, Port(Protocol.TCP, 7000 + number), State.MAPPED)
    with Terminal([NATSUP, "status", "--watch"], environ, lines=20) as terminal:
        terminal.shows("tcp 7000", "27 lines more: natsup status shows all")
        terminal.interrupt()
        terminal.end()


def test_a_dumb_terminal_gets_it_again(environ: dict[str, str], journal: Journal) -> None:
    environ["TERM"] = "dumb"
    with Terminal([NATSUP, "status", "--watch"], environ) as terminal:
        terminal.shows("tcp 6881", FULL)
        note(journal, UDP, State.MAPPED)
        terminal.shows("11.22.33.1:51413")
        terminal.interrupt()
        assert terminal.end() == 0
    assert b"\x1b" not in terminal.output


@pytest.mark.parametrize("words", [["status", "--watch", "--json"], ["log", "--follow", "--json"]])
def test_programs_hear_of_changes(
    environ: dict[str, str], folder: Path, journal: Journal, words: list[str]
) -> None:
    happen(folder, What.MAPPED)
    with subprocess.Popen([NATSUP, *words], env=environ, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        if words[0] == "status":
            note(journal, UDP, State.MAPPED)
        happen(folder, What.LOST, "x")
        second = json.loads(process.stdout.readline())
        if words[0] == "status":
            (before,), (after,) = first["sessions"], second["sessions"]
            states = [[one["state"] for one in told["mappings"]] for told in (before, after)]
            assert states == [["mapped", "ignored"], ["mapped", "mapped"]]
        else:
            assert (first["what"], second["what"]) == ("mapped", "lost")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


@pytest.mark.parametrize("words", [["status", "--watch"], ["log", "--follow"]])
def test_who_reads_no_more_is_not_written_to(
    environ: dict[str, str], folder: Path, journal: Journal, words: list[str]
) -> None:
    """It is not found out at the next change only, which may be far away."""
    happen(folder, What.MAPPED)
    process = subprocess.Popen(
        [NATSUP, *words], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stderr, process.stdout:
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(30) == 128 + signal.SIGPIPE
        assert process.stderr.read() == b""


def test_the_history_is_followed_on_a_terminal(environ: dict[str, str], folder: Path) -> None:
    with Terminal([NATSUP, "log", "-f"], environ) as terminal:
        terminal.until(lambda: True)
        folder.mkdir()
        happen(folder, What.LOST, "first")
        terminal.shows("lost", "first")
        happen(folder, What.MAPPED)
        terminal.shows("mapped", "lease 3600 s")
        terminal.interrupt()
        assert terminal.end() == 0


@pytest.mark.parametrize("words", [["status", "--watch"], ["log", "--follow"]])
def test_no_more_watches(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    words: list[str],
) -> None:
    def fail() -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(libc, "inotify_init", fail)
    monkeypatch.setenv("NATSUP_STATE_DIR", str(tmp_path))
    assert {"status": status, "log": past}[words[0]].main(ArgumentParser(), words[1:]) == 125
    assert capfd.readouterr().err == (
        f"natsup: changes in {tmp_path} cannot be watched: Too many open files; sysctl fs.inotify"
        " shows what the system allows\n"
    )


@pytest.mark.parametrize("words", [["status"], ["status", "--watch"], ["ui"]])
def test_a_folder_that_is_none(environ: dict[str, str], folder: Path, words: list[str]) -> None:
    folder.write_text("a file")
    with Terminal([NATSUP, *words], environ, columns=200) as terminal:
        assert terminal.end() == 125
    said = f"natsup: the state folder {folder} cannot be read: Not a directory"
    assert terminal.text.replace("\n", "").startswith(said)


# --- natsup ui, where it cannot be shown ---


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"TERM": "dumb"}, "needs a terminal, and no dumb one; natsup status shows the same"),
        ({"LC_ALL": "C"}, "needs a terminal with UTF-8, by LANG; natsup status --watch does"),
    ],
)
def test_a_terminal_that_will_not_do(
    environ: dict[str, str], folder: Path, change: dict[str, str], said: str
) -> None:
    with Terminal([NATSUP, "ui"], {**environ, **change}, columns=120) as terminal:
        assert terminal.end() == 125
    assert terminal.text.startswith(f"natsup: natsup ui {said}")
    assert terminal.output.count(b"\n") == 1


def test_an_error_of_its_own_is_no_traceback(
    environ: dict[str, str], folder: Path, journal: Journal
) -> None:
    source = """
import sys
from natsup.supervisor import cli, monitor

def fail(*words):
    raise ValueError("of ours")

monitor.details = fail
sys.argv = ["natsup", "ui"]
sys.exit(cli.main())
"""
    with Terminal([sys.executable, "-c", source], environ, columns=120) as terminal:
        assert terminal.end() == 70
        (report,) = (folder / "crashes").iterdir()
        assert "natsup: an error inside natsup (ValueError)" in terminal.text
        assert str(report) in squeezed(terminal.text)
        assert "Traceback" not in terminal.text
        assert "of ours" in report.read_text()


def test_no_terminal(environ: dict[str, str], folder: Path) -> None:
    done = subprocess.run(
        [NATSUP, "ui"], env=environ, capture_output=True, text=True, timeout=60, input=""
    )
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith("natsup: natsup ui needs a terminal")


@pytest.mark.parametrize(
    ("prefix", "command"),
    [
        ("/home/x/.local/share/pipx/venvs/natsup", "pipx inject natsup textual"),
        ("/home/x/.local/share/uv/tools/natsup", "uv tool install --with textual natsup"),
        ("/opt/natsup", "/opt/natsup/bin/python -m pip install textual"),
    ],
)
def test_without_textual_the_command_is_named(
    monkeypatch: pytest.MonkeyPatch, prefix: str, command: str
) -> None:
    monkeypatch.setattr(ui, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "prefix", prefix)
    why = f"needs textual, which is not installed; to install it:  {command}"
    assert ui.unshowable() == why


# --- what the locale says ---


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({"LANG": "C.UTF-8"}, True),
        ({"LANG": "de_DE.utf8"}, True),
        ({"LANG": "de_DE.UTF-8@euro"}, True),
        ({"LANG": "en_US.ISO-8859-1"}, False),
        ({"LANG": "C"}, False),
        ({}, False),
        ({"LANG": "C", "LC_CTYPE": "C.UTF-8"}, False),  # Python's own: PEP 538
        ({"LANG": "en_US.UTF-8", "LC_ALL": "C"}, False),
        ({"LANG": "C", "LC_ALL": "C.UTF-8"}, True),
        ({"LANG": "C", "LC_CTYPE": "de_DE.UTF-8"}, True),
    ],
)
def test_utf_8(environ: dict[str, str], found: bool) -> None:
    assert utf8(environ) is found


def test_ascii() -> None:
    assert in_ascii("a → “b”…") == 'a -> "b"...'
