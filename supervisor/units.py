"""`natsup unit`: a systemd service that exists is made to run under natsup, by a drop-in; and a
timer for `natsup clean`."""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from natsup.supervisor import config, settings
from natsup.supervisor.options import BadOption, Help, help_text, parse, split
from natsup.supervisor.unit_dropin import HOOKS, NothingToDo, Obstructed, drop_in
from natsup.supervisor.unit_file import BadUnit, read
from natsup.supervisor.unit_sandbox import Here
from natsup.supervisor.unit_timer import SERVICE, TIMER
from natsup.supervisor.unit_timer import units as timer_units

_DESCRIPTION = (
    "Prints the drop-in by which a systemd service runs under natsup, or installs it. Options of"
    " natsup exec come last, after a --: natsup unit rtorrent --install -- --ports 6881-6999"
)
_FILE = "natsup.conf"
_SUFFIXES = (
    *("service", "socket", "target", "device", "mount", "automount", "swap"),
    *("timer", "path", "slice", "scope", "snapshot"),
)
_MARK = "# Made by natsup unit; natsup unit --remove takes it away."
_FAILED = 125


class _Failed(Exception):
    """The message says what did not work."""


def main(parser: argparse.ArgumentParser, words: Sequence[str]) -> int:
    """Run the command. ``parser`` has no arguments yet. Returns the exit status."""
    parser.description = _DESCRIPTION
    parser.usage = (
        "natsup unit NAME [--install | --remove] [--user] [-- EXEC-OPTION...]\n"
        "       natsup unit --clean-timer [--install | --remove] [--user]"
    )
    parser.add_argument(
        "name", metavar="NAME", nargs="?", help="the service, such as rtorrent.service"
    )
    parser.add_argument(
        "--clean-timer", action="store_true", help="instead: have natsup clean run hourly"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--install", action="store_true", help="write it, and have systemd read it")
    what.add_argument("--remove", action="store_true", help="take it away again")
    parser.add_argument("--user", action="store_true", help="of your own service manager")
    parser.add_argument(
        "--from",
        dest="files",
        metavar="FILE",
        action="append",
        help="read the unit there, instead of asking systemctl; more than once for its drop-ins",
    )
    own, exec_options = list(words), list[str]()
    if "--" in own:
        at = own.index("--")
        own, exec_options = own[:at], own[at + 1 :]
    given = parser.parse_args(own)
    if given.clean_timer == (given.name is not None):
        parser.error("either the NAME of a service or --clean-timer")
    name = given.name or TIMER
    if name.rpartition(".")[2] not in _SUFFIXES:  # as systemctl has it
        name += ".service"
    try:
        if given.clean_timer:
            if given.files or exec_options:
                raise _Failed("--clean-timer takes no unit to read and no options of natsup exec")
            return _timer(install=given.install, remove=given.remove, user=given.user)
        if not name.endswith(".service") or "/" in name:
            raise _Failed(f"{name} is no service")
        if given.remove:
            return _remove(name, user=given.user)
        _check(exec_options)
        text = _of_files(given.files) if given.files else _of_systemd(name, user=given.user)
        here = _here(exec_options, user=given.user)
        made = f"{_MARK}\n{drop_in(read(text), here, exec_options)}"
        if given.install:
            return _install(name, made, user=given.user)
        print(made, end="")
    except NothingToDo as reason:
        print(f"natsup: {name}: nothing to do: {reason}", file=sys.stderr)
    except Obstructed as reason:
        print(f"natsup: {name}: this stands in the way:", file=sys.stderr)
        print("\n".join(f"  {line}" for line in str(reason).split("\n")), file=sys.stderr)
        return 1
    except (_Failed, BadUnit) as reason:
        print(f"natsup: {reason}", file=sys.stderr)
        return _FAILED
    return 0


def _check(options: Sequence[str]) -> None:
    try:
        _, command = parse([*options, "--", "true"], {}, "/")
    except BadOption as error:
        raise _Failed(str(error)) from None
    except Help:
        raise _Failed(help_text()) from None
    if command != ["true"]:
        raise _Failed(f"{command[0]} is no option of natsup exec; the command is the service's own")


def _of_files(files: Sequence[str]) -> str:
    try:
        return "\n".join(Path(file).read_text() for file in files)
    except (OSError, ValueError) as error:
        raise _Failed(f"the unit cannot be read: {error}") from None


def _of_systemd(name: str, *, user: bool) -> str:
    """The unit with its drop-ins, without natsup's own."""
    done = _systemctl("cat", "--no-pager", name, user=user)
    kept, ours = [], False
    for line in done.split("\n"):
        if line.startswith("# /") and " " not in line[2:]:  # where systemctl has the next part from
            ours = line.endswith(f"/{_FILE}")
        if not ours:
            kept.append(line)
    return "\n".join(kept)


def _systemctl(*words: str, user: bool) -> str:
    command = ["systemctl", *(["--user"] if user else []), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="surrogateescape")
    except FileNotFoundError:
        raise _Failed("there is no systemctl here; --from FILE reads the unit elsewhere") from None
    if done.returncode:
        told = "; ".join(filter(None, map(str.strip, done.stderr.splitlines())))
        raise _Failed(f"{' '.join(command)}: {told or 'it failed'}")
    return done.stdout


def _command() -> str:
    """That by which this natsup is run."""
    found = shutil.which(sys.argv[0])
    if found is None:
        raise _Failed(f"{sys.argv[0]} is no command that systemd could run; run natsup by its own")
    return os.path.abspath(found)


def _here(options: Sequence[str], *, user: bool) -> Here:
    natsup = _command()
    folders = {sys.prefix, sys.base_prefix, os.path.dirname(os.path.realpath(sys.executable))}
    folders |= {str(Path(natsup).resolve().parent), *_package_folders()}
    try:
        yama = Path("/proc/sys/kernel/yama/ptrace_scope").read_text().strip() == "1"
    except OSError:
        yama = False
    own = tuple(sorted(folders))
    closed = next((folder for folder in own if not _open(folder)), "")
    return Here(natsup, own, yama, user, closed, _configured_hooks(options, user=user))


def _configured_hooks(options: Sequence[str], *, user: bool) -> bool:
    """Does a configuration file name commands to be run, for whatever program? Those of a service's
    own user are not known."""
    try:
        given, _ = split([*options, "--", "true"])
        homes = ("HOME", "XDG_CONFIG_HOME") if user else ()
        environ = {name: os.environ[name] for name in homes if name in os.environ}
        sections = [
            section
            for file in settings.found(given, [], environ).files
            for section in config.read(file).sections.values()
        ]
    except BadOption as error:
        raise _Failed(str(error)) from None
    return any(one.option.key in HOOKS for section in sections for one in section)


def _open(folder: str) -> bool:
    """May everybody enter it?"""
    path = Path(folder)
    return all(one.stat().st_mode & 0o001 for one in (path, *path.parents))


def _package_folders() -> list[str]:
    """Where natsup's own files are, which an editable install leaves in their place."""
    return [str(Path(__file__).resolve().parent.parent)]


def _folder(*, user: bool) -> Path:
    """Where an administrator's units are, or a person's own."""
    if not user:
        return Path("/etc/systemd/system")
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(config) / "systemd/user"


def _timer(*, install: bool, remove: bool, user: bool) -> int:
    made = timer_units(_command())
    folder = _folder(user=user)
    if install:
        for name, text in made.items():
            _write(folder / name, f"{_MARK}\n{text}")
        _systemctl("daemon-reload", user=user)
        _systemctl("enable", "--now", TIMER, user=user)
        print(f"{folder / TIMER} and {SERVICE} are written, and the timer runs.")
    elif remove:
        there = [folder / name for name in made if (folder / name).exists()]
        if not there:
            raise _Failed(f"there is no {folder / TIMER}")
        for path in there:
            _expect_ours(path)
        _systemctl("disable", "--now", TIMER, user=user)
        for path in there:
            _take_away(path)
        _systemctl("daemon-reload", user=user)
        print(f"{folder / TIMER} and {SERVICE} are removed.")
    else:
        shown = (f"# {folder / name}\n{_MARK}\n{text}" for name, text in made.items())
        print("\n".join(shown), end="")
    return 0


def _install(name: str, text: str, *, user: bool) -> int:
    path = _folder(user=user) / f"{name}.d" / _FILE
    _write(path, text)
    _systemctl("daemon-reload", user=user)
    print(f"{path} is written. It counts from the next start on:")
    print(f"  systemctl {'--user ' * user}restart {name}")
    return 0


def _write(path: Path, text: str) -> None:
    try:
        _expect_ours(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.new")
        new.write_text(text, errors="surrogateescape")
        new.chmod(0o644)
        new.replace(path)
    except OSError as error:
        raise _Failed(f"{path} cannot be written: {error.strerror}") from None


def _remove(name: str, *, user: bool) -> int:
    path = _folder(user=user) / f"{name}.d" / _FILE
    _take_away(path)
    with contextlib.suppress(OSError):  # there are others in it
        path.parent.rmdir()
    _systemctl("daemon-reload", user=user)
    print(f"{path} is removed. The service runs without natsup from its next start on.")
    return 0


def _take_away(path: Path) -> None:
    try:
        _expect_ours(path)
        path.unlink()
    except FileNotFoundError:
        raise _Failed(f"there is no {path}") from None
    except OSError as error:
        raise _Failed(f"{path} cannot be removed: {error.strerror}") from None


def _expect_ours(path: Path) -> None:
    """What somebody else has written there is not to be lost."""
    with contextlib.suppress(FileNotFoundError):
        if not path.read_text(errors="replace").startswith(_MARK):
            raise _Failed(f"{path} is not natsup's: it does not begin with {_MARK!r}")
