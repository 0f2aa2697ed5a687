"""natsup as people install it, on a Debian made of this machine's packages, without a registry."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import apart
from tests.containers import base
from tests.packaging import checks
from tests.packaging.box import Box, box

PROJECT = Path(__file__).resolve().parents[2]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in", "supervisor", "upnp", "state")
OFFLINE = "--no-index --find-links /wheels"


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """natsup's own wheel, those it needs, and those of the tools that install it."""
    folder, source = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("source")
    subprocess.run(["cp", "-R", *SOURCES, str(source)], cwd=PROJECT, check=True)
    words = ["pip", "wheel", "-q", "-w", str(folder), str(source), "setuptools>=77", "pipx", "uv"]
    with apart.machines_network():
        done = subprocess.run([sys.executable, "-m", *words], capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr.decode()
    folder.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base") / "base.tar"
    base.write(path)
    return path


@pytest.fixture
def debian(archive: Path, wheels: Path, tmp_path: Path) -> Iterator[Box]:
    (tmp_path / "out").mkdir()
    with box(archive, {"/wheels": wheels, "/out": tmp_path / "out"}) as one:
        yield one


@pytest.mark.timeout(400)  # ten seconds of work; a busy machine may take minutes
def test_pipx_and_uv_install_it_for_a_user(debian: Box) -> None:
    debian.do(f"python3 -m venv /opt/tools && /opt/tools/bin/pip install {OFFLINE} pipx uv")
    debian.do("ln -s /opt/tools/bin/pipx /opt/tools/bin/uv /usr/local/bin")
    checks.by_pipx(debian, OFFLINE)
    checks.by_uv(debian, OFFLINE)


@pytest.mark.timeout(400)
def test_a_debian_package_is_built_installed_and_removed(
    debian: Box, wheels: Path, tmp_path: Path
) -> None:
    env = os.environ | {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}
    command = [str(PROJECT / "packaging/deb"), str(tmp_path / "out")]
    built = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stderr
    checks.by_package(debian, f"/out/{Path(built.stdout.strip()).name}")
