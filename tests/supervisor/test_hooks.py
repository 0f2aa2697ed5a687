"""Hooks' commands, real ones, told of events that never were."""

import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from natsup.state.happenings import Event, What
from natsup.state.history import Entry
from natsup.state.model import Port, Protocol
from natsup.supervisor.hook_output import MOST_LINES, Lines
from natsup.supervisor.hooks import Hooks
from natsup.supervisor.occasions import MAPPED


@asynccontextmanager
async def running(
    command: str, folder: Path, *, ports: int = 1, limit: float = 10
) -> AsyncIterator[Hooks]:
    """Hooks that have been told of ports which the router has come to forward."""
    hooks = Hooks({MAPPED: command}, str(folder), os.environ, {}, limit=limit)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hooks.run)
        for number in range(7000, 7000 + ports):
            event = Event(What.MAPPED, Port(Protocol.TCP, number))
            hooks.tell(Entry(1.0, "5-abc", ("a",), event))
        yield hooks
        nursery.cancel_scope.cancel()


async def test_a_command_that_prints_much_has_a_pipe_like_any_other(tmp_path: Path) -> None:
    command = "grep ^flags: /proc/$$/fdinfo/1 >flags; seq 100000; echo $? >done"
    async with running(command, tmp_path) as hooks:
        await hooks.close(10)
    flags = int((tmp_path / "flags").read_text().split()[1], 8)
    assert flags & os.O_NONBLOCK == 0
    assert (tmp_path / "done").read_text() == "0\n"


@pytest.mark.parametrize("flood", ["while :; do seq 10000 20000; done", "yes ''"])
async def test_commands_that_print_without_end_cost_the_supervisor_nothing(
    tmp_path: Path, flood: str
) -> None:
    before = time.thread_time()
    async with running(flood, tmp_path, ports=4, limit=1) as hooks:
        await hooks.close(10)
    spent = time.thread_time() - before
    assert spent < 0.3  # of a second and more


class Heard(logging.Handler):
    """Keeps what is logged, and tells of the last of so many lines."""

    def __init__(self, lines: int) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.enough = trio.Event()
        self._most = lines

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        if len(self.lines) == self._most:
            self.enough.set()


async def test_what_a_command_leaves_in_the_background_may_print(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    os.mkfifo(tmp_path / "go")
    os.mkfifo(tmp_path / "told")
    command = "{ read x <go; echo late; echo $? >told; } & echo early"
    caplog.set_level("INFO", "natsup.hooks")
    heard = Heard(2)
    logging.getLogger("natsup.hooks").addHandler(heard)
    try:
        async with running(command, tmp_path) as hooks:
            await hooks.close(10)
            with trio.fail_after(10):
                told = (tmp_path / "told").read_text
                await trio.to_thread.run_sync((tmp_path / "go").write_text, "\n")
                assert await trio.to_thread.run_sync(told, abandon_on_cancel=True) == "0\n"
                await heard.enough.wait()
    finally:
        logging.getLogger("natsup.hooks").removeHandler(heard)
    name = "--on-mapped for tcp/7000"
    assert heard.lines == [f"{name}: early", f"{name}: late"]


async def test_without_descriptors_a_command_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(flags: int) -> tuple[int, int]:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pipe2", refuse)
    async with running("true", tmp_path) as hooks:
        await hooks.close(10)
    assert "--on-mapped for tcp/7000 cannot be run: Too many open files" in caplog.text


def test_which_lines_are_logged() -> None:
    lines = Lines()
    assert lines.take(b"a\n\n b") == ["a"]
    assert lines.take("ä\x1b\n".encode()) == ["bä?"]
    assert lines.take(b"x" * 501) == ["x" * 500]
    assert lines.take(b"end") == []
    assert lines.take(b"") == ["end"]
    assert lines.take(b"") == []
    left = MOST_LINES - 5
    assert lines.take(b"\n" * left) == []
    assert (lines.over, MOST_LINES) == (False, 20)
    assert lines.take(b"c\nd\n") == ["(more is left out)"]
    assert lines.take(b"e\n") == []
