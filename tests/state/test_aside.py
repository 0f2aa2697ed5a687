"""Work aside, where no thread can be started."""

import os
import resource
import threading

import pytest
import trio

from natsup.state import aside


async def test_it_is_done_in_a_thread() -> None:
    assert await aside.run(threading.get_ident) != threading.get_ident()


async def test_its_own_errors_come_out() -> None:
    def fails() -> None:
        raise RuntimeError("of its own")

    with pytest.raises(RuntimeError, match="of its own"):
        await aside.run(fails)


def test_without_threads_it_is_done_here() -> None:
    """As a user whose processes are too many already."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setresuid(65534, 65534, 65534)
            resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))

            async def main() -> int:
                return await aside.run(threading.get_ident)

            status = 0 if trio.run(main) == threading.get_ident() else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
