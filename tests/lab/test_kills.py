"""At every step of natsup's processes one of the things that can end them: see `kills`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from natsup.state import points
from tests.lab.kills import SHAPES, Case, Event, Layout, everything, selection
from tests.lab.lab import Lab
from tests.lab.playing import compile_clock, run


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, Path]]:
    """A lab for all cases, each of which leaves it as it was, and the clock that they use."""
    folder = tmp_path_factory.mktemp("lab")
    with Lab(folder) as lab:
        yield lab, compile_clock(folder)


# These have failed once, or are why something is as it is.
ONCE = [
    Case("taking", Event.PROGRAM, Layout.AS_PARENT),
    Case("taking", Event.GUARD, Layout.IN_PLACE),
    Case("adopt", Event.SUPERVISOR, Layout.IN_PLACE),
    Case("passed", Event.SUPERVISOR, Layout.IN_PLACE),
]


@pytest.mark.parametrize("case", dict.fromkeys([*selection(), *ONCE]), ids=str)
def test_at_every_step(shared: tuple[Lab, Path], tmp_path: Path, case: Case) -> None:
    lab, clock = shared
    assert run(case, lab, tmp_path, clock).violations == []


def test_what_is_played() -> None:
    cases = set(everything())
    assert len(cases) == 2 * (len(points.ALL) * len(Event) - len(points.END))
    assert {case.shape for case in cases} == set(SHAPES)
    chosen = selection()
    assert cases >= set(chosen)
    assert [case.step for case in chosen] == list(points.ALL)
    assert {(case.event, case.layout) for case in chosen} >= {
        (event, layout) for event in Event for layout in Layout
    }
