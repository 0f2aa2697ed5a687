"""The drop-in that has a systemd service run under natsup. Pure: text in, text out.

In place natsup becomes the program, and so pid, status, notifications, watchdog and signals are the
program's own. As parent (Yama) it is the main process, and passes signals on, so that systemd must
send them to it alone. Then, and wherever else systemd kills all that is left as soon as the main
process has ended, something has to wait until the router has taken the ports back.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from natsup.supervisor import unit_sandbox
from natsup.supervisor.options import Layer, split
from natsup.supervisor.unit_file import Command, Service, in_quotes, quoted
from natsup.supervisor.unit_sandbox import Here

CLEAN_UP_SECONDS = 6  # a session's end takes five at most, and then it writes that down
HOOKS_SECONDS = 11  # the last hooks' ten, and then those that hang are killed
_VARIABLE = re.compile(r"""(["']?)\$([A-Za-z_]\w*)\1""")
_NAME = "natsup"
_STATE = "natsup-%N"
HOOKS = ("on_mapped", "on_conflict", "on_released")  # the options' keys
_HOOKS_BY_ENVIRONMENT = {f"NATSUP_{key.upper()}" for key in HOOKS}


class NothingToDo(Exception):
    """The service needs no natsup. The message says why."""


class Obstructed(Exception):
    """natsup cannot run in this service. The message names the lines that stand in the way."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """How the service is started and stopped."""

    type: str
    as_parent: bool
    kill_mode: str
    hooks: bool  # does its session's end have commands of the user's run?

    @property
    def end_seconds(self) -> int:
        """That a session's end may take."""
        return CLEAN_UP_SECONDS + HOOKS_SECONDS * self.hooks


def drop_in(service: Service, here: Here, options: Sequence[str] = ()) -> str:
    """The text of the drop-in. ``options``: of `natsup exec`. Raises `NothingToDo`, `Obstructed`,
    `BadUnit`."""
    network = unit_sandbox.no_network(service)
    if network:
        raise NothingToDo(f"{network}: it has no port that a router could forward")
    commands = service.commands()
    if not commands:
        raise NothingToDo("it has no ExecStart=")
    if all(command.is_natsup for command in commands):
        raise NothingToDo("natsup runs it already")
    obstacles = unit_sandbox.obstacles(service, here)
    if obstacles:
        raise Obstructed("\n".join(obstacles))
    given, _ = split([*options, "--", "true"])
    kind = _kind(service, here, given)
    own = (*(("--as-parent",) if kind.as_parent else ()), *options)
    lines = [f"# {note}" for note in [*_notes(service, kind), *unit_sandbox.notes(service, here)]]
    lines += ["[Service]", "ExecStart="]
    lines += [f"ExecStart={wrapped(command, here.natsup, own)}" for command in commands]
    if not service.last("SyslogIdentifier") and commands[0].name:
        lines.append(f"SyslogIdentifier={commands[0].name}")  # else it would be natsup's
    lines += _manners(service, here, kind, given)
    lines += _state(service, here)
    lines += unit_sandbox.additions(service, here)
    return "\n".join(lines) + "\n"


def wrapped(command: Command, natsup: str, options: Sequence[str]) -> str:
    """The command under natsup, as an ExecStart= line has it."""
    if command.is_natsup:
        return command.prefixes + " ".join(command.words)
    expands = ":" not in command.prefixes
    path, *arguments = command.words
    if expands:
        path = path.replace("$", "$$")  # no variables in the command, but in its arguments
    words = [quoted(natsup, expands=False), "exec"]
    words += [quoted(option, expands=expands) for option in options]
    if "@" in command.prefixes:
        words.append(f"--argv0={_in_braces(arguments.pop(0), expands=expands)}")
    prefixes = command.prefixes.replace("@", "")
    return prefixes + " ".join([*words, "--", path, *arguments])


def _in_braces(word: str, *, expands: bool) -> str:
    """A word as a part of one: a variable that is all of a word is put in there only so."""
    variable = _VARIABLE.fullmatch(word) if expands else None
    return word if variable is None else f"${{{variable[2]}}}"


def _kind(service: Service, here: Here, given: Layer) -> _Kind:
    default = "dbus" if service.last("BusName") else "simple"
    return _Kind(
        service.last("Type").lower() or default,
        here.yama and not unit_sandbox.may_trace(service, here),
        service.last("KillMode").lower() or "control-group",
        here.hooks
        or any(one.option.key in HOOKS for one in given)
        or any(line.partition("=")[0] in _HOOKS_BY_ENVIRONMENT for line in _environment(service)),
    )


def _manners(service: Service, here: Here, kind: _Kind, given: Layer) -> list[str]:
    """How systemd is to treat the processes."""
    lines = []
    # By "process" and "none" what is left goes on. Else it is killed: by "mixed" as soon as the
    # main process has ended, by both together with a program that does not stop in time. Then
    # this removes what the dead session left.
    waits = kind.kill_mode in ("mixed", "control-group")
    # The first process of a forking service ends at once, and natsup's with it.
    if kind.as_parent and kind.type != "forking":
        if kind.kill_mode == "control-group":
            lines.append("KillMode=mixed")
        tells = kind.type in ("notify", "notify-reload") or service.last("WatchdogSec")
        if (tells or service.last("NotifyAccess")) and service.last("NotifyAccess") != "none":
            lines.append("NotifyAccess=all")
    if waits:
        clean = [quoted(here.natsup, expands=False), "clean", "--wait", str(kind.end_seconds)]
        for name in ("gateway", "interface"):
            last = [one.text for one in given if one.option.name == name][-1:]
            clean += [quoted(f"--{name}={text}") for text in last]
        lines.append(f"ExecStopPost=-{' '.join(clean)}")
    return lines


def _state(service: Service, here: Here) -> list[str]:
    """Where natsup keeps its journal, if not where it always does."""
    strict = unit_sandbox.implied(service, "ProtectSystem").lower() == "strict"
    root = unit_sandbox.is_root(service, here)
    if any(line.startswith("NATSUP_STATE_DIR=") for line in _environment(service)):
        return []
    if not strict:
        # A person has a home, and root its folder; of others nobody knows.
        person = service.last("User") in ("%i", "%I")
        if root or here.user or (person and not service.last("ProtectHome")):
            return []
    # Every user has a folder of his own: systemd gives it to the service's user as a whole.
    name = _NAME if root else _STATE
    others = service.words("StateDirectory")
    lines = [f"StateDirectory={name}", f"Environment=NATSUP_STATE_DIR=%S/{name}"]
    # The program is not to take it for one of its own.
    if others:
        paths = ":".join(f"%S/{word.partition(':')[0]}" for word in others)
        return [*lines, f"Environment={in_quotes(f'STATE_DIRECTORY={paths}')}"]
    return [*lines, "UnsetEnvironment=STATE_DIRECTORY"]


def _environment(service: Service) -> list[str]:
    return service.words("Environment")


def _notes(service: Service, kind: _Kind) -> list[str]:
    found = []
    if kind.as_parent and kind.type != "forking":
        found.append("As parent (kernel.yama.ptrace_scope is 1): the main process is natsup's.")
    if kind.type == "forking" and not service.last("PIDFile"):
        found.append(
            "Type=forking without PIDFile=: systemd cannot tell the main process from natsup's, and"
            " does not learn how it ends; give it a PIDFile=, or have the program stay in front"
        )
    seconds = service.last("TimeoutStopSec").removesuffix("s")
    if seconds.isdecimal() and 0 < int(seconds) < kind.end_seconds:
        hooks = ", and the last hooks ten more" if kind.hooks else ""
        found.append(
            f"TimeoutStopSec={seconds}: the router may need {CLEAN_UP_SECONDS - 1} s to take the"
            f" ports back{hooks}; what it keeps goes at the next start"
        )
    return found
