"""The schedule against a dictionary that is looked through."""

from hypothesis import given
from hypothesis import strategies as st

from natsup.state.schedule import Schedule

_keys = st.integers(0, 5)
_times = st.none() | st.integers(0, 5)


@given(st.lists(st.tuples(_keys, _times), max_size=200), st.integers(0, 5))
def test_it_tells_what_a_look_at_all_would_tell(
    steps: list[tuple[int, float | None]], now: float
) -> None:
    schedule, model = Schedule[int](), dict[int, float]()
    for key, when in steps:
        schedule.set(key, when)
        model.pop(key, None)
        if when is not None:
            model[key] = when
        assert schedule.first() == min(model.values(), default=None)
    for _ in range(2):  # what is due stays so
        found = schedule.due(now)
        assert sorted(found) == sorted(key for key, when in model.items() if when <= now)
        assert [model[key] for key in found] == sorted(model[key] for key in found)


def test_what_is_out_of_date_does_not_pile_up() -> None:
    schedule = Schedule[str]()
    for when in range(10_000):
        schedule.set("renewal", float(when))
    assert len(schedule._heap) < 100
