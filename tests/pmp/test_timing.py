"""When to send again, and what a router's clock tells, by the RFCs' own figures."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natsup.upnp.pmp.timing import NATPMP, PCP, Pace, Reading, natpmp_lost, pcp_lost


def test_natpmp_waits_twice_as_long_each_time_nine_times() -> None:
    """RFC 6886, section 3.1."""
    assert list(NATPMP.waits(lambda: 1)) == [0.25, 0.5, 1, 2, 4, 8, 16, 32, 64]


@pytest.mark.parametrize(("chance", "factor"), [(-1.0, 0.9), (0.0, 1.0), (1.0, 1.1)])
def test_pcp_waits_by_chance_and_without_end(chance: float, factor: float) -> None:
    """RFC 6887, section 8.1.1."""
    waits = list(itertools.islice(PCP.waits(lambda: chance), 15))
    expected = [min(0.25 * 2**n, 1024) * factor for n in range(15)]
    assert waits == pytest.approx(expected)


@pytest.mark.parametrize(
    ("before", "elapsed", "after", "lost"),
    [
        (1000, 0, 1000, False),
        (1000, 0, 998, False),
        (1000, 0, 997, True),
        (1000, 800, 1698, False),  # 7/8 of 800 is 700
        (1000, 800, 1697, True),
        (1000, 800, 1800, False),
        (1000, 10, 10**6, False),  # only a clock that is behind tells
        (1000, 100000, 5, True),
    ],
)
def test_natpmp_epochs(before: int, elapsed: float, after: int, lost: bool) -> None:
    assert natpmp_lost(Reading(before, 50.0), Reading(after, 50.0 + elapsed)) is lost


@pytest.mark.parametrize(
    ("before", "elapsed", "after", "lost"),
    [
        (1000, 0, 1000, False),
        (1000, 0, 999, False),
        (1000, 0, 998, True),
        (1000, 1600, 2498, False),  # too slow: 1600 - 100 > 1498 + 2
        (1000, 1600, 2497, True),
        (1000, 1498, 2600, False),  # too fast: 1600 - 100 > 1498 + 2
        (1000, 1497, 2600, True),
        (1000, 0, 1003, True),
        (1000, 0, 1002, False),
        (1000, 100000, 5, True),
    ],
)
def test_pcp_epochs(before: int, elapsed: float, after: int, lost: bool) -> None:
    assert pcp_lost(Reading(before, 50.0), Reading(after, 50.0 + elapsed)) is lost


@given(st.integers(0, 2**31), st.floats(0, 10**8))
def test_a_clock_that_goes_right_has_lost_nothing(epoch: int, elapsed: float) -> None:
    before, now = Reading(epoch, 0.0), Reading(epoch + int(elapsed), elapsed)
    assert not natpmp_lost(before, now)
    assert not pcp_lost(before, now)


@given(st.integers(10, 2**31), st.floats(0, 10**8))
def test_a_clock_that_starts_anew_has_lost_everything(epoch: int, elapsed: float) -> None:
    before, now = Reading(epoch, 0.0), Reading(0, elapsed)
    assert natpmp_lost(before, now)
    assert pcp_lost(before, now)


def test_a_clock_of_another_pace_is_believed_once() -> None:
    pace = Pace()
    assert pace.believed(Reading(100, 0.0), Reading(102, 10.0))
    for at in range(10, 7200, 10):
        assert not pace.believed(Reading(100 + at // 5, at), Reading(102 + at // 5, at + 10.0))
    assert pace.believed(Reading(1540, 7200.0), Reading(3, 7210.0))
    assert pace.believed(Reading(3, 7210.0), Reading(4, 20000.0))
