"""Sessions see of each other which ports they want, through names of unix sockets."""

import ctypes
import os
import signal
from collections.abc import Iterator

import pytest

from natsup.state.gateway import Neighbours
from natsup.state.model import Port, Protocol
from natsup.supervisor.neighbours import Announcements

TCP, UDP, LONGER = Port(Protocol.TCP, 700), Port(Protocol.UDP, 700), Port(Protocol.TCP, 7000)


@pytest.fixture
def one() -> Iterator[Announcements]:
    found = Announcements(f"one-{os.getpid()}")
    yield found
    found.close()


@pytest.fixture
def other() -> Iterator[Announcements]:
    found = Announcements(f"other-{os.getpid()}")
    yield found
    found.close()


def test_what_another_wants_is_seen(one: Announcements, other: Announcements) -> None:
    mine: Neighbours = one
    mine.announce(TCP)
    mine.announce(TCP)
    assert not mine.want(TCP)  # its own word is not another's
    assert other.want(TCP)
    assert not other.want(UDP)
    assert not other.want(LONGER)
    other.announce(TCP)
    assert mine.want(TCP)
    mine.withdraw(TCP)
    assert not other.want(TCP)
    mine.withdraw(TCP)


def test_the_word_of_the_dead_does_not_count(other: Announcements) -> None:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        dying = Announcements("dead")
        dying.announce(TCP)
        os.write(write, b"x")
        signal.pause()
    os.read(read, 1)
    seen = other.want(TCP)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert seen
    assert not other.want(TCP)
    os.close(read)
    os.close(write)


def test_another_network_is_another_router(one: Announcements) -> None:
    one.announce(TCP)
    pid = os.fork()
    if pid == 0:
        ctypes.CDLL(None).unshare(0x40000000)  # CLONE_NEWNET
        os._exit(Announcements("elsewhere").want(TCP))
    assert os.waitpid(pid, 0)[1] == 0
