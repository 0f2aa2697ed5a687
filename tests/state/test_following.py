"""Reading the history as it is written."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from natsup.state.following import Follower
from natsup.state.history import NAME, OLD, append, line_of
from tests.state.test_history import numbered


@pytest.fixture
def follower(tmp_path: Path) -> Iterator[Follower]:
    found = Follower(tmp_path)
    yield found
    found.close()


def numbers(follower: Follower) -> list[int]:
    entries = follower.entries()
    return [entry.event.caller.pid for entry in entries if entry.event.caller is not None]


def write(folder: Path, *which: int) -> None:
    append(folder, [line_of(numbered(number)) for number in which])


def test_each_is_read_once(follower: Follower, tmp_path: Path) -> None:
    assert numbers(follower) == []
    write(tmp_path, 1, 2)
    assert numbers(follower) == [1, 2]
    assert follower.there
    assert numbers(follower) == []
    write(tmp_path, 3)
    assert numbers(follower) == [3]


def test_a_line_that_is_half_written_is_read_later(follower: Follower, tmp_path: Path) -> None:
    line = line_of(numbered(1))
    with (tmp_path / NAME).open("ab", buffering=0) as file:
        file.write(line[:20])
        assert numbers(follower) == []
        file.write(line[20:])
        assert numbers(follower) == [1]


def test_what_was_written_before_it_was_renamed_is_not_missed(
    follower: Follower, tmp_path: Path
) -> None:
    write(tmp_path, 1)
    assert numbers(follower) == [1]
    before = os.listdir("/proc/self/fd")
    for number in 2, 4, 6:
        write(tmp_path, number)
        (tmp_path / NAME).rename(tmp_path / OLD)
        write(tmp_path, number + 1)
        assert numbers(follower) == [number, number + 1]
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_at_first_the_old_file_is_read_too(follower: Follower, tmp_path: Path) -> None:
    write(tmp_path, 1)
    (tmp_path / NAME).rename(tmp_path / OLD)
    assert numbers(follower) == [1]
    write(tmp_path, 2)
    assert numbers(follower) == [2]


def test_both_are_read_at_first(follower: Follower, tmp_path: Path) -> None:
    write(tmp_path, 1)
    (tmp_path / NAME).rename(tmp_path / OLD)
    write(tmp_path, 2)
    assert numbers(follower) == [1, 2]


def test_one_that_was_removed_begins_anew(follower: Follower, tmp_path: Path) -> None:
    write(tmp_path, 1)
    assert numbers(follower) == [1]
    (tmp_path / NAME).unlink()
    assert numbers(follower) == []
    write(tmp_path, 2)
    assert numbers(follower) == [2]
