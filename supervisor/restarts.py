"""When another supervisor takes a dead one's place. Pure.

At once the first time. One that ends again soon after it has begun is given longer and longer
pauses, and in the end none takes its place: what ends every supervisor is not mended by another.
"""

_PAUSES = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0)  # seconds
_HEALTHY = 60.0  # seconds; who lived that long is no reason for pauses


class Restarts:
    """Counts the supervisors that ended too soon. ``now``: seconds of any monotonic clock."""

    def __init__(self, now: float) -> None:
        self._began = now
        self._brief = 0

    def began(self, now: float) -> None:
        """Another supervisor has been started."""
        self._began = now

    def ended(self, now: float) -> float | None:
        """The supervisor is no more. Returns when to start the next one; None: never."""
        if now - self._began >= _HEALTHY:
            self._brief = 0
        if self._brief == len(_PAUSES):
            return None
        self._brief += 1
        return now + _PAUSES[self._brief - 1]
