"""`just architecture`: docs/architecture.md, drawn from what the code imports."""

import ast
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grimp

PROJECT = Path(__file__).resolve().parents[2]
PAGE = PROJECT / "docs/architecture.md"
ROOTS = ("natsup.supervisor", "natsup.upnp", "natsup.state")
_ABOUT = """\
# The rooms and what is in them

Drawn by `just architecture` from the imports of the code; do not edit it. One bind() on its way
through the files: [one bind()](one-bind.md).

An arrow leads from who imports to what is imported, with how many imports there are. They run one
way, from top to bottom: `lint-imports` refuses others.
"""
_LEGEND = """\
Modules with a ○ decide and touch nothing: they import neither trio nor os, socket, ctypes or time,
which `lint-imports` checks as well, and can be tested without a kernel, a router or a clock. Those
with a ▷ are the launcher's, which has to be quick and may import nothing slow. What each imports
of natsup's own stands behind it, without `natsup.`, and in its own folder by the name alone.
"""


def main() -> int:
    PAGE.write_text(page())
    return 0


def page() -> str:
    """The whole page."""
    graph = grimp.build_graph(*ROOTS, exclude_type_checking_imports=True, cache_dir=None)
    modules = sorted(graph.modules)
    marks = _marks()
    parts = [_ABOUT, *_drawing(graph, modules), _LEGEND]
    for folder in _folders(modules):
        parts += [f"## {_path(folder)}/\n", *_table(graph, folder, modules, marks)]
    return "\n".join(parts)


def _drawing(graph: grimp.ImportGraph, modules: list[str]) -> Iterator[str]:
    arrows: Counter[tuple[str, str]] = Counter()
    for module in modules:
        for imported in graph.find_modules_directly_imported_by(module):
            arrows[_folder(module), _folder(imported)] += 1
    yield "```mermaid\nflowchart TD"
    for folder in _folders(modules):
        inside = sum(_folder(module) == folder for module in modules)
        yield f'    {_node(folder)}["{_path(folder)}/ ({inside} modules)"]'
    for (here, there), count in sorted(arrows.items()):
        if here != there:
            yield f"    {_node(here)} -->|{count}| {_node(there)}"
    yield "```\n"


def _table(
    graph: grimp.ImportGraph, folder: str, modules: list[str], marks: dict[str, str]
) -> Iterator[str]:
    yield "| module | what it is | imports |\n|---|---|---|"
    for module in modules:
        if _folder(module) == folder and module not in (folder, *ROOTS):
            name = module.removeprefix(f"{folder}.")
            imported = sorted(graph.find_modules_directly_imported_by(module))
            names = ", ".join(_short(one, folder) for one in imported if one not in ROOTS)
            mark = f" {marks[module]}" if module in marks else ""
            yield f"| [{name}](../{_path(module)}.py){mark} | {_what(module)} | {names} |"
    yield ""


def _marks() -> dict[str, str]:
    settings = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    marks: dict[str, str] = {}
    signs = {"decisions touch nothing": "○", "the launcher imports nothing slow": "▷"}
    for contract in settings["tool"]["importlinter"]["contracts"]:
        for module in contract.get("source_modules", ()):
            marks[module] = marks.get(module, "") + signs[contract["name"]]
    return marks


def _what(module: str) -> str:
    """The first sentence of a module's docstring."""
    text = ast.get_docstring(ast.parse((PROJECT / f"{_path(module)}.py").read_text())) or ""
    paragraph = " ".join(text.partition("\n\n")[0].split())
    first, dot, _ = paragraph.partition(". ")
    return (first + dot.strip()).replace("``", "`").replace("|", "\\|").rstrip(":")


def _folders(modules: list[str]) -> list[str]:
    """In the order of `ROOTS`, each before what is in it."""
    found = {_folder(module) for module in modules}
    return [folder for root in ROOTS for folder in sorted(found) if folder.startswith(root)]


def _folder(module: str) -> str:
    return module if (PROJECT / _path(module)).is_dir() else module.rpartition(".")[0]


def _node(folder: str) -> str:
    return folder.replace(".", "_")


def _path(module: str) -> str:
    return module.removeprefix("natsup.").replace(".", "/")


def _short(module: str, folder: str) -> str:
    inside = module.removeprefix(f"{folder}.")
    return inside if inside != module and "." not in inside else module.removeprefix("natsup.")


if __name__ == "__main__":
    sys.exit(main())
