"""Alarms of the clock that goes on while the machine sleeps."""

import os
import time

import pytest
import trio

from natsup.supervisor import clock, libc


async def test_it_sleeps_until_then_and_no_longer() -> None:
    when = clock.now() + 0.05
    with trio.fail_after(10):
        await clock.sleep_until(when)
    assert clock.now() >= when


async def test_what_is_past_is_not_waited_for() -> None:
    with trio.fail_after(10):
        await clock.sleep_until(clock.now() - 5)
        await clock.sleep_until(0.0)


async def test_it_can_be_given_up() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with trio.move_on_after(0.01) as scope:
        await clock.sleep_until(clock.now() + 3600)
    assert scope.cancelled_caught
    assert len(os.listdir("/proc/self/fd")) == before


async def test_without_a_timer_it_sleeps_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(number: int, when: float) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(libc, "timerfd", refused)
    when = clock.now() + 0.05
    with trio.fail_after(10):
        await clock.sleep_until(when)
    assert clock.now() >= when


def test_the_timer_goes_by_the_clock_that_it_is_given() -> None:
    """/proc/PID/fdinfo of a timerfd names its clock: proc(5)."""
    fd = libc.timerfd(time.CLOCK_BOOTTIME, clock.now() + 3600)
    try:
        with open(f"/proc/self/fdinfo/{fd}") as file:
            assert f"clockid: {time.CLOCK_BOOTTIME}\n" in file.read()
    finally:
        os.close(fd)
