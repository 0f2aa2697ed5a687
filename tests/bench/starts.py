"""What a start costs: to the first output, and to the first port that is mapped."""

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from natsup.state.journal import sessions
from tests.bench.measuring import (
    NATSUP,
    PYTHON,
    Line,
    Result,
    compared,
    compile_c,
    environ_of,
    interleaved,
    printed,
    show,
)
from tests.bench.router import OVERHEARD, ByHand, names
from tests.lab.lab import LAN1, ROUTER, ROUTER_PORT, Lab
from tests.lab.overheard import Overheard

_LIBRARIES = "import trio, async_upnp_client.client, async_upnp_client.client_factory"
_ELAPSED = "; import os, time; print(time.monotonic_ns() - int(os.environ['BENCH_STARTED']))"
_UPNPC = 'upnpc {url} -m eth0 -a "$1" "$2" "$2" tcp >/dev/null && exec "$0" "$2"'


def launch(folder: Path, rounds: int) -> Result:
    """The first output of a trivial program under natsup, others, and of Python alone."""
    environ = environ_of(folder)
    ours, bare, strace = (
        "natsup exec -- echo",
        "python -c 'print()'",
        "strace -f --seccomp-bpf echo",
    )
    commands = {
        bare: [PYTHON, "-c", "print()"],
        ours: [NATSUP, "exec", "--", "/bin/echo"],
        "tini -- echo": ["tini", "-s", "--", "/bin/echo"],
        strace: [
            "strace",
            "-f",
            "--seccomp-bpf",
            "-e",
            "trace=bind",
            "-o",
            "/dev/null",
            "/bin/echo",
        ],
        "natsup --version": [NATSUP, "--version"],
    }
    measures: dict[str, Callable[[], float]] = {
        name: lambda words=words: _first_output(words, environ)  # type: ignore[misc]
        for name, words in commands.items()
    }
    times = interleaved(rounds * 3, measures, pause=0.4)
    show("First output of a trivial program", times, "ms", 1e3)
    lines = [_of_times("first output of /bin/echo", times, ours, bare, most=2.0)]
    lines += [_of_times("the same", times, ours, name) for name in ("tini -- echo", strace)]
    shown = {name: [value * 1e3 for value in values] for name, values in times.items()}
    return Result(lines, {"First output, milliseconds": shown})


def _of_times(
    what: str,
    values: Mapping[str, Sequence[float]],
    one: str,
    other: str,
    *,
    most: float | None = None,
) -> Line:
    return compared(what, values, one, other, "ms", 1e3, most=most)


def _first_output(command: Sequence[str], environ: Mapping[str, str]) -> float:
    """Seconds until a command writes its first byte."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environ) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        took = time.perf_counter() - start
    return took


def first_bind(folder: Path, rounds: int) -> Result:
    """A program's very first call, in a network where natsup has been before: compared with what
    must happen for it, and with upnpc before the program."""
    state = folder / "state"
    environ = environ_of(state)
    since, first = compile_c("since", str(folder)), compile_c("first", str(folder))
    (folder / "lab").mkdir()
    with Lab(folder / "lab") as lab:

        def started(words: list[str], number: int) -> float:
            process = lab.popen(
                "lan1",
                [since, *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environ,
            )
            assert process.stdin is not None
            assert process.stdout is not None
            took = float(process.stdout.readline()) / 1e9
            assert lab.table() == {f"tcp/{number}": LAN1}
            process.stdin.close()
            process.wait()
            process.stdout.close()
            return took

        def natsup(number: int) -> float:
            took = started([NATSUP, "exec", "--", first, str(number)], number)
            lab.wait_for(lambda: not sessions(state))
            return took

        def upnpc(number: int, url: str) -> float:
            script = _UPNPC.format(url=url)
            took = started(["sh", "-c", script, first, LAN1, str(number)], number)
            lab.run("lan1", ["upnpc", "-u", given[3:], "-m", "eth0", "-d", str(number), "tcp"])
            lab.wait_for(lambda: lab.table() == {})
            return took

        given = f"-u http://{ROUTER}:{ROUTER_PORT}/rootDesc.xml"
        natsup(17320)  # from here on the router is known
        overheard = Overheard(lab, folder)
        natsup(int(OVERHEARD))
        requests = overheard.requests()
        end = next(n for n, request in enumerate(requests) if "#AddPortMapping" in request) + 1
        adding = requests[:end]
        removing = [r for r in requests if "#DeletePortMapping" in r]
        ready = ByHand(lab, adding, removing, "ready")
        numbers = iter(range(20000, 30000))
        imports = lab.on("lan1", [since, PYTHON, "-c", _LIBRARIES + _ELAPSED])
        times = interleaved(
            rounds * 2,
            {
                "natsup": lambda: natsup(next(numbers)),
                "imports": lambda: printed(imports, environ)[0] / 1e9,
                "the router": lambda: ready.map(next(numbers)),
                "upnpc -u, then the program": lambda: upnpc(next(numbers), given),
                "upnpc, then the program": lambda: upnpc(next(numbers), ""),
            },
        )
    show(f"A first bind() right after the start, {names(adding)}", times, "ms", 1e3)
    both = "importing trio and async-upnp-client, and the router"
    times[both] = [a + b for a, b in zip(times["imports"], times["the router"], strict=True)]
    lines = [
        _of_times("the first bind of a program that binds at once", times, "natsup", both, most=1.2)
    ]
    lines += [
        _of_times("start, bind, mapped", times, "natsup", f"{tool}, then the program", most=1.0)
        for tool in ("upnpc -u", "upnpc")
    ]
    shown = {name: [value * 1e3 for value in values] for name, values in times.items()}
    return Result(lines, {"A first bind() right after the start, milliseconds": shown})
