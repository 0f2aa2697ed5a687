"""natsup's own processes on a host of the lab, and what they cost: memory and wake-ups."""

import time
from pathlib import Path

from tests.lab.lab import Lab
from tests.lab.overheard import Overheard

SUPERVISOR, GUARD = "supervisor", "guard"
_QUESTIONS = 3  # whose is it, map it, is it mapped
_THREADS = 2


def watchers(lab: Lab, host: str = "lan1") -> dict[str, int]:
    """The pids of a host's one supervisor and its guard, which as parent is `natsup exec`."""
    listed = lab.run("router", ["ip", "netns", "pids", lab.name(host)], check=True)
    found = {}
    for pid in map(int, listed.stdout.split()):
        try:
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except FileNotFoundError:  # ip itself, or what has ended
            continue
        if name.startswith("natsup"):
            what = SUPERVISOR if b"natsup.supervisor.session" in command else GUARD
            assert what not in found, "more than one session"
            found[what] = pid
    return found


def threads(pid: int) -> list[Path]:
    """The folder of each thread, proc(5)."""
    return sorted(Path(f"/proc/{pid}/task").iterdir())


def switches(pids: dict[str, int]) -> dict[str, int]:
    """How often each thread has gone to sleep so far: one more than it was woken up."""
    found = {}
    for name, pid in pids.items():
        for thread in threads(pid):
            fields = (thread / "status").read_text().splitlines()
            count = next(line for line in fields if line.startswith("voluntary_ctxt_switches:"))
            found[f"{name} {thread.name}"] = int(count.split()[1])
    return found


def memory(pids: dict[str, int]) -> dict[str, float]:
    """Each process's proportional set size, in MB: what it shares counts in parts."""
    found = {}
    for name, pid in pids.items():
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        found[name] = next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1e3
    return found


def wait_for_idleness(lab: Lab, overheard: Overheard, pids: dict[str, int], number: int) -> None:
    """Until a session whose one port was mapped a moment ago waits for nothing but its timers.

    The router has been asked once more whether it kept the mapping, the threads that trio keeps for
    a while have ended, which leaves the main one and the receiver, and the router has been heard,
    so that it need not be asked whether it is there.
    """
    port = f"tcp/{number}"
    lab.wait_for(lambda: overheard.ports().count(port) >= _QUESTIONS)
    lab.wait_for(lambda: len(threads(pids[SUPERVISOR])) == _THREADS)
    before = switches(pids)
    lab.announce_router()
    lab.wait_for(lambda: switches(pids) != before)
    lab.wait_for(lambda: _asleep(pids))


def _asleep(pids: dict[str, int]) -> bool:
    """Has nothing woken up in a fifth of a second?"""
    before = switches(pids)
    time.sleep(0.2)
    return switches(pids) == before
