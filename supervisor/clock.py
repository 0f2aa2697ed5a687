"""The clock that leases go by: it goes on while the machine sleeps, and so must its alarms."""

import os
import time

import trio

from natsup.supervisor import libc

_LONGEST_NAP = 30.0


def now() -> float:
    """Seconds of CLOCK_BOOTTIME (clock_gettime(2))."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


async def sleep_until(when: float) -> None:
    """Sleep until `now` tells ``when``. trio's own clock stands still while the machine sleeps."""
    try:
        fd = libc.timerfd(time.CLOCK_BOOTTIME, when)
    except OSError:  # no descriptors left, or a sandbox: look at the clock now and then
        while (left := when - now()) > 0:  # noqa: ASYNC110 - there is no event to wait for
            await trio.sleep(min(left, _LONGEST_NAP))
        return
    try:
        await trio.lowlevel.wait_readable(fd)
    finally:
        os.close(fd)
