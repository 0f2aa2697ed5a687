"""What the program is given: all that its caller has, and nothing of natsup's."""

import json
import os
import select
import subprocess

from tests.manners.ways import PROBE, Way

# An odd caller. Everything that it sets is inherited by what it executes.
_CALLER = """
umask 027; ulimit -S -n 200; ulimit -c 0; echo 321 > /proc/self/oom_score_adj
cd /usr; exec 7</etc/passwd 9>/dev/null
exec nice -n 5 chrt --batch 0 env -u LC_ALL -u _ ODD=$'a\\nb' \
    --block-signal=USR2 --ignore-signal=HUP --ignore-signal=CHLD "$@" report 'two words' ''
"""

# What is compared with the program that runs bare, and by what name the table has it.
_AS_BARE = {
    "arguments, argv[0] among them": ["argv"],
    "environment": ["environment"],
    "working directory": ["folder"],
    "umask": ["umask"],
    "limits (ulimit)": ["limits"],
    "nice value and scheduling policy": ["nice", "scheduler", "affinity"],
    "oom_score_adj": ["oom"],
    "signals blocked, ignored and pending": ["mask", "ignored", "pending"],
    "inherited descriptors": ["descriptors"],
    "user, groups and capabilities": ["user", "capabilities"],
    "no_new_privs, as root": ["privileges"],
    "cgroup": ["cgroup"],
    "pid, mount and user namespaces": ["namespaces"],
    "children before it has any": ["children"],
    "may dump core (PR_SET_DUMPABLE)": ["dumpable"],
}


def _report(way: Way) -> dict[str, str]:
    caller = ["bash", "--norc", "-c", _CALLER, "bash", *way.prefix, *PROBE]
    process = subprocess.Popen(
        ["unshare", "--net", *caller],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        env=way.environ,
    )
    out, _ = process.communicate(timeout=60)
    told = dict(json.loads(out))
    told["started"] = str(process.pid)
    return told


def given(way: Way, bare: Way) -> dict[str, str]:
    """Two programs report: one in this way, one bare."""
    told = _report(way)
    compared = told if way is bare else _report(bare)
    found = {
        row: "its caller's" if all(told[key] == compared[key] for key in keys) else "other"
        for row, keys in _AS_BARE.items()
    }
    found["pid"] = "the one that was started" if told["pid"] == told["started"] else "another"
    parents = {str(os.getpid()): "who started it", told["started"]: "who was started"}
    found["parent"] = parents.get(told["parent"], "another")
    found["process group"] = "its caller's" if told["group"] == str(os.getpgrp()) else "its own"
    found["session"] = "its caller's" if told["session"] == str(os.getsid(0)) else "another"
    return found


def standard(way: Way, bare: Way) -> dict[str, str]:
    """Closed standard descriptors."""
    script = """
    for closed in '<&-' '>&-' '2>&-' '<&- >&- 2>&-'; do
        rm -f "$REPORT"; eval '"$@" sh -c "ls /proc/\\$\\$/fd > $REPORT 8>&1"' "$closed"
        tr '\\n' ' ' < "$REPORT"; echo
    done
    """
    report = str(way.folder / "descriptors")
    outputs = [
        one.shell(script, env={**one.environ, "REPORT": report}).stdout for one in (way, bare)
    ]
    assert outputs[1].count("\n") == 4, outputs
    same = outputs[0] == outputs[1]
    return {"standard descriptors that are closed": "stay closed" if same else "other"}


def end_of_output(way: Way, bare: Way) -> dict[str, str]:
    """Nobody but the program keeps its output open."""
    poll = select.poll()
    patience = 0.5 if way.name == "tini" else 20.0  # it holds it open for ever
    with way.start("sh", "-c", "exec >&- 2>&-; read line; exit 4") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        poll.register(process.stdout, 0)
        seen = "then" if poll.poll(patience * 1000) else "when the program ends"
        assert process.poll() is None
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.wait(20) == 4
    return {"the program closes its output; its reader sees the end": seen}
