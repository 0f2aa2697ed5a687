"""What natsup needs is not to be had: the program's binds go on, and the log has one line of it."""

import contextlib
import errno
import os
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import watchers
from tests.lab.lab import LAN1, Lab
from tests.lab.program import NATSUP, Program
from tests.nobody import as_nobody

_NOFILE, _AS = resource.RLIMIT_NOFILE, resource.RLIMIT_AS

_WITHOUT_LOCKS = """
import errno, os, sys
import pyseccomp
rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
rules.add_rule(pyseccomp.ERRNO(errno.ENOLCK), "flock")
rules.load()
os.execvp(sys.argv[1], sys.argv[1:])
"""


# What makes descriptors, and what else it takes to look into a program: natsup's use of them
_MAKING = "openat,socket,eventfd2,timerfd_create,pidfd_open,pidfd_getfd,process_vm_readv"


@contextlib.contextmanager
def without(lab: Lab, pid: int, error: str) -> Iterator[None]:
    """While the block lasts, this error is all that a process gets of those calls: strace(1)."""
    inject = f"inject={_MAKING}:error={error}"
    command = ["strace", "-qq", "-f", "-o", "/dev/null", "-e", inject, "-p", str(pid)]
    strace = lab.popen("lan1", command)

    def traced() -> bool:
        threads = Path(f"/proc/{pid}/task").glob("*/status")
        return all("TracerPid:\t0\n" not in thread.read_text() for thread in threads)

    lab.wait_for(traced)
    yield
    strace.terminate()
    strace.wait()


def limit(pid: int, what: int, most: int) -> None:
    """Set a soft limit of a process; it can be raised again."""
    _, hard = resource.prlimit(pid, what)
    resource.prlimit(pid, what, (most, hard))


def warnings(log: str) -> list[str]:
    """What is said at this level, without times and sessions."""
    lines = [line for line in log.splitlines() if " WARNING " in line or " ERROR " in line]
    return [line.partition(" WARNING ")[2].rpartition(" [")[0] or line for line in lines]


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Everybody may write to it."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


def test_without_descriptors_binds_pass_until_there_are_some(lab: Lab, tmp_path: Path) -> None:
    program = Program(lab, tmp_path)
    assert program.bind("s", 7000) is None
    supervisor = program.supervisor()
    limit(supervisor, _NOFILE, 3)  # of new ones: those that are open stay
    for number in range(5):
        assert program.bind(f"t{number}", 7001 + number) is None
    assert program.bind("again", 7001) == "EADDRINUSE"
    assert warnings(program.log()) == [
        "binds pass, and are not published, for as long as natsup lacks what it takes to look at"
        " them: Too many open files"
    ]
    limit(supervisor, _NOFILE, 1000)
    assert program.bind("u", 7010) is None
    lab.wait_for(lambda: lab.table() == {"tcp/7000": LAN1, "tcp/7010": LAN1})
    assert program.supervisor() == supervisor


@pytest.mark.parametrize("error", ["ENFILE", "ENOMEM"])
def test_where_the_kernel_lacks_something_binds_pass_until_it_has_it_again(
    lab: Lab, tmp_path: Path, error: str
) -> None:
    """Its table of open files is full, for one."""
    program = Program(lab, tmp_path)
    assert program.bind("s", 7000) is None
    supervisor = program.supervisor()
    with without(lab, supervisor, error):
        for number in range(5):
            assert program.bind(f"t{number}", 7001 + number) is None
        assert program.bind("again", 7001) == "EADDRINUSE"
        program.do("t0.close()")
    assert warnings(program.log()) == [
        "binds pass, and are not published, for as long as natsup lacks what it takes to look at"
        f" them: {os.strerror(getattr(errno, error))}"
    ]
    assert program.bind("u", 7010) is None
    lab.wait_for(lambda: lab.table() == {"tcp/7000": LAN1, "tcp/7010": LAN1})
    assert program.supervisor() == supervisor


