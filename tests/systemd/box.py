"""A real systemd for tests: PID 1 of its own namespaces, on a host of the lab.

natsup is installed there in /opt/natsup, for everybody, as README.md says.
"""

import os
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.lab.lab import Lab

NATSUP = "/opt/natsup/bin/natsup"
SERVICE = "/opt/programs/service.py"
_PROJECT = Path(__file__).resolve().parent.parent.parent
_COMMAND = f"""#!{NATSUP.removesuffix("natsup")}python3
import sys
from natsup.supervisor.cli import main
sys.exit(main())
"""
_SWEEP = """
mount -t cgroup2 none "$1/cgroup"
for _ in $(seq 200); do
    find "$1/cgroup/$2" -depth -type d -exec rmdir {} + 2>/dev/null && exit
    sleep 0.02
done
exit 1
"""


class Box:
    """``lab``: it is the host lan1 there. ``folder``: an empty one, for its files."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self._lab = lab
        self._folder = folder
        self._pid = 0
        self.more: list[str] = []  # settings that services need for natsup's Python

    def __enter__(self) -> "Box":
        venv = self._folder / "venv"
        base = Path(sys.base_prefix)
        inside = base if base.is_relative_to("/usr") else Path("/opt/python")  # for every user
        python = inside / Path(os.path.realpath(sys.executable)).relative_to(base.resolve())
        site = venv / f"lib/python3.{sys.version_info.minor}/site-packages"
        site.mkdir(parents=True)
        (venv / "bin").mkdir()
        (venv / "bin/python3").symlink_to(python)
        (venv / "pyvenv.cfg").write_text(f"home = {python.parent}\n")
        (site / "natsup.pth").write_text("/opt/project/.types\n/opt/libraries\n")
        command = venv / "bin/natsup"
        command.write_text(_COMMAND)
        command.chmod(0o755)
        binds = {
            str(venv): "/opt/natsup",
            str(_PROJECT): "/opt/project",
            sysconfig.get_path("purelib"): "/opt/libraries",
            str(Path(__file__).parent / "programs"): "/opt/programs",
        }
        if inside != base:
            binds[str(base)] = str(inside)
            # It looks for its library where it was installed, which ProtectHome= may hide.
            self.more.append(f"Environment=LD_LIBRARY_PATH={inside / 'lib'}")
        words = [f"{outside}={inside}" for outside, inside in binds.items()]
        script = Path(__file__).with_name("box.sh")
        with (self._folder / "log").open("wb") as log:
            command_line = ["bash", str(script), str(self._folder), *words]
            process = self._lab.popen("lan1", command_line, stdout=log, stderr=log)
        pid = self._folder / "pid"

        def told() -> bool:
            assert process.poll() is None, (self._folder / "log").read_text()
            return pid.exists()

        self._lab.wait_for(told)
        self._pid = int(pid.read_text())
        own = (self._folder / "group").read_text().strip()
        groups = Path(f"/proc/{self._pid}/cgroup").read_text().splitlines()
        assert f"0::/{own}" in {group.removesuffix("/init.scope") for group in groups}
        running = ["systemctl", "is-system-running"]
        self._lab.wait_for(lambda: self._try(running).stdout.strip() in ("running", "degraded"))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.kill(self._pid, signal.SIGKILL)
        group = (self._folder / "group").read_text().strip()
        command = ["unshare", "--mount", "sh", "-c", _SWEEP, "sh", str(self._folder), group]
        subprocess.run(command, check=True)

    def _try(self, words: Sequence[str], **options: Any) -> "subprocess.CompletedProcess[str]":
        command = ["nsenter", f"--target={self._pid}", "--all", *words]
        given = {"capture_output": True, "text": True, "timeout": 60, **options}
        return subprocess.run(command, **given)

    def run(self, *words: str, **options: Any) -> str:
        """Run a command there, which must succeed. What it printed."""
        done = self._try(words, **options)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def write(self, path: str, text: str) -> None:
        """Make a file there."""
        self.run("sh", "-c", 'mkdir -p "$(dirname "$1")" && cat >"$1"', "sh", path, input=text)

    def service(
        self, name: str, *settings: str, program: str = "", options: Sequence[str] = ()
    ) -> None:
        """A service that runs `service.py` with these words, under natsup by a drop-in of its own
        making. ``options``: of natsup exec."""
        lines = [f"ExecStart=/usr/bin/python3 {SERVICE} {program}", *self.more, *settings]
        self.write(f"/etc/systemd/system/{name}.service", "[Service]\n" + "\n".join(lines) + "\n")
        self.run("systemctl", "daemon-reload")
        self.run(NATSUP, "unit", name, "--install", "--", *options)

    def show(self, name: str, what: str) -> str:
        """A property of a service."""
        return self.run("systemctl", "show", "--value", "-p", what, name).strip()

    def said(self, name: str) -> list[str]:
        """What a service's program has printed; its name is in the journal as without natsup."""
        self.run("journalctl", "--sync")
        words = ["-o", "cat", "--no-pager", "-u", name, "-t", "python3"]
        return self.run("journalctl", *words).splitlines()

    def log(self, name: str) -> str:
        """Everything in the journal of a service."""
        self.run("journalctl", "--sync")
        return self.run("journalctl", "-o", "verbose", "--no-pager", "-u", name)
