"""Fixtures for all tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.lab import Lab


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A home network with a real router, of the test's own."""
    folder = tmp_path / "lab"
    folder.mkdir()
    with Lab(folder) as network:
        yield network
