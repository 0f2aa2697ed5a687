"""Completions, where people meet them: a shell on a terminal, and the tabulator key."""

import os
import pty
import re
import select
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from natsup.supervisor import completions, grammar
from natsup.supervisor.options import OPTIONS

# In place of natsup, a function that says with which words it was called
START = {
    "bash": (
        ["bash", "--norc", "--noprofile", "-i"],
        "natsup() {{ echo \"GOT[$*]\"; }}; bind 'set enable-bracketed-paste off'; source {script};"
        " PS1='READ''Y> '",
    ),
    "zsh": (
        ["zsh", "-f", "-i"],
        'natsup() {{ print -r -- "GOT[$*]"; }}; fpath=({folder} $fpath); autoload -Uz'
        " compinit; compinit -u -D; PS1='READ''Y> '",
    ),
    "fish": (
        ["fish", "--no-config", "-i"],
        'function natsup; echo "GOT[$argv]"; end; source {script};'
        " function fish_prompt; echo -n READ''Y'> '; end",
    ),
}


class Shell:
    """An interactive shell on a terminal of its own."""

    def __init__(self, name: str, script: Path, home: Path) -> None:
        command, prepare = START[name]
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            env = {"HOME": str(home), "PATH": "/usr/bin:/bin", "TERM": "xterm", "LC_ALL": "C.UTF-8"}
            os.execvpe(command[0], command, env)
        self.read = ""
        self.type(prepare.format(script=script, folder=script.parent) + "\r")
        self.wait_for(r"READY> ")

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Until it has written that; what it wrote before is forgotten."""
        end = time.monotonic() + 30
        while (found := re.search(pattern, self.read)) is None:
            ready, _, _ = select.select([self.fd], [], [], max(0, end - time.monotonic()))
            assert ready, f"{pattern} does not come: {self.read!r}"
            self.read += os.read(self.fd, 4096).decode(errors="replace")
        self.read = self.read[found.end() :]
        return found

    def completed(self, line: str) -> str:
        """The words that natsup is called with, when this is typed, Tab, and Enter."""
        self.type(line + "\t\r")
        return self.wait_for(r"GOT\[(.*?)\]")[1].strip()

    def end(self) -> None:
        os.close(self.fd)
        os.waitpid(self.pid, 0)


@pytest.fixture(params=completions.SHELLS)
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shell]:
    script = tmp_path / "_natsup"  # where zsh looks for it
    script.write_text(completions.script(request.param))
    shell = Shell(request.param, script, tmp_path)
    yield shell
    shell.end()


def test_a_shell_completes_commands_options_and_values(shell: Shell) -> None:
    assert shell.completed("natsup doc") == "doctor"
    assert shell.completed("natsup exec --startup") == "exec --startup-timeout"
    assert shell.completed("natsup exec --track-close eve") == "exec --track-close events"
    assert shell.completed("natsup status --js") == "status --json"
    assert shell.completed("natsup explain double") == "explain double-nat"


def test_a_shell_completes_the_command_to_be_run_and_its_files(
    shell: Shell, tmp_path: Path
) -> None:
    assert shell.completed("natsup exec -- dpkg-dive") == "exec -- dpkg-divert"
    (tmp_path / "settings.ini").touch()
    line = f"exec --log {tmp_path}/settings.ini"
    assert shell.completed(f"natsup {line[:-4]}") == line


@pytest.mark.parametrize("shell", ["bash"], indirect=True)
def test_bash_completes_the_command_s_own_words(shell: Shell, tmp_path: Path) -> None:
    """By what there is of bash-completion, whose function it is; else names of files."""
    (tmp_path / "thenceforth").touch()
    shell.type(f"cd {tmp_path}\r")
    assert shell.completed("natsup exec -- ls then") == "exec -- ls thenceforth"
    assert shell.completed("natsup exec -- ls --zz") == "exec -- ls --zz"
    shell.type('_command_offset() { COMPREPLY=("--from-$1-${COMP_WORDS[$1]}"); }\r')
    for words in ("exec --", "exec --log x --verbose --", "exec --log=x", "exec --log x"):
        at = len(words.replace("=", " = ").split()) + 1
        assert shell.completed(f"natsup {words} ls x") == f"{words} ls --from-{at}-ls"


def test_values_that_are_offered_are_taken() -> None:
    options = {option.name: option for option in OPTIONS}
    for name, values in completions.VALUES.items():
        for value in values or ():
            options[name].read(value)


@pytest.mark.parametrize("shell_name", completions.SHELLS)
def test_every_option_is_offered(shell_name: str) -> None:
    script = completions.script(shell_name)
    for parser in grammar.by_name(grammar.whole()).values():
        for word in (word for action in parser._actions for word in action.option_strings):
            name = word.lstrip("-")
            assert re.search(rf"(--?|-l |-s ){re.escape(name)}\b", script), word
