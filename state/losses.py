"""What is done about mappings that vanish from a router: put back, but not without end. Pure.

Who takes one away again and again, a user in the router's page or the router itself, is not to be
fought with: it is put back at once, then after pauses that grow, and after a few times once a day
only. What a router loses when it is restarted is another matter, and is put back at once: then all
of it is missing, or there was a sign.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from natsup.state.model import Port

_PAUSES = (0.0, 60.0, 900.0, 3600.0)  # seconds
_GIVEN_UP = 86400.0  # seconds
FORGIVEN = 6 * 3600.0  # seconds that a mapping stayed, after which it counts as never lost


def pause(times: int) -> float:
    """Seconds until a mapping is put back that has been lost so many times."""
    return _PAUSES[times - 1] if times <= len(_PAUSES) else _GIVEN_UP


def reason(times: int, why: str) -> str:
    """Why it is not there, for people. ``why``: what was found."""
    if times <= len(_PAUSES):
        return why
    return f"{why}; it was lost {times} times, and is put back once a day at most"


@dataclass(slots=True)
class Comparison:
    """Looks at several mappings that belong together: is everything gone?"""

    _open: set[Port] = field(default_factory=set)
    _missing: set[Port] = field(default_factory=set)
    _kept: bool = False
    _forgiven: float = float("-inf")  # when everything was gone last

    def begin(self, ports: Iterable[Port]) -> None:
        """These are looked for."""
        self._open, self._missing, self._kept = set(ports), set(), False

    def seen(self, port: Port, now: float, *, missing: bool) -> frozenset[Port]:
        """One was looked for. What was lost in a restart, if that is what it was: two or more are
        gone, and nothing is left. Who has only two may remove both again and again, so that this
        counts once in a while."""
        if port not in self._open:
            return frozenset()
        self._open.discard(port)
        if missing:
            self._missing.add(port)
        else:
            self._kept = True
        if self._open or self._kept or len(self._missing) < 2 or now - self._forgiven < FORGIVEN:
            return frozenset()
        self._forgiven = now
        return frozenset(self._missing)

    def drop(self, port: Port) -> None:
        """It cannot be told of this one."""
        self._open.discard(port)
        self._kept = True
