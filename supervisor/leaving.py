"""Waiting until a service's own sessions have taken back what they had.

systemd kills what is left of a service with KillMode=mixed as soon as its main process has ended
and its ExecStopPost= is over (service_enter_stop_post() in systemd's service.c); a session needs
until the router has answered.
"""

import contextlib
import os
import time
from pathlib import Path

from natsup.state.journal import sessions

_PAUSE = 0.05


def wait_for_sessions(directory: Path, seconds: float) -> None:
    """Until no session in this state folder runs in this process's service, for so long at most."""
    own = _service(os.getpid())
    deadline = time.monotonic() + seconds
    while own and time.monotonic() < deadline:
        try:
            found = sessions(directory)
        except OSError:
            return
        if not any(s.alive and _service(s.supervisor) == own for s in found):
            return
        time.sleep(_PAUSE)


def _service(pid: int) -> str:
    """The control group of the service that a process belongs to; "" if there is none."""
    with contextlib.suppress(OSError):
        return service_of(Path(f"/proc/{pid}/cgroup").read_text())
    return ""


def service_of(text: str) -> str:
    """The same of what stands in /proc/PID/cgroup (cgroups(7)). Pure.

    systemd's hierarchy is the second version's, or the first one's of its name; either may be there
    as well when it is the other, and then has no services in it. Services may have groups of their
    own below them, and what systemd runs for them is in ``.control`` then.
    """
    paths = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        paths[controllers] = path
    for controllers in ("", "name=systemd"):
        parts = paths.get(controllers, "").split("/")
        while parts and not parts[-1].endswith(".service"):
            parts.pop()
        if parts:
            return "/".join(parts)
    return ""
