"""Hooks and --events, with a real router."""

import contextlib
import json
import os
import re
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from tests.lab.lab import LAN1, LAN2, OUTSIDE, Lab
from tests.lab.program import NATSUP, Program

_TELL = (
    'echo "$NATSUP_EVENT $NATSUP_PROTOCOL $NATSUP_PORT $NATSUP_EXTERNAL_ADDRESS'
    ' $NATSUP_EXTERNAL_PORT $NATSUP_SESSION" >> told'
)

_OF_GLIBC = 3 << 31  # SIGCANCEL and SIGSETXID, which its posix_spawn() ignores


def hooks(command: str) -> list[str]:
    return ["--on-mapped", command, "--on-conflict", command, "--on-released", command]


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize("layout", [[], ["--as-parent"]])
def test_commands_are_run_where_natsup_was_started(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    lab.map("lan2", "tcp", 7000)
    program = Program(lab, tmp_path, *layout, *hooks(_TELL))
    assert program.bind("s", 7000) == "EADDRINUSE"
    assert program.do("s.bind(('', 7001))") is None
    lab.wait_for(lambda: any(entry["what"] == "router" for entry in program.history()))
    program.do("s.close()")
    told = tmp_path / "told"
    lab.wait_for(lambda: len(lines(told)) == 3)
    assert program.bind("u", 7002, "DGRAM") is None
    lab.wait_for(lambda: len(lines(told)) == 4)
    program.tell("os._exit(0)")
    lab.wait_for(lambda: len(lines(told)) == 5)
    words = [line.split() for line in lines(told)]
    (session,) = {line[-1] for line in words}
    assert session == program.history()[0]["session"]
    # Two ports at once are told in any order; the first ones before the router's address is known.
    found = {(line[0], *line[1:3], line[-2]) for line in words}
    assert found == {
        ("refused", "tcp", "7000", "7000"),
        ("mapped", "tcp", "7001", "7001"),
        ("removed", "tcp", "7001", "7001"),
        ("mapped", "udp", "7002", "7002"),
        ("removed", "udp", "7002", "7002"),
    }
    assert words[-1][3] == words[-2][3] == OUTSIDE


def test_a_command_that_hangs_holds_nothing_up(lab: Lab, tmp_path: Path) -> None:
    """Its process group is killed after ten seconds, and what it has printed is in the log."""
    pids = tmp_path / "pids"
    hang = f"trap '' TERM; echo $$ >> {pids}; echo is here; sleep 1000 & echo $! >> {pids}; wait"
    program = Program(lab, tmp_path, *hooks(hang))
    begin = time.monotonic()
    for number in range(7000, 7010):
        assert program.bind(f"s{number}", number) is None
    assert time.monotonic() - begin < 8, "binds waited for hooks"
    lab.wait_for(lambda: len(lines(pids)) == 8)  # four at a time
    hung = {int(line) for line in lines(pids)}
    assert "--on-mapped for tcp/7000: is here" in program.log()
    lab.wait_for(lambda: not any(map(_lives, hung)))
    assert "--on-mapped for tcp/7000 is killed: it has 10 s" in program.log()
    lab.wait_for(lambda: len(lines(pids)) > 8)
    program.kill()
    os.kill(program_supervisor(program, lab), signal.SIGKILL)
    for line in lines(pids):
        if _lives(int(line)):
            os.kill(int(line), signal.SIGKILL)


def program_supervisor(program: Program, lab: Lab) -> int:
    lab.wait_for(lambda: lab.table() == {})
    (session,) = program.status()
    return int(session["supervisor"])


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1] != "Z"
    except OSError:
        return False


