"""A program that may not do all that natsup may: confined, or not to be looked into."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab.lab import LAN1, LAN2, Lab
from tests.lab.program import Program

Start = Callable[..., Program]

# landlock(7): deny TCP binds but to the ports named on the command line of `restrict`.
_LANDLOCK = """
import ctypes, os, struct
libc = ctypes.CDLL(None, use_errno=True)
def restrict(*ports):
    attributes = struct.pack("=QQQ", 0, 1, 0)
    ruleset = libc.syscall(444, attributes, ctypes.c_size_t(len(attributes)), 0)
    for port in ports:
        assert libc.syscall(445, ruleset, 2, struct.pack("=QQ", 1, port), 0) == 0
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.syscall(446, ruleset, 0) == 0
    os.close(ruleset)
"""


SHORT = """
for _ in range(100):
    s = socket.socket(type=socket.SOCK_DGRAM)
    try: s.bind(('', 7000))
    except OSError: failures += 1
    time.sleep(random.random() / 100)
    s.close()
"""


@pytest.fixture
def confined(lab: Lab, tmp_path: Path) -> Start:
    """Starts a program that may bind some TCP ports and no others."""

    def run(*ports: int) -> Program:
        program = Program(lab, tmp_path)
        program.do(f"exec({_LANDLOCK!r}, globals())")
        assert program.do(f"restrict(*{ports!r})") is None
        return program

    return run


def test_landlock_is_not_undone(lab: Lab, confined: Start) -> None:
    program = confined(7001)
    assert program.bind("s", 7000) == "EACCES"
    assert program.do("s.getsockname()") == ["0.0.0.0", 0]
    assert program.do("s.bind(('', 7001))") is None
    lab.wait_for(lambda: lab.table() == {"tcp/7001": LAN1})
    program.do("s.listen()")
    assert lab.reaches(7001)
    program.do("s.close()")
    lab.wait_for(lambda: lab.table() == {})


def test_landlock_is_inherited(lab: Lab, confined: Start) -> None:
    program = confined()
    lines = "import socket; s = socket.socket(); s.bind(('', 7000))"
    program.do("import subprocess")
    done = program.do(f"subprocess.run([sys.executable, '-c', {lines!r}], stderr=-3).returncode")
    assert done == 1
    lab.wait_for(lambda: lab.table() == {})
    assert program.bind("u", 7000, "DGRAM") is None  # of UDP nothing was said
    lab.wait_for(lambda: lab.table() == {"udp/7000": LAN1})


def test_another_hosts_port_is_in_use_for_the_confined_too(lab: Lab, confined: Start) -> None:
    lab.map("lan2", "tcp", 7000)
    program = confined(7000, 7001)
    assert program.bind("s", 7000) == "EADDRINUSE"
    assert program.do("s.bind(('', 7001))") is None
    lab.wait_for(lambda: lab.table() == {"tcp/7000": LAN2, "tcp/7001": LAN1})


def test_a_filter_of_the_programs_own_comes_first(lab: Lab, tmp_path: Path) -> None:
    """Of all filters' actions the strictest counts: seccomp(2)."""
    program = Program(lab, tmp_path)
    program.do("import errno, pyseccomp")
    program.do("rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)")
    program.do("rules.add_rule(pyseccomp.ERRNO(errno.EACCES), 'bind')")
    program.do("rules.load()")
    assert program.bind("s", 7000) == "EACCES"
    assert lab.table() == {}


def test_the_confined_can_bind_again_at_once(lab: Lab, confined: Start) -> None:
    """Nothing of natsup's keeps the port meanwhile, whether the kernel said yes or no."""
    program = confined(7000)
    program.do("failures = 0")
    program.do("import random")
    program.do(f"exec({SHORT!r}, globals())")
    assert program.do("failures") == 0
    stream = "s = socket.socket(); s.bind(('', 7000)); s.close()"
    program.do(f"exec('for _ in range(30): ' + {stream!r}, globals())")
    assert program.bind("s", 7005) == "EACCES"
    program.do("s.bind(('', 7000))")
    program.do("s.close()")
    assert program.bind("t", 7000) is None
    lab.wait_for(lambda: lab.table() == {"tcp/7000": LAN1})
    program.do("t.close()")
    lab.wait_for(lambda: lab.table() == {})


# --- not to be looked into ------------------------------------------------------------------------

