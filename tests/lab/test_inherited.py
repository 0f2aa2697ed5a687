"""Sockets that the program is started with, by socket activation or otherwise."""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from natsup.state import points
from tests.lab import cast
from tests.lab.cast import Cast
from tests.lab.lab import LAN1, LAN2, Lab
from tests.lab.program import Program

# What a service manager does: sockets from descriptor 3 on, and three variables. A word of the
# first argument is a socket: its kind, and its address and port.
_START = """
import os, socket, sys
activate = sys.argv[1] == "activate"
kept = []
for number, word in enumerate(sys.argv[2].split(), 3):
    kind, address, port = word.split("/")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, getattr(socket, "SOCK_" + kind))
    sock.bind((address, int(port)))
    if kind == "STREAM":
        sock.listen()
    kept.append((sock, number))
for sock, number in kept:
    os.dup2(sock.detach(), number)
    os.set_inheritable(number, True)  # also where it was there already
if activate:
    pid = str(os.getpid())
    os.environ.update(LISTEN_PID=pid, LISTEN_FDS=str(len(kept)), LISTEN_FDNAMES="web:game")
    os.environ.update(WATCHDOG_PID=pid, SYSTEMD_EXEC_PID=pid)
os.execvp(sys.argv[3], sys.argv[3:])
"""
_SOCKETS = "STREAM/0.0.0.0/7000 DGRAM/::/7001"


def start(
    lab: Lab, folder: Path, how: str, sockets: str, *words: str, prefix: Sequence[str] = ()
) -> Program:
    starter = [sys.executable, "-c", _START, how, sockets]
    return Program(lab, folder, *words, prefix=[*prefix, *starter])


@pytest.mark.parametrize("way", ["events", "seccomp"])
@pytest.mark.parametrize("layout", [[], ["--as-parent"]], ids=["in place", "as parent"])
def test_socket_activation(lab: Lab, tmp_path: Path, layout: list[str], way: str) -> None:
    words = (*layout, "--track-close", way)
    program = start(lab, tmp_path, "activate", _SOCKETS, *words)
    lab.wait_for(lambda: lab.table() == {"tcp/7000": LAN1, "udp/7001": LAN1})
    assert lab.reaches(7000)
    for name in ("LISTEN_PID", "WATCHDOG_PID", "SYSTEMD_EXEC_PID"):
        assert program.do(f"os.environ[{name!r}] == str(os.getpid())"), name
    assert program.do("os.environ['LISTEN_FDNAMES']") == "web:game"
    assert program.do("socket.socket(fileno=3).getsockname()") == ["0.0.0.0", 7000]
    lab.wait_for(lambda: lab.table() == {"udp/7001": LAN1})  # which was its last copy
    os.kill(program.do("os.getpid()"), signal.SIGKILL)
    lab.wait_for(lambda: lab.table() == {})


def test_what_is_not_published_when_it_is_bound_is_not_when_it_is_inherited(
    lab: Lab, tmp_path: Path
) -> None:
    sockets = "STREAM/0.0.0.0/80 STREAM/127.0.0.1/7000 DGRAM/0.0.0.0/5353 STREAM/0.0.0.0/7002"
    program = start(lab, tmp_path, "activate", sockets + " STREAM/0.0.0.0/7003", "--deny", "7002")
    lab.wait_for(lambda: lab.table() == {"tcp/7003": LAN1})
    mappings = [m for session in program.status() for m in session["mappings"]]
    assert [m["port"] for m in mappings] == [7003]


def test_other_sockets_where_asked_for(lab: Lab, tmp_path: Path) -> None:
    program = start(lab, tmp_path, "plain", _SOCKETS)
    assert program.bind("s", 7002) is None
    assert lab.table() == {"tcp/7002": LAN1}
    program.kill()
    lab.wait_for(lambda: lab.table() == {})
    program = start(lab, tmp_path, "plain", _SOCKETS, "--inherited")
    lab.wait_for(lambda: lab.table() == {"tcp/7000": LAN1, "udp/7001": LAN1})


def test_a_port_that_another_host_has_cannot_be_refused_any_more(lab: Lab, tmp_path: Path) -> None:
    lab.map("lan2", "tcp", 7000)
    program = start(lab, tmp_path, "activate", _SOCKETS)
    lab.wait_for(lambda: lab.table() == {"tcp/7000": LAN2, "udp/7001": LAN1})

    def states() -> dict[int, str]:
        return {m["port"]: m["state"] for session in program.status() for m in session["mappings"]}

    lab.wait_for(lambda: states() == {7000: "conflict", 7001: "mapped"})


@pytest.mark.parametrize("step", ["created", "adopted"])
def test_a_supervisor_that_dies_leaves_them_to_the_next_one(
    lab: Lab, tmp_path: Path, step: str
) -> None:
    """Before it has published any of them, or between two."""
    members = Cast(tmp_path / "state-lan1")
    prefix = ["env", f"{points.VARIABLE}={step}"]
    program = start(lab, tmp_path, "activate", _SOCKETS, prefix=prefix)
    lab.wait_for(lambda: bool(members.stopped()))
    cast.kill(members.stopped())
    if step in points.TAKEOVER:  # to which the next one comes as well
        lab.wait_for(lambda: bool(members.stopped()))
        members.go_on()
    lab.wait_for(lambda: lab.table() == {"tcp/7000": LAN1, "udp/7001": LAN1})
    program.do("os.close(3)")
    lab.wait_for(lambda: lab.table() == {"udp/7001": LAN1})
