"""That the machine has slept is seen by two clocks, when the kernel has set the third."""

import subprocess
import sys
from collections.abc import Iterator

import pytest
import trio

from natsup.supervisor import suspend
from natsup.supervisor.suspend import Reading, slept


@pytest.mark.parametrize(
    ("after", "seconds"),
    [
        (Reading(1060.0, 560.0), 0.0),
        (Reading(11860.0, 560.0), 10800.0),
        (Reading(1059.9, 560.0), 0.0),
    ],
)
def test_slept(after: Reading, seconds: float) -> None:
    assert slept(Reading(1000.0, 500.0), after) == pytest.approx(seconds)


def test_a_machine_that_has_slept_is_told_by_its_clocks() -> None:
    """A time namespace in which CLOCK_BOOTTIME is three hours ahead, as after a sleep."""
    script = "from natsup.supervisor.suspend import read; r = read(); print(r.boot, r.monotonic)"
    unshare = ["unshare", "--time", "--boottime", "10800", "--fork"]
    before = suspend.read()
    done = subprocess.run(
        [*unshare, sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    after = Reading(*map(float, done.stdout.split()))
    assert slept(before, after) == pytest.approx(10800, abs=1)


def test_the_clocks_of_this_machine_do_not_come_apart_by_themselves() -> None:
    first, second = suspend.read(), suspend.read()
    assert slept(first, second) < 1
    assert second.boot >= first.boot


async def test_a_sleep_is_told_once_and_a_clock_that_was_set_is_not(
    nursery: trio.Nursery,
) -> None:
    readings: Iterator[Reading] = iter(
        [Reading(10, 10), Reading(20, 20), Reading(10830, 30), Reading(10840, 40)]
    )
    said = list[str]()
    over = trio.Event()
    left = 3

    async def clock_set(fd: int) -> None:
        nonlocal left
        if left == 0:
            over.set()
            await trio.sleep_forever()
        left -= 1

    async def run() -> None:
        await suspend.watch(said.append, read=lambda: next(readings), clock_set=clock_set)

    nursery.start_soon(run)
    with trio.fail_after(10):
        await over.wait()
    assert said == ["the machine has slept for 10800 s"]
