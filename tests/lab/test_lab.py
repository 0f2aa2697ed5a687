"""The lab itself does what a home network does."""

import subprocess
import sys

from tests.lab.lab import LAN2, Lab

ECHO = (
    "import socket\n"
    "s = socket.socket(); s.bind(('', 7000)); s.listen(); print('ready', flush=True)\n"
    "while True:\n"
    "    c, _ = s.accept(); c.sendall(b'I am lan2: ' + c.recv(100)); c.close()\n"
)


def test_a_mapped_port_is_reachable_and_no_other(lab: Lab) -> None:
    server = lab.popen("lan2", [sys.executable, "-c", ECHO], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"
    assert lab.fetch("tcp", 7000) is None
    assert lab.table() == {}
    assert "is redirected to internal" in lab.map("lan2", "tcp", 7000)
    assert lab.table() == {"tcp/7000": LAN2}
    assert lab.fetch("tcp", 7000, b"who?") == b"I am lan2: who?"
    assert lab.fetch("tcp", 7001) is None


def test_the_router_knows_conflicts(lab: Lab) -> None:
    lab.map("lan2", "tcp", 7000)
    assert "718" in lab.map("lan1", "tcp", 7000)
    assert lab.table() == {"tcp/7000": LAN2}
