"""What natsup costs where there is nothing to publish: calls that pass, and calls that are not
trapped. In an empty network, so that no router is asked."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.bench.measuring import (
    NATSUP,
    Line,
    Result,
    compared,
    compile_c,
    environ_of,
    interleaved,
    printed,
    show,
)

_ALONE, _SHIM, _OURS = "no supervisor", "an LD_PRELOAD shim", "natsup"
_SYNC, _PLAIN = "C notifier, synchronous wake-up", "C notifier"
_BLIND = "C notifier, synchronous wake-up, no reading"
STRACE = "strace -f --seccomp-bpf -e trace=bind"
_PING, _PINNED = "ping-pong", "ping-pong on one processor"
_CALLS = "10000"
# Natsup's own imports are over by then; the others have none.
_WAIT, _NO_WAIT = "1500", "50"


def passed_bind(folder: Path, rounds: int) -> Result:
    """A bind() that natsup lets pass, compared with other supervisors' that do."""
    environ = environ_of(folder)
    where = str(folder)
    binder, ping = compile_c("binder", where), compile_c("pingpong", where)
    notifier, shim = compile_c("notifier", where), compile_c("preload", where, "-shared", "-fPIC")
    calls = [binder, _CALLS, _NO_WAIT]
    traced = [*STRACE.split(), "-o", "/dev/null", *calls]
    measures: dict[str, Callable[[], list[float]]] = {
        _ALONE: lambda: printed(calls, environ),
        _SHIM: lambda: printed(calls, {**environ, "LD_PRELOAD": shim}),
        _PING: lambda: printed([ping, _CALLS], environ),
        _PINNED: lambda: printed([ping, _CALLS, "0"], environ),
        _BLIND: lambda: printed([notifier, "-s", "-n", *calls], environ),
        _SYNC: lambda: printed([notifier, "-s", *calls], environ),
        _OURS: lambda: printed([NATSUP, "exec", "--", binder, _CALLS, _WAIT], environ),
        _PLAIN: lambda: printed([notifier, *calls], environ),
        STRACE: lambda: printed(traced, environ),
    }
    found = interleaved(2 * rounds, measures)
    middle = {name: [each[500] for each in every] for name, every in found.items()}
    late = {name: [each[990] for each in every] for name, every in found.items()}
    show("A bind() that is passed, the median", middle, "us", 1e-3)
    show("The same, the 99th percentile", late, "us", 1e-3)
    lines = [
        _of_calls("a passed bind(), median", middle, _SYNC, most=1.6),
        _of_calls("the same", middle, _PLAIN, most=0.9),
        _of_calls("the same", middle, STRACE),
        _of_calls("the same", middle, _SHIM),
        _of_calls("the same: the physical limit", middle, _PINNED),
        _of_calls("the same: what asking by seccomp takes at least", middle, _BLIND),
        _of_calls("a passed bind(), p99", late, _SYNC, most=1.6),
        _of_calls("the same", late, _PLAIN, most=0.9),
        _of_calls("the same", late, STRACE),
        _of_calls("the same", late, _SHIM),
    ]
    shown = {
        name: [value / 1e3 for each in every for value in each[5:996:10]]
        for name, every in found.items()
    }
    return Result(lines, {"A bind() that is passed, microseconds": shown})


def _of_calls(
    what: str, values: Mapping[str, Sequence[float]], other: str, *, most: float | None = None
) -> Line:
    return compared(what, values, _OURS, other, "us", 1e-3, most=most)


def threads(folder: Path, rounds: int) -> Result:
    """Threads that bind at once: how many calls a second."""
    environ = environ_of(folder)
    binder, notifier = compile_c("binder", str(folder)), compile_c("notifier", str(folder))
    single = "C notifier, 1 thread"
    measures: dict[str, Callable[[], list[float]]] = {
        single: lambda: printed([notifier, "-s", binder, _CALLS, _NO_WAIT, "1"], environ)
    }
    counts = (1, 2, 8, 64)
    for count in counts:
        words = [binder, str(int(_CALLS) * 2 // count), _WAIT, str(count)]
        measures[f"natsup, {count}"] = lambda words=words: printed(  # type: ignore[misc]
            [NATSUP, "exec", "--", *words], environ
        )
        words = [*words[:2], _NO_WAIT, *words[3:]]
        measures[f"C notifier, {count}"] = lambda words=words: printed(  # type: ignore[misc]
            [notifier, "-s", *words], environ
        )
    found = {
        name: [each[0] for each in every] for name, every in interleaved(rounds, measures).items()
    }
    show("Threads that bind at once, calls passed per second", found, "/s")
    lines = [
        compared(
            f"passed binds per second from {count} threads",
            found,
            f"natsup, {count}",
            single,
            "/s",
            least=0.6,
        )
        for count in counts[1:]
    ]
    lines += [
        compared("the same", found, f"natsup, {count}", f"C notifier, {count}", "/s")
        for count in counts[1:]
    ]
    return Result(lines)


def other_calls(folder: Path, rounds: int) -> Result:
    """Calls that natsup's filter does not trap, compared with a filter that traps bind() alone."""
    environ = environ_of(folder)
    loops, notifier = compile_c("loops", str(folder)), compile_c("notifier", str(folder))
    supervisors = {
        _ALONE: [],
        _OURS: [NATSUP, "exec", "--"],
        _PLAIN: [notifier],
        "natsup --track-close seccomp": [NATSUP, "exec", "--track-close", "seccomp", "--"],
    }
    lines = []
    for call, count in (("getppid", "2000000"), ("dup-close", "500000")):
        measures: dict[str, Callable[[], float]] = {}
        for name, words in supervisors.items():
            command = [*words, loops, call, count]
            measures[name] = lambda command=command: printed(command, environ)[0]  # type: ignore[misc]
        values = interleaved(rounds, measures)
        show(f"One turn of a loop of {call} (median)", values, "ns")
        what = {"getppid": "getppid(), a turn of a loop", "dup-close": "dup() and close()"}[call]
        lines.append(compared(what, values, _OURS, _PLAIN, "ns", most=1.1))
    trapped = list(values)[-1]
    lines.append(compared("the same, --track-close seccomp", values, trapped, _ALONE, "ns"))
    return Result(lines)
