"""A router's table of port mappings, as WANIPConnection:1 wants it. Pure; the clock is an argument.

Stricter than the standard in one thing, as good routers are: a host maps ports to itself alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from natsup.state.model import Port

MOST = 256


class Refused(Exception):
    """A UPnP error: its code, and what the standard calls it."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code} {text}")
        self.code = code
        self.text = text


@dataclass(frozen=True, slots=True)
class Mapping:
    port: Port  # outside
    client: str
    internal_port: int
    description: str
    ends: float | None  # None: never

    def left(self, now: float) -> int:
        """Seconds until it ends; 0: never."""
        return 0 if self.ends is None else max(1, round(self.ends - now))


class Table:
    """The mappings of one router, in the order they were made in. ``most``: it has room for."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._mappings: dict[Port, Mapping] = {}

    def __iter__(self) -> Iterator[Mapping]:
        return iter(self._mappings.values())

    def add(self, mapping: Mapping, *, requester: str) -> Mapping | None:
        """Add or replace. Returns the mapping that was there before. Raises `Refused`."""
        if mapping.client != requester:
            raise Refused(606, "Action not authorized")
        before = self._mappings.get(mapping.port)
        if before is not None and before.client != mapping.client:
            raise Refused(718, "ConflictInMappingEntry")
        if before is None and len(self._mappings) >= self._most:
            raise Refused(728, "NoPortMapsAvailable")
        self._mappings[mapping.port] = mapping
        return before

    def delete(self, port: Port, *, requester: str) -> Mapping:
        """Remove and return a mapping. Raises `Refused`."""
        found = self.find(port)
        if found.client != requester:
            raise Refused(606, "Action not authorized")
        return self._mappings.pop(port)

    def find(self, port: Port) -> Mapping:
        """Raises `Refused`."""
        found = self._mappings.get(port)
        if found is None:
            raise Refused(714, "NoSuchEntryInArray")
        return found

    def at(self, index: int) -> Mapping:
        """The mapping at a place in the list. Raises `Refused`."""
        everything = list(self._mappings.values())
        if not 0 <= index < len(everything):
            raise Refused(713, "SpecifiedArrayIndexInvalid")
        return everything[index]

    def expire(self, now: float) -> list[Mapping]:
        """Remove and return what has ended."""
        over = [m for m in self._mappings.values() if m.ends is not None and m.ends <= now]
        for mapping in over:
            del self._mappings[mapping.port]
        return over

    def next_end(self) -> float | None:
        """When the next mapping ends."""
        return min((m.ends for m in self._mappings.values() if m.ends is not None), default=None)
