"""What the README tells a new user to type, typed by one: a fresh copy, nothing installed, no root.

The second of its commands is the one that runs these tests.
"""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests import apart
from tests.nobody import as_nobody

ROOT = Path(__file__).resolve().parent.parent


def first_command() -> str:
    """The first line of the README that is set as code."""
    match = re.search(r"^    (\S.*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert match is not None
    return match[1]


def copy_for_nobody(folder: Path) -> Path:
    """A checkout of what stands here, as git would make it: without what it ignores."""
    listed = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in listed.stdout.splitlines():
        target = folder / "natsup" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_symlink() or (ROOT / name).is_file():
            shutil.copy(ROOT / name, target, follow_symlinks=False)
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, 65534, 65534, follow_symlinks=False)
    return folder / "natsup"


@pytest.mark.timeout(400)
def test_the_first_command_shows_the_main_job() -> None:
    with apart.machines_network(), tempfile.TemporaryDirectory() as name:
        checkout = copy_for_nobody(Path(name))
        pip = {k: v for k, v in os.environ.items() if k.startswith(("PIP_", "SSL_", "REQUESTS_"))}
        done = subprocess.run(
            [*as_nobody(), "sh", "-c", first_command()],
            cwd=checkout,
            env={**pip, "HOME": name, "PATH": "/usr/local/bin:/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert done.returncode == 0, done.stderr
    assert "bind(6881) failed with EADDRINUSE" in done.stdout
    assert 'Internet → 11.22.33.1:6881   "hello from this host"' in done.stdout
    assert "That was all. With your own router:  .venv/bin/natsup exec -- COMMAND" in done.stdout
