"""The manual pages: what readers of such pages say of them, and whether every option is there."""

import re
import subprocess
from pathlib import Path

import pytest

from natsup.supervisor import config, grammar, manual, roff
from natsup.supervisor.options import OPTIONS

PLAIN = {"MANWIDTH": "100", "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=PLAIN, capture_output=True, text=True, timeout=30)


@pytest.fixture(params=manual.PAGES)
def page(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path: Path = tmp_path / request.param
    path.write_text(manual.PAGES[request.param]() + "\n")
    return path


def test_man_shows_it_and_warns_of_nothing(page: Path) -> None:
    shown = run("man", "--warnings", "-l", str(page))
    assert (shown.returncode, shown.stderr) == (0, "")
    name, _, section = page.name.rpartition(".")
    assert shown.stdout.startswith(f"{name.upper()}({section})")


def test_mandoc_finds_nothing_wrong_with_it(page: Path) -> None:
    found = run("mandoc", "-T", "lint", str(page)).stdout.splitlines()
    # A date would be one of the last change, which nothing here knows; the version is there.
    assert [line for line in found if "missing date" not in line] == []


def shown(name: str, folder: Path) -> str:
    """The page as a person reads it, on one line: none breaks a word there."""
    (folder / name).write_text(manual.PAGES[name]() + "\n")
    env = PLAIN | {"MANWIDTH": "1000"}
    command = ["man", "-l", str(folder / name)]
    return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout


def test_every_option_is_there(tmp_path: Path) -> None:
    text = shown("natsup.1", tmp_path)
    for option in OPTIONS:
        head = f"--{option.name} {option.placeholder}".strip()
        assert re.search(rf"^ +(-\w, )?{re.escape(head)}( |$)", text, re.MULTILINE), head
        assert option.help in text
        assert f"NATSUP_{option.key.upper()}" in text
    for name, parser in grammar.by_name(grammar.whole()).items():
        assert f"natsup {name}" in text
        for word in (word for action in parser._actions for word in action.option_strings):
            assert word in ("-h", "--help") or word in text, f"natsup {name} {word}"


def test_every_setting_is_there(tmp_path: Path) -> None:
    text = shown("natsup.toml.5", tmp_path)
    for option in OPTIONS:
        if option.name != "config":
            assert f" {option.name} ({config.kind(option)})" in text
            assert option.help in text


@pytest.mark.parametrize(
    ("words", "written"),
    [
        ("a `bold` word", "a \\fBbold\\fR word"),
        ("-v \\ 'x'", "\\-v \\e \\(aqx\\(aq"),
        (".hidden files", "\\&.hidden files"),
        ("'quoted", "\\(aqquoted"),
    ],
)
def test_what_roff_would_take_for_its_own_is_text(words: str, written: str) -> None:
    assert roff.text(words) == f".PP\n{written}"


def test_a_long_line_is_broken_and_none_of_it_becomes_a_request() -> None:
    lines = roff.text("x " * 39 + ".TH is a word").splitlines()
    assert lines[-1].startswith("\\&.TH")
    assert max(map(len, lines)) < 80
