"""Which of the protocols that a router was asked by is taken. Pure.

They are asked side by side, and a preferred one may answer a little later than another. From the
first answer on, those that would be preferred to it have a head start to make good; one that has
been heard of, and takes its time to say where it can be used, has longer.
"""

from collections.abc import Sequence

HEAD_START = 1.0  # seconds: within one, a search for UPnP wants to be answered
OPENING = 5.0  # seconds for one that has been heard


class Race:
    """``order``: of preference. Times are in seconds, by any clock that is always the same one."""

    def __init__(self, order: Sequence[str], head_start: float = HEAD_START) -> None:
        self._running = list(order)  # or arrived, and not failed
        self._head_start = head_start
        self._arrived: set[str] = set()
        self._heard: set[str] = set()
        self._first: float | None = None  # when the first arrived

    @property
    def over(self) -> bool:
        """Have all failed?"""
        return not self._running

    def heard(self, protocol: str) -> None:
        """It is there; whether it can be used is not known yet."""
        self._heard.add(protocol)

    def arrived(self, protocol: str, now: float) -> None:
        """It can be used."""
        self._arrived.add(protocol)
        if self._first is None:
            self._first = now

    def failed(self, protocol: str) -> None:
        self._running.remove(protocol)

    def winner(self, now: float) -> str | None:
        """The one to take, if it is time."""
        for protocol in self._running:
            if protocol in self._arrived:
                return protocol
            if self._first is None or now < self._first + self._patience(protocol):
                return None
        return None

    def next_deadline(self) -> float:
        """When there may be a winner, even if nothing happens before."""
        if self._first is None:
            return float("inf")
        waited_for = []
        for protocol in self._running:
            if protocol in self._arrived:
                break
            waited_for.append(self._first + self._patience(protocol))
        return max(waited_for, default=self._first)

    def _patience(self, protocol: str) -> float:
        return OPENING if protocol in self._heard else self._head_start
