"""The bench's own arithmetic, its table and its pictures."""

import random
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tests.bench import page
from tests.bench.measuring import Line, Result, Spread, interleaved, ratio
from tests.bench.plot import distributions


def test_a_ratio_is_that_of_the_rounds() -> None:
    """What disturbs a round disturbs both sides of it, and the ratio is none the worse."""
    noise = [1, 1, 10, 1, 5]
    found = ratio([3 * n for n in noise], [2 * n for n in noise])
    assert (found.value, found.low, found.high) == (1.5, 1.5, 1.5)


def test_the_spread_narrows_with_the_rounds() -> None:
    values = random.Random(1)
    few, many = (Spread.of([values.gauss(10, 1) for _ in range(n)]) for n in (9, 900))
    assert many.high - many.low < (few.high - few.low) / 3
    assert many.low < 10 < many.high


def test_rounds_go_forth_and_back() -> None:
    seen: list[str] = []

    def measure(name: str) -> float:
        seen.append(name)
        return len(seen)

    found = interleaved(2, {name: lambda name=name: measure(name) for name in "ab"})  # type: ignore[misc]
    assert seen == ["a", "b", "b", "a"]
    assert found == {"a": [1, 4], "b": [2, 3]}


@pytest.mark.parametrize(
    ("value", "most", "least", "met"),
    [
        (1.6, 1.6, None, True),
        (1.7, 1.6, None, False),
        (0.5, None, 0.6, False),
        (9, None, None, True),
    ],
)
def test_a_bar(value: float, most: float | None, least: float | None, met: bool) -> None:
    assert Line("", "", "", Spread(value, value, value), most, least).met is met


def test_a_picture_has_every_measure() -> None:
    names = {"a & b": [1.0, 2.0, 3.0], "c": [20.0]}
    drawn = ElementTree.fromstring(distributions("One < other", "us", names))
    texts = [element.text for element in drawn.iter() if element.text]
    assert {"One < other", "us", *names} <= set(texts)
    lines = [element for element in drawn.iter() if element.tag.endswith("polyline")]
    assert len(lines) == len(names)


def test_the_page_keeps_what_was_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "_DOCS", tmp_path)
    path = tmp_path / "performance.md"
    path.write_text(f"before\n{page.BEGIN}{page.END}after\n")

    def result(what: str) -> Result:
        line = Line(what, "2 s", "1 s", Spread(2, 1, 3), 1.5)
        return Result([line], {f"{what}, s": {"one": [1.0, 2.0]}})

    page.write({"passed": result("first"), "mapped": result("second")}, 1.0)
    page.write({"passed": result("third")}, 1.0)
    text = path.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "first |" not in text
    assert "| third | 2 s | 1 s | 2.00 (1.00 to 3.00) | ≤ 1.5 | **missed** |" in text
    assert text.index("third") < text.index("second")
    assert (tmp_path / "performance-passed.svg").exists()
