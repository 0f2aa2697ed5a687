"""The history's files: nothing lost, nothing torn, never larger than two files, never an error."""

import fcntl
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from natsup.state import history
from natsup.state.chronicle import as_json, as_text
from natsup.state.happenings import Caller, Event, What
from natsup.state.history import NAME, OLD, Entry, History, append, entry_of, line_of, read
from natsup.state.model import Port, Protocol

PORT = Port(Protocol.TCP, 6881)
MAPPED = Event(What.MAPPED, PORT, Caller("rtorrent", 12), external_address="11.22.33.1", lease=3600)
ENTRY = Entry(3600.5, "4f2a-1", ("/usr/bin/rtorrent", "-n"), MAPPED)


def numbered(number: int) -> Entry:
    event = Event(What.IGNORED, PORT, Caller("x", number), "because")
    return Entry(float(number), "s", ("x",), event)


def numbers(folder: Path) -> list[int]:
    found = read(folder)
    assert found is not None
    return [entry.event.caller.pid for entry in found if entry.event.caller is not None]


@pytest.mark.parametrize(
    "event",
    [
        MAPPED,
        Event(What.REFUSED, PORT, Caller("x", 1), "held by 192.168.77.3", holder="192.168.77.3"),
        Event(What.CLIENT, None, Caller("a\nb \udcff", 1), "a known resolver"),
        Event(What.ROUTER, external_address="11.22.33.1"),
    ],
)
def test_an_entry_is_a_line(event: Event) -> None:
    entry = Entry(1.5, "s", ("x", "a\nb"), event)
    line = line_of(entry)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert entry_of(line) == entry


def test_a_line_is_short() -> None:
    event = Event(What.IGNORED, PORT, Caller("x", 1), "é" * 100000)
    for command in (["x" * 100000], ["x"] * 100000, ["é"] * 100000, [""] * 100000):
        assert len(line_of(Entry(1.0, "s", tuple(command), event))) < 4096


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b'{"time": 1',
        b"[]",
        b"7",
        b"\xff\xfe",
        b"[" * 100000,
        line_of(ENTRY)[:-20],
        line_of(ENTRY).replace(b'"mapped"', b'"exploded"'),
        line_of(ENTRY).replace(b"tcp/6881", b"sctp/6881"),
        line_of(ENTRY).replace(b"3600.5", b"NaN"),
        line_of(ENTRY).replace(b"3600.5", b"1e300"),
        line_of(ENTRY).replace(b"3600.5", b"9" * 400),
        line_of(ENTRY).replace(b'"pid": 12', b'"pid": null'),
    ],
)
def test_what_cannot_be_read_is_passed_over(tmp_path: Path, line: bytes) -> None:
    assert entry_of(line) is None
    (tmp_path / NAME).write_bytes(line.rstrip(b"\n") + b"\n" + line_of(ENTRY))
    assert list(read(tmp_path) or ()) == [ENTRY]


def test_no_history(tmp_path: Path) -> None:
    assert read(tmp_path) is None
    assert read(tmp_path / "no" / "such") is None


def test_it_is_the_users_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        for number in range(2):
            append(tmp_path, [line_of(numbered(number))], most=10)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {NAME: 0o600, OLD: 0o600, "history.lock": 0o600}


def test_a_folder_that_was_removed_stays_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        append(tmp_path / "gone", [line_of(ENTRY)])
    assert list(tmp_path.iterdir()) == []


def test_two_files_at_most(tmp_path: Path) -> None:
    for number in range(1000):
        append(tmp_path, [line_of(numbered(number))], most=5000)
    assert {p.name for p in tmp_path.iterdir()} == {NAME, OLD, "history.lock"}
    assert all((tmp_path / name).stat().st_size <= 5000 for name in (NAME, OLD))
    found = numbers(tmp_path)
    assert found == list(range(found[0], 1000))
    assert len(found) > 30


def test_a_line_follows_one_that_was_cut_off(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(line_of(ENTRY)[:30])
    append(tmp_path, [line_of(numbered(7))])
    assert numbers(tmp_path) == [7]


_WRITER = """
import sys
from pathlib import Path
from tests.state.test_history import numbered
from natsup.state.history import append, line_of
folder, first, count, most = Path(sys.argv[1]), *map(int, sys.argv[2:])
print("ready", flush=True)
sys.stdin.readline()
for number in range(first, first + count):
    append(folder, [line_of(numbered(number))], most=most)
"""


@contextmanager
def writers(folder: Path, count: int, lines: int, most: int) -> Iterator[None]:
    """Processes that append at the same time."""
    root = Path(__file__).resolve().parents[2]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(folder), str(n * lines), str(lines), str(most)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=root,
        )
        for n in range(count)
    ]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
    for process in running:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()
    yield
    for process in running:
        process.communicate(timeout=60)
        assert process.returncode == 0


