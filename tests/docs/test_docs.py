"""What the pages speak of is there: links, commands, options, variables, settings, functions."""

import ast
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest

from natsup.supervisor import grammar
from natsup.supervisor.options import _TOLD, OPTIONS
from tests.docs import architecture
from tests.docs.pages import DOCS, PAGES, PROJECT, anchors, blocks, code, commands, links

# Options that stand in the pages and are other programs'
FOREIGN = {
    *("--add-port", "--build-arg", "--cap-add", "--entrypoint", "--network", "--no-cache-dir"),
    *("--init", "--seccomp-bpf", "--security-opt", "--step"),
}
FOREIGN_VARIABLES = {"NATSUP_STATE_DIR", "NATSUP_STOP_AT", "NATSUP_OPTION"}


def named(path: Path) -> str:
    return str(path.relative_to(PROJECT))


page = pytest.mark.parametrize("path", PAGES, ids=named)


@page
def test_links_lead_somewhere(path: Path) -> None:
    for target in links(path.read_text()):
        name, _, anchor = target.partition("#")
        there = (path.parent / name).resolve() if name else path
        assert there.exists(), target
        if anchor:
            assert anchor in anchors(there.read_text()), target


def test_every_page_is_reached_from_the_index() -> None:
    seen = {DOCS / "README.md"}
    for path in (todo := list(seen)):
        for target in links(path.read_text()):
            there = (path.parent / target.partition("#")[0]).resolve()
            if there.suffix == ".md" and there not in seen:
                seen.add(there)
                todo.append(there)
    assert [named(path) for path in PAGES if path not in seen] == []


@cache
def options() -> dict[str, set[str]]:
    """Of each command."""
    parsers = grammar.by_name(grammar.whole())
    return {
        name: {word for action in parser._actions for word in action.option_strings}
        for name, parser in parsers.items()
    }


@page
def test_commands_and_their_options_exist(path: Path) -> None:
    for command, *words in commands(path.read_text()):
        if command in ("-h", "--help", "--version"):
            continue
        assert command in options(), f"natsup {command}"
        known = options()[command]
        if command == "unit" and "--" in words:
            at = words.index("--")
            words, passed = words[:at], words[at + 1 :]
            assert {word for word in passed if word.startswith("--")} <= options()["exec"], passed
        for word in words:
            if word == "--":
                break
            name = word.partition("=")[0].strip("[](),.:")
            if re.fullmatch(r"--?[a-z][a-z0-9-]*", name):
                assert name in known, f"natsup {command} {word}"


@page
def test_options_by_themselves_exist(path: Path) -> None:
    known = set().union(*options().values()) | FOREIGN | {"--version"}
    for span in code(path.read_text()):
        name = re.match(r"--[a-z][a-z0-9-]*", span)
        assert name is None or name[0] in known, span


@page
def test_variables_exist(path: Path) -> None:
    known = {f"NATSUP_{option.key.upper()}" for option in OPTIONS}
    known |= {f"NATSUP_{name}" for name in _TOLD} | FOREIGN_VARIABLES
    assert set(re.findall(r"\bNATSUP_[A-Z_0-9]*[A-Z]", path.read_text())) <= known


@page
def test_settings_in_examples_exist(path: Path) -> None:
    known = {option.name for option in OPTIONS} | {"program"}
    for example in blocks(path.read_text(), "toml"):
        settings = tomllib.loads(example)
        assert set(settings) <= known
        for section in settings.get("program", {}).values():
            assert set(section) <= known


@page
def test_chores_exist(path: Path) -> None:
    chores = set(
        re.findall(r"^([a-z][a-z-]*)(?: [^:\n]*)?:(?!=)", (PROJECT / "Justfile").read_text(), re.M)
    )
    for line in code(path.read_text()):
        for chore in re.findall(r"(?:^|\s)just ([a-z][a-z-]*)", line):
            assert chore in chores, line


def names_of(path: Path) -> set[str]:
    """Functions and classes of a file, and methods by their class's name, too."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            inside = (
                n for n in node.body if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))
            )
            found |= {f"{node.name}.{one.name}" for one in inside}
    return found


STEPS = re.findall(
    r"^\| \[`(.*?)`\]\(\.\./(.*?)\) \| (.*?) \|", (DOCS / "one-bind.md").read_text(), re.MULTILINE
)


@pytest.mark.parametrize(("shown", "path", "names"), STEPS)
def test_the_way_of_a_bind_is_there(shown: str, path: str, names: str) -> None:
    assert shown == path
    wanted = re.findall(r"`([\w.]+)`", names)
    assert wanted
    assert set(wanted) <= names_of(PROJECT / path)


def test_the_page_drawn_from_the_imports_is_up_to_date() -> None:
    assert architecture.PAGE.read_text() == architecture.page(), "run: just architecture"


def test_issue_templates_ask_for_what_the_doctor_says() -> None:
    for path in (PROJECT / ".github/ISSUE_TEMPLATE").glob("*.yml"):
        if path.name != "config.yml":
            assert "natsup doctor --json" in path.read_text(), path
            assert list(commands("`natsup doctor --json`")) == [["doctor", "--json"]]
