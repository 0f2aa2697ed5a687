"""What must hold of every bind() under natsup, as functions that return what does not.

Each is run on natsup, where it finds nothing, and on supervisors that are wrong on purpose, where
it has to find something.
"""

import errno
import json
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings

from natsup.state.ledger import Policy
from tests.kernel import held
from tests.kernel.sequences import NAMED, Step, sequences
from tests.kernel.twins import Namespaces, Twins, namespaces, under_natsup, wait_for

Check = Callable[[Path, "str | None"], list[str]]

_PORT = 7000
_SLOW = "router_takes_its_time"  # every answer 0.3 s: a bind that is published takes 0.6 s
_GENEROUS = ("--timeout", "30", "--startup-timeout", "30")
_TIMEOUT, _SLACK = 0.5, 2.5  # seconds; the slack is the machine's, which has much else to do


class _Unlike(AssertionError):
    """A sequence makes a difference."""


def named(twins: Twins) -> list[str]:
    """Every sequence that has a name."""
    return [
        f"{name}: {line}" for name, sequence in NAMED.items() for line in twins.compare(sequence)
    ]


def generated(
    twins: Twins,
    examples: int,
    *,
    derandomize: bool = True,
    shrink: bool = True,
    without: tuple[str, ...] = (),
) -> list[str]:
    """Sequences that hypothesis makes, until one makes a difference: the sequence as JSON, as
    short as it could be made, and the differences. ``without`` these steps."""
    found: list[str] = []
    phases = [Phase.generate, Phase.shrink] if shrink else [Phase.generate]

    @settings(
        max_examples=examples,
        derandomize=derandomize,
        database=None,
        deadline=None,  # a bind waits for the router
        phases=phases,
        report_multiple_bugs=False,
        # A sequence is long by intent, and takes what two processes and a router take.
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(sequences)
    def compare(sequence: list[Step]) -> None:
        sequence = [step for step in sequence if step["do"] not in without]
        differences = twins.compare(sequence)
        if differences:
            found[:] = [json.dumps(sequence), *differences]
            raise _Unlike(*differences)

    try:
        compare()
    except _Unlike:
        assert found
    return found


def slow_binds_return(folder: Path, fault: str | None = None) -> list[str]:
    """A bind() waits for a router that answers too late as long as it may, and no longer."""
    with namespaces(folder, _SLOW) as net:
        program = under_natsup(net, held.__file__, "--startup-timeout", "10", fault=fault)
        found = []
        for port in (_PORT, _PORT + 1):
            program.tell({"do": "timed", "port": port})
            number, seconds = program.answer()
            # The first one also waits for the search for the router.
            longest = _TIMEOUT + _SLACK + (2 if port == _PORT else 0)
            if number or seconds > longest:
                found.append(f"bind(): errno {number} after {seconds} s")
        return found


def signals_do_not_interrupt(folder: Path, fault: str | None = None) -> list[str]:
    """No EINTR, which bind() never gives, however many signals come while the call is held."""
    with namespaces(folder, _SLOW) as net:
        program = under_natsup(net, held.__file__, *_GENEROUS, fault=fault)
        found = []
        for port in range(_PORT, _PORT + 3):
            program.tell({"do": "interrupted", "port": port})
            number, signals = program.answer()
            if number or not signals:
                found.append(f"errno {number} with {signals} signals")
        return found


def the_dead_hold_nothing(folder: Path, fault: str | None = None) -> list[str]:
    """Who is killed inside bind() leaves neither the port taken nor a stray mapping."""
    with namespaces(folder, _SLOW) as net:
        program = under_natsup(net, held.__file__, *_GENEROUS, fault=fault)
        found = []
        for port in (_PORT, _PORT + 1):
            program.tell({"do": "killed", "port": port})
            number = program.answer()
            if number:
                found.append(f"errno {number} after the death of who was before")
            elif f"tcp/{port}" not in net.mapped():
                found.append(f"{port} is not mapped after the death of who was before")
        return found + _ends_clean(net, program.end)


def what_is_mapped_is_bound(
    folder: Path, fault: str | None = None, *, rounds: int = 100
) -> list[str]:
    """A thread rewrites the address while the call is held: the port that is mapped is the one
    that is bound, always."""
    with namespaces(folder) as net:
        program = under_natsup(net, held.__file__, *_GENEROUS, fault=fault)
        found = []
        for start in range(0, rounds, 100):
            first = 10_000 + start * 2 % 40_000
            count = min(100, rounds - start)
            program.tell({"do": "rewritten", "first": first, "rounds": count})
            answers = program.answer()
            bound = {f"tcp/{port}" for number, port in answers if not number}
            failed = [number for number, _ in answers if number]
            mapped = set(net.mapped())
            if failed:
                found.append(f"errnos {failed}")
            if mapped != bound:
                found.append(f"mapped {sorted(mapped - bound)}, bound {sorted(bound - mapped)}")
                break
            program.tell({"do": "let_go"})
            program.answer()
            wait_for(lambda: net.mapped() == [], 60)
        return found


def what_the_call_named_is_bound(folder: Path, fault: str | None = None) -> list[str]:
    """A thread closes the descriptor, or puts another socket under its number, meanwhile: never is
    another socket bound, and no mapping is left."""
    with namespaces(folder, _SLOW) as net:
        program = under_natsup(net, held.__file__, *_GENEROUS, fault=fault)
        found = []
        port = _PORT
        for how in ("close", "dup2"):
            for copy in (True, False):
                port += 1
                program.tell({"do": "replaced", "port": port, "how": how, "copy": copy})
                expected = {"errno": 0, "other": 0, **({"copy": port} if copy else {})}
                answer = program.answer()
                if answer != expected:
                    found.append(f"{how}, copy {copy}: {answer}")
                if copy and f"tcp/{port}" not in net.mapped():
                    found.append(f"{how}: the copy's port is not mapped")
        program.tell({"do": "let_go"})
        program.answer()
        return found + _ends_clean(net, lambda: None) + _ends_clean(net, program.end)


def a_socket_is_bound_once(folder: Path, fault: str | None = None) -> list[str]:
    """Two threads bind one socket: one of them does, the other hears that it is bound."""
    with namespaces(folder, _SLOW) as net:
        program = under_natsup(net, held.__file__, *_GENEROUS, fault=fault)
        found = []
        for port, other in ((_PORT, _PORT), (_PORT + 1, _PORT + 2)):
            program.tell({"do": "bound_twice", "port": port, "other": other})
            numbers = program.answer()
            if numbers != [0, errno.EINVAL]:
                found.append(f"{port} and {other}: errnos {numbers}")
        return found + _ends_clean(net, program.end)


def one_gets_the_port(folder: Path, fault: str | None = None, *, rounds: int = 20) -> list[str]:
    """Two processes race for a port: exactly one gets it, and it is mapped."""
    with namespaces(folder) as net:
        program = under_natsup(net, held.__file__, *_GENEROUS, fault=fault)
        found = []
        for port in range(10_000, 10_000 + rounds):
            program.tell({"do": "raced", "port": port})
            numbers = program.answer()
            if numbers != [0, errno.EADDRINUSE]:
                found.append(f"{port}: errnos {numbers}")
            if f"tcp/{port}" not in net.mapped():
                found.append(f"{port} is not mapped")
            program.tell({"do": "let_go"})
            program.answer()
        return found + _ends_clean(net, program.end)


def one_session_gets_the_port(folder: Path, *, rounds: int = 20) -> list[str]:
    """The same for two programs, each under a natsup of its own."""
    with namespaces(folder) as net:
        programs = [under_natsup(net, held.__file__, *_GENEROUS) for _ in range(2)]
        found = []
        for port in range(10_000, 10_000 + rounds):
            for program in programs:
                program.tell({"do": "timed", "port": port})
            numbers = sorted(program.answer()[0] for program in programs)
            if numbers != [0, errno.EADDRINUSE]:
                found.append(f"{port}: errnos {numbers}")
            if f"tcp/{port}" not in net.mapped():
                found.append(f"{port} is not mapped")
            for program in programs:
                program.tell({"do": "let_go"})
                program.answer()

        def end() -> None:
            for program in programs:
                program.end()

        return found + _ends_clean(net, end)


def a_port_is_handed_on(
    folder: Path, fault: str | None = None, *words: str, times: int = 1000
) -> list[str]:
    """Closed and bound again at once, many times: it is mapped at the end, and was all the time,
    unless the machine was too busy to carry on within the time that a mapping lingers."""
    with namespaces(folder) as net:
        program = under_natsup(net, held.__file__, *_GENEROUS, *words, fault=fault)
        linger = Policy().linger
        program.tell({"do": "again", "port": _PORT, "times": times, "pause": linger})
        said = program.answer(60 + times / 50)
        found = [] if said["errnos"] == [0] else [f"errnos {said['errnos']}"]
        told = [line for line in net.told().splitlines() if line.startswith(f"tcp/{_PORT} →")]
        added = sum(not line.endswith("removed") for line in told)
        if not 1 <= added <= 1 + said["late"] or net.mapped() != [f"tcp/{_PORT}"]:
            found.append(f"late {said['late']} times, and the router was told: {told}")
        return found + _ends_clean(net, program.end)


def _ends_clean(net: Namespaces, end: Callable[[], None]) -> list[str]:
    """After ``end`` the router's table gets empty."""
    end()
    try:
        wait_for(lambda: net.mapped() == [], 30)
    except AssertionError:
        return [f"still mapped at the end: {net.mapped()}"]
    return []
