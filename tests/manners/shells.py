"""A person at a terminal: bash with job control, and the program in it. And what stands around
programs, and in them."""

import os
import re
import signal

from tests.manners.ways import PROBE, Terminal, Way, state, until

_SHELL = ["bash", "--norc", "--noprofile", "-i"]


def _environ(way: Way) -> dict[str, str]:
    # A dumb terminal: what bash's own line editor prints is the same at all times.
    return {**way.environ, "PS1": "READY> ", "TERM": "dumb", "HISTFILE": "/dev/null"}


class _Shell(Terminal):
    """bash at its prompt. ``run``: the words that run a program in this way."""

    def __init__(self, way: Way, words: list[str] | None = None) -> None:
        super().__init__(words or _SHELL, _environ(way))
        self._way = way
        self.until("READY> ")

    def start(self, words: list[str]) -> None:
        self.type(" ".join([*self._way.prefix, *words]) + "\n")

    def status(self) -> int:
        self.type("echo status=$?\n")
        found = self.until(r"status=(\d+)\r\n.*READY> ")
        return int(found[1])

    def counts(self, launcher: int) -> dict[str, int]:
        """Of the probe. First the last of all signals is sent to whom the shell has started: none
        that has been told it is under way any more."""
        os.kill(launcher, signal.SIGRTMAX)
        self.until("<RTMAX")
        self.type("counts\n")
        told = self.until(r"<counts ([^>]*)>")[1].decode()
        return {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", told)}


def _times(count: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(count, f"{count} times")


def _stop(shell: _Shell, pid: int, way: Way, typed: str) -> str:
    """This stops the probe, if all goes well, and fg continues it."""
    shell.type(typed)
    if way.name == "tini":  # one would wait for the prompt in vain
        until(lambda: state(pid) == "T")
        seen = "the shell does not see it"
        os.kill(pid, signal.SIGCONT)
    else:
        shell.until(r"Stopped.*READY> ")
        seen = "stopped, goes on"
        shell.type("fg\n")
    shell.until("<CONT")
    return seen


def _read_behind(shell: _Shell) -> str:
    """In the background it reads from the terminal, and is stopped for that."""
    shell.type("\x1a")
    shell.until("Stopped.*READY> ")
    shell.type("bg\n")  # its SIGCONT may be lost: what stops takes it away, prepare_signal()
    while shell.until(r"Stopped|READY> ")[0] != b"Stopped":
        shell.type("\n")  # bash tells at a prompt
    shell.type("fg\n")
    shell.until("<CONT")
    return "stopped, goes on"


def keys(way: Way, bare: Way) -> dict[str, str]:
    """Ctrl-C, Ctrl-\\, Ctrl-Z, fg, bg, the window's size."""
    found = {}
    with _Shell(way) as shell:
        shell.start(PROBE)
        numbers = shell.until(r"<pid (\d+) group (\d+) parent (\d+)>").groups()
        pid, group, parent = map(int, numbers)
        shell.type("\x03")
        shell.until("<INT")
        shell.type("\x1c")
        shell.until("<QUIT")
        shell.resize(30, 100)
        shell.until("<WINCH")
        shell.type("size\n")
        size = shell.until(r"<size (\w+)>")[1].decode()
        found["Ctrl-Z and fg"] = _stop(shell, pid, way, "\x1a")
        found["the program stops itself; fg"] = _stop(shell, pid, way, "stop\n")
        found["the program stops its group; fg"] = _stop(shell, pid, way, "stop group\n")
        found["the program stops itself by SIGSTOP; fg"] = _stop(shell, pid, way, "stop at once\n")
        counts = shell.counts(way.launcher(pid, group, parent))
        reading = "not tried" if way.name == "tini" else _read_behind(shell)
        shell.type("exit 7\n")
        shell.until("READY> ")
        found["bg; a read from the terminal there; fg"] = reading
        found["Ctrl-C"] = _times(counts["INT"])
        found["Ctrl-\\"] = _times(counts["QUIT"])
        found["the window's size changes"] = f"{_times(counts['WINCH'])}, {size}"
        found["SIGCONT, for the last of four continues"] = _times(counts["CONT"] - 3)
        found["exit status in the shell"] = str(shell.status())
    return found


def foreground(way: Way, bare: Way) -> dict[str, str]:
    """The controlling terminal, and who is in the foreground."""
    # proc_pid_stat(5): pgrp, session, tty_nr, tpgid
    script = """
    echo there > /dev/tty; set -- $(cut -d' ' -f5-8 /proc/$$/stat)
    [ $1 = $4 ] && echo foreground; [ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo standard
    """
    with Terminal([*way.prefix, "sh", "-c", script], _environ(way)) as terminal:
        words = terminal.rest().decode().split()
    complete = words == ["there", "foreground", "standard"]
    return {"controlling terminal": "there, in the foreground" if complete else f"other: {words}"}


def hang_up(way: Way, bare: Way) -> dict[str, str]:
    """The terminal goes, and the program writes into a file how often it was told."""
    report = way.folder / f"hang-up {way.name}"
    script = (
        f"n=0; trap 'n=$((n + 1)); echo HUP $n > \"{report}\"; exit' HUP; echo there;"
        " while :; do sleep 0.05; done"
    )
    with Terminal([*way.prefix, "bash", "-c", script], _environ(way)) as terminal:
        terminal.until("there")
        terminal.hang_up()
        status = terminal.process.wait(20)
    told = report.read_text().split()
    return {"the terminal hangs up, session leader": f"{_times(int(told[1]))}, status {status}"}


def interrupts(way: Way, bare: Way) -> dict[str, str]:
    """Programs that do not handle the keys die of them, and the shell can tell."""
    found = {}
    with _Shell(way) as shell:
        for name, key in (("Ctrl-C", "\x03"), ("Ctrl-\\", "\x1c")):
            shell.start(["sh", "-c", "'ulimit -c 0; echo there; exec cat'"])
            shell.until("\nthere")
            shell.type(key)
            shell.until("READY> ")
            found[f"{name}, which the program does not handle"] = f"status {shell.status()}"
        # A loop of the shell's ends as well, if the program has died of SIGINT.
        words = " ".join([*way.prefix, "sh", "-c", "'echo there; exec cat'"])
        shell.type(f"for i in 1 2; do {words}; echo again; done\n")
        shell.until("\nthere")
        shell.type("\x03")
        found["Ctrl-C in a loop of the shell"] = (
            "the loop ends" if shell.until(r"again\r\n|READY> ")[0] == b"READY> " else "goes on"
        )
    return found


def inner_shell(way: Way, bare: Way) -> dict[str, str]:
    """A shell with job control of its own."""
    with Terminal([*way.prefix, *_SHELL], _environ(way)) as shell:
        shell.until("READY> ")
        shell.type("sh -c 'echo there; exec cat'\n")
        shell.until("\nthere")
        shell.type("\x1a")
        shell.until("Stopped.*READY> ")
        shell.type("sleep 60 &\n")
        shell.until("READY> ")
        shell.type("jobs\n")
        shell.until(r"Stopped +sh.*Running +sleep.*READY> ")
        shell.type("fg 1\n")
        shell.until("sh -c.*\n")
        shell.type("again\n")  # what cat answers to has the terminal
        shell.until("again.*again")
        shell.type("\x03")
        shell.until("READY> ")
        shell.type("kill %2; wait %2; exit 4\n")
        shell.rest()
        status = shell.process.wait(20)
        shown = shell.output
    problem = "no job control" in shown.decode() or "cannot set terminal" in shown.decode()
    return {
        "bash -i, with job control in it": f"{'fails' if problem else 'works'}, status {status}"
    }


def pipelines(way: Way, bare: Way) -> dict[str, str]:
    """Pipes, background jobs, and commands that run commands, around the program and in it."""
    script = """
    say() { printf '%s\\t' "$1"; shift; echo $*; }
    "$@" yes | head -n 1 > /dev/null; say 'a reader that leaves (SIGPIPE)' ${PIPESTATUS[0]}
    say 'in a pipeline' $(seq 5 | "$@" sed s/^/x/ | tail -n 1)
    "$@" sh -c 'exit 3' & wait $!; say 'a background job' $?
    "$@" sleep 60 & kill $!; wait $! 2> /dev/null; say 'a background job, killed' $?
    say 'timeout around it' $(timeout 1 "$@" sleep 60; echo $?)
    say 'timeout in it' $("$@" timeout 0.1 sleep 60; echo $?)
    say 'xargs around it and in it' $(seq 2 | xargs -P 2 -n 1 "$@" sh -c 'echo x'
        seq 3 | "$@" xargs -P 2 -n 1 sh -c 'exit 1'; echo $?)
    say 'setsid around it and in it' $(setsid -w "$@" sh -c 'exit 5'; echo $?
        "$@" setsid -w sh -c 'exit 6'; echo $?)
    say 'nohup around it and in it' $(nohup "$@" sh -c 'kill -HUP $$; echo alive' 2> /dev/null
        "$@" nohup sh -c 'kill -HUP $$; echo alive' 2> /dev/null)
    say 'sudo around it and in it' $(sudo -n --preserve-env "$@" id -un; echo $?
        "$@" sudo -n id -un; echo $?)
    """
    out = way.shell(script, env={**way.environ, "HOME": str(way.folder)}).stdout
    return dict(line.split("\t") for line in out.splitlines())


def times(way: Way, bare: Way) -> dict[str, str]:
    """``time`` counts what the processes have used that were waited for."""
    burn = "i=0; while [ $i -lt 300000 ]; do i=$((i + 1)); done"
    script = f"TIMEFORMAT=%U; time \"$@\" sh -c '{burn}'; time \"$@\" true; time sh -c '{burn}'"
    with_prefix, prefix, alone = map(float, way.shell(script).stderr.split())
    counted = with_prefix - prefix > alone * 0.5
    return {"time around it: the program's CPU time": "counted" if counted else "not counted"}
