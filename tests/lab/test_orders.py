"""`natsup release` and `natsup retry`, with a real router."""

import base64
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

from tests.lab.lab import LAN1, OUTSIDE, Lab
from tests.lab.program import NATSUP, Program
from tests.lab.test_history import refusing, told
from tests.supervisor.terminal import Terminal


def order(lab: Lab, program: Program, *words: str) -> "subprocess.CompletedProcess[str]":
    done: subprocess.CompletedProcess[str] = lab.run("lan1", [NATSUP, *words], env=program.environ)
    return done


def states(program: Program) -> dict[str, str]:
    (session,) = program.status()
    mappings: list[dict[str, Any]] = session["mappings"]
    return {f"{one['protocol']}/{one['port']}": one["state"] for one in mappings}


def test_a_released_port_stays_off_the_router(lab: Lab, tmp_path: Path) -> None:
    program = Program(lab, tmp_path)
    for name, kind in ("s", "STREAM"), ("u", "DGRAM"):
        assert program.bind(name, 7000, kind) is None
    assert program.bind("t", 7001) is None
    (session,) = program.status()
    done = order(lab, program, "release", session["id"], "7000")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.rpartition(": ")[2] for line in done.stdout.splitlines()] == [
        "released (released by hand)"
    ] * 2
    assert lab.table() == {"tcp/7001": LAN1}
    program.do("s.listen()")  # it has it still

    # Another socket, another supervisor: it is not put back.
    program.do("s.close()")
    assert program.bind("s", 7000) is None
    before = program.supervisor()
    os.kill(before, signal.SIGKILL)
    lab.wait_for(lambda: program.supervisor() != before)
    assert program.bind("v", 7002) is None
    lab.wait_for(lambda: lab.table() == {"tcp/7001": LAN1, "tcp/7002": LAN1})
    assert states(program) == {
        "tcp/7000": "released",
        "tcp/7001": "mapped",
        "tcp/7002": "mapped",
        "udp/7000": "released",
    }

    lab.wait_for(lambda: order(lab, program, "retry", session["id"], "tcp/7000").returncode == 0)
    assert set(lab.table()) == {"tcp/7000", "tcp/7001", "tcp/7002"}
    happened = [line for line in told(program) if line.endswith("tcp/7000")]
    assert happened[:3] == ["mapped tcp/7000", "released tcp/7000", "removed tcp/7000"]
    assert happened[-1] == "mapped tcp/7000"
    program.kill()
    lab.wait_for(lambda: lab.table() == {})


def test_what_was_refused_is_tried_again_at_once(lab: Lab, tmp_path: Path) -> None:
    program = Program(lab, tmp_path)
    pid = str(program.pid)
    with refusing(lab):
        assert program.bind("s", 7000) is None
        assert states(program) == {"tcp/7000": "ignored"}
        done = order(lab, program, "retry", pid, "7000")
        assert (done.returncode, done.stderr) == (1, "")
        assert f"(session {program.status()[0]['id']}): ignored (" in done.stdout
    assert order(lab, program, "retry", pid, "7000").stdout.endswith(": mapped\n")
    assert lab.table() == {"tcp/7000": LAN1}

    done = order(lab, program, "release", pid, "7001")
    assert (done.returncode, done.stdout) == (125, "")
    expected = f"natsup: session {pid} has no such port; natsup status lists them\n"
    assert done.stderr == expected


def test_release_retry_and_copy_on_the_whole_screen(lab: Lab, tmp_path: Path) -> None:
    program = Program(lab, tmp_path)
    assert program.bind("s", 7000) is None
    lab.wait_for(lambda: bool(program.status()[0]["gateway"]["external_address"]))
    environ = {**program.environ, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
    with Terminal(lab.on("lan1", [NATSUP, "ui"]), environ, columns=120) as terminal:
        before = terminal.settings
        terminal.shows(f"{OUTSIDE}:7000", "mapped", "history of this port")
        terminal.type("rr")
        terminal.shows("released by hand")
        assert lab.table() == {}
        terminal.type("t")
        terminal.until(lambda: f"{OUTSIDE}:7000" in terminal.text.splitlines()[2])  # its row
        assert lab.table() == {"tcp/7000": LAN1}
        terminal.type("c")
        copied = base64.b64encode(f"{OUTSIDE}:7000".encode())
        terminal.until(lambda: b"\x1b]52;c;" + copied in terminal.output)  # xterm's OSC 52
        assert program.bind("t", 7001) is None
        terminal.shows("2 ports", "tcp 7001")
        program.kill()
        terminal.shows("0 sessions")
        terminal.type("q")
        assert terminal.end() == 0
        assert terminal.settings == before
    assert terminal.output.rindex(b"\x1b[?1049l") > terminal.output.rindex(b"\x1b[?1049h")
    assert b"Traceback" not in terminal.output
