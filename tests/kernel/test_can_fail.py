"""Supervisors that are wrong on purpose are found out, each by at least one of the checks that
natsup passes. Tests that cannot fail would tell nothing."""

from pathlib import Path

import pytest

from tests.kernel import checks
from tests.kernel.checks import Check
from tests.kernel.twins import twins


@pytest.mark.parametrize(
    "fault", ["keeps_its_copy", "leaves_reuseaddr", "refuses_odd_lengths", "binds_everything"]
)
def test_the_matrix_finds_it(tmp_path: Path, fault: str) -> None:
    with twins(tmp_path, fault=fault) as pair:
        assert checks.named(pair)
        assert checks.generated(pair, 500, shrink=False)


CHECKS: list[tuple[str, Check]] = [
    ("answers_late", checks.slow_binds_return),
    ("does_not_wait_killable", checks.signals_do_not_interrupt),
    ("receives_late", checks.signals_do_not_interrupt),
    ("loses_the_dead", checks.the_dead_hold_nothing),
    ("reads_twice", checks.what_is_mapped_is_bound),
    ("looks_again", checks.what_the_call_named_is_bound),
    ("does_not_linger", checks.a_port_is_handed_on),
]


@pytest.mark.parametrize(
    ("fault", "check"),
    [pytest.param(*pair, id=f"{pair[0]}-{pair[1].__name__}") for pair in CHECKS],
)
def test_a_check_finds_it(tmp_path: Path, fault: str, check: Check) -> None:
    assert check(tmp_path, fault)


@pytest.mark.parametrize(
    "check",
    [
        checks.slow_binds_return,
        checks.signals_do_not_interrupt,
        checks.the_dead_hold_nothing,
        checks.what_is_mapped_is_bound,
        checks.what_the_call_named_is_bound,
    ],
)
def test_natsup_passes(tmp_path: Path, check: Check) -> None:
    assert check(tmp_path, None) == []
