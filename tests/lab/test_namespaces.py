"""A program in namespaces, or below a root, of its own: a port is published if it is of natsup's
network, whatever else the program sees of the world."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab.lab import LAN1, LAN2, Lab
from tests.lab.program import Program
from tests.nobody import as_nobody

WAYS = pytest.mark.parametrize("way", ["events", "seccomp"])

_NETWORK, _MOUNTS = 0x40000000, 0x00020000  # CLONE_NEWNET, CLONE_NEWNS
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}


@contextmanager
def started_by(user: str, lab: Lab, *words: str) -> Iterator[Program]:
    """The program of root, or of nobody in particular."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        prefix = as_nobody() if user == "nobody" else []
        program = Program(lab, folder, *words, prefix=prefix)
        program.do("import ctypes, subprocess")
        program.do("libc = ctypes.CDLL(None)")
        yield program
        program.kill()  # before its folder goes


# What bind() says in a namespace where nothing is bound: ports, or the names of errnos.
_ELSEWHERE = """
import errno, socket
kept = []
def bind(address, kind=socket.SOCK_STREAM):
    sock = socket.socket(socket.AF_INET, kind)
    kept.append(sock)
    try: sock.bind(address)
    except OSError as error: return errno.errorcode[error.errno]
    return sock.getsockname()[1]
print(bind(("", 7000)), bind(("", 7000)), bind(("", 7001), socket.SOCK_DGRAM), bind(("", 80)),
      bind(("192.0.2.1", 7002)), kept[0].getsockname()[0])
"""


@pytest.mark.parametrize("user", ["root", "nobody"])
def test_another_network_is_not_published(lab: Lab, user: str) -> None:
    """There another host's port is nobody's, and what the kernel says is what comes out."""
    lab.map("lan2", "tcp", 7000)
    unshare = ["unshare", "--net"] if user == "root" else ["unshare", "--map-root-user", "--net"]
    prefix = as_nobody() if user == "nobody" else []
    plain = lab.run("lan1", [*prefix, *unshare, sys.executable, "-c", _ELSEWHERE])
    with started_by(user, lab) as program:
        command = f"[*{unshare!r}, sys.executable, '-c', {_ELSEWHERE!r}]"
        found = program.do(f"subprocess.run({command}, stdout=subprocess.PIPE, text=True).stdout")
        assert found == plain.stdout
        assert found.startswith("7000 EADDRINUSE 7001 ")
        assert program.bind("s", 7003) is None  # later than all of them
        assert lab.table() == {"tcp/7000": LAN2, "tcp/7003": LAN1}
        assert [m["port"] for session in program.status() for m in session["mappings"]] == [7003]


@WAYS
def test_it_is_the_sockets_network_that_counts(lab: Lab, tmp_path: Path, way: str) -> None:
    program = Program(lab, tmp_path, "--track-close", way)
    program.do("import ctypes")
    program.do("before = socket.socket()")
    assert program.do(f"ctypes.CDLL(None).unshare({_NETWORK})") == 0
    assert program.bind("after", 7000) is None
    assert program.do("before.bind(('', 7000))") is None
    program.serve("before")
    assert lab.table() == {"tcp/7000": LAN1}
    assert lab.fetch("tcp", 7000) == b"here"
    program.do("after.close()")  # the same number, and no reason for anything
    assert program.do("socket.socket().bind(('', 7000))") is None
    assert lab.table() == {"tcp/7000": LAN1}


# Binds a port of another host, then its own, and stays until its input ends.
_BIND_TWICE = """
import errno, socket, sys
sock = socket.socket()
try: sock.bind(("", 7000))
except OSError as error: print(errno.errorcode[error.errno], end=" ")
sock.bind(("", int(sys.argv[1])))
print(0, sock.getsockname()[1], flush=True)
sys.stdin.read()
"""


@WAYS
@pytest.mark.parametrize("user", ["root", "nobody"])
def test_users_of_its_own_are_no_obstacle(lab: Lab, user: str, way: str) -> None:
    """Whoever has made a user namespace may look into it (user_namespaces(7)), however deep."""
    lab.map("lan2", "tcp", 7000)
    with started_by(user, lab, "--track-close", way) as program:
        program.do("pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)")
        for number, levels in enumerate((1, 2), 1):
            command = ["unshare", "--user", "--map-root-user"] * levels
            words = f"[*{command!r}, sys.executable, '-c', {_BIND_TWICE!r}, '{7000 + number}']"
            program.do(f"child{number} = subprocess.Popen({words}, **pipes)")
            answer = program.do(f"child{number}.stdout.readline()")
            assert answer == f"EADDRINUSE 0 {7000 + number}\n"
        assert lab.table() == {"tcp/7000": LAN2, "tcp/7001": LAN1, "tcp/7002": LAN1}
        program.do("child1.communicate() and None")
        lab.wait_for(lambda: lab.table() == {"tcp/7000": LAN2, "tcp/7002": LAN1})
        program.do("child2.communicate() and None")
        lab.wait_for(lambda: lab.table() == {"tcp/7000": LAN2})


@WAYS
@pytest.mark.parametrize("how", ["chroot", "pivot_root"])
def test_below_a_root_of_its_own(lab: Lab, tmp_path: Path, how: str, way: str) -> None:
    """And where there is no /proc."""
    lab.map("lan2", "tcp", 7000)
    root = tmp_path / "root"
    root.mkdir()
    program = Program(lab, tmp_path, "--track-close", way)
    program.do("import ctypes")
    program.do("libc = ctypes.CDLL(None)")
    program.do(f"os.chdir({str(root)!r})")
    if how == "chroot":
        assert program.do("os.chroot('.')") is None
    else:
        private, bind, detach = 1 << 18 | 1 << 14, 1 << 12, 2  # MS_PRIVATE | MS_REC, MS_BIND, ...
        assert program.do(f"libc.unshare({_MOUNTS})") == 0
        assert program.do(f"libc.mount(None, b'/', None, {private}, None)") == 0
        assert program.do(f"libc.mount(b'.', b'.', None, {bind}, None)") == 0
        assert program.do(f"os.chdir({str(root)!r})") is None
        assert program.do(f"libc.syscall({_PIVOT_ROOT[os.uname().machine]}, b'.', b'.')") == 0
        assert program.do(f"libc.umount2(b'.', {detach})") == 0
        assert program.do("os.chdir('/')") is None
    assert program.do("os.listdir('/')") == []
    assert program.bind("s", 7000) == "EADDRINUSE"
    assert program.do("s.bind(('', 7001))") is None
    program.serve("s")
    assert lab.table() == {"tcp/7000": LAN2, "tcp/7001": LAN1}
    assert lab.fetch("tcp", 7001) == b"here"
    assert program.bind("t", 7002, "DGRAM") is None
    program.do("t.close()")
    lab.wait_for(lambda: lab.table() == {"tcp/7000": LAN2, "tcp/7001": LAN1})
