"""The pictures of the README: `just screenshots` makes them, a test sees that they are as made."""

import asyncio
import html
import re
from datetime import UTC
from io import StringIO
from pathlib import Path

from rich.console import Console

from natsup.state.history import Entry
from natsup.state.journal import SessionRecord
from natsup.state.model import Port
from natsup.supervisor import tables
from natsup.supervisor.monitor import Monitor, Source
from tests.supervisor import sample

DOCS = Path(__file__).resolve().parents[2] / "docs"
_SIZE = (120, 30)


def status() -> str:
    """What `natsup status` shows, as SVG."""
    console = Console(
        file=StringIO(),
        record=True,
        width=100,
        force_terminal=True,
        color_system="truecolor",
        legacy_windows=False,
        highlight=False,
        markup=False,
        emoji=False,
    )
    paper = tables.Paper(console, utf8=True)
    console.print(tables.of_sessions(paper, sample.records(), sample.NOW, UTC))
    return console.export_svg(title="natsup status")


def source() -> Source:
    """A monitor's, with the sample in it."""
    waiting = [sample.history()]

    def history() -> list[Entry]:
        return waiting.pop() if waiting else []

    def order(session: SessionRecord, what: str, port: Port) -> tuple[str, str]:
        raise AssertionError("nobody gives orders")

    return Source(sample.records, history, order, lambda: sample.NOW, UTC)


def ui() -> str:
    """What `natsup ui` shows, as SVG."""

    async def picture() -> str:
        monitor = Monitor(source())
        async with monitor.run_test(size=_SIZE) as pilot:
            await pilot.pause()
            return monitor.export_screenshot(title="natsup ui")

    return asyncio.run(picture())


PICTURES = {"status.svg": status, "ui.svg": ui}


def words(svg: str) -> list[str]:
    """What is to be read in a picture: how it is drawn is rich's and textual's affair."""
    found = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    text = html.unescape(" ".join(found)).replace("\xa0", " ")
    return [word for word in text.split() if not set(word) <= {"─"}]


if __name__ == "__main__":
    for name, make in PICTURES.items():
        (DOCS / name).write_text(make())
