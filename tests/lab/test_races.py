"""Races for a port on the router, and a port that is let go of and wanted at once."""

from pathlib import Path

import pytest

from tests.lab.lab import LAN1, LAN2, Lab
from tests.lab.overheard import Overheard
from tests.lab.program import Program

_TIMES = 1000
_PROBES = f"""
import time
late, closed = 0, None
def bind():
    global late
    sock = socket.socket()
    sock.bind(("", 7000))
    late += closed is not None and time.monotonic() - closed > 0.2
    sock.listen()
    return sock
for _ in range({_TIMES}):
    sock = bind()
    closed = time.monotonic()
    sock.close()
s = bind()
"""


@pytest.mark.parametrize("way", ["events", "seccomp"])
def test_a_port_bound_again_at_once_is_handed_on(lab: Lab, tmp_path: Path, way: str) -> None:
    """Transmission and Syncthing probe a port before they use it. The router hears of it once.

    But where a busy machine let so much time go by between close and bind that it was given up.
    """
    program = Program(lab, tmp_path, "--track-close", way)
    overheard = Overheard(lab, tmp_path)
    assert program.do(f"exec({_PROBES!r}, globals())") is None
    assert lab.table() == {"tcp/7000": LAN1}
    assert program.bind("t", 7001) is None
    lab.wait_for(lambda: "tcp/7001" in overheard.ports())
    late = program.do("late")
    assert late < _TIMES / 20
    assert program.log().count("tcp/7000: mapped") <= 1 + late
    asked = overheard.ports()
    assert late or asked.count("tcp/7000") == asked.count("tcp/7001")
    program.do("s.close()")
    lab.wait_for(lambda: lab.table() == {"tcp/7001": LAN1})


def test_one_of_two_hosts_gets_the_port(lab: Lab, tmp_path: Path) -> None:
    """Both ask at the same time: for one the bind() fails, and the other one's mapping stays."""
    words = ("--timeout", "30", "--startup-timeout", "30")
    programs = {host: Program(lab, tmp_path, *words, host=host) for host in ("lan1", "lan2")}
    addresses = {"lan1": LAN1, "lan2": LAN2}
    for program in programs.values():
        assert program.bind("first", 0) is None
    for port in range(7000, 7008):
        for program in programs.values():
            program.do("s = socket.socket()")
        for program in programs.values():
            program.tell(f"s.bind(('', {port}))")
        answers = {host: program.answer() for host, program in programs.items()}
        assert sorted(answers.values(), key=str) == ["EADDRINUSE", None]
        (winner,) = (host for host, answer in answers.items() if answer is None)
        assert lab.table() == {f"tcp/{port}": addresses[winner]}
        for program in programs.values():
            program.do("s.close()")
        lab.wait_for(lambda: lab.table() == {})
