"""Looking into the program: its memory and its sockets, from any of its threads."""

import ctypes
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from natsup.supervisor import abi, libc
from natsup.supervisor.target import (
    Inspector,
    Memory,
    Unreachable,
    borrow,
    cookie,
    program,
    thread_group,
)
from tests.kernel.harness import Child, supervised

ADDRESS = b"\2\0\x1b\x58" + bytes(12)  # AF_INET, port 7000, 0.0.0.0


def bind_and_tell() -> tuple[int, int, str]:
    """bind() through libc; the socket's cookie, the errno and where it ended up."""
    with socket.socket() as sock:
        number = libc.bind(sock.fileno(), ADDRESS)
        return cookie(sock), number, sock.getsockname()[0]


def in_a_thread(function: Callable[[], object]) -> object:
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def with_its_own_table() -> object:
    """A thread that shares no descriptors with its process (unshare(2), CLONE_FILES)."""

    def run() -> object:
        assert ctypes.CDLL(None).unshare(0x400) == 0
        return bind_and_tell()

    return in_a_thread(run)


def look(child: Child) -> tuple[int, bytes | None]:
    """The cookie of the socket that a held call names, and the address that it points to."""
    notification, tid, _, number, arch, _, *arguments = child.receive()
    memory = Memory()
    found = memory.bind_arguments(tid, number, arch, tuple(arguments))
    assert found is not None
    fd, pointer, length = found
    sock = borrow(child.listener, notification, tid, fd)
    assert sock is not None
    with sock:
        seen = cookie(sock), memory.read(tid, pointer, length)
        facts = Inspector().facts(sock, tid)
        assert (facts.domain, facts.kind, facts.protocol) == (2, 1, 6)
        assert not (facts.bound)
        assert not (facts.foreign)
        assert thread_group(tid) == child.pid
        assert program(tid) == (child.pid, Path(f"/proc/{child.pid}/comm").read_text().strip())
    child.listener.answer(notification, 0)
    return seen


@pytest.mark.parametrize(
    "function", [bind_and_tell, lambda: in_a_thread(bind_and_tell), with_its_own_table]
)
def test_any_threads_socket_can_be_borrowed(function: Callable[[], object]) -> None:
    with supervised(function) as child:
        seen = look(child)
        number, error, host = child.result()
        assert seen == (number, ADDRESS)
        assert (error, host) == (0, "0.0.0.0")


@pytest.fixture
def before_thread_pidfds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel before Linux 6.9: it refuses the flag."""
    monkeypatch.setattr(abi, "PIDFD_THREAD", 1 << 30)
    with pytest.raises(OSError, match="Invalid argument"):
        os.pidfd_open(os.getpid(), abi.PIDFD_THREAD)


@pytest.mark.usefixtures("before_thread_pidfds")
def test_without_pidfds_of_threads_the_leaders_will_do() -> None:
    with supervised(lambda: in_a_thread(bind_and_tell)) as child:
        seen = look(child)
        number, error, _ = child.result()
        assert seen == (number, ADDRESS)
        assert error == 0


@pytest.mark.usefixtures("before_thread_pidfds")
def test_without_pidfds_of_threads_the_leaders_number_is_not_taken_for_the_threads() -> None:
    with supervised(with_its_own_table) as child:
        notification, tid, _, _, _, _, fd, *_ = child.receive()
        with pytest.raises(Unreachable, match="descriptors of its own"):
            borrow(child.listener, notification, tid, fd)
        child.listener.let_pass(notification)
        assert child.result()[1] == 0


def test_what_is_no_socket_is_not_borrowed() -> None:
    def bind_a_pipe() -> list[int]:
        read, _ = os.pipe()
        return [libc.bind(read, ADDRESS), libc.bind(999, ADDRESS)]

    with supervised(bind_a_pipe) as child:
        for _ in range(2):
            notification, tid, _, _, _, _, fd, *_ = child.receive()
            assert borrow(child.listener, notification, tid, fd) is None
            child.listener.let_pass(notification)
        assert child.result() == [88, 9]  # ENOTSOCK, EBADF: the kernel's own


def test_what_cannot_be_read_is_none() -> None:
    with supervised(bind_and_tell) as child:
        notification, tid, _, _, _, _, _, pointer, *_ = child.receive()
        memory = Memory()
        assert memory.read(tid, 4, 16) is None
        assert memory.read(tid, pointer, 16) == ADDRESS
        child.listener.answer(notification, 0)
        child.kill()
        assert memory.read(tid, pointer, 16) is None


def test_a_socket_of_another_namespace_is_foreign() -> None:
    def elsewhere() -> object:
        assert ctypes.CDLL(None).unshare(0x40000000) == 0  # CLONE_NEWNET
        return bind_and_tell()

    with supervised(elsewhere) as child:
        notification, tid, _, _, _, _, fd, *_ = child.receive()
        sock = borrow(child.listener, notification, tid, fd)
        assert sock is not None
        with sock:
            assert Inspector().facts(sock, tid).foreign
        child.listener.let_pass(notification)
        assert child.result()[1] == 0


def test_another_label_is_another_confinement() -> None:
    """Where a security module gives labels, natsup binds for its own alone."""
    inspector = Inspector()
    own, inspector._label = inspector._label, b"natsup (enforce)\n"
    assert inspector.labelled(os.getpid())  # it has another, or none that can be read
    inspector._label = own
    assert not inspector.labelled(os.getpid())
