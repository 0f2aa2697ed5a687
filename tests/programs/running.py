"""Debian's programs under `natsup exec` on lan1."""

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.lab.lab import Lab
from tests.lab.program import NATSUP, PATIENT


class Running:
    """A program with a folder of its own, which is its home and where its output goes.

    ``words``: options of `natsup exec`. A bind() waits for a busy router (`PATIENT`).
    """

    def __init__(self, lab: Lab, folder: Path, command: Sequence[str], *words: str) -> None:
        folder.mkdir(exist_ok=True)
        self._output = folder / "output"
        self._lab = lab
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("NATSUP_", "XDG_"))}
        environ |= {"HOME": str(folder), "NATSUP_STATE_DIR": str(folder.parent / "state")}
        self._environ = environ
        with self._output.open("ab") as output:
            self.process = lab.popen(
                "lan1",
                [NATSUP, "exec", *PATIENT, *words, "--", *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd=folder,
                env=environ,
            )

    def output(self) -> str:
        """What it has written so far."""
        return self._output.read_text(errors="replace")

    def sessions(self) -> list[dict[str, Any]]:
        """What `natsup status --json` shows."""
        done = self._lab.run("lan1", [NATSUP, "status", "--json"], env=self._environ)
        sessions: list[dict[str, Any]] = json.loads(done.stdout)["sessions"]
        return sessions

    def history(self) -> list[dict[str, Any]]:
        """What `natsup log --json` shows."""
        done = self._lab.run("lan1", [NATSUP, "log", "--json"], env=self._environ)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def kill(self) -> None:
        """SIGKILL to all of its processes; natsup's own are in sessions of their own.

        A process group would not do: Syncthing puts itself into another one.
        """
        while living := self._living():
            for pid in living:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.poll()

    def _living(self) -> list[int]:
        """Its processes: those of the session (setsid(2)) that was made for it."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                state, _, _, session = stat.read_text().rpartition(") ")[2].split()[:4]
                if int(session) == self.process.pid and state not in "ZX":
                    found.append(int(stat.parent.name))
        return found


def unconfined(binary: str, folder: Path, name: str = "") -> str:
    """A copy of a program, where a profile of AppArmor, which goes by the path, does not find it.

    Such a profile keeps Debian's name servers from reading a configuration in the test's folder.
    """
    folder.mkdir(exist_ok=True)
    copy = folder / (name or Path(binary).name)
    copy.write_bytes(Path(binary).read_bytes())
    copy.chmod(0o755)
    return str(copy)
