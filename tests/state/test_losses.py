"""What is put back when, and what is taken for a restart."""

import pytest

from natsup.state.losses import FORGIVEN, Comparison, pause, reason
from natsup.state.model import Port, Protocol

A, B, C = (Port(Protocol.TCP, number) for number in (7000, 7001, 7002))


def test_pauses_grow_to_a_day() -> None:
    pauses = [pause(times) for times in range(1, 8)]
    assert pauses == sorted(pauses)
    assert pauses[0] == 0
    assert pauses[-1] == pauses[-2] == 86400


def test_that_it_is_given_up_is_said() -> None:
    assert reason(4, "it is gone") == "it is gone"
    assert reason(5, "it is gone").startswith("it is gone; it was lost 5 times")


def compare(comparison: Comparison, now: float, **missing: bool) -> frozenset[Port]:
    ports = {"a": A, "b": B, "c": C}
    comparison.begin(ports[name] for name in missing)
    found: frozenset[Port] = frozenset()
    for name, gone in missing.items():
        assert not found, "before everything was looked for"
        found = comparison.seen(ports[name], now, missing=gone)
    return found


@pytest.mark.parametrize(
    ("missing", "lost"),
    [
        ({"a": True, "b": True}, {A, B}),
        ({"a": True, "b": False}, set()),
        ({"a": False, "b": True, "c": True}, set()),
        ({"a": True}, set()),  # the user may have removed it
        ({"a": True, "b": True, "c": True}, {A, B, C}),
    ],
)
def test_everything_is_gone_after_a_restart(missing: dict[str, bool], lost: set[Port]) -> None:
    assert compare(Comparison(), 0.0, **missing) == lost


def test_everything_is_not_gone_again_and_again() -> None:
    comparison = Comparison()
    assert compare(comparison, 0.0, a=True, b=True) == {A, B}
    assert compare(comparison, 300.0, a=True, b=True) == set()
    assert compare(comparison, FORGIVEN, a=True, b=True) == {A, B}


def test_what_was_not_looked_for_tells_nothing() -> None:
    comparison = Comparison()
    comparison.begin([A, B])
    assert comparison.seen(C, 0.0, missing=True) == set()
    comparison.drop(A)  # the router would not say
    assert comparison.seen(B, 0.0, missing=True) == set()
