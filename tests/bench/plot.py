"""Distributions as a picture: of each measure, which part of its values is below what. SVG."""

import math
from collections.abc import Mapping, Sequence
from html import escape

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#555555", "#8b5a2b")
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM, _LEGEND = 560, 240, 44, 34, 40, 250


def distributions(title: str, unit: str, samples: Mapping[str, Sequence[float]]) -> str:
    """Cumulative distributions over a logarithmic axis. Pure.

    The highest hundredth of all values together is beyond the right edge: it is noise, and would
    squeeze the rest.
    """
    every = sorted(value for values in samples.values() for value in values)
    low, high = every[0], every[math.ceil(0.99 * len(every)) - 1]
    first, last = math.log10(low) - 0.02, math.log10(max(high, low * 1.2)) + 0.02

    def x(value: float) -> float:
        part = min(1.0, (math.log10(value) - first) / (last - first))
        return _LEFT + part * _WIDTH

    def y(part: float) -> float:
        return _TOP + (1 - part) * _HEIGHT

    width, height = _LEFT + _WIDTH + _LEGEND, _TOP + _HEIGHT + _BOTTOM
    shapes = [f'<text x="{_LEFT}" y="20" font-size="15">{escape(title)}</text>']
    for part in (0, 0.25, 0.5, 0.75, 1):
        shapes.append(_line(x(10**first), y(part), x(10**last), y(part)))
        shapes.append(
            f'<text x="{_LEFT - 6}" y="{y(part) + 4:.1f}" text-anchor="end">{part:.0%}</text>'
        )
    for mark in _marks(10**first, 10**last):
        shapes.append(_line(x(mark), y(0), x(mark), y(1)))
        shapes.append(
            f'<text x="{x(mark):.1f}" y="{y(0) + 16:.1f}" text-anchor="middle">{mark:g}</text>'
        )
    middle = _LEFT + _WIDTH / 2
    shapes.append(
        f'<text x="{middle}" y="{y(0) + 33:.1f}" text-anchor="middle">{escape(unit)}</text>'
    )
    for number, (name, values) in enumerate(samples.items()):
        colour, ordered = _COLOURS[number % len(_COLOURS)], sorted(values)
        shown = ordered[:: max(1, len(ordered) // 200)]
        points = " ".join(
            f"{x(value):.1f},{y((place + 0.5) / len(shown)):.1f}"
            for place, value in enumerate(shown)
        )
        shapes.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
        at, down = _LEFT + _WIDTH + 14, _TOP + 12 + 20 * number
        shapes.append(
            f'<rect x="{at}" y="{down - 9}" width="12" height="10" fill="{colour}"/>'
            f'<text x="{at + 18}" y="{down}">{escape(name)}</text>'
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        f' viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12" fill="#222">\n'
        f'<rect width="{width}" height="{height}" fill="#fff"/>\n'
        + "\n".join(shapes)
        + "\n</svg>\n"
    )


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="#ddd"/>'


def _marks(low: float, high: float) -> list[float]:
    """1, 2 and 5 of every power of ten in between; more where that are too few."""
    tens = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)):
        found = [
            step * 10.0**ten for ten in tens for step in steps if low <= step * 10**ten <= high
        ]
        if len(found) > 3:
            break
    return found
