"""The commands beside exec: what they say to bad input, and where there is nothing to do."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.supervisor.conftest import NATSUP


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


@pytest.mark.parametrize("words", [["status"], ["clean"], ["exec", "--", "true"]])
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


def test_nothing_to_clean(environ: dict[str, str]) -> None:
    done = natsup("clean", environ=environ)
    assert done.stdout == "Nothing to clean: no session ended without cleaning up.\n"


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
    for name in ("exec", "status", "clean", "demo", "gateway"):
        assert f"natsup {name}" in done.stdout
        assert natsup(name, "--help", environ=environ).returncode == 0
    assert natsup("--version", environ=environ).stdout.startswith("natsup 0.")