def test_what_a_command_gets_and_how_it_ends(lab: Lab, tmp_path: Path) -> None:
    """No signal is ignored that a shell would not have, and no descriptor is natsup's."""
    look = "grep -e SigIgn -e Seccomp: /proc/self/status; ls -l /proc/self/fd; kill -9 $$"
    program = Program(lab, tmp_path, "--on-mapped", look, "--on-released", "exit 3")
    assert program.bind("s", 7000) is None
    lab.wait_for(lambda: "--on-mapped for tcp/7000 was killed by signal 9" in program.log())
    text = program.log()
    ignored = re.search(r"SigIgn:\?(\w+)", text)
    assert ignored is not None
    assert int(ignored[1], 16) & ~_OF_GLIBC == 0
    own = re.search(r"Seccomp:\s(\d)", Path("/proc/self/status").read_text())
    outside = re.search(r"Seccomp:\?(\d)", text)
    assert own is not None
    assert outside is not None
    assert outside[1] == own[1]  # no filter of natsup's
    opened = [line for line in text.splitlines() if " -> " in line]
    assert len(opened) == 4  # 0, 1, 2, and ls's own
    program.do("s.close()")
    lab.wait_for(lambda: "--on-released for tcp/7000 ended with status 3" in program.log())


def test_soft_limits_are_those_that_natsup_was_started_with(lab: Lab, tmp_path: Path) -> None:
    """Also once the supervisor, which has raised its own, has begun anew."""
    limits = "ulimit -S -n 200; ulimit -S -f 10000; ulimit -S -t 600; ulimit -S -v 4000000"
    look = f"(ulimit -S -n; ulimit -S -f; ulimit -S -t; ulimit -S -v) | xargs >>{tmp_path}/told"
    prefix = ["sh", "-c", f'{limits}; exec "$@"', "sh"]
    program = Program(lab, tmp_path, "--on-mapped", look, prefix=prefix)
    told = tmp_path / "told"
    expected = "200 10000 600 4000000"
    assert program.bind("s", 7000) is None
    lab.wait_for(lambda: lines(told) == [expected])
    done = lab.run("lan1", [NATSUP, "restart"], env=program.environ)
    assert (done.returncode, done.stderr) == (0, "")
    assert program.bind("t", 7001) is None
    lab.wait_for(lambda: lines(told) == [expected] * 2)


@pytest.mark.parametrize("layout", [[], ["--as-parent"]])
def test_they_survive_supervisors(lab: Lab, tmp_path: Path, layout: list[str]) -> None:
    """What happens while there is none is told by the next one, and nothing is told twice."""
    told = tmp_path / "told"
    command = f'sleep 1; echo "$NATSUP_EVENT $NATSUP_PORT" >> {told}'
    program = Program(lab, tmp_path, *layout, *hooks(command))

    def expect(*more: str) -> None:
        expected.extend(more)
        lab.wait_for(lambda: len(lines(told)) >= len(expected))
        assert sorted(lines(told)) == sorted(expected), program.log()

    expected: list[str] = []
    assert program.bind("s", 7000) is None
    before = program.supervisor()
    os.kill(before, signal.SIGKILL)  # while the first command runs
    program.do("s.close()")
    assert program.bind("t", 7001) is None
    expect("mapped 7000", "removed 7000", "mapped 7001")
    after = program.supervisor()
    assert after != before
    assert program.bind("u", 7002) is None
    done = lab.run("lan1", [NATSUP, "restart"], env=program.environ)
    assert (done.returncode, done.stderr) == (0, "")
    assert program.supervisor() == after
    assert len(lines(told)) == len(expected) + 1  # it has waited for the command
    expect("mapped 7002")
    assert not [child for child in children(after) if not _lives(child)]
    program.do("t.close()")
    expect("removed 7001")
    program.tell("os._exit(0)")
    expect("removed 7002")


