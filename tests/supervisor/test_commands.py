"""The commands beside exec: what they say to bad input, and where there is nothing to do."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from natsup.state.happenings import Caller, Event, What
from natsup.state.history import Entry, append, line_of, read
from natsup.state.model import Port, Protocol
from tests.nobody import as_nobody
from tests.supervisor.conftest import NATSUP, Exec


def natsup(*words: str, environ: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    command = ["unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh", NATSUP]
    return subprocess.run(
        [*command, *words], capture_output=True, text=True, timeout=60, env=environ
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no command given; natsup exec -- COMMAND runs one"),
        (["stauts"], "unknown command 'stauts' (did you mean status?)"),
        (["status", "--jsno"], "unrecognized arguments: --jsno; see natsup status --help"),
        (["clean", "now"], "unrecognized arguments: now; see natsup clean --help"),
        (["ui", "now"], "unrecognized arguments: now; see natsup ui --help"),
        (["release", "x"], "the following arguments are required: PORT[/PROTO]"),
        (["release", "x", "0"], "'0' is no port; give 6881, 6881/tcp or 6881/udp"),
        (["retry", "x", "6881"], "no session 'x' is running; natsup status lists them"),
        (["log", "-n", "0"], "'0' is no number of lines; give 1 or more; see natsup log --help"),
        (["log", "--port", "x"], "'x' is no port; give 6881, 6881/tcp or 6881/udp"),
        (["log", "--port", "70000"], "'70000' is no port"),
        (["log", "--port", "80/sctp"], "'sctp' is no protocol; give tcp or udp"),
        (["log", "--port", "80/"], "'80/' is no port"),
        (["log", "--since", "often"], "'often' is no time; give 30m, 2h, 7d"),
        (["gateway"], "the following arguments are required: --internal, --external"),
        (["gateway", "--internal", "x", "--external", "127.0.0.1"], "'x' is no IPv4 address"),
        (
            ["gateway", "--internal", "127.0.0.1", "--external", "203.0.113.9"],
            "--external: 203.0.113.9 is no address of this host",
        ),
        (
            ["gateway", "--internal", "0.0.0.0", "--external", "127.0.0.1"],
            "--internal: 0.0.0.0 is no address of this host",
        ),
        (
            ["gateway", "--internal", "127.0.0.1", "--external", "127.0.0.1", "--port", "99999"],
            "'99999' is no port",
        ),
        (
            ["gateway", "--internal", "127.0.0.1", "--external", "127.0.0.1", "--limit", "-1"],
            "'-1' is no number",
        ),
    ],
)
def test_bad_input_gets_one_line(environ: dict[str, str], words: list[str], message: str) -> None:
    done = natsup(*words, environ=environ)
    assert done.returncode == 125
    assert done.stdout == ""
    assert done.stderr.startswith("natsup: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("words", [["status"], ["ui"], ["log"], ["clean"], ["exec", "--", "true"]])
def test_a_state_folder_that_depends_on_where_one_stands_is_refused(
    environ: dict[str, str], words: list[str]
) -> None:
    done = natsup(*words, environ={**environ, "NATSUP_STATE_DIR": "here"})
    assert done.returncode == 125
    assert done.stderr == "natsup: NATSUP_STATE_DIR: 'here' will not do; give an absolute path\n"


def test_nothing_to_show(environ: dict[str, str]) -> None:
    done = natsup("status", environ=environ)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("No session. Start a program with:  natsup exec -- COMMAND")
    assert json.loads(natsup("status", "--json", environ=environ).stdout) == {"sessions": []}


# --- natsup log ---

TCP, UDP = Port(Protocol.TCP, 6881), Port(Protocol.UDP, 6881)


@pytest.fixture
def past(environ: dict[str, str]) -> Path:
    """A state folder with a history, as two sessions wrote it; some of it is no history."""
    folder = Path(environ["NATSUP_STATE_DIR"])
    folder.mkdir()
    now = time.time()
    for when, session, event in (
        (now - 7200, "one", Event(What.MAPPED, TCP, Caller("rtorrent", 12), lease=3600)),
        (now - 7000, "one", Event(What.REMOVED, TCP, Caller("rtorrent", 12), "the session ended")),
        (now - 60, "two", Event(What.IGNORED, UDP, Caller("x\x1b[2J", 13), "it would not")),
    ):
        append(folder, [line_of(Entry(when, session, ("rtorrent", "-n"), event))])
    with (folder / "history.jsonl").open("ab") as file:
        file.write(b'{"what": "of another version"}\n{"torn')
    return folder


def test_what_happened(environ: dict[str, str], past: Path) -> None:
    done = natsup("log", environ=environ)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split("  ", 1)[1].split() for line in done.stdout.splitlines()] == [
        ["rtorrent", "(12)", "tcp", "6881", "mapped", "lease", "3600", "s"],
        ["rtorrent", "(12)", "tcp", "6881", "removed", "the", "session", "ended"],
        ["x?[2J", "(13)", "udp", "6881", "ignored", "it", "would", "not"],
    ]
    lines = natsup("log", "--json", environ=environ).stdout.splitlines()
    found = [json.loads(line) for line in lines]
    assert [one["session"] for one in found] == ["one", "one", "two"]
    assert found[0]["command"] == ["rtorrent", "-n"]


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ([], ["mapped", "removed", "ignored"]),
        (["-n", "2"], ["removed", "ignored"]),
        (["--port", "6881"], ["mapped", "removed", "ignored"]),
        (["--port", "6881/tcp", "-n", "1"], ["removed"]),
        (["--port", "udp/6881"], ["ignored"]),
        (["--port", "6882"], []),
        (["--since", "1h"], ["ignored"]),
        (["--since", "1d"], ["mapped", "removed", "ignored"]),
        (["--since", "2000-01-01"], ["mapped", "removed", "ignored"]),
        (["--since", "2900-01-01T10:00"], []),
    ],
)
def test_some_of_what_happened(
    environ: dict[str, str], past: Path, words: list[str], shown: list[str]
) -> None:
    lines = natsup("log", "--json", *words, environ=environ).stdout.splitlines()
    assert [json.loads(line)["what"] for line in lines] == shown
    done = natsup("log", *words, environ=environ)
    if not shown:
        assert done.stdout == "Nothing like that; natsup log shows everything.\n"


@pytest.mark.parametrize("content", [None, b"", b"\0\xffnonsense\n{}\n"])
def test_nothing_has_happened(environ: dict[str, str], content: bytes | None) -> None:
    folder = Path(environ["NATSUP_STATE_DIR"])
    if content is not None:
        folder.mkdir()
        (folder / "history.jsonl").write_bytes(content)
    for words in ["log"], ["log", "-n", "2"]:
        done = natsup(*words, environ=environ)
        assert (done.returncode, done.stderr) == (0, "")
        start = "Nothing has happened yet. Start a program with:  natsup exec"
        assert done.stdout.startswith(start)
        assert done.stdout.endswith(f"\nThis is the history in {folder}.\n")
    assert natsup("log", "--json", environ=environ).stdout == ""


def test_others_are_told_of_roots_history() -> None:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        environ = {**os.environ, "NATSUP_STATE_DIR": f"{name}/state"}
        done = subprocess.run(
            [*as_nobody(), NATSUP, "log"], env=environ, capture_output=True, text=True, timeout=60
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(":  sudo natsup log\n")


def test_a_history_that_cannot_be_read(environ: dict[str, str], past: Path) -> None:
    (past / "history.jsonl").unlink()
    (past / "history.jsonl").mkdir()
    done = natsup("log", environ=environ)
    assert (done.returncode, done.stdout) == (125, "")
    reason = f"the history in {past} cannot be read: Is a directory"
    assert done.stderr == f"natsup: {reason}; natsup explain state-folder tells more\n"


def test_a_reader_that_has_had_enough(environ: dict[str, str], past: Path) -> None:
    many = [line_of(numbered) for numbered in [*(read(past) or ())] * 5000]
    append(past, many)
    done = in_shell(f"{NATSUP} log | head -n 1; exit ${{PIPESTATUS[0]}}", environ)
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1)


def in_shell(script: str, environ: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    command = ["unshare", "--net", "bash", "-c", script]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)


PRINTING = [
    ("status --json", 0),
    ("status", 0),
    ("status --help", 0),
    ("log", 0),
    ("help", 0),
    ("exec --help", 0),
    ("doctor", 1),  # there is no router
]


@pytest.mark.parametrize(("words", "status"), PRINTING)
def test_nobody_reads(environ: dict[str, str], words: str, status: int) -> None:
    """The status is that of the command."""
    gone = "import os, sys; r, w = os.pipe(); os.close(r); os.dup2(w, 1); os.close(w);"
    script = f"{gone} os.execvp(sys.argv[1], sys.argv[1:])"
    done = in_shell(f'{sys.executable} -c "{script}" {NATSUP} {words}', environ)
    assert (done.returncode, done.stderr) == (status, "")


@pytest.mark.parametrize("words", [words for words, _ in PRINTING])
@pytest.mark.parametrize(
    ("where", "reason"),
    [(">/dev/full", "No space left on device"), (">&-", "Bad file descriptor")],
)
def test_nothing_can_be_written(
    environ: dict[str, str], words: str, where: str, reason: str
) -> None:
    done = in_shell(f"{NATSUP} {words} {where}", environ)
    assert done.returncode == 125
    *before, last = done.stderr.splitlines()
    assert last == f"natsup: cannot write: {reason}"
    assert "Traceback (most recent call last):" not in before  # argparse's help may be there


@pytest.mark.parametrize(
    ("where", "status", "said"),
    [
        ("| true", 128 + signal.SIGPIPE, ""),
        (">/dev/full", 125, "natsup: cannot write: No space left on device\n"),
    ],
)
def test_a_router_ends_when_nobody_hears_of_it(
    environ: dict[str, str], where: str, status: int, said: str
) -> None:
    words = "gateway --internal 127.0.0.1 --external 127.0.0.2"
    script = f"ip link set lo up; {NATSUP} {words} {where}; exit ${{PIPESTATUS[0]}}"
    done = in_shell(script, environ)
    assert (done.returncode, done.stderr) == (status, said)


def test_a_program_goes_on_where_no_history_can_be_written(
    environ: dict[str, str], natsup_exec: Exec
) -> None:
    """A read-only file system keeps the log out, too: there is nowhere to say so."""
    bind = "import socket; socket.socket().bind(('', 7000)); print('bound')"
    environ["NATSUP_STATE_DIR"] = "/proc/no/such"
    done = natsup_exec("--startup-timeout", "0", "--", sys.executable, "-c", bind)
    assert (done.returncode, done.stdout, done.stderr) == (0, "bound\n", "")


def test_a_bind_without_a_router_is_written_down(
    environ: dict[str, str], natsup_exec: Exec
) -> None:
    script = "import os, socket; socket.socket().bind(('', 7000)); print(os.getpid())"
    done = natsup_exec("--", sys.executable, "-c", script)
    folder = Path(environ["NATSUP_STATE_DIR"])
    deadline = time.monotonic() + 20
    while not (folder / "history.jsonl").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    found = json.loads(natsup("log", "--json", environ=environ).stdout)
    assert (found["what"], found["protocol"], found["port"]) == ("ignored", "tcp", 7000)
    assert found["pid"] == int(done.stdout)
    assert found["program"].startswith("python")
    assert found["command"][0] == sys.executable
    assert found["reason"]


def test_nothing_to_clean(environ: dict[str, str]) -> None:
    done = natsup("clean", environ=environ)
    assert done.stdout == "Nothing to clean: no session ended without cleaning up.\n"


def test_root_cleans_in_no_folder_of_anothers(environ: dict[str, str], tmp_path: Path) -> None:
    """He could have it lead elsewhere, where root would remove what was never natsup's."""
    precious = tmp_path / "precious.new"
    precious.touch()
    os.utime(precious, (0, 0))
    folder = Path(environ["NATSUP_STATE_DIR"])
    folder.mkdir()
    (folder / "sessions").symlink_to(tmp_path)
    os.lchown(folder / "sessions", 65534, 65534)
    done = subprocess.run([NATSUP, "clean"], env=environ, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (125, "")
    assert "it is uid 65534's" in done.stderr
    assert done.stderr.count("\n") == 1
    assert precious.exists()


def test_a_dead_session_that_had_nothing_is_cleaned_without_a_router(
    environ: dict[str, str],
) -> None:
    folder = Path(environ["NATSUP_STATE_DIR"]) / "sessions"
    folder.mkdir(parents=True)
    header = {"natsup": 1, "session": "x", "pid": 1, "command": ["x"], "started": 1}
    (folder / "x.jsonl").write_text(json.dumps(header) + "\n")
    assert "ended without cleaning up" in natsup("status", environ=environ).stdout
    done = natsup("clean", environ=environ)
    assert (done.returncode, done.stdout) == (0, "Nothing was left on the router.\n")
    assert natsup("status", "--json", environ=environ).stdout.split() == [
        "{",
        '"sessions":',
        "[]",
        "}",
    ]


def test_help_names_every_command(environ: dict[str, str]) -> None:
    done = natsup("--help", environ=environ)
    assert done.returncode == 0
    for name in ("exec", "status", "log", "config", "explain", "clean", "demo", "gateway"):
        assert f"natsup {name}" in done.stdout
        assert natsup(name, "--help", environ=environ).returncode == 0
    assert natsup("--version", environ=environ).stdout.startswith("natsup 0.")
