"""Port 0 with --ephemeral: a port that is free here and on the router."""

import socket
import sys
from pathlib import Path

import pytest

from tests.lab.lab import LAN1, LAN2, Lab
from tests.lab.program import Program

_IP_LOCAL_PORT_RANGE = 51  # ip(7); Linux 6.3. Python has no name for it
# What the kernel is to choose from for the program's sockets, and half of it: fewer than natsup
# tries. Of TCP the kernel offers these first (inet_csk_find_open_port() in
# net/ipv4/inet_connection_sock.c), so that natsup cannot but come upon them.
EVERY = range(40_000, 40_012)
HALF = EVERY[1::2]
KINDS = [(kind, family) for kind in ("STREAM", "DGRAM") for family in ("INET", "INET6")]


def take(lab: Lab, ports: range) -> dict[str, str]:
    """Have another host map all of these. The router's table."""
    names = [f"{protocol}/{port}" for port in ports for protocol in ("tcp", "udp")]
    lab.map_many("lan2", names)
    return dict.fromkeys(names, LAN2)


def start(lab: Lab, folder: Path, *words: str) -> Program:
    with socket.socket() as sock:
        try:
            sock.getsockopt(socket.IPPROTO_IP, _IP_LOCAL_PORT_RANGE)
        except OSError:
            pytest.skip("before Linux 6.3 a program cannot say from what its ports are chosen")
    return Program(lab, folder, "--ephemeral", "--timeout", "20", *words)


def bind(program: Program, name: str, kind: str, family: str = "INET") -> tuple[str, int]:
    """Bind a new socket to port 0; where it is then."""
    program.do(f"{name} = socket.socket(socket.AF_{family}, socket.SOCK_{kind})")
    ports = (EVERY[0] | EVERY[-1] << 16).to_bytes(4, sys.byteorder)
    assert program.do(f"{name}.setsockopt(0, {_IP_LOCAL_PORT_RANGE}, {ports!r})") is None
    assert program.do(f"{name}.bind(('', 0))") is None
    host, port, *_ = program.do(f"{name}.getsockname()")
    return host, port


def test_a_port_is_free_on_both_sides(lab: Lab, tmp_path: Path) -> None:
    before = take(lab, HALF)
    program = start(lab, tmp_path)
    expected = dict(before)
    for number, (kind, family) in enumerate(KINDS):
        host, port = bind(program, f"s{number}", kind, family)
        assert host == ("0.0.0.0" if family == "INET" else "::")
        assert port in EVERY
        expected[f"{'tcp' if kind == 'STREAM' else 'udp'}/{port}"] = LAN1
        assert lab.table() == expected
    assert "refused" in program.log()
    for number in range(len(KINDS)):
        program.do(f"s{number}.close()")
    lab.wait_for(lambda: lab.table() == before)


def test_without_one_that_is_free_there_a_bind_goes_on(lab: Lab, tmp_path: Path) -> None:
    """As without natsup: there the kernel's choice is never another host's affair."""
    before = take(lab, EVERY)
    program = start(lab, tmp_path)
    for number, kind in enumerate(("STREAM", "DGRAM"), 1):
        _, port = bind(program, "s", kind)
        assert port in EVERY
        assert program.log().count("no port that is free on the router was found") == number
        assert program.do("s.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)") == 0
    assert lab.table() == before


def test_a_port_that_may_not_be_published_is_not_chosen(lab: Lab, tmp_path: Path) -> None:
    program = start(lab, tmp_path, "--deny", ",".join(map(str, HALF)))
    _, port = bind(program, "s", "STREAM")
    assert port in EVERY[::2]
    assert lab.table() == {f"tcp/{port}": LAN1}
