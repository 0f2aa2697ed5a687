"""Seeing that the machine has slept: what was mapped before may be gone, and the network another.

CLOCK_BOOTTIME goes on while the machine sleeps, and CLOCK_MONOTONIC does not (clock_gettime(2)): by
as much as the two have come apart it has slept. When to compare them the kernel tells, and nothing
polls: it sets the wall clock when it resumes, and a timer of that clock can be cancelled by it
(TFD_TIMER_CANCEL_ON_SET, timerfd_create(2); timerfd_resume() in fs/timerfd.c).
"""

import errno
import logging
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from natsup.supervisor import libc

log = logging.getLogger("natsup.session")

_COUNTS = 5.0  # seconds: less is no sleep, but the two clocks' being read one after the other
_FAR = 10 * 365 * 86400.0  # seconds


@dataclass(frozen=True, slots=True)
class Reading:
    """Both clocks at once, in seconds."""

    boot: float
    monotonic: float


def slept(before: Reading, after: Reading) -> float:
    """For how many seconds the machine has slept between two readings. Pure."""
    return max(0.0, (after.boot - before.boot) - (after.monotonic - before.monotonic))


def read() -> Reading:
    return Reading(
        time.clock_gettime(time.CLOCK_BOOTTIME), time.clock_gettime(time.CLOCK_MONOTONIC)
    )


async def watch(
    tell: Callable[[str], None],
    *,
    read: Callable[[], Reading] = read,
    clock_set: Callable[[int], Awaitable[None]] | None = None,
) -> None:
    """Call ``tell`` with a clause for people whenever the machine has slept, until cancelled.

    ``clock_set``: waits, with a descriptor that `timer` made, until the wall clock is set.
    """
    wait = clock_set or _clock_set
    try:
        fd = timer()
    except OSError as error:
        log.info("that the machine slept will not be seen: %s", error.strerror)
        return
    try:
        before = read()
        while True:
            await wait(fd)
            after = read()
            seconds = slept(before, after)
            before = after
            if seconds >= _COUNTS:
                tell(f"the machine has slept for {seconds:.0f} s")
    finally:
        os.close(fd)


def timer() -> int:
    """A descriptor that becomes readable when the wall clock is set. Raises OSError."""
    return libc.timerfd(time.CLOCK_REALTIME, time.time() + _FAR, cancel_on_set=True)


async def _clock_set(fd: int) -> None:
    while True:
        await trio.lowlevel.wait_readable(fd)
        try:
            os.read(fd, 8)
        except OSError as error:
            if error.errno == errno.ECANCELED:
                return
            raise
