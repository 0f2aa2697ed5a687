"""What natsup leans on of seccomp_unotify(2), on the kernel that runs the tests."""

import ctypes
import errno
import os
import select
import signal
import socket
import threading
import time

import pytest

from natsup.supervisor import abi, libc
from natsup.supervisor.filter import Filter, FilterRefused, build, install, under_natsup
from natsup.supervisor.listener import is_probe
from natsup.supervisor.page import BINDING, GUARDS_SLOTS, HELD, SLOTS, Page
from tests.kernel.harness import guarded, supervised

WILDCARD = ("0.0.0.0", 0)


def bind_once() -> int:
    """bind() of a fresh TCP socket, as an errno."""
    with socket.socket() as sock:
        try:
            sock.bind(WILDCARD)
        except OSError as error:
            return error.errno or -1
        return 0


def test_a_call_that_is_passed_is_carried_out() -> None:
    with supervised(bind_once) as child:
        assert child.listener.let_pass(child.receive()[0])
        assert child.result() == 0


def test_a_call_that_is_answered_is_not_carried_out() -> None:
    def bind_and_look() -> tuple[int, int]:
        with socket.socket() as sock:
            try:
                sock.bind(WILDCARD)
            except OSError as error:
                return error.errno or -1, sock.getsockname()[1]
            return 0, sock.getsockname()[1]

    with supervised(bind_and_look) as child:
        assert child.listener.answer(child.receive()[0], errno.EADDRINUSE)
        assert child.result() == (errno.EADDRINUSE, 0)


def test_the_struct_must_be_zeroed() -> None:
    with supervised(bind_once) as child:
        buffer = ctypes.create_string_buffer(b"\1" * abi.NOTIFICATION.size)
        receive = libc.ioctl(child.listener.fd, abi.NOTIF_RECV, ctypes.addressof(buffer))
        assert receive() == -1
        assert libc.error().errno == errno.EINVAL
        assert child.listener.let_pass(child.receive()[0])
        assert child.result() == 0


def test_the_pid_is_a_thread_id() -> None:
    def from_a_thread() -> tuple[int, int]:
        found: list[int] = []

        def run() -> None:
            found.append(threading.get_native_id())
            bind_once()

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        return os.getpid(), found[0]

    with supervised(from_a_thread) as child:
        notification = child.receive()
        child.listener.let_pass(notification[0])
        process, thread = child.result()
        assert notification[1] == thread != process


def test_nobody_waits_after_a_kill() -> None:
    with supervised(bind_once) as child:
        notification = child.receive()[0]
        assert child.listener.valid(notification)
        child.kill()
        assert not child.listener.valid(notification)
        assert not child.listener.let_pass(notification)
        assert not child.listener.answer(notification, 0)


def test_a_second_answer_is_no_error() -> None:
    with supervised(bind_once) as child:
        notification = child.receive()[0]
        assert child.listener.answer(notification, errno.EACCES)
        assert not child.listener.let_pass(notification)
        assert child.result() == errno.EACCES


def test_the_end_of_the_last_user_is_seen() -> None:
    with supervised(bind_once) as child:
        end = child.listener.end()
        child.listener.let_pass(child.receive()[0])
        assert child.result() == 0
        child.wait()
        assert select.select([end], [], [], 10)[0] == [end]
        assert child.listener.abandoned()
        os.close(end)


def test_a_waiting_call_is_not_the_end() -> None:
    with supervised(bind_once) as child:
        end = child.listener.end()
        poll = select.poll()
        poll.register(child.listener.fd, select.POLLIN)
        poll.poll(10_000)  # the call has arrived
        assert select.select([end], [], [], 0)[0] == []
        assert not child.listener.abandoned()
        child.listener.let_pass(child.receive()[0])
        assert child.result() == 0
        os.close(end)


def interrupted(flags: int) -> int:
    """The errno of a bind() whose thread takes a signal after the call has been received."""

    def with_handler() -> int:
        signal.signal(signal.SIGUSR1, lambda *_: None)
        signal.siginterrupt(signal.SIGUSR1, True)
        # Python retries nothing here: its bind() reports EINTR like C's.
        sock = socket.socket()
        address = b"\2\0" + bytes(14)
        return libc.bind(sock.fileno(), address)

    def installer(program: Filter) -> int:
        return libc.seccomp_set_filter(
            program.number, program.program, abi.SECCOMP_FILTER_FLAG_NEW_LISTENER | flags
        )

    with supervised(with_handler, installer) as child:
        notification = child.receive()[0]
        os.kill(child.pid, signal.SIGUSR1)
        if not flags:
            deadline = time.monotonic() + 10
            while child.listener.valid(notification):
                assert time.monotonic() < deadline
        else:
            with open(f"/proc/{child.pid}/status") as file:
                pending = next(line for line in file if line.startswith("ShdPnd:"))
            assert int(pending.split()[1], 16) & 1 << (signal.SIGUSR1 - 1)
        child.listener.let_pass(notification)
        return int(child.result())


def test_a_received_call_sleeps_through_signals() -> None:
    assert interrupted(abi.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV) == 0


def test_without_the_flag_it_would_be_interrupted() -> None:
    assert interrupted(0) == errno.EINTR


