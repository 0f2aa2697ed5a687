"""natsup as people install it, on a Debian made of this machine's packages, without a registry."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import apart
from tests.containers import base
from tests.packaging import checks
from tests.packaging.box import box

PROJECT = Path(__file__).resolve().parents[2]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in", "supervisor", "upnp", "state")
OFFLINE = "--no-index --find-links /wheels"


def wheels(folder: Path) -> None:
    """natsup's own wheel, those it needs, and those of the tools that install it."""
    source = folder / "source"
    source.mkdir()
    subprocess.run(["cp", "-R", *SOURCES, str(source)], cwd=PROJECT, check=True)
    words = ["pip", "wheel", "-q", "-w", str(folder), str(source), "setuptools>=77", "pipx", "uv"]
    with apart.machines_network():
        done = subprocess.run([sys.executable, "-m", *words], capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr.decode()
    folder.chmod(0o755)


def package(folder: Path, found: Path) -> Path:
    """A Debian package, of the wheels that were found."""
    env = os.environ | {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(found)}
    command = [str(PROJECT / "packaging/deb"), str(folder)]
    built = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stderr
    return Path(built.stdout.strip())


@pytest.mark.timeout(600)  # half a minute of work; a busy machine may take minutes
def test_pipx_uv_and_a_debian_package_install_it(tmp_path: Path) -> None:
    """One after another, as what they are made of is the same, and takes most of the time."""
    found, out = tmp_path / "wheels", tmp_path / "out"
    found.mkdir()
    wheels(found)
    deb = package(out, found)
    base.write(tmp_path / "base.tar")
    with box(tmp_path / "base.tar", {"/wheels": found, "/out": out}) as debian:
        debian.do(f"python3 -m venv /opt/tools && /opt/tools/bin/pip install {OFFLINE} pipx uv")
        debian.do("ln -s /opt/tools/bin/pipx /opt/tools/bin/uv /usr/local/bin")
        checks.by_pipx(debian, OFFLINE)
        checks.by_uv(debian, OFFLINE)
        checks.by_package(debian, f"/out/{deb.name}")
