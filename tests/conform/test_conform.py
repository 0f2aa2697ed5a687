"""Other people's tests, plain and under natsup in both layouts: no test comes out differently.

This is the quick part; `just conform` runs all of it.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conform.corpora import PYTHON, QUICK, Corpus
from tests.conform.outcomes import WHOLE, Outcomes, of_lines
from tests.conform.runs import PLAIN, SIDES, Side, differences, left_over, run_all, sides


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Side]]:
    with sides(tmp_path_factory.mktemp("conform"), list(SIDES)) as found:
        yield found


@pytest.mark.timeout(600)
@pytest.mark.parametrize("corpus", QUICK, ids=lambda corpus: re.sub(r"\W+", "-", corpus.name))
def test_nothing_comes_out_differently(made: dict[str, Side], corpus: Corpus) -> None:
    plain, found = differences(made, corpus)
    assert len(plain) > 10, plain  # it did run
    real = [f"{side}: {d}" for side, here in found.items() for d in here if d.real]
    assert real == []
    assert left_over(made) == []


def test_the_programs_are_served(made: dict[str, Side]) -> None:
    """Else there would be nothing to compare."""
    script = (
        "import socket; s = socket.socket(); s.bind(('', 7000)); print('bound', 7000, sep='\t')"
    )
    corpus = Corpus("bind", lambda tests: [PYTHON, "-c", script], _printed, seconds=60)
    outcomes = {"bound": "7000", WHOLE: "exit status 0"}
    assert run_all(made, corpus) == {name: outcomes for name in made}
    for name, side in made.items():
        if name != PLAIN:
            side.lab.wait_for(lambda side=side: '"mapped"' in _of(side, 7000))  # type: ignore[misc]
            side.lab.wait_for(lambda side=side: '"removed"' in _of(side, 7000))  # type: ignore[misc]


def test_a_difference_is_seen(made: dict[str, Side]) -> None:
    """A program that does tell: by the filter, which the kernel shows."""
    script = "grep Seccomp: /proc/self/status; echo other; echo"
    corpus = Corpus("tell", lambda tests: ["sh", "-c", script], _printed, seconds=60)
    _, found = differences(made, corpus)
    assert {side: [d.test for d in here if d.real] for side, here in found.items()} == {
        side: ["Seccomp:"] for side in made if side != PLAIN
    }


def _printed(folder: Path, output: str) -> Outcomes:
    return of_lines(output)


def _of(side: Side, port: int) -> str:
    """What the history says of a port."""
    try:
        lines = (side.state / "history.jsonl").read_text().splitlines()
    except FileNotFoundError:
        return ""
    return "\n".join(line for line in lines if f'"tcp/{port}"' in line)