# What container profiles do to natsup itself: the call fails, or kills.
PROFILE = """
import os, sys
import errno, pyseccomp
action = pyseccomp.KILL_PROCESS if sys.argv[1] == "kill" else pyseccomp.ERRNO(errno.EPERM)
rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
for name in sys.argv[2].split(","):
    rules.add_rule(action, name)
rules.load()
os.execvp(sys.argv[3], sys.argv[3:])
"""
PROFILES = [
    pytest.param(("refuse", "pidfd_getfd"), id="no copies"),
    pytest.param(("refuse", "pidfd_getfd,process_vm_readv"), id="no copies, no memory"),
    pytest.param(("kill", "pidfd_getfd,process_vm_readv"), id="killed for either"),
    pytest.param(("refuse", "pidfd_open,pidfd_getfd,kcmp,process_vm_readv"), id="no pidfds"),
    pytest.param(("kill", "pidfd_open,pidfd_getfd,kcmp,process_vm_readv"), id="killed for all"),
]


@pytest.fixture(params=PROFILES)
def unseen(lab: Lab, tmp_path: Path, request: pytest.FixtureRequest) -> Start:
    """Starts a program whose sockets natsup cannot copy."""
    wrapper = [sys.executable, "-W", "ignore", "-c", PROFILE, *request.param]

    def run(*words: str) -> Program:
        return Program(lab, tmp_path, *words, prefix=wrapper)

    return run


@pytest.mark.parametrize("way", ["events", "seccomp"])
@pytest.mark.parametrize(("family", "kind"), [("INET", "STREAM"), ("INET6", "DGRAM")])
def test_sockets_that_cannot_be_copied_are_published(
    lab: Lab, unseen: Start, family: str, kind: str, way: str
) -> None:
    program = unseen("--track-close", way)
    protocol = "tcp" if kind == "STREAM" else "udp"
    assert program.bind("s", 7000, kind, family) is None
    lab.wait_for(lambda: lab.table() == {f"{protocol}/7000": LAN1})
    if kind == "STREAM":
        program.do("s.listen()")
        assert lab.reaches(7000)
    assert program.bind("t", 7000, kind, family) == "EADDRINUSE"
    lab.wait_for(lambda: claims(program) == {7000: 1})
    program.do("s.close()")
    lab.wait_for(lambda: lab.table() == {})
    assert program.process.poll() is None


def test_sockets_of_one_port_are_counted_though_unseen(lab: Lab, unseen: Start) -> None:
    """Like the workers of a server, the old ones and the new ones."""
    program = unseen()
    for name in ("s", "t"):
        program.do(f"{name} = socket.socket()")
        program.do(f"{name}.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)")
        assert program.do(f"{name}.bind(('', 7000))") is None
    lab.wait_for(lambda: claims(program) == {7000: 2})
    program.do("s.close()")
    lab.wait_for(lambda: claims(program) == {7000: 1})
    assert lab.table() == {"tcp/7000": LAN1}
    program.do("t.close()")
    lab.wait_for(lambda: lab.table() == {})


def test_ipv6_alone_is_left_alone_though_unseen(lab: Lab, unseen: Start) -> None:
    lab.map("lan2", "tcp", 7000)
    program = unseen()
    for number in (7000, 7001):
        program.do("s = socket.socket(socket.AF_INET6)")
        program.do("s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)")
        assert program.do(f"s.bind(('', {number}))") is None
        program.do("kept = [s]")
    assert program.bind("u", 7002) is None
    lab.wait_for(lambda: lab.table() == {"tcp/7000": LAN2, "tcp/7002": LAN1})
    assert list(claims(program)) == [7002]


@pytest.mark.parametrize("servers", [("--servers", "all")])
def test_short_lives_leave_nothing(
    lab: Lab, tmp_path: Path, unseen: Start, servers: tuple[str, ...]
) -> None:
    program = unseen(*servers)
    program.do("import random")
    program.do("failures = 0")
    program.do(f"exec({SHORT!r}, globals())")
    assert program.do("failures") == 0
    lab.wait_for(lambda: lab.table() == {})
    assert claims(program) == {}


def claims(program: Program) -> dict[int, int]:
    return {m["port"]: m["claims"] for session in program.status() for m in session["mappings"]}


def test_another_hosts_port_is_in_use_for_the_unseen_too(lab: Lab, unseen: Start) -> None:
    lab.map("lan2", "tcp", 7000)
    program = unseen()
    assert program.bind("s", 7000) == "EADDRINUSE"
    assert program.do("s.getsockname()") == ["0.0.0.0", 0]
    assert program.do("s.bind(('', 7001))") is None
    lab.wait_for(lambda: lab.table() == {"tcp/7000": LAN2, "tcp/7001": LAN1})


def test_what_does_not_get_bound_is_not_published(lab: Lab, unseen: Start) -> None:
    program = unseen()
    assert program.bind("s", 7000) is None
    assert program.do("s.bind(('', 7001))") == "EINVAL"  # it is bound already
    lab.wait_for(lambda: lab.table() == {"tcp/7000": LAN1})
    assert program.do("socket.socket(socket.AF_UNIX).bind('')") is None
    lab.wait_for(lambda: list(claims(program)) == [7000])
