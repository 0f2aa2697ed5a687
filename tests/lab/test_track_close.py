"""How natsup chooses the way to see sockets end, and what each is worth without sock_diag."""

import json
import sys
from pathlib import Path

import pytest

from tests.lab.lab import LAN1, ROUTER, ROUTER_PORT, Lab
from tests.lab.program import NATSUP, Program

URL = f"http://{ROUTER}:{ROUTER_PORT}/rootDesc.xml"

_WITHOUT_NETLINK = """
import errno, os, socket, sys
import pyseccomp
rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
family = pyseccomp.Arg(0, pyseccomp.EQ, socket.AF_NETLINK)
rules.add_rule(pyseccomp.{}, "socket", family)
rules.load()
os.execvp(sys.argv[1], sys.argv[1:])
"""


def _sandbox(action: str) -> list[str]:
    return [sys.executable, "-W", "ignore", "-c", _WITHOUT_NETLINK.format(action)]


# What systemd's RestrictAddressFamilies= does, and what sterner sandboxes do.
_SANDBOX = _sandbox("ERRNO(errno.EAFNOSUPPORT)")
_DEADLY = _sandbox("KILL_PROCESS")
_TRAPPED = "by trapping close()"


def test_events_are_chosen_where_there_are_any(lab: Lab, tmp_path: Path) -> None:
    program = Program(lab, tmp_path)
    assert program.bind("s", 7000) is None
    assert _TRAPPED not in program.log()
    program.do("s.close()")
    lab.wait_for(lambda: lab.table() == {})


@pytest.mark.parametrize("kind", ["STREAM", "DGRAM"])
@pytest.mark.parametrize("layout", [[], ["--as-parent"]])
@pytest.mark.parametrize("sandbox", [_SANDBOX, _DEADLY], ids=["refused", "killed"])
def test_close_is_trapped_where_there_are_none(
    lab: Lab, tmp_path: Path, layout: list[str], kind: str, sandbox: list[str]
) -> None:
    program = Program(lab, tmp_path, *layout, prefix=sandbox)
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


def test_events_are_not_asked_for_where_that_is_death(lab: Lab, tmp_path: Path) -> None:
    program = Program(lab, tmp_path, "--track-close", "events", prefix=_DEADLY)
    assert program.bind("s", 7000) is None
    assert _TRAPPED in program.log()
    program.do("s.close()")
    lab.wait_for(lambda: lab.table() == {})


@pytest.mark.parametrize("sandbox", [_SANDBOX, _DEADLY], ids=["refused", "killed"])
def test_the_router_is_found_without_netlink(lab: Lab, tmp_path: Path, sandbox: list[str]) -> None:
    """By its description, by natsup doctor, and by natsup clean."""
    program = Program(lab, tmp_path, "--gateway", URL, prefix=sandbox)
    assert program.bind("s", 7000) is None
    lab.wait_for(lambda: lab.table() == {"tcp/7000": LAN1})
    done = lab.run("lan1", [*sandbox, NATSUP, "doctor", "--json"], env=program.environ)
    checks = {check["id"]: check for check in json.loads(done.stdout)["checks"]}
    assert (done.returncode, done.stderr) == (0, "")
    assert "removed" in checks["test-mapping"]["found"]
    assert f"{ROUTER} by eth0, from {LAN1}" in checks["default-route"]["found"]
    assert checks["vpn"]["found"] == "the same"
    program.alone()
    program.kill()
    lab.run("lan1", [*sandbox, NATSUP, "clean"], env=program.environ, check=True)
    assert lab.table() == {}
