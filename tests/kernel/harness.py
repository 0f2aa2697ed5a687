"""A child process under natsup's filter, and its listener in the test's hands."""

import os
import pickle
import select
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from natsup.supervisor import handover, unanswered
from natsup.supervisor.filter import Filter, build, install
from natsup.supervisor.listener import Listener
from natsup.supervisor.page import Page


class Child:
    """A forked child that runs a function under the filter and sends back what it returned."""

    def __init__(self, pid: int, listener: Listener, page: Page, results: int) -> None:
        self.pid = pid
        self.listener = listener
        self.page = page
        self._results = results
        self._reaped: int | None = None

    def receive(self) -> tuple[int, ...]:
        """The next notification: id, thread, flags, number, arch, ip, six arguments."""
        assert self.listener.receive_into(self.page)
        return self.page.received()

    def result(self) -> Any:
        """What the function returned. Fails with the child's traceback if it raised."""
        data = b""
        while chunk := os.read(self._results, 65536):
            data += chunk
        assert data, "the child ended without a result"
        kind, value = pickle.loads(data)
        assert kind == "returned", value
        return value

    def kill(self) -> None:
        if self._reaped is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()

    def wait(self) -> int:
        if self._reaped is None:
            self._reaped = os.waitpid(self.pid, 0)[1]
        return self._reaped

    def close(self) -> None:
        self.kill()
        os.close(self._results)
        if self.listener.fd >= 0:
            os.close(self.listener.fd)


@contextmanager
def supervised(
    function: Callable[[], Any], installer: Callable[[Filter], int] = install
) -> Iterator[Child]:
    """Run ``function`` in a child under the filter; the test answers its calls."""
    here, there = handover.pair()
    results, write_results = os.pipe()
    program = build()
    pid = os.fork()
    if pid == 0:
        _child(function, installer, program, there, write_results)
    there.close()
    os.close(write_results)
    word, _, fd = handover.receive(here)
    here.close()
    assert word == handover.LISTENER
    assert fd is not None
    child = Child(pid, Listener(fd), Page.create([]), results)
    try:
        yield child
    finally:
        child.close()


@contextmanager
def passing(child: Child) -> Iterator[None]:
    """Let all calls of the child pass, as anybody's supervisor may, until it has ended."""

    def step() -> None:
        child.listener.let_pass(child.receive()[0])

    with _in_background(child, step):
        yield


@contextmanager
def guarded(child: Child) -> Iterator[None]:
    """Do for the child what natsup's guard does without a supervisor, until it has ended."""

    def step() -> None:
        child.listener.pass_next(child.page)

    unanswered.settle(child.listener, child.page)
    child.listener.let_pass(child.page.last())
    with _in_background(child, step):
        yield


@contextmanager
def _in_background(child: Child, step: Callable[[], None]) -> Iterator[None]:
    def run() -> None:
        poll = select.poll()
        poll.register(child.listener.fd, select.POLLIN)
        while not child.listener.abandoned():
            if (child.listener.fd, select.POLLIN) in poll.poll(10_000):
                step()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield
    child.wait()
    thread.join(10)
    assert not thread.is_alive()


def _child(
    function: Callable[[], Any],
    installer: Callable[[Filter], int],
    program: Filter,
    there: handover.End,
    results: int,
) -> None:
    try:
        listener = installer(program)
        handover.send(there, handover.LISTENER, fd=listener)
        os.close(listener)
        there.close()
        try:
            answer = ("returned", function())
        except BaseException:
            answer = ("raised", traceback.format_exc())
        os.write(results, pickle.dumps(answer))
    finally:
        os._exit(0)
