"""Who of natsup's still runs when a test has ended: sessions, guards and launchers.

They are known by a variable in their environment, which all that a test starts inherits: of
processes that have left for sessions, users and namespaces of their own nothing else tells whose
they are.
"""

import contextlib
import os
import signal
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

VARIABLE = "TEST_OF_NATSUP"
_PATIENCE = 20.0  # seconds; a session without a router gives up after five
_PAUSE = 0.01


@contextmanager
def marked(name: str) -> Iterator[bytes]:
    """All that is started in the block is known by the mark that this gives."""
    value = f"{os.getpid()} {name}"
    os.environ[VARIABLE] = value
    try:
        yield f"{VARIABLE}={value}".encode()
    finally:
        del os.environ[VARIABLE]


def natsups(mark: bytes, besides: Collection[int] = ()) -> dict[int, str]:
    """natsup's own processes that have a mark, by their pids, and their command lines."""
    found = {}
    for name in os.listdir("/proc"):
        if not name.isdecimal() or int(name) in besides:
            continue
        folder = Path("/proc", name)
        with contextlib.suppress(OSError):
            if mark not in (folder / "environ").read_bytes().split(b"\0"):
                continue
            words = (folder / "cmdline").read_bytes()
            called = (folder / "comm").read_text()
            if called.startswith("natsup") or b"natsup.supervisor" in words:
                found[int(folder.name)] = words.replace(b"\0", b" ").decode(errors="replace")
    return found


def expect_none(mark: bytes, besides: Collection[int] = ()) -> None:
    """Give natsup's processes the time that they need to end. Fails if some have not, and ends
    them. ``besides``: pids of those that are to go on."""
    deadline = time.monotonic() + _PATIENCE
    while found := {pid: words for pid, words in natsups(mark).items() if pid not in besides}:
        if time.monotonic() > deadline:
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            pytest.fail(f"natsup still runs after the test: {found}", pytrace=False)
        time.sleep(_PAUSE)
