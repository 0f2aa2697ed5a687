"""When to send again, and what a router's clock says of its restarts. Pure.

Both protocols put the seconds since the router has lost its mappings into every answer, the
*epoch*. It is compared with this host's clock, which must go on while the host sleeps.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Retransmission:
    """``first``: seconds to wait for an answer before the request is sent again, and twice as long
    each time after, up to ``longest``. ``tries``: requests in all; None: until nobody waits.
    ``jitter``: by which part of itself a wait may differ.
    """

    first: float
    longest: float
    tries: int | None = None
    jitter: float = 0.0

    def waits(self, chance: Callable[[], float]) -> Iterator[float]:
        """How long to wait after each request. ``chance``: gives numbers from -1 to 1."""
        wait, sent = self.first, 0
        while self.tries is None or sent < self.tries:
            yield wait * (1 + self.jitter * chance())
            wait, sent = min(2 * wait, self.longest), sent + 1


# RFC 6886, section 3.1
NATPMP = Retransmission(0.25, 64.0, tries=9)
# RFC 6887, section 8.1.1, but for its 3 s to begin with: a bind() waits for half a second, and a
# router that is on the same LAN answers in milliseconds, or lost the request.
PCP = Retransmission(0.25, 1024.0, jitter=0.1)


@dataclass(frozen=True, slots=True)
class Reading:
    """A router's clock as it was read: ``epoch`` when this host's clock told ``at``; in seconds."""

    epoch: int
    at: float


def natpmp_lost(before: Reading, now: Reading) -> bool:
    """Has the router lost its mappings in between? RFC 6886, section 3.6: it has if its clock is
    more than 2 s behind what it has to be, were it as slow as 7/8 of ours."""
    return now.epoch + 2 < before.epoch + (now.at - before.at) * 7 / 8


def pcp_lost(before: Reading, now: Reading) -> bool:
    """Has the router lost its mappings in between? RFC 6887, section 8.5: it has if its clock went
    back by more than 1 s, which answers that overtake each other explain, or if one of the two
    clocks went more than 1/16 slower than the other, with 2 s to spare."""
    if now.epoch < before.epoch - 1:
        return True
    client, server = now.at - before.at, now.epoch - before.epoch
    return client + 2 < server - server / 16 or server + 2 < client - client / 16


class Pace:
    """Is a loss to be believed that a clock tells of?

    Some clocks go at a pace of their own, and would tell of one with every look. A mapping that
    seems to be lost again and again is asked for less and less. So a clock that has gone on, if
    by the wrong number of seconds, is believed once, and then not before it has been right for an
    hour. One that has gone back is always believed.
    """

    _RIGHT = 3600.0  # seconds

    def __init__(self) -> None:
        self._wrong = float("-inf")  # when it was last

    def believed(self, before: Reading, now: Reading) -> bool:
        if now.epoch < before.epoch:
            return True
        last, self._wrong = self._wrong, now.at
        return now.at - last > self._RIGHT
