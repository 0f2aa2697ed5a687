"""The full loads, and a table of figures: ``python -m tests.load.load [soak MINUTES]``; as root."""

import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests import apart
from tests.lab.lab import Lab
from tests.load import scenarios
from tests.load.scenarios import House, Row

_LOADS: list[Callable[[House], Row]] = [
    lambda house: scenarios.bomb(house, 200, 50),
    lambda house: scenarios.threads(house, 1000),
    lambda house: scenarios.threads(house, 2000),
    lambda house: scenarios.passed_threads(house, 1000),
    *(partial(scenarios.killed, count=count) for count in (100, 1000, 10_000)),
    lambda house: scenarios.held(house, 10_000),
]
_WARM = 60.0  # seconds


def main(words: list[str]) -> None:
    loads = _LOADS
    if words[:1] == ["soak"]:
        seconds = float(words[1]) * 60
        loads = [lambda house: scenarios.soak(house, seconds, min(_WARM, seconds))]
    apart.own_network()
    print(Row.HEADINGS)
    print("|" + "---|" * Row.HEADINGS.count(" |"))
    with tempfile.TemporaryDirectory() as name, Lab(Path(name)) as lab:
        house = House(lab, Path(name))
        for load in loads:
            print(load(house), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
