"""How programs end, what signals reach them, and what they leave behind."""

import contextlib
import os
import re
import signal
import subprocess
from pathlib import Path

from tests.manners.ways import PROBE, Way, state, until

_SOME_CODES = [0, 1, 2, 125, 127, 130, 143, 255]
_SOME_SIGNALS = [signal.SIGHUP, signal.SIGPIPE, signal.SIGKILL, signal.SIGSEGV, signal.SIGRTMAX]
_NO_DEATH = {"SIGCHLD", "SIGCONT", "SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGURG", "SIGWINCH"}


def statuses(way: Way, bare: Way) -> dict[str, str]:
    """Exit codes and deaths."""
    codes = list(range(256)) if way.thorough else _SOME_CODES
    wrong = [n for n in codes if way.run("sh", "-c", f"exit {n}").returncode != n]
    deaths: set[int] = set(_SOME_SIGNALS)
    if way.thorough:
        deaths = {n for n in signal.valid_signals() if _name(n) not in _NO_DEATH}
    seen = {n: way.run("sh", "-c", f"ulimit -c 0; kill -{int(n)} $$").returncode for n in deaths}
    by_signal = {n for n, status in seen.items() if status == -n}
    by_code = {n for n, status in seen.items() if status == 128 + n}
    told = {len(by_signal): "dies of it", len(by_code): "exits with 128 + n"}
    return {
        "exit codes 0 to 255": "the program's" if not wrong else f"other: {wrong}",
        "death by each signal": told.get(len(deaths), f"other: {seen}"),
    }


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return ""


def failures(way: Way, bare: Way) -> dict[str, str]:
    """What cannot be run."""
    codes = [way.run(path).returncode for path in ("/nowhere", "/etc/passwd")] if way.prefix else []
    if not way.prefix:
        done = way.shell("/nowhere; echo $?; /etc/passwd; echo $?")
        codes = [int(line) for line in done.stdout.split()]
    return {"not found, not executable": ", ".join(map(str, codes))}


class _Counted:
    """The probe with pipes."""

    def __init__(self, way: Way, process: "subprocess.Popen[str]") -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._in, self._out = process.stdin, process.stdout
        pid, group, parent = map(int, re.findall(r"\d+", self._out.readline()))
        self.pid = pid
        self.launcher = way.launcher(pid, group, parent)

    def tell(self, words: str) -> None:
        self._in.write(words + "\n")
        self._in.flush()

    def counts(self) -> dict[str, int]:
        """How often each signal has come. First the last of all is sent, the same way: signals are
        taken in the order of their numbers, so that none is under way any more."""
        os.kill(self.launcher, signal.SIGRTMAX)
        while not self._out.readline().startswith("<RTMAX"):
            pass
        self.tell("counts")
        while not (line := self._out.readline()).startswith("<counts"):
            pass
        return {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", line)}


def _times(count: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}[count]


def signals(way: Way, bare: Way) -> dict[str, str]:
    """Sent to the pid that the caller knows, and to its process group; stops, and continues."""
    found = {}
    with way.start(*PROBE) as process:
        probe = _Counted(way, process)
        os.kill(process.pid, signal.SIGUSR1)
        found["a signal sent to the pid that was started"] = _times(probe.counts()["USR1"])
        os.killpg(process.pid, signal.SIGRTMIN)  # they are queued: two do not pass for one
        count = probe.counts()["RTMIN"]
        found["a signal sent to its process group (kill -- -PGID)"] = _times(count)
        probe.tell("stop")
        until(lambda: state(probe.pid) == "T")
        seen = "sees it"
        if way.name == "tini":  # which would be waited for in vain
            seen = "sees it" if state(process.pid) == "T" else "does not see it"
        else:
            _, status = os.waitpid(process.pid, os.WUNTRACED)
            assert os.WSTOPSIG(status) == signal.SIGTSTP
        found["the program stops itself: its caller"] = seen
        os.kill(process.pid, signal.SIGCONT)
        until(lambda: state(probe.pid) != "T")
        found["SIGCONT to the pid that was started"] = "goes on, told " + _times(
            probe.counts()["CONT"]
        )
        probe.tell("exit 5")
        assert process.wait(20) == 5
    return found


def death_of_the_caller(way: Way, bare: Way) -> dict[str, str]:
    """PR_SET_PDEATHSIG, which is set before the program is executed."""
    caller = ["bash", "-c", 'exec 3<&0; setpriv --pdeathsig USR1 "$@" <&3 & wait', "bash"]
    with way.start(*PROBE, before=caller) as process:
        probe = _Counted(way, process)
        probe.launcher = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text())
        process.kill()
        process.wait(20)
        told = _times(probe.counts()["USR1"])
        probe.tell("exit 0")
        assert process.stdout is not None
        assert process.stdout.read() == ""
    return {"the signal of the caller's death (PR_SET_PDEATHSIG)": told}


