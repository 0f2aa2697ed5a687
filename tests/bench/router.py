"""What a bind() takes that has to ask the router, compared with the router alone: the same
requests, word for word, sent by hand over connections that are there already.

A real miniupnpd in a lab. Its answers take the longer, the more is mapped, so each measurement
finds an empty table: what was mapped before has been removed, natsup has heard so, and nft has
listed it after that, which has the kernel done with the removal.
"""

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from natsup.state.journal import sessions
from natsup.state.ledger import State
from tests.bench.measuring import Result, alone, compared, interleaved, show
from tests.lab.lab import ROUTER, ROUTER_PORT, Lab
from tests.lab.overheard import Overheard
from tests.lab.program import Program

_ROUTER, _FRESH = "the router alone", "the router, a connection for each request"
OVERHEARD = "17321"  # no other number in a request looks like this


class ByHand:
    """tests/bench/byhand.py on a host of the lab."""

    def __init__(self, lab: Lab, adding: list[str], removing: list[str], connections: str) -> None:
        self._lab, self._adding, self._removing = lab, adding, removing
        script = str(Path(__file__).with_name("byhand.py"))
        self._process = lab.popen(
            "lan1",
            [sys.executable, script, ROUTER, str(ROUTER_PORT), connections],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def map(self, number: int) -> float:
        """Map a port as it was overheard of another, and remove it; seconds for the first."""
        took = self.send(self._adding, [number])
        self.send(self._removing, [number])
        self._lab.wait_for(lambda: self._lab.table() == {})
        return took

    def send(self, requests: list[str], numbers: Iterable[int]) -> float:
        """Send the same for each of some ports; seconds for all."""
        ours = [one.replace(OVERHEARD, str(number)) for number in numbers for one in requests]
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(ours) + "\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())


def heard(lab: Lab, overheard: Overheard, last: str) -> list[str]:
    """The requests up to the one of this action, without those that no port needs."""

    def found() -> list[str]:
        return [r for r in overheard.requests() if "GetExternalIPAddress" not in r]

    lab.wait_for(lambda: any(f"#{last}" in request for request in found()))
    return found()


def states(folder: Path) -> dict[int, State]:
    """The ports of all sessions, by their journals."""
    return {
        port.number: record.state
        for session in sessions(folder)
        for port, record in session.ports.items()
    }


def mapped_bind(folder: Path, rounds: int) -> Result:
    """A bind() in the middle of a session."""
    (folder / "lab").mkdir()
    with Lab(folder / "lab") as lab:
        program = Program(lab, folder)
        program.bind("s", 17320)  # the first one waits for the search
        overheard = Overheard(lab, folder)
        program.bind("s", int(OVERHEARD))
        adding = heard(lab, overheard, "AddPortMapping")
        program.do("s.close()")
        lab.wait_for(lambda: not states(program.state))
        removing = [r for r in overheard.requests() if "#Delete" in r and OVERHEARD in r]
        ready = ByHand(lab, adding, removing, "ready")
        fresh = ByHand(lab, adding, removing, "fresh")
        numbers = iter(range(20000, 30000))

        def natsup() -> float:
            number = next(numbers)
            program.do("s = socket.socket()")
            program.do(
                "begin = time.perf_counter();"
                f" s.bind(('', {number}));"
                " took = time.perf_counter() - begin"
            )
            assert states(program.state) == {number: State.MAPPED}
            program.do("s.close()")
            lab.wait_for(lambda: not states(program.state))
            lab.wait_for(lambda: lab.table() == {})
            return float(program.do("took"))

        times = interleaved(
            rounds * 10,
            {
                "natsup": natsup,
                _ROUTER: lambda: ready.map(next(numbers)),
                _FRESH: lambda: fresh.map(next(numbers)),
            },
        )
    title = f"A bind() that is mapped, {names(adding)}"
    show(title, times, "ms", 1e3)
    added = [
        1e3 * (ours - theirs) for ours, theirs in zip(times["natsup"], times[_ROUTER], strict=True)
    ]
    lines = [
        compared("a mapped bind()", times, "natsup", _ROUTER, "ms", 1e3, most=1.1),
        alone("the same: what natsup adds", added, "ms", 3.0),
        compared("the same", times, "natsup", _FRESH, "ms", 1e3),
    ]
    shown = {name: [value * 1e3 for value in values] for name, values in times.items()}
    return Result(lines, {"A bind() that is mapped, milliseconds": shown})


def names(requests: list[str]) -> str:
    """For people: which requests these are."""
    return ", ".join(
        request.split("#")[1].split('"')[0] if "#" in request else request.split(" HTTP")[0]
        for request in requests
    )
