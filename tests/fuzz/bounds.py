"""The bars that every input has to pass, and inputs made to be slow. Pure but for the clock."""

import random
import time
from collections.abc import Callable

MOST_SECONDS = 0.050  # of processor time, for one input
MOST_MEMORY = 50 << 20  # bytes over what the process had when it began
_TRIES = 5


def seconds(run: Callable[[bytes], None], data: bytes) -> float:
    """The processor time that an input takes. What takes too long is tried again: that it does
    so now and then is the machine's doing, or the garbage collector's."""
    best = float("inf")
    for _ in range(_TRIES):
        began = time.thread_time()
        run(data)
        best = min(best, time.thread_time() - began)
        if best <= MOST_SECONDS / 2:
            break
    return best


def swollen(data: bytes, most: int, chance: random.Random) -> bytes:
    """A piece of it again and again, until there is no room for more: what is quadratic is slow
    then."""
    if not data:
        return data
    begin = chance.randrange(len(data))
    length = 1 << chance.randrange(8)
    piece = data[begin : begin + length]
    room = max(most - len(data), 0)
    return data[:begin] + piece * (room // len(piece)) + data[begin:]


def resident(kind: str = "VmRSS") -> int:
    """Bytes of memory that this process has now; ``VmHWM``: had at the most. proc(5)."""
    with open("/proc/self/status", encoding="ascii") as file:
        for line in file:
            name, _, rest = line.partition(":")
            if name == kind:
                return int(rest.split()[0]) * 1024
    raise LookupError(kind)