def children(pid: int) -> list[int]:
    """Also those that have ended, and that nobody has waited for."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = stat.read_text().rpartition(") ")[2].split()[1]
            found += [int(stat.parent.name)] * (int(parent) == pid)
    return found


def test_one_that_hangs_does_not_outlive_its_limit_without_a_supervisor(
    lab: Lab, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    hang = f"trap '' TERM; sleep 1000 & echo $$ $! > {pids}; wait"
    program = Program(lab, tmp_path, "--on-mapped", hang)
    assert program.bind("s", 7000) is None
    lab.wait_for(lambda: bool(lines(pids)))
    os.kill(program.supervisor(), signal.SIGKILL)
    hung = [int(pid) for pid in pids.read_text().split()]
    assert all(map(_lives, hung))
    lab.wait_for(lambda: not any(map(_lives, hung)))


def read_all(fd: int) -> list[dict[str, Any]]:
    with open(fd, "rb") as file:
        return [json.loads(line) for line in file]


@pytest.mark.parametrize("layout", [[], ["--as-parent"]])
def test_events_on_a_descriptor(lab: Lab, tmp_path: Path, layout: list[str]) -> None:
    """They outlast the supervisor, and end with the session; the program has no part in them."""
    read, write = os.pipe()
    lab.map("lan2", "tcp", 7000)
    program = Program(lab, tmp_path, *layout, "--events", str(write), pass_fds=[write])
    os.close(write)
    assert program.bind("s", 7000) == "EADDRINUSE"
    assert program.do(f"os.fstat({write})") == "EBADF"
    before = program.supervisor()
    os.kill(before, signal.SIGKILL)
    lab.wait_for(lambda: program.supervisor() != before)
    assert program.do("s.bind(('', 7001))") is None
    guard = program.guard()
    if not layout:
        os.kill(guard, signal.SIGKILL)
        lab.wait_for(lambda: bool(program.holders() - {program.supervisor(), guard}))
    program.tell("os._exit(0)")
    events = read_all(read)
    told = [(event["what"], event["port"]) for event in events if event["port"]]
    assert told == [("refused", 7000), ("mapped", 7001), ("removed", 7001)]
    assert [event["holder"] for event in events if event["what"] == "refused"] == [LAN2]
    assert events == [event for event in program.history() if event in events]


def test_events_on_a_socket_that_comes_and_goes(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    program = Program(lab, tmp_path, "--events", f"unix:{path}")
    assert program.bind("s", 7000) is None
    lab.wait_for(lambda: f"events are lost: unix:{path}" in program.log())
    for number in (7001, 7002):
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
            server.listen()
            server.settimeout(20)
            assert program.bind(f"s{number}", number) is None
            reader, _ = server.accept()
            reader.settimeout(20)
            with reader, reader.makefile("rb") as file:
                told = map(json.loads, file)  # the last of those before may have been left, too
                assert any((e["what"], e["port"]) == ("mapped", number) for e in told)
        path.unlink()
        # The first one that nobody reads may be written still.
        for other in (number + 100, number + 200):
            assert program.bind(f"s{other}", other) is None
    assert program.do("s.getsockname()") == ["0.0.0.0", 7000]


def test_events_of_a_reader_that_sleeps(lab: Lab, tmp_path: Path) -> None:
    """A full pipe holds nothing up, not even the end."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    os.write(write, b"x" * (1 << 16))
    os.set_blocking(write, True)
    program = Program(lab, tmp_path, "--events", str(write), pass_fds=[write])
    os.close(write)
    assert program.bind("s", 7000) is None
    assert lab.table() == {"tcp/7000": LAN1}
    program.kill()
    lab.wait_for(lambda: [s["alive"] for s in program.status()] in ([], [False]))
    assert lab.table() == {}
    os.close(read)


def test_events_in_a_file(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    program = Program(lab, tmp_path, "--events", "events")
    assert program.bind("s", 7000) is None
    program.kill()
    lab.wait_for(lambda: '"removed"' in "".join(lines(tmp_path / "events")))
    told = [json.loads(line) for line in lines(tmp_path / "events")]
    assert [e["what"] for e in told if e["port"]] == ["mapped", "removed"]
