"""`natsup completions`: what makes bash, zsh and fish complete the words of natsup's commands.

shtab writes it, from the parsers that read them. What it cannot know stands here: what the value of
an option of `natsup exec` can be, and that a whole command line of another program follows.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import shtab

from natsup.supervisor import grammar
from natsup.supervisor.explain import ALL
from natsup.supervisor.options import OPTIONS

SHELLS = ("bash", "zsh", "fish")
VALUES = {
    "events": None,  # a file, among others
    "log": None,
    "config": None,
    "protocols": ("upnp,pcp,natpmp", "pcp,natpmp", "upnp", "pcp", "natpmp"),
    "track-close": ("auto", "events", "seccomp"),
    "clients": ("all",),
    "servers": ("all",),
}
# bash and fish have to know which words are values, to find where the other program's command line
# begins
_VALUED = " ".join(f"--{option.name}" for option in OPTIONS if option.placeholder)
_PREAMBLE = {
    "bash": f"""
_natsup_valued="{_VALUED}"
"""
    """_natsup_command() {
  local at=2 word=${COMP_WORDS[COMP_CWORD]}
  while [[ $at -lt $COMP_CWORD && ${COMP_WORDS[at]} == -* ]]; do
    if [[ ${COMP_WORDS[at]} == -- ]]; then (( at += 1 )); break; fi
    if [[ ${COMP_WORDS[at + 1]} == = ]]; then (( at += 3 ))  # bash takes --log=x apart
    elif [[ " $_natsup_valued " == *" ${COMP_WORDS[at]} "* ]]; then (( at += 2 ))
    else (( at += 1 )); fi
  done
  if [[ $at -ge $COMP_CWORD ]]; then
    if [[ $word == */* ]]; then compgen -f -- "$word"; else compgen -A command -- "$word"; fi
  elif declare -F _command_offset > /dev/null; then  # of bash-completion
    COMPREPLY=()
    _command_offset $at 2> /dev/null
    [[ ${#COMPREPLY[@]} -eq 0 ]] || printf '%s\n' "${COMPREPLY[@]}"
  else
    compgen -f -- "$word"
  fi
}
_natsup_interface() {
  compgen -W "$(command ls /sys/class/net)" -- "$1"
}
""",
    "zsh": """
_natsup_interface() {
  compadd -- /sys/class/net/*(N:t)
}
_natsup_command() {
  if [[ $words[1] == -- ]]; then shift words; (( CURRENT -= 1 )); fi
  _normal
}
""",
    "fish": "",
}
_COMMAND = {
    "bash": "_natsup_command",
    "zsh": "_natsup_command",
    "fish": f"(__fish_complete_subcommand --fcs-skip=2 {_VALUED})",
}
_INTERFACE = {
    "bash": "_natsup_interface",
    "zsh": "_natsup_interface",
    "fish": "(command ls /sys/class/net)",
}


def main(parser: argparse.ArgumentParser, words: Sequence[str]) -> int:
    """Run the command. ``parser`` has no arguments yet. Returns the exit status."""
    parser.description = "Prints what makes a shell complete natsup's commands and options."
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))
    print(script(parser.parse_args(words).shell), end="")
    return 0


def script(shell: str) -> str:
    """What the shell is to read."""
    whole = grammar.whole()
    for name, parser in grammar.by_name(whole).items():
        for action in parser._actions:
            _hint(name, action)
    return str(shtab.complete(whole, shell=shell, preamble=_PREAMBLE[shell]))


def _hint(command: str, action: Any) -> None:
    """Tell shtab what can stand there."""
    name = action.option_strings[-1].removeprefix("--") if action.option_strings else action.dest
    if command == "exec" and name in VALUES:
        if VALUES[name] is None:
            action.complete = shtab.FILE
        else:
            action.choices = VALUES[name]
    elif name == "interface":
        action.complete = _INTERFACE
    elif command == "exec" and name == grammar.REST:
        action.complete = _COMMAND
    elif name == "from":
        action.complete = shtab.FILE
    elif command == "explain" and name == "topic":
        action.choices = [topic.names[0] for topic in ALL]
