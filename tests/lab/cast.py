"""natsup's own processes of one session: who they are, whether they are stopped, their deaths."""

import contextlib
import os
import select
import signal
import time
from collections.abc import Collection
from pathlib import Path

from tests import leftovers

_SECONDS = 10
_SESSION = "natsup.supervisor.session"  # in the command line of supervisors


class Cast:
    """Known by the session's state folder, which stands in their environment. To be made before
    the session begins."""

    def __init__(self, state: Path) -> None:
        self._mark = f"NATSUP_STATE_DIR={state}".encode()
        self._others = {int(name) for name in os.listdir("/proc") if name.isdecimal()}

    def members(self) -> dict[int, str]:
        """Their pids and command lines."""
        return leftovers.natsups(self._mark, besides=self._others)

    def supervisors(self) -> set[int]:
        return {pid for pid, words in self.members().items() if _SESSION in words}

    def guards(self) -> set[int]:
        """Also what is to become a supervisor and is none yet."""
        return set(self.members()) - self.supervisors()

    def stopped(self) -> set[int]:
        return {pid for pid in self.members() if state(pid) == "T"}

    def go_on(self) -> None:
        """Continue those that have stopped."""
        for pid in self.stopped():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def state(pid: int) -> str:
    """One letter, as proc_pid_stat(5) has it; "" if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def kill(pids: Collection[int]) -> None:
    """Kill them all and see them end. They are stopped first: each would see to it that another
    one has a successor."""
    pidfds = []
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                if number == signal.SIGSTOP:
                    pidfds.append(os.pidfd_open(pid))
                os.kill(pid, number)
        if number == signal.SIGSTOP:
            deadline = time.monotonic() + 1
            while any(state(pid) not in ("T", "Z", "") for pid in pids):
                assert time.monotonic() < deadline, "a process does not stop"
    for pidfd in pidfds:
        assert select.select([pidfd], [], [], _SECONDS)[0], "a killed process has not ended"
        os.close(pidfd)
