"""The secret of a state folder, on a real disk."""

import os
import stat
from pathlib import Path

import pytest

from natsup.state.secret import secret


def test_it_is_made_once_and_is_nobody_elses(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    made = secret(folder)
    assert len(made) == 32
    assert secret(folder) == made
    assert secret(tmp_path / "other") != made
    assert stat.S_IMODE((folder / "secret").stat().st_mode) == 0o600
    assert os.listdir(folder) == ["secret"]


def test_one_that_was_cut_off_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"short")
    made = secret(tmp_path)
    assert len(made) == 32
    assert secret(tmp_path) == made


def test_where_it_cannot_be_kept_there_is_one_for_now(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    assert len(secret(file)) == 32


def test_of_two_that_start_together_one_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, link = b"t" * 32, os.link

    def late(source: Path, target: Path) -> None:
        Path(target).write_bytes(theirs)
        link(source, target)

    monkeypatch.setattr(os, "link", late)
    assert secret(tmp_path) == theirs
    assert os.listdir(tmp_path) == ["secret"]
