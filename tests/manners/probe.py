"""The program that is run in the four ways. ``report``: what it was given, as JSON. Else it counts
signals: a line ``NAME COUNT`` for each that comes, and does what it reads on its standard input."""

import ctypes
import json
import os
import signal
import sys
import threading

COUNTED = ["HUP", "INT", "QUIT", "TERM", "CONT", "WINCH", "USR1", "RTMIN", "RTMAX"]


def report() -> None:
    """Print what this process was given."""
    with open("/proc/self/status") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    with open("/proc/self/cmdline", "rb") as words, open("/proc/self/cgroup") as groups:
        cmdline = words.read().decode().split("\0")
        cgroup = groups.read()
    death = ctypes.c_int()
    ctypes.CDLL(None).prctl(2, ctypes.byref(death))  # PR_GET_PDEATHSIG
    with open("/proc/self/limits") as limits, open("/proc/self/oom_score_adj") as oom:
        given = {"limits": limits.read(), "oom": oom.read().strip()}
    try:
        os.close(os.open("/dev/tty", os.O_RDWR))
        terminal = "there"
    except OSError:
        terminal = "none"
    with open(f"/proc/self/task/{os.getpid()}/children") as children:
        given["children"] = children.read()
    listed = [int(name) for name in os.listdir("/proc/self/fd")]
    descriptors = []
    for fd in sorted(listed):
        try:
            descriptors.append(f"{fd} {os.readlink(f'/proc/self/fd/{fd}').split(':')[0]}")
        except OSError:
            continue  # the folder's own
    given |= {
        "argv": " ".join(cmdline),
        "cgroup": cgroup,
        "death": str(death.value),
        "descriptors": ", ".join(descriptors),
        "environment": "\n".join(sorted(f"{k}={v}" for k, v in os.environ.items())),
        "folder": os.getcwd(),
        "nice": str(os.nice(0)),
        "scheduler": str(os.sched_getscheduler(0)),
        "affinity": str(sorted(os.sched_getaffinity(0))),
        "user": f"{os.getresuid()} {os.getresgid()} {os.getgroups()}",
        "capabilities": status["CapPrm"] + status["CapEff"] + status["CapInh"] + status["CapBnd"],
        "privileges": status["NoNewPrivs"],
        "mask": status["SigBlk"],
        "ignored": status["SigIgn"],
        "pending": status["SigPnd"] + status["ShdPnd"],
        "umask": status["Umask"],
        "dumpable": str(ctypes.CDLL(None).prctl(3)),  # PR_GET_DUMPABLE
        "namespaces": " ".join(os.readlink(f"/proc/self/ns/{n}") for n in ("pid", "mnt", "user")),
        "terminal": terminal,
        "pid": str(os.getpid()),
        "parent": str(os.getppid()),
        "group": str(os.getpgrp()),
        "session": str(os.getsid(0)),
    }
    print(json.dumps(given), flush=True)


def _number(name: str) -> int:
    return int(getattr(signal, "SIG" + name))


def main() -> None:
    """Count signals, and obey.

    They are taken by sigwait(), in the order of their numbers, because Python runs one handler for
    any number of signals that come close together.
    """
    counts = dict.fromkeys(COUNTED, 0)
    names = {_number(name): name for name in COUNTED}
    signal.pthread_sigmask(signal.SIG_BLOCK, names)

    def count() -> None:
        while True:
            name = names[signal.sigwait(names)]
            counts[name] += 1
            os.write(1, f"<{name} {counts[name]}>\n".encode())

    threading.Thread(target=count, daemon=True).start()
    os.write(1, f"<pid {os.getpid()} group {os.getpgrp()} parent {os.getppid()}>\n".encode())
    while line := os.read(0, 100).decode().strip():
        word, _, value = line.partition(" ")
        if word == "exit":
            sys.exit(int(value))
        elif word == "stop":
            number = signal.SIGSTOP if value == "at once" else signal.SIGTSTP
            os.kill(0 if value == "group" else os.getpid(), number)
        elif word == "size":
            size = os.get_terminal_size(0)
            os.write(1, f"<size {size.columns}x{size.lines}>\n".encode())
        elif word == "counts":
            told = " ".join(f"{name}={counts[name]}" for name in COUNTED)
            os.write(1, f"<counts {told}>\n".encode())
    sys.exit(99)


if sys.argv[1:2] == ["report"]:
    report()
else:
    main()
