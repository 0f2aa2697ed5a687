"""How natsup chooses the way to see sockets end, and what each is worth without sock_diag."""

import sys
from pathlib import Path

import pytest

from tests.lab.lab import LAN1, Lab
from tests.lab.program import Program

# What systemd's RestrictAddressFamilies= does to AF_NETLINK, for sock_diag alone.
_WITHOUT_SOCK_DIAG = """
import errno, os, socket, sys
import pyseccomp
rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
diag = pyseccomp.Arg(2, pyseccomp.EQ, 4)
family = pyseccomp.Arg(0, pyseccomp.EQ, socket.AF_NETLINK)
rules.add_rule(pyseccomp.ERRNO(errno.EAFNOSUPPORT), "socket", family, diag)
rules.load()
os.execvp(sys.argv[1], sys.argv[1:])
"""
_SANDBOX = [sys.executable, "-W", "ignore", "-c", _WITHOUT_SOCK_DIAG]
_TRAPPED = "by trapping close()"


def test_events_are_chosen_where_there_are_any(lab: Lab, tmp_path: Path) -> None:
    program = Program(lab, tmp_path)
    assert program.bind("s", 7000) is None
    assert _TRAPPED not in program.log()
    program.do("s.close()")
    lab.wait_for(lambda: lab.table() == {})


@pytest.mark.parametrize("kind", ["STREAM", "DGRAM"])
@pytest.mark.parametrize("layout", [[], ["--as-parent"]])
def test_close_is_trapped_where_there_are_none(
    lab: Lab, tmp_path: Path, layout: list[str], kind: str
) -> None:
    program = Program(lab, tmp_path, *layout, prefix=_SANDBOX)
    protocol = "tcp" if kind == "STREAM" else "udp"
    assert program.bind("s", 7000, kind) is None
    assert lab.table() == {f"{protocol}/7000": LAN1}
    assert _TRAPPED in program.log()
    program.do("copy = s.dup()")
    program.do("s.close()")
    assert program.bind("t", 7001, kind) is None
    program.do("t.close()")
    lab.wait_for(lambda: lab.table() == {f"{protocol}/7000": LAN1})  # the copy lives
    program.do("copy.close()")
    lab.wait_for(lambda: lab.table() == {})
    assert program.process.poll() is None


def test_without_either_a_port_stays_until_the_program_ends(lab: Lab, tmp_path: Path) -> None:
    program = Program(lab, tmp_path, "--track-close", "events", prefix=_SANDBOX)
    assert program.bind("s", 7000) is None
    program.do("s.close()")
    assert "the kernel does not tell when sockets end" in program.log()
    assert program.bind("t", 7001) is None
    assert lab.table() == {"tcp/7000": LAN1, "tcp/7001": LAN1}
    program.kill()
    lab.wait_for(lambda: lab.table() == {})
