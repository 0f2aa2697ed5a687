"""Races for a port, for a descriptor, and for the memory that an address is in."""

import os
from pathlib import Path

import pytest

from tests.kernel import checks

LONG = "CONFORM_EXAMPLES" in os.environ  # just conform-long

pytestmark = pytest.mark.timeout(7200 if LONG else 300)


def test_what_is_mapped_is_bound(tmp_path: Path) -> None:
    assert checks.what_is_mapped_is_bound(tmp_path, rounds=20_000 if LONG else 200) == []


def test_one_process_gets_the_port(tmp_path: Path) -> None:
    assert checks.one_gets_the_port(tmp_path, rounds=1000 if LONG else 20) == []


def test_one_session_gets_the_port(tmp_path: Path) -> None:
    assert checks.one_session_gets_the_port(tmp_path, rounds=1000 if LONG else 20) == []


def test_one_thread_binds_the_socket(tmp_path: Path) -> None:
    assert checks.a_socket_is_bound_once(tmp_path) == []


@pytest.mark.parametrize("how", ["events", "seccomp"])
def test_a_port_is_handed_on(tmp_path: Path, how: str) -> None:
    times = 100_000 if LONG else 10_000
    assert checks.a_port_is_handed_on(tmp_path, None, "--track-close", how, times=times) == []