def test_without_a_listener_every_call_fails_for_good() -> None:
    def bind_when_told() -> list[int]:
        signal.sigwait({signal.SIGUSR1})
        return [bind_once(), bind_once()]

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        with supervised(bind_when_told) as child:
            os.close(child.listener.fd)
            child.listener.fd = -1
            os.kill(child.pid, signal.SIGUSR1)
            assert child.result() == [errno.ENOSYS, errno.ENOSYS]
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})


def test_another_process_answers_what_the_dead_one_received() -> None:
    """The guard's duty: the ids stand in the page, and any copy of the listener will do."""

    def bind_five_times() -> list[int]:
        return [bind_once() for _ in range(5)]

    with supervised(bind_five_times) as child:
        supervisor = os.fork()
        if supervisor == 0:
            page = Page(child.page.fd)
            child.listener.receive_into(page)
            page.keep(page.received()[0], 0, -1)
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(supervisor, 0)
        assert [call.notification for call in child.page.unanswered()] == [child.page.last()]
        with guarded(child):
            assert child.result() == [0] * 5


def test_the_kernel_allows_one_listener() -> None:
    def install_again() -> str:
        try:
            install(build())
        except FilterRefused as error:
            return str(error)
        return "installed"

    with supervised(install_again) as child:
        assert "run natsup outside of it" in child.result()


def test_synchronous_wake_up() -> None:
    release = tuple(int(part) for part in os.uname().release.split(".")[:2])
    with supervised(bind_once) as child:
        assert child.listener.wake_in_step() == (release >= (6, 6))
        child.listener.let_pass(child.receive()[0])
        assert child.result() == 0


@pytest.mark.parametrize(("uid", "expected"), [(0, 0), (65534, 1)])
def test_no_new_privs_only_without_cap_sys_admin(uid: int, expected: int) -> None:
    def no_new_privs() -> int:
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("NoNewPrivs:"))

    def installer(program: Filter) -> int:
        os.setuid(uid)
        return install(program)

    assert os.getuid() == 0, "this test needs root"
    with supervised(no_new_privs, installer) as child:
        assert child.result() == expected


def test_the_probe_tells_natsup_from_nobody() -> None:
    assert libc.bind(-1, b"", abi.PROBE_LENGTH) == errno.EBADF
    assert not under_natsup()


def test_the_guard_answers_the_probe() -> None:
    with supervised(under_natsup) as child, guarded(child):
        assert child.result()


@pytest.mark.parametrize(
    ("descriptor", "length", "expected"),
    [
        (-1, abi.PROBE_LENGTH, True),
        (-1, 16, False),
        (3, abi.PROBE_LENGTH, False),
    ],
)
def test_nothing_but_the_probe_is_one(descriptor: int, length: int, expected: bool) -> None:
    with supervised(lambda: libc.bind(descriptor, bytes(16), length)) as child:
        notification = child.receive()
        assert is_probe(notification) == expected
        child.listener.let_pass(notification[0])
        assert child.result() != errno.ENOTUNIQ


def test_a_caller_that_goes_before_it_is_received_holds_nothing_up() -> None:
    """The guard waits for a call with poll(2), never inside RECV, which on an older kernel does
    not end when the last caller goes."""

    def bind_in_a_child() -> None:
        os.close(end)
        if os.fork() == 0:
            os.read(living, 1)  # uses the filter, and calls nothing
            os._exit(0)
        bind_once()

    living, end = os.pipe()
    with supervised(bind_in_a_child) as child:
        os.close(living)
        poll = select.poll()
        poll.register(child.listener.fd, select.POLLIN)
        assert poll.poll(10_000) == [(child.listener.fd, select.POLLIN)]
        child.kill()
        guard = threading.Thread(target=child.listener.pass_next, args=[child.page], daemon=True)
        guard.start()
        guard.join(10)
        held_up = guard.is_alive()
        os.close(end)
        assert not held_up


def test_a_page_has_room_for_many_calls() -> None:
    page = Page.create([b"one", b"", b"three"])
    assert page.texts() == [b"one", b"", b"three"]
    slots = [
        page.keep(number + 1, number + 2, number + 3) for number in range(SLOTS - GUARDS_SLOTS)
    ]
    assert page.keep(1, 2, 3) is None
    assert slots[7] is not None
    page.stage(slots[7], BINDING)
    other = Page(page.fd)
    found = [
        (call.notification, call.thread, call.descriptor, call.stage) for call in other.unanswered()
    ]
    stages = [HELD] * (SLOTS - GUARDS_SLOTS)
    stages[7] = BINDING
    assert found == [(n + 1, n + 2, n + 3, stage) for n, stage in enumerate(stages)]
    guards = Page(page.fd, guards=True)
    own = [guards.keep(1, 2, 3) for _ in range(GUARDS_SLOTS)]
    assert set(own).isdisjoint(slots)
    assert guards.keep(1, 2, 3) is None
    for slot in (*slots, *own):
        assert slot is not None
        page.drop(slot)
    assert other.unanswered() == []
    assert page.keep(1, 2, 3) in slots
    os.close(page.fd)
