"""A log that nobody reads holds nobody up."""

import fcntl
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from natsup.supervisor import log
from tests.supervisor.conftest import NATSUP

_PID_1 = ["unshare", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"]


@pytest.fixture
def top() -> Iterator[logging.Logger]:
    """The logger of all natsup, as it was afterwards."""
    found = logging.getLogger("natsup")
    before = found.handlers[:], found.level, found.propagate, logging.raiseExceptions
    yield found
    for handler in found.handlers:
        if handler not in before[0]:
            handler.close()
    found.handlers[:], found.level, found.propagate, logging.raiseExceptions = before


def test_a_journal_that_reads_nothing(
    top: logging.Logger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "journal")
    monkeypatch.setattr(log, "_JOURNAL", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(path)
        log.hold(verbose=False)
        log.set_up("journal", file=None, folder=tmp_path, session="s")

        def write() -> None:
            for number in range(2000):  # more than a datagram socket's queue takes
                top.info("line %d", number)

        thread = threading.Thread(target=write, daemon=True)
        thread.start()
        thread.join(20)
        assert not thread.is_alive()
        assert b"MESSAGE\n\x06\0\0\0\0\0\0\0line 0\n" in journal.recv(4096)


def full_pipe() -> tuple[int, int]:
    """A pipe that takes nothing more."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    os.write(write, b"x" * fcntl.fcntl(write, fcntl.F_GETPIPE_SZ))
    os.set_blocking(write, True)
    return read, write


def test_a_standard_error_that_is_full(environ: dict[str, str]) -> None:
    """As PID 1 natsup logs there; the program's bind() does not wait for whoever reads it."""
    script = "import socket; socket.socket().bind(('', 7003)); print('bound')"
    read, write = full_pipe()
    command = [*_PID_1, NATSUP, "exec", "--verbose", "--", sys.executable, "-c", script]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=write, env=environ, timeout=60)
    assert (done.returncode, done.stdout) == (0, b"bound\n")
    flags = fcntl.fcntl(write, fcntl.F_GETFL)
    assert not flags & os.O_NONBLOCK  # the open file is the program's too
    os.close(read)
    os.close(write)


@pytest.mark.parametrize("kind", ["pipe", "file", "socket"])
def test_where_pid_1_logs(environ: dict[str, str], tmp_path: Path, kind: str) -> None:
    """To the standard error, whatever it is; a socket cannot be opened anew, so there to a file."""
    path = tmp_path / "errors"
    command = [*_PID_1, NATSUP, "exec", "--", "sh", "-c", "echo first >&2"]
    if kind == "pipe":
        done = subprocess.run(command, stderr=subprocess.PIPE, env=environ, timeout=60)
        text = done.stderr.decode()
    elif kind == "file":
        with path.open("wb") as file:
            subprocess.run(command, stderr=file, env=environ, timeout=60, check=True)
        text = path.read_text()
    else:
        here, there = socket.socketpair()
        with here:
            subprocess.run(command, stderr=there.fileno(), env=environ, timeout=60, check=True)
            there.close()
            with here.makefile() as lines:
                assert lines.read() == "first\n"
        text = "first\n" + Path(environ["NATSUP_STATE_DIR"], "log").read_text()
    assert "first\n" in text
    assert "session for sh" in text


def test_a_log_that_is_a_fifo(environ: dict[str, str]) -> None:
    """A bind() does not wait until somebody reads it."""
    folder = Path(environ["NATSUP_STATE_DIR"])
    folder.mkdir()
    os.mkfifo(folder / "log")
    script = "import socket; socket.socket().bind(('', 7000)); print('bound')"
    command = ["unshare", "--net", NATSUP, "exec", "--", sys.executable, "-c", script]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=15)
    assert (done.returncode, done.stdout, done.stderr) == (0, "bound\n", "")


def test_what_comes_before_the_log_is_in_it(top: logging.Logger, tmp_path: Path) -> None:
    log.hold(verbose=False)
    logging.getLogger("natsup.calls").warning("early")
    logging.getLogger("natsup.calls").debug("not asked for")
    for number in range(log.Held.MOST):
        top.info("line %d", number)
    log.set_up("file", file=None, folder=tmp_path, session="s")
    top.info("late")
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines[0].endswith("WARNING early [s]")
    assert lines[-1].endswith("INFO    late [s]")
    assert len(lines) == log.Held.MOST + 1


def test_where_no_file_can_be_written_the_journal_is_told(
    top: logging.Logger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, folder = tmp_path / "journal", tmp_path / "file"
    folder.write_text("in the way")
    monkeypatch.setattr(log, "_JOURNAL", str(path))
    log.hold(verbose=False)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(path))
        top.warning("no journal")
        log.set_up("file", file=None, folder=folder, session="s")
        assert journal.recv(4096).endswith(b"no journal\n")
