"""When another supervisor takes a dead one's place."""

import pytest

from natsup.supervisor.restarts import Restarts


def test_the_first_at_once_and_the_next_later_and_later() -> None:
    now, found = 100.0, list[float | None]()
    restarts = Restarts(now)
    while True:
        at = restarts.ended(now)
        if at is None:
            break
        found.append(at - now)
        now = at + 0.5
        restarts.began(at)
    assert found == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0]
    assert restarts.ended(now) is None


@pytest.mark.parametrize(("lived", "pause"), [(59.0, 1.0), (60.0, 0.0)])
def test_one_that_lived_is_no_reason_to_wait(lived: float, pause: float) -> None:
    restarts = Restarts(0.0)
    restarts.ended(1.0)
    restarts.began(1.0)
    assert restarts.ended(1.0 + lived) == 1.0 + lived + pause