def test_nothing_is_lost_when_several_append_and_one_renames(tmp_path: Path) -> None:
    """The bound is such that the file is full once."""
    count, lines = 3, 600
    size = sum(len(line_of(numbered(n))) for n in range(count * lines))
    with writers(tmp_path, count, lines, size * 2 // 3):
        pass
    assert (tmp_path / OLD).exists()
    found = numbers(tmp_path)
    assert sorted(found) == list(range(count * lines))
    for n in range(count):
        own = [number for number in found if number // lines == n]
        assert own == sorted(own)


def test_lines_stay_whole_when_it_is_full_all_the_time(tmp_path: Path) -> None:
    count, lines, most = 3, 600, 3000
    with writers(tmp_path, count, lines, most):
        for _ in range(100):
            list(read(tmp_path) or ())
    for name in (NAME, OLD):
        data = (tmp_path / name).read_bytes()
        assert all(entry_of(line) for line in data.splitlines())
        assert len(data) <= 2 * most + 4096
    newest = [number % lines for number in numbers(tmp_path)]
    assert lines - 1 in newest


def test_a_write_into_a_file_that_is_gone_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two rotations come between the opening of the file and the write."""
    append(tmp_path, [line_of(numbered(1))])
    write = os.write
    lost: list[int] = []

    def slow(fd: int, data: bytes) -> int:
        if not lost:
            lost.append(fd)
            (tmp_path / NAME).unlink()
        return write(fd, data)

    monkeypatch.setattr(os, "write", slow)
    append(tmp_path, [line_of(numbered(2))])
    assert numbers(tmp_path) == [2]


def test_it_does_not_grow_for_ever_where_it_cannot_be_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(fd: int, operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    lines = [line_of(numbered(number)) for number in range(1000)]
    with pytest.raises(OSError, match="cannot be renamed"):
        append(tmp_path, lines, most=1000)
    assert (tmp_path / NAME).stat().st_size < 10000


def test_a_reader_misses_nothing_while_it_is_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(tmp_path, [line_of(numbered(1))])
    opened = os.open

    def rename_first(path: Path, *rest: int) -> int:
        if path.name == OLD:
            (tmp_path / NAME).rename(tmp_path / OLD)
        return opened(path, *rest)

    monkeypatch.setattr(os, "open", rename_first)
    assert numbers(tmp_path) == [1]


# --- a session's part ---


async def test_a_session_writes_who_and_what(tmp_path: Path, nursery: trio.Nursery) -> None:
    mine = History(tmp_path, "4f2a-1", ["/usr/bin/rtorrent", "-n"], wall=lambda: 3600.5)
    nursery.start_soon(mine.run)
    mine.add(MAPPED)
    await mine.close(5)
    mine.put(numbered(7))
    mine.add(MAPPED)
    await mine.close(5)
    assert list(read(tmp_path) or ()) == [ENTRY, numbered(7), ENTRY]


ROUTER = Event(What.ROUTER, reason="its external address", external_address="11.22.33.1")
REFUSED = Event(What.REFUSED, PORT, Caller("server", 12), "held by 192.168.77.3")


async def written(folder: Path, *events: tuple[float, Event]) -> list[Event]:
    """What stands in the history after each of the events has come from a session of its own, at
    its time."""
    for number, (when, event) in enumerate(events):
        async with trio.open_nursery() as nursery:
            mine = History(folder, f"s-{number}", ["x"], wall=partial(float, when))
            nursery.start_soon(mine.run)
            mine.add(event)
            await mine.close(5)
            nursery.cancel_scope.cancel()
    return [entry.event for entry in read(folder) or ()]


async def test_the_routers_address_is_told_when_it_is_another(tmp_path: Path) -> None:
    other = replace(ROUTER, external_address="11.22.33.2")
    events = [ROUTER, ROUTER, MAPPED, ROUTER, other, other, ROUTER]
    times = [float(10000 * number) for number in range(len(events))]
    found = await written(tmp_path, *zip(times, events, strict=True))
    assert found == [ROUTER, MAPPED, other, ROUTER]


async def test_a_service_that_is_refused_at_every_start_is_told_of_once_an_hour(
    tmp_path: Path,
) -> None:
    starts = [replace(REFUSED, caller=Caller("server", pid)) for pid in range(100, 220)]
    found = await written(tmp_path, *((60.0 * n, event) for n, event in enumerate(starts)))
    assert found == [starts[0], starts[60]]


@pytest.mark.parametrize(
    "another",
    [
        replace(REFUSED, caller=Caller("other", 12)),
        replace(REFUSED, reason="held by 192.168.77.4"),
        replace(REFUSED, what=What.CONFLICT),
        replace(REFUSED, port=Port(Protocol.UDP, 6881)),
        replace(REFUSED, port=Port(Protocol.TCP, 688)),
    ],
)
async def test_what_is_different_is_told(tmp_path: Path, another: Event) -> None:
    assert await written(tmp_path, (0.0, REFUSED), (1.0, another)) == [REFUSED, another]


async def test_what_happens_again_after_something_else_is_told(tmp_path: Path) -> None:
    events = [REFUSED, MAPPED, REFUSED, MAPPED, MAPPED]
    assert await written(tmp_path, *((0.0, event) for event in events)) == events


async def test_what_is_added_at_once_is_compared_too(tmp_path: Path, nursery: trio.Nursery) -> None:
    mine = History(tmp_path, "s", ["x"])
    for event in (MAPPED, ROUTER, ROUTER, REFUSED, REFUSED, MAPPED):
        mine.add(event)
    nursery.start_soon(mine.run)
    await mine.close(5)
    found = [entry.event for entry in read(tmp_path) or ()]
    assert found == [MAPPED, ROUTER, REFUSED, MAPPED]


async def test_a_session_does_not_fill_the_history(tmp_path: Path, nursery: trio.Nursery) -> None:
    now = 0.0
    mine = History(tmp_path, "s", ["x"], wall=lambda: now, an_hour=10)
    nursery.start_soon(mine.run)
    for second in range(3601):
        now = float(second)
        mine.add(MAPPED)
    await mine.close(5)
    found = [entry.event.what for entry in read(tmp_path) or ()]
    assert found == [*[What.MAPPED] * 10, What.LEFT_OUT, What.MAPPED]


async def test_what_cannot_be_written_is_logged_once(
    tmp_path: Path, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    mine = History(tmp_path / "file", "s", ["x"])
    nursery.start_soon(mine.run)
    for _ in range(3):
        mine.add(MAPPED)
        await mine.close(5)
    assert len(caplog.messages) == 1
    assert "natsup log will not show everything" in caplog.messages[0]


async def test_a_full_disk_is_logged_once(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    (tmp_path / NAME).symlink_to("/dev/full")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "O_NOFOLLOW", 0)
        mine = History(tmp_path, "s", ["x"])
        nursery.start_soon(mine.run)
        for _ in range(3):
            mine.add(MAPPED)
            await mine.close(5)
    assert len(caplog.messages) == 1
    assert "No space left on device" in caplog.messages[0]


async def test_a_disk_that_hangs_holds_nobody_up(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    monkeypatch.setattr(history, "append", lambda *_, **__: go.wait())
    mine = History(tmp_path, "s", ["x"])
    nursery.start_soon(mine.run)
    mine.add(MAPPED)
    await trio.testing.wait_all_tasks_blocked()
    for _ in range(10000):
        mine.add(MAPPED)
    assert len(mine._waiting) <= 4096
    with trio.fail_after(5):
        await mine.close(0.01)
    go.set()


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    with pytest.raises(IsADirectoryError):
        list(read(tmp_path) or ())


# --- what is shown ---


def test_the_table() -> None:
    refused = Event(What.REFUSED, PORT, Caller("rtorrent", 12), "held by 192.168.77.3")
    address = Event(What.ROUTER, reason="its external address", external_address="11.22.33.1")
    shown = as_text(
        [
            Entry(0.0, "s", ("/bin/x",), address),
            ENTRY,
            Entry(7200.0, "s", ("x",), refused),
        ],
        zone=UTC,
    )
    assert shown == (
        "1970-01-01 00:00:00  x                        router   its external address, 11.22.33.1\n"
        "1970-01-01 01:00:00  rtorrent (12)  tcp 6881  mapped   at 11.22.33.1:6881, lease 3600 s\n"
        "1970-01-01 02:00:00  rtorrent (12)  tcp 6881  refused  held by 192.168.77.3"
    )


def test_nothing_moves_the_cursor() -> None:
    event = Event(What.IGNORED, PORT, Caller("x\x1b]0;t\x07", 1), "a\nb\x1b[2J", holder="\x1b")
    text = as_text([Entry(0.0, "s", ("x",), event)], zone=UTC)
    assert text.isprintable()
    assert json.dumps(as_json(Entry(0.0, "s", ("\x1b",), event))).isprintable()


def test_json() -> None:
    assert as_json(ENTRY) == {
        "time": "1970-01-01T01:00:00.500+00:00",
        "what": "mapped",
        "protocol": "tcp",
        "family": "ipv4",
        "port": 6881,
        "reason": "",
        "program": "rtorrent",
        "pid": 12,
        "session": "4f2a-1",
        "command": ["/usr/bin/rtorrent", "-n"],
        "external_address": "11.22.33.1",
        "lease": 3600,
        "holder": None,
    }
