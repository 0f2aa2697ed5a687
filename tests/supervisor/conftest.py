"""`natsup exec` as a user types it, in a network namespace of its own where no router answers."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

NATSUP = str(Path(sys.executable).with_name("natsup"))
Exec = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment in which natsup writes nowhere but into the test's folder."""
    found = {k: v for k, v in os.environ.items() if not k.startswith(("NATSUP_", "PYTHON"))}
    return {**found, "NATSUP_STATE_DIR": str(tmp_path / "state")}


@pytest.fixture(
    params=[
        pytest.param([], id="in place"),
        pytest.param(["--as-parent"], id="as parent"),
        pytest.param(["--track-close", "seccomp"], id="in place, closes"),
        pytest.param(["--as-parent", "--track-close", "seccomp"], id="as parent, closes"),
    ]
)
def layout(request: pytest.FixtureRequest) -> list[str]:
    """Options that choose the layout, and what is trapped: a test that takes this runs in each."""
    return list(request.param)


@pytest.fixture
def natsup_exec(environ: dict[str, str]) -> Exec:
    """Runs ``natsup exec`` with these words, and returns what became of it."""

    def run(*words: str, **options: object) -> "subprocess.CompletedProcess[str]":
        given = {"capture_output": True, "text": True, "timeout": 60, "env": environ, **options}
        return subprocess.run(  # type: ignore[call-overload, no-any-return]
            ["unshare", "--net", NATSUP, "exec", *words], **given
        )

    return run
