"""docs/performance.md: the part of it that the bench writes, and the pictures."""

import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from tests.bench.measuring import Line, Result
from tests.bench.plot import distributions

_DOCS = Path(__file__).parents[2] / "docs"
BEGIN, END = "<!-- the bench writes from here -->\n", "<!-- to here -->\n"
_HEAD = (
    "| what | natsup | against | ratio, and its 95% interval | bar | |\n|---|---|---|---|---|---|\n"
)


def write(results: Mapping[str, Result], load: float) -> None:
    """Put the results in the places of those that the page has of the same figures."""
    path = _DOCS / "performance.md"
    before, _, rest = path.read_text().partition(BEGIN)
    old, _, after = rest.partition(END)
    parts = dict(re.findall(r"^(#### `just bench (?:\w+)`)\n\n(.*?)(?=^####|\Z)", old, re.M | re.S))
    parts |= {
        f"#### `just bench {name}`": _part(name, result, load) for name, result in results.items()
    }
    path.write_text(
        before + BEGIN + "".join(f"{head}\n\n{text}" for head, text in parts.items()) + END + after
    )


def _part(name: str, result: Result, load: float) -> str:
    text = _HEAD + "".join(map(_row, result.lines))
    pictures = ""
    for count, (title, samples) in enumerate(result.plots.items()):
        file = f"performance-{name}{count or ''}.svg"
        head, _, unit = title.rpartition(", ")
        (_DOCS / file).write_text(distributions(head, unit, samples))
        pictures += f"\n![{head}]({file})\n"
    return f"{text}\n{_machine()}, load {load:.1f}.\n{pictures}\n"


def _row(line: Line) -> str:
    # A ratio of 1 to nothing is no ratio: the figure stands for itself.
    said = "" if line.bar == "" else ("met" if line.met else "**missed**")
    return (
        f"| {line.what} | {line.natsup} | {line.against} | {line.ratio} | {line.bar} | {said} |\n"
    )


def _machine() -> str:
    """Where it was measured, and with what."""
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    tools = {"strace": "-V", "tini": "--version", "miniupnpd": "--version"}
    versions = [f"Python {platform.python_version()}", f"trio {version('trio')}"]
    for tool, word in tools.items():
        done = subprocess.run([tool, word], capture_output=True, text=True)
        found = re.search(r"\d+\.\d+[\d.]*", done.stdout + done.stderr)
        versions.append(f"{tool} {found[0]}" if found else tool)
    return (
        f"{os.cpu_count()} x {model[1] if model else platform.machine()}, {sys.platform.title()}"
        f" {platform.release().split('-')[0]}, {', '.join(versions)}"
    )
