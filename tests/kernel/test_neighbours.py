"""Sessions see of each other which ports they want, through names of unix sockets."""

import ctypes
import os
import signal
from collections.abc import Iterator

import pytest
import trio
import trio.testing

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
    mine: Announcements = one
    _: Neighbours = mine
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


async def test_who_comes_while_it_is_removed_waits(
    one: Announcements, other: Announcements
) -> None:
    done = trio.Event()

    async def wait() -> None:
        other.announce(TCP)
        await other.removed(TCP)
        done.set()

    async with trio.open_nursery() as nursery:
        with one.removing(TCP) as free:
            assert free
            with other.removing(TCP) as also, other.removing(UDP) as another:
                assert (also, another) == (False, True)
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            await other.removed(UDP)
            assert not done.is_set()
    assert done.is_set()
    with one.removing(TCP) as free:
        assert not free  # it is wanted by now


async def test_a_removal_without_end_is_not_waited_for(
    one: Announcements, other: Announcements, autojump_clock: trio.testing.MockClock
) -> None:
    with one.removing(TCP):
        await other.removed(TCP)
        assert trio.current_time() == 1


async def test_a_removal_ends_with_its_session(other: Announcements) -> None:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        with Announcements("dying").removing(TCP) as free:
            os.write(write, b"x" if free else b"-")
            signal.pause()
    assert os.read(read, 1) == b"x"
    async with trio.open_nursery() as nursery:
        with trio.fail_after(0.9):
            nursery.start_soon(other.removed, TCP)
            await trio.testing.wait_all_tasks_blocked()
            os.kill(pid, signal.SIGKILL)
            await other.removed(TCP)
    await trio.to_thread.run_sync(os.waitpid, pid, 0)
    os.close(read)
    os.close(write)
