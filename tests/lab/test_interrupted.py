"""Signals and deaths while a bind() is held: no errno that it would not give without natsup, and
nothing left of it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.lab import LAN1, Lab
from tests.lab.program import NATSUP, Program

WAYS = pytest.mark.parametrize("way", ["events", "seccomp"])
_BUDGET = 0.5


@WAYS
def test_signals_do_not_interrupt(lab: Lab, tmp_path: Path, way: str) -> None:
    """A call that natsup has taken sleeps through them. One that it is about to take may fail with
    EINTR, and then nothing has happened: the same call can be made again."""
    source, program = Path(__file__).with_name("interrupted.c"), tmp_path / "interrupted"
    subprocess.run(["gcc", "-pthread", "-o", str(program), str(source)], check=True)
    words = ["--track-close", way, "--timeout", str(_BUDGET), "--servers", "all"]
    process = lab.popen(
        "lan1",
        [NATSUP, "exec", *words, "--", str(program)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "NATSUP_STATE_DIR": str(tmp_path / "state")},
    )
    stdin, stdout = process.stdin, process.stdout
    assert stdin is not None
    assert stdout is not None

    def go_on() -> None:
        stdin.write("\n")
        stdin.flush()

    assert stdout.readline() == "ready\n"
    assert lab.table() == {"udp/7000": LAN1}
    lab.pause_router()
    go_on()
    number, signals, milliseconds, port = map(int, stdout.readline().split())
    assert (number, port) == (0, 7001)
    assert milliseconds >= _BUDGET * 900
    assert signals > 20
    _, closes, wrong = map(int, stdout.readline().split())
    assert wrong == 0
    assert closes == 0 or way == "seccomp"
    lab.resume_router()
    lab.wait_for(lambda: lab.table() == {"udp/7000": LAN1, "udp/7001": LAN1}, 40)
    go_on()
    assert stdout.readline() == "closed\n"
    lab.wait_for(lambda: lab.table() == {})
    go_on()
    assert process.wait(20) == 0


# One of its threads is held in bind() when the process is told how that is to end.
_VICTIM = """
import os, socket, sys, threading
sock = socket.socket()
sock.set_inheritable(True)
threading.Thread(target=sock.bind, args=(("", int(sys.argv[1])),)).start()
how = sys.stdin.readline().strip()
if how == "exit":
    os._exit(0)
words = [sys.executable, "-c", sys.argv[2], str(sock.fileno())]
os.execv(sys.executable, words)
"""
_HEIR = """
import socket, sys
print(socket.socket(fileno=int(sys.argv[1])).getsockname()[1], flush=True)
sys.stdin.read()
"""
_PLAIN = "import socket, sys; socket.socket().bind(('', int(sys.argv[1])))"


def most_descriptors(program: Program) -> int:
    """How many descriptors the supervisor has; the guard has fewer."""
    return max(len(os.listdir(f"/proc/{pid}/fd")) for pid in program.behind())


@WAYS
def test_nothing_is_left_of_a_caller_that_died(lab: Lab, tmp_path: Path, way: str) -> None:
    """By SIGKILL, or as a thread whose process ends or becomes another program."""
    program = Program(lab, tmp_path, "--track-close", way, "--timeout", "30")
    assert program.bind("s", 7000) is None
    before = most_descriptors(program)
    program.do("import subprocess")
    program.do("pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)")
    lab.pause_router()

    def states() -> dict[int, str]:
        return {m["port"]: m["state"] for session in program.status() for m in session["mappings"]}

    def is_free(port: int) -> bool:
        done = lab.run("lan1", [sys.executable, "-c", _PLAIN, str(port)])
        return bool(done.returncode == 0)

    for port, how in enumerate(("kill", "exit", "exec"), 7001):
        words = f"[sys.executable, '-c', {_VICTIM!r}, '{port}', {_HEIR!r}]"
        program.do(f"victim = subprocess.Popen({words}, **pipes)")
        lab.wait_for(lambda port=port: states().get(port) == "pending")  # type: ignore[misc]
        assert not is_free(port)
        if how == "kill":
            program.do("victim.kill()")
        else:
            program.do(f"(victim.stdin.write('{how}\\n'), victim.stdin.flush()) and None")
        if how == "exec":
            assert program.do("victim.stdout.readline()") == "0\n"
        lab.wait_for(lambda port=port: is_free(port))  # type: ignore[misc]
        program.do("victim.communicate() and None")
    lab.resume_router()
    lab.wait_for(lambda: states() == {7000: "mapped"}, 40)
    assert lab.table() == {"tcp/7000": LAN1}
    lab.wait_for(lambda: most_descriptors(program) <= before)
