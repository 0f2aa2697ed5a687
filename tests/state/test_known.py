"""Networks that are known, on a real disk."""

from dataclasses import replace
from pathlib import Path

import pytest

from natsup.state.known import Known, recall, remember

HOME, CAFE = "192.168.1.1 02:00:00:00:00:01", "192.168.1.1 02:00:00:00:00:02"
ROUTER = Known("http://192.168.1.1:5000/x", 1000.0)
NONE = Known(None, 1000.0, "no answer")


def test_what_was_found_is_recalled(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    assert recall(folder, HOME, wall=1000.0) is None
    remember(folder, HOME, ROUTER)
    assert recall(folder, HOME, wall=10**9) == ROUTER
    assert recall(folder, CAFE, wall=1000.0) is None
    remember(folder, CAFE, NONE)
    assert recall(folder, HOME, wall=10**9) == ROUTER
    assert [path.name for path in folder.iterdir()] == ["networks.json"]


@pytest.mark.parametrize(
    ("wall", "expected"), [(1000.0, NONE), (1299.0, NONE), (1300.0, None), (999.0, None)]
)
def test_that_there_was_none_counts_for_minutes(
    tmp_path: Path, wall: float, expected: Known | None
) -> None:
    remember(tmp_path, HOME, NONE)
    assert recall(tmp_path, HOME, wall=wall) == expected


def test_an_external_address_counts_until_another_is_told(tmp_path: Path) -> None:
    told = replace(ROUTER, external="11.22.33.1")
    remember(tmp_path, HOME, told)
    for later in (ROUTER, NONE, ROUTER):
        remember(tmp_path, HOME, later)
        assert recall(tmp_path, HOME, wall=1000.0) == replace(later, external="11.22.33.1")
    remember(tmp_path, CAFE, ROUTER)
    assert recall(tmp_path, CAFE, wall=1000.0) == ROUTER
    moved = replace(ROUTER, external="11.22.33.2")
    remember(tmp_path, HOME, moved)
    assert recall(tmp_path, HOME, wall=1000.0) == moved


def test_the_oldest_are_forgotten(tmp_path: Path) -> None:
    for number in range(40):
        remember(tmp_path, f"n{number}", Known("http://10.0.0.1/", float(number)))
    assert recall(tmp_path, "n39", wall=0.0) is not None
    assert recall(tmp_path, "n8", wall=0.0) is not None
    assert recall(tmp_path, "n7", wall=0.0) is None


@pytest.mark.parametrize(
    "text", ["", "[]", "7", '{"a": 1}', '{"a": {"location": 1}}', "{" * 2000, "[" * 60_000, "\xff"]
)
def test_nonsense_is_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "networks.json").write_text(text, encoding="latin-1")
    assert recall(tmp_path, "a", wall=0.0) is None
    remember(tmp_path, "a", ROUTER)
    assert recall(tmp_path, "a", wall=0.0) == ROUTER


def test_where_nothing_can_be_written_nothing_is_known(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    remember(file, HOME, ROUTER)
    assert recall(file, HOME, wall=0.0) is None


def test_what_an_older_natsup_wrote_is_read(tmp_path: Path) -> None:
    (tmp_path / "networks.json").write_text(
        '{"a": {"location": "http://192.168.1.1:5000/x", "since": 1000.0, "reason": ""}}'
    )
    assert recall(tmp_path, "a", wall=1000.0) == ROUTER


def test_when_the_protocol_was_chosen_is_kept(tmp_path: Path) -> None:
    known = Known("pcp://192.168.1.1:5351", 1000.0, chosen=900.0)
    remember(tmp_path, HOME, known)
    assert recall(tmp_path, HOME, wall=1000.0) == known