def test_without_memory_binds_go_on(lab: Lab, tmp_path: Path) -> None:
    """Whether the supervisor lives through it or another one takes its place."""
    program = Program(lab, tmp_path)
    assert program.bind("s", 7000) is None
    supervisor = program.supervisor()
    status = Path(f"/proc/{supervisor}/status").read_text()
    (size,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmSize:"))
    limit(supervisor, _AS, int(size) * 1024)
    program.do("socks = [socket.socket() for _ in range(30)]")
    assert program.do("[s.bind(('', 7001 + n)) for n, s in enumerate(socks)] and None") is None
    with contextlib.suppress(ProcessLookupError):  # it has ended
        limit(supervisor, _AS, resource.prlimit(supervisor, _AS)[1])
    assert program.bind("u", 7300) is None
    lab.wait_for(lambda: {"tcp/7000", "tcp/7300"} <= lab.table().keys(), 60)
    program.do("[s.close() for s in socks] and None")
    lab.wait_for(lambda: lab.table().keys() == {"tcp/7000", "tcp/7300"}, 60)


def test_a_supervisor_that_cannot_be_started_is_started_later(lab: Lab, open_folder: Path) -> None:
    """The user has too many processes: fork(2) says EAGAIN."""
    program = Program(lab, open_folder, prefix=as_nobody())
    assert program.bind("s", 7000) is None
    supervisor, guard = program.supervisor(), program.guard()

    def allow(processes: int) -> None:  # who has the same user may
        words = [*as_nobody(), "prlimit", f"--nproc={processes}:", "--pid", str(guard)]
        lab.run("lan1", words, check=True)

    allow(0)
    os.kill(supervisor, signal.SIGKILL)
    lab.wait_for(lambda: len(program.holders()) == 1)
    assert program.bind("t", 7001) is None
    assert program.do("t.getsockname()[1]") == 7001
    allow(4096)
    lab.wait_for(lambda: program.supervisor() != supervisor, 40)
    lab.wait_for(lambda: lab.table() == {"tcp/7000": LAN1, "tcp/7001": LAN1})
    program.do("s.close()")
    lab.wait_for(lambda: lab.table() == {"tcp/7001": LAN1})


def test_a_full_state_folder(lab: Lab, tmp_path: Path) -> None:
    log, state = tmp_path / "natsup.log", tmp_path / "state-lan1"
    state.mkdir()
    mount = f'mount -t tmpfs -o size=4k none {state}; exec "$@"'
    prefix = ["unshare", "--mount", "sh", "-euc", mount, "sh"]
    program = Program(lab, tmp_path, "--log", str(log), prefix=prefix)
    ports = range(7000, 7030)
    for number in ports:
        assert program.bind(f"s{number}", number) is None
    lab.wait_for(lambda: lab.table() == {f"tcp/{number}": LAN1 for number in ports})
    said = warnings(log.read_text())
    assert [one for one in said if not one.startswith("the history")] in (
        ["the journal cannot be written: no space left"],
        ["the journal cannot be written: No space left on device"],
    )
    assert len(said) <= 2
    program.kill()
    lab.wait_for(lambda: lab.table() == {})


def test_a_state_folder_that_cannot_be_written(lab: Lab, tmp_path: Path) -> None:
    log, state = tmp_path / "natsup.log", tmp_path / "state-lan1"
    state.mkdir()
    mount = f'mount --bind {state} {state}; mount -o remount,ro,bind {state}; exec "$@"'
    prefix = ["unshare", "--mount", "sh", "-euc", mount, "sh"]
    program = Program(lab, tmp_path, "--log", str(log), prefix=prefix)
    for number in (7000, 7001):
        assert program.bind(f"s{number}", number) is None
    assert lab.table() == {"tcp/7000": LAN1, "tcp/7001": LAN1}
    lab.wait_for(lambda: "the history" in log.read_text())
    (history, journal) = sorted(warnings(log.read_text()), key=len)
    assert history.endswith("Read-only file system; natsup log will not show everything")
    assert journal.startswith("no journal (")
    program.kill()
    lab.wait_for(lambda: lab.table() == {})


@pytest.mark.parametrize("survives", [True, False], ids=["it lives", "another supervisor"])
def test_a_state_folder_that_vanishes(lab: Lab, tmp_path: Path, survives: bool) -> None:
    """The journal is an open file still, and tells a second supervisor all of it."""
    log = tmp_path / "natsup.log"
    program = Program(lab, tmp_path, "--log", str(log))
    assert program.bind("s", 7000) is None
    supervisor = program.supervisor()
    shutil.rmtree(program.state)
    assert program.bind("t", 7001) is None
    if not survives:
        os.kill(supervisor, signal.SIGKILL)
        lab.wait_for(lambda: "goes on after" in log.read_text())
    assert program.bind("u", 7002) is None
    lab.wait_for(lambda: lab.table() == dict.fromkeys(("tcp/7000", "tcp/7001", "tcp/7002"), LAN1))
    program.do("s.close()")
    lab.wait_for(lambda: lab.table() == dict.fromkeys(("tcp/7001", "tcp/7002"), LAN1))
    program.kill()
    lab.wait_for(lambda: lab.table() == {})
    lab.wait_for(lambda: watchers.watchers(lab) == {})
    said = warnings(log.read_text())
    assert len([one for one in said if "journal" in one]) <= 1
    assert len([one for one in said if "history" in one]) <= 2  # one of each supervisor


@pytest.mark.parametrize("damage", ["torn", "lost"])
def test_a_damaged_journal_is_taken_over_as_far_as_it_can_be_read(
    lab: Lab, tmp_path: Path, damage: str
) -> None:
    program = Program(lab, tmp_path)
    assert program.bind("s", 7000) is None
    lab.wait_for(lambda: lab.table() == {"tcp/7000": LAN1})
    before = program.supervisor()
    (journal,) = program.state.glob("sessions/*.jsonl")
    with journal.open("r+b") as file:  # the same file, as the guard has it open
        if damage == "torn":
            file.seek(0, os.SEEK_END)
            file.write(b'\xff{"port": Infinity}\n{"port": {"port": []}}\n[[[\n{"socket": {"cookie"')
        else:
            file.write(b"\0" * 40)
    os.kill(before, signal.SIGKILL)
    lab.wait_for(lambda: program.log().count("router found") == 2)
    assert program.bind("t", 7001) is None
    lab.wait_for(lambda: lab.table() == {"tcp/7000": LAN1, "tcp/7001": LAN1})
    lost = program.log().count("the journal of this session is lost")
    assert lost == (damage == "lost")
    program.kill()
    left = {"tcp/7000": LAN1} if lost else {}
    lab.wait_for(lambda: lab.table() == left)
    done = lab.run("lan1", [NATSUP, "clean"], env=program.environ)
    assert (done.returncode, done.stderr) == (0, "")
    if lost:
        lab.unmap("lan1", "tcp", 7000)  # as the end of its lease would


def test_a_file_system_without_locks(lab: Lab, tmp_path: Path) -> None:
    """There is no journal, since it would count as a dead session's; all else is as always."""
    prefix = [sys.executable, "-W", "ignore", "-c", _WITHOUT_LOCKS]
    program = Program(lab, tmp_path, prefix=prefix)
    assert program.bind("s", 7000) is None
    assert lab.table() == {"tcp/7000": LAN1}
    program.do("s.close()")
    lab.wait_for(lambda: lab.table() == {})
    assert program.bind("s", 7001) is None
    (said,) = warnings(program.log())
    assert said.startswith("no journal (")
    assert "No locks available" in said
    program.kill()
    lab.wait_for(lambda: lab.table() == {})
