"""Which of many things is due first, without a look at all of them. Pure."""

from collections.abc import Hashable
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

_Key = TypeVar("_Key", bound=Hashable)
_SPARE = 64  # entries of the heap that may be out of date before it is cleared of them


class Schedule(Generic[_Key]):
    """Times by key. A change takes the logarithm of how many there are, a look at the first no time
    at all: what is out of date stays in the heap until it comes up, or until most of it is.
    """

    def __init__(self) -> None:
        self._times: dict[_Key, float] = {}
        self._heap: list[tuple[float, int, _Key]] = []
        self._count = 0  # of the heap's entries so far: what is due at one time is in their order

    def set(self, key: _Key, when: float | None) -> None:
        """From now on the key is due at this time; None: at no time."""
        if self._times.get(key) == when:
            return
        if when is None:
            del self._times[key]
        else:
            self._times[key] = when
            self._push(key, when)
        if len(self._heap) > 2 * len(self._times) + _SPARE:
            self._heap = [item for item in self._heap if self._times.get(item[2]) == item[0]]
            heapify(self._heap)

    def head(self) -> tuple[float, _Key] | None:
        """The one that is due first, and when."""
        while self._heap:
            when, _, key = self._heap[0]
            if self._times.get(key) == when:
                return when, key
            heappop(self._heap)
        return None

    def first(self) -> float | None:
        """When the first one is due."""
        head = self.head()
        return None if head is None else head[0]

    def due(self, now: float) -> list[_Key]:
        """Those that are due by now, the first one first. They stay."""
        found: dict[_Key, float] = {}  # a key may be in the heap more than once for one time
        while (when := self.first()) is not None and when <= now:
            found.setdefault(heappop(self._heap)[2], when)
        for key, when in found.items():
            self._push(key, when)
        return list(found)

    def _push(self, key: _Key, when: float) -> None:
        self._count += 1
        heappush(self._heap, (when, self._count, key))
