"""What a bind() takes that has to ask the router, compared with the router alone: the same
requests, word for word, sent by hand over connections that are there already.

A real miniupnpd in a lab. Its answers take the longer, the more is mapped, so each measurement
finds an empty table: what was mapped before has been removed, natsup has heard so, and nft has
listed it after that, which has the kernel done with the removal.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from natsup.state.journal import sessions
from natsup.state.ledger import State
from tests.bench.measuring import NATSUP, compile_c, interleaved, limit, printed, show
from tests.lab.lab import ROUTER, ROUTER_PORT, Lab
from tests.lab.overheard import Overheard
from tests.lab.program import Program

OVERHEARD = "17321"  # no other number in a request looks like this
_LIBRARIES = "import trio, async_upnp_client.client, async_upnp_client.client_factory"
_ELAPSED = "; import os, time; print(time.monotonic_ns() - int(os.environ['BENCH_STARTED']))"


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


def _state(folder: Path) -> dict[int, State]:
    """The ports of all sessions, by their journals."""
    return {
        port.number: record.state
        for session in sessions(folder)
        for port, record in session.ports.items()
    }


def mapped_bind(folder: Path, rounds: int) -> bool:
    """A bind() in the middle of a session."""
    (folder / "lab").mkdir()
    with Lab(folder / "lab") as lab:
        program = Program(lab, folder)
        program.bind("s", 17320)  # the first one waits for the search
        overheard = Overheard(lab, folder)
        program.bind("s", int(OVERHEARD))
        adding = heard(lab, overheard, "AddPortMapping")
        program.do("s.close()")
        lab.wait_for(lambda: not _state(program.state))
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
            assert _state(program.state) == {number: State.MAPPED}
            program.do("s.close()")
            lab.wait_for(lambda: not _state(program.state))
            lab.wait_for(lambda: lab.table() == {})
            return float(program.do("took"))

        times = interleaved(
            rounds * 10,
            {
                "natsup": natsup,
                "the router alone": lambda: ready.map(next(numbers)),
                "the same with a connection for each request": lambda: fresh.map(next(numbers)),
            },
        )
    show(f"A bind() that is mapped, {names(adding)}", times, "ms", 1e3)
    return limit("natsup / router", times["natsup"] / times["the router alone"], 1.25)


def names(requests: list[str]) -> str:
    """For people: which requests these are."""
    return ", ".join(
        request.split("#")[1].split('"')[0] if "#" in request else request.split(" HTTP")[0]
        for request in requests
    )


def first_bind(folder: Path, rounds: int) -> bool:
    """A program's very first call, in a network where natsup has been before."""
    state = folder / "state"
    environ = {**os.environ, "NATSUP_STATE_DIR": str(state)}
    since, first = compile_c("since", str(folder)), compile_c("first", str(folder))
    (folder / "lab").mkdir()
    with Lab(folder / "lab") as lab:

        def natsup(number: int) -> float:
            process = lab.popen(
                "lan1",
                [since, NATSUP, "exec", "--", first, str(number)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environ,
            )
            assert process.stdin is not None
            assert process.stdout is not None
            took = float(process.stdout.readline()) / 1e9
            assert _state(state) == {number: State.MAPPED}, lab.table()
            process.stdin.close()
            process.wait()
            lab.wait_for(lambda: not sessions(state))
            return took

        natsup(17320)  # from here on the router is known
        overheard = Overheard(lab, folder)
        natsup(int(OVERHEARD))
        requests = overheard.requests()
        end = next(n for n, request in enumerate(requests) if "#AddPortMapping" in request) + 1
        adding = requests[:end]
        removing = [r for r in requests if "#DeletePortMapping" in r]
        ready = ByHand(lab, adding, removing, "ready")
        numbers = iter(range(20000, 30000))
        imports = lab.on("lan1", [since, sys.executable, "-c", _LIBRARIES + _ELAPSED])
        times = interleaved(
            rounds * 2,
            {
                "natsup": lambda: natsup(next(numbers)),
                "imports of trio and async-upnp-client": lambda: printed(imports, environ) / 1e9,
                "the router alone": lambda: ready.map(next(numbers)),
            },
        )
    show(f"A first bind() right after the start, {names(adding)}", times, "ms", 1e3)
    parts = times["imports of trio and async-upnp-client"] + times["the router alone"]
    return limit("natsup / (imports + router)", times["natsup"] / parts, 1.5)
