"""Rules for ports: lists of ports and ranges, of one protocol or both. Pure.

6881            TCP and UDP
6881-6999       the same, both ends included
udp/27960       UDP alone; 27960/udp is the same
tcp/6881-6999
"""

from _collections_abc import Iterable

PROTOCOLS = ("tcp", "udp")
LAST = 65535

Range = tuple[str, int, int]  # protocol, first port, last port


def read(text: str) -> list[Range]:
    """The ranges in a list with commas. Raises ValueError."""
    return [found for part in text.split(",") for found in _ranges(part.strip().lower())]


def _ranges(text: str) -> list[Range]:
    protocols: tuple[str, ...] = PROTOCOLS
    first, slash, second = text.partition("/")
    if slash:
        protocol, text = (first, second) if first in PROTOCOLS else (second, first)
        if protocol not in PROTOCOLS:
            raise ValueError(f"no protocol: {protocol!r}")
        protocols = (protocol,)
    first, dash, second = text.partition("-")
    low = _number(first)
    high = _number(second) if dash else low
    if low > high:
        raise ValueError(f"no range: {text!r}")
    return [(protocol, low, high) for protocol in protocols]


def _number(text: str) -> int:
    text = text.strip()
    if text.isascii() and text.isdecimal() and len(text) < 10 and 1 <= int(text) <= LAST:
        return int(text)
    raise ValueError(f"no port: {text!r}")


def joined(ranges: Iterable[Range]) -> list[Range]:
    """The same ports in as few ranges as there can be, in order."""
    found: list[Range] = []
    for protocol, low, high in sorted(ranges):
        if found and found[-1][0] == protocol and low <= found[-1][2] + 1:
            _, first, last = found.pop()
            low, high = first, max(last, high)
        found.append((protocol, low, high))
    return found


class Ports:
    """A set of ports, made of ranges in any order."""

    __slots__ = ("_ranges",)

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._ranges = tuple(joined(ranges))

    def has(self, protocol: str, number: int) -> bool:
        return any(low <= number <= high and one == protocol for one, low, high in self._ranges)

    def has_some(self, number: int) -> bool:
        """Is it in the set for at least one protocol?"""
        return any(low <= number <= high for _, low, high in self._ranges)

    def __repr__(self) -> str:
        return f"Ports({', '.join(f'{one}/{low}-{high}' for one, low, high in self._ranges)})"
