"""Whoever makes the call, it is the program's: threads, children, other users."""

import errno
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.lab import LAN1, LAN2, Lab
from tests.lab.program import NATSUP, Program
from tests.nobody import as_nobody

# A kernel before Linux 6.9 as far as pidfds go: there are none of threads.
_WITHOUT_PIDFD_THREAD = """
import errno, os, sys
import pyseccomp
rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
flags = pyseccomp.Arg(1, pyseccomp.EQ, os.O_EXCL)
rules.add_rule(pyseccomp.ERRNO(errno.EINVAL), "pidfd_open", flags)
rules.load()
os.execvp(sys.argv[1], sys.argv[1:])
"""
KERNELS = [
    pytest.param([], id="this kernel"),
    pytest.param(
        [sys.executable, "-W", "ignore", "-c", _WITHOUT_PIDFD_THREAD], id="no pidfds of threads"
    ),
]
NAMES = ["thread", "vfork", "clone-files", "pid-namespace", "own-table", "leaderless"]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("way", ["events", "seccomp"])
def test_all_kinds_of_threads_and_children(
    lab: Lab, tmp_path: Path, way: str, kernel: list[str]
) -> None:
    lab.map("lan2", "tcp", 7000)
    source, program = Path(__file__).with_name("threads.c"), tmp_path / "threads"
    subprocess.run(["gcc", "-pthread", "-o", str(program), str(source)], check=True)
    environ = {**os.environ, "NATSUP_STATE_DIR": str(tmp_path / "state")}
    process = lab.popen(
        "lan1",
        [*kernel, NATSUP, "exec", "--track-close", way, "--", str(program)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environ,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    found = [process.stdout.readline().split() for _ in NAMES]
    assert sorted(name for name, *_ in found) == sorted(NAMES)
    ports = {int(line[3]) for line in found}
    assert {tuple(map(int, line[1:3])) for line in found} == {(errno.EADDRINUSE, 0)}
    assert ports == set(range(7001, 7007))
    others = {"tcp/7000": LAN2}
    lab.wait_for(lambda: lab.table() == others | {f"tcp/{port}": LAN1 for port in ports})
    process.stdin.write("close\n")
    process.stdin.flush()
    assert process.stdout.readline() == "closed\n"
    lab.wait_for(lambda: lab.table() == others)
    process.stdin.close()
    assert process.wait(20) == 0
    lab.wait_for(lambda: list(tmp_path.glob("state/sessions/*")) == [])


# --- other users --------------------------------------------------------------------------------

# Sockets share a port by SO_REUSEPORT if one user owns them all. This one says who that is.
_SHARE = r"""
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>

int main(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(7000)};
    int one = 1, sock = socket(AF_INET, SOCK_STREAM, 0);
    struct stat seen;

    setsockopt(sock, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one));
    one = bind(sock, (struct sockaddr *)&address, sizeof(address)) ? errno : 0;
    fstat(sock, &seen);
    printf("%d %d\n", one, (int)seen.st_uid);
    fflush(stdout);
    getchar();
    return 0;
}
"""
_OWNER, _STRANGER = 65534, 65533


@pytest.fixture
def share() -> Iterator[Path]:
    """A folder open to everybody: in it the program, plain and set-user-ID for ``_OWNER``."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "share.c").write_text(_SHARE)
        for program, mode in (("plain", 0o755), ("owned", 0o755 | stat.S_ISUID)):
            words = ["gcc", "-o", program, "share.c"]
            subprocess.run(words, check=True, cwd=folder)
            os.chown(folder / program, _OWNER, -1)  # which takes set-user-ID away
            (folder / program).chmod(mode)
        yield folder


def said(lab: Lab, folder: Path, command: list[str]) -> list[int]:
    environ = {**os.environ, "NATSUP_STATE_DIR": str(folder / "state")}
    pipe = subprocess.PIPE
    process = lab.popen("lan1", command, stdin=pipe, stdout=pipe, text=True, env=environ)
    assert process.stdout is not None
    return [int(word) for word in process.stdout.readline().split()]


def test_a_port_is_the_owners_of_the_socket(lab: Lab, tmp_path: Path, share: Path) -> None:
    """Not natsup's, which is root here: its reservation counts as the program's."""
    natsup = [NATSUP, "exec", "--"]
    owned, plain = str(share / "owned"), str(share / "plain")
    assert said(lab, tmp_path, [owned]) == [0, _OWNER]
    assert lab.table() == {}
    assert said(lab, tmp_path, [*natsup, owned]) == [0, _OWNER]
    assert lab.table() == {"tcp/7000": LAN1}
    assert said(lab, tmp_path, [*natsup, plain]) == [errno.EADDRINUSE, 0]
    stranger = ["setpriv", f"--reuid={_STRANGER}", "--clear-groups", plain]
    assert said(lab, tmp_path, [*natsup, *stranger]) == [errno.EADDRINUSE, _STRANGER]


def test_who_gives_root_up_is_served_by_root(lab: Lab, tmp_path: Path) -> None:
    """A daemon that binds after it has become somebody else."""
    program = Program(lab, tmp_path)
    assert program.do("os.setgroups([])") is None
    assert program.do(f"os.setresuid(*[{_OWNER}] * 3)") is None
    assert program.bind("s", 7000) is None
    assert lab.table() == {"tcp/7000": LAN1}
    assert program.do("os.fstat(s.fileno()).st_uid") == _OWNER
    assert program.bind("t", 80) == "EACCES"


_DUMPABLE = "ctypes.CDLL(None).prctl(4, {}, 0, 0, 0)"  # PR_SET_DUMPABLE


def test_what_may_not_be_dumped_is_served_by_root(lab: Lab, tmp_path: Path) -> None:
    program = Program(lab, tmp_path)
    program.do("import ctypes")
    assert program.do(_DUMPABLE.format(0)) == 0
    assert program.bind("s", 7000) is None
    assert lab.table() == {"tcp/7000": LAN1}


def test_what_may_not_be_dumped_is_nobodys_to_look_into(lab: Lab) -> None:
    """It is passed, and the log says so, once."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        lab.map("lan2", "tcp", 7000)
        program = Program(lab, folder, prefix=as_nobody())
        program.do("import ctypes")
        assert program.do(_DUMPABLE.format(0)) == 0
        assert program.bind("s", 7000) is None
        assert program.bind("t", 7001) is None
        assert program.bind("u", 7001) == "EADDRINUSE"
        lab.wait_for(lambda: "does not let natsup look into the program" in program.log())
        assert program.log().count("does not let natsup look into the program") == 1
        assert program.do(_DUMPABLE.format(1)) == 0
        assert program.bind("v", 7002) is None
        assert lab.table() == {"tcp/7000": LAN2, "tcp/7002": LAN1}
        program.kill()
        lab.wait_for(lambda: lab.table() == {"tcp/7000": LAN2})