def daemons(way: Way, bare: Way) -> dict[str, str]:
    """The main process ends, and what it left lives on."""
    script = (
        '(setsid sh -c \'echo $$; exec >&- 2>&-; read line < "$0"; exit 0\' "$FIFO" &);'
        "read line; exit 7"
    )
    fifo = way.folder / f"fifo {way.name}"
    os.mkfifo(fifo)
    with way.start("sh", "-c", script, env={**way.environ, "FIFO": str(fifo)}) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        daemon = int(process.stdout.readline())
        process.stdin.write("\n")
        process.stdin.flush()
        status = process.wait(20)
        alive = Path(f"/proc/{daemon}").exists()
        filtered = "Seccomp:\t2" in Path(f"/proc/{daemon}/status").read_text()
        fifo.write_text("\n")
        until(lambda: state(daemon) in ("", "Z"))
    assert filtered == way.name.startswith(("in place", "as parent"))
    return {
        "a daemon is left behind: the main process's status": (
            "at once" if status == 7 else f"other: {status}"
        ),
        "the daemon": "lives on" if alive else "is killed",
    }


def orphans(way: Way, bare: Way) -> dict[str, str]:
    """Zombies, among all that descend from what was started."""
    script = "for i in 1 2 3 4 5; do (sh -c 'exit 0' &); done; echo made; read line; exit 3"
    with way.start("sh", "-c", script) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "made\n"
        until(lambda: "Z" not in map(state, _descendants(process.pid)))
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.wait(20) == 3
    return {"zombies of orphans": "0"}


def first_process(way: Way, bare: Way) -> dict[str, str]:
    """As PID 1, as in a container. There natsup is always the parent."""
    box = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if way.name == "tini":
        way = Way(way.name, ["tini", "--"], way.environ, way.folder)
    script = (
        "import os, signal, sys, time\n"
        "there, here = os.pipe()\n"
        "if os.fork() == 0:\n"
        "    if (orphan := os.fork()) == 0: os._exit(0)\n"
        "    os.write(here, str(orphan).encode())\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "path = f'/proc/{int(os.read(there, 100))}/stat'\n"
        "def state():\n"
        "    try: return open(path).read().rpartition(') ')[2][0]\n"
        "    except OSError: return 'Z'\n"  # it has been reaped
        "while state() != 'Z': pass\n"
        "deadline = time.monotonic() + float(sys.argv[1])\n"
        "while (left := os.path.exists(path)) and time.monotonic() < deadline: time.sleep(0.01)\n"
        "print(int(left), flush=True)\n"
        "os.kill(1, signal.SIGTERM)\n"
        "time.sleep(float(sys.argv[2]))\n"
    )
    waits = ["20", "60"] if way.prefix else ["0.3", "0"]
    done = way.run(PROBE[0], "-S", "-c", script, *waits, before=box)
    died = {0: "ignores it", 143: "ends with 143", -15: "ends with 143"}
    return {
        "as PID 1: zombies of orphans": done.stdout.strip(),
        "as PID 1: SIGTERM, which the program does not handle": died.get(
            done.returncode, f"other: {done.returncode}"
        ),
    }


def _descendants(pid: int) -> list[int]:
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, path.read_text().split()):
                found += [child, *_descendants(child)]
    return found
