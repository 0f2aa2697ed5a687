"""The Containerfile: an image is built by it, and runs."""

import os
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import apart
from tests.containers import base
from tests.containers.engines import PROJECT, Engine, engine_limits
from tests.lab.lab import LAN1, Lab
from tests.lab.program import Program
from tests.leftovers import VARIABLE


@pytest.fixture
def engine() -> Iterator[Engine]:
    """With its files in memory: they are many, and a busy disk takes a minute for them."""
    with tempfile.TemporaryDirectory(prefix="image-") as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=700", "none", folder], check=True)
        try:
            engine = Engine("podman", Path(folder))
            yield engine
            engine.close()
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)


def build(engine: Engine, folder: Path) -> None:
    """Build the image, on a Debian made here and with what PyPI has."""
    wheels = folder / "wheels"
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    needed = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    words = ["pip", "download", "-q", "--dest", str(wheels), *needed]
    with apart.machines_network():
        subprocess.run([sys.executable, "-m", *words], check=True, timeout=300, capture_output=True)
    base.write(folder / "base.tar")
    quiet = {"check": True, "timeout": 300, "capture_output": True, "text": True}
    subprocess.run(engine.cli("import", str(folder / "base.tar"), "base"), **quiet)  # type: ignore[call-overload]
    recipe = ["--build-arg=BASE=localhost/base", "-t", "natsup", "-f", "Containerfile", "."]
    (folder / "pip.conf").write_text("[global]\nno-index = true\nfind-links = /wheels\n")
    given = [f"--volume={wheels}:/wheels:ro", f"--volume={folder}/pip.conf:/etc/pip.conf:ro"]
    command = engine.cli("build", "--isolation=chroot", "--layers=false", *given, *recipe)
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(400)  # twenty seconds of work; a busy machine may take minutes
def test_image(engine: Engine, lab: Lab, tmp_path: Path) -> None:
    """It does not take root, nor a root that can be written, to be of use."""
    build(engine, tmp_path)
    options = ["--rm", "-i", "--name=server", "--network=host", "--read-only", "--user=1000:1000"]
    mark = f"--env={VARIABLE}={os.environ[VARIABLE]}"

    def within(command: list[str]) -> list[str]:
        """The image has natsup for its entrypoint, and a Python of its own."""
        words = command[command.index("--") + 2 :]
        run = ["run", *options, "--cap-drop=all", mark, *engine_limits()]
        return engine.cli(*run, "natsup", "python3", *words)

    with (tmp_path / "stderr").open("w") as stderr:
        program = Program(lab, tmp_path, within=within, stderr=stderr.fileno())
    assert program.do("os.getuid()") == 1000
    assert program.do("sys.prefix") == "/usr"  # natsup's own environment is not in its way
    assert program.bind("s", 7000) is None
    lab.wait_for(lambda: lab.table() == {"tcp/7000": LAN1})
    program.serve("s")
    assert lab.fetch("tcp", 7000) == b"here"
    status = engine.ask("exec", "server", "natsup", "status")
    assert "tcp 7000" in status
    engine.ask("stop", "--time=20", "server")
    assert program.process.wait(30) == 128 + signal.SIGTERM
    assert lab.table() == {}
    assert "WARNING" not in (tmp_path / "stderr").read_text()
