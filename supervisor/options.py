"""The options of `natsup exec`: one table, read from the command line and the environment.

Written out here, since argparse alone would take as long to import as everything else the launcher
does. An option given on the command line comes before ``NATSUP_OPTION`` in the environment.
"""

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence

TYPE_CHECKING = False  # what type checkers take for true; importing typing takes a millisecond
if TYPE_CHECKING:
    from typing import Any

Settings = dict[str, "Any"]

UNIX = "unix:"  # of --events: a socket, and not a file
_LONGEST_SOCKET = 107  # bytes of a socket's path (unix(7))
# What hooks find in their environment (natsup.supervisor.occasions), and what is no option either.
_TOLD = ("EVENT", "EXTERNAL_ADDRESS", "EXTERNAL_PORT", "PORT", "PROTOCOL", "REASON", "SESSION")


class BadOption(Exception):
    """The message names the option, says what is wrong, and what to type instead."""


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        value = float(text)
        if 0 <= value <= 60:
            return value
    raise ValueError("a number of seconds from 0 to 60")


def _lease(text: str) -> int:
    with contextlib.suppress(ValueError):
        value = int(text)
        if 120 <= value <= 604800:
            return value
    raise ValueError("a number of seconds from 120 to 604800 (a week)")


def _number(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 65535:
        raise ValueError
    return value


def _ranges(text: str) -> list[tuple[int, int]]:
    try:
        ranges = []
        for part in text.split(","):
            low, dash, high = part.strip().partition("-")
            ranges.append((_number(low), _number(high if dash else low)))
        if all(low <= high for low, high in ranges):
            return ranges
    except ValueError:
        pass
    raise ValueError("ports and ranges, such as 6881-6889,51413")


def _ports(text: str) -> list[tuple[str, int]]:
    try:
        ports = []
        for part in text.split(","):
            number, slash, protocol = part.strip().lower().partition("/")
            if slash and protocol not in ("tcp", "udp"):
                raise ValueError
            ports += [(p, _number(number)) for p in ("tcp", "udp") if not slash or p == protocol]
        return ports
    except ValueError:
        raise ValueError("ports such as 8080/tcp,27960/udp") from None


def _url(text: str) -> str:
    scheme, _, rest = text.partition("://")
    host, _, port = rest.partition("/")[0].partition(":")
    if (
        scheme == "http"
        and host.count(".") == 3
        and all(part.isdecimal() and int(part) < 256 for part in host.split("."))
        and (not port or (port.isdecimal() and 0 < int(port) < 65536))
    ):
        return text
    raise ValueError("the URL of its description, such as http://192.168.1.1:5000/rootDesc.xml")


def _protocols(text: str) -> list[str]:
    names = [part.strip().lower() for part in text.split(",")]
    if set(names) <= {"upnp", "pcp", "natpmp"} and len(set(names)) == len(names):
        return names
    raise ValueError("upnp, pcp and natpmp, or some of them, the preferred one first")


def _switch(text: str) -> bool:
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off", ""):
        return False
    raise ValueError("yes or no")


def _names(text: str) -> list[str]:
    names = [part.strip() for part in text.split(",")]
    names = ["all" if name.lower() == "all" else name for name in names]
    if all(name and "/" not in name for name in names):
        return names
    raise ValueError("names of programs as ps -e shows them, such as unbound,dnsmasq")


def _tracking(text: str) -> str:
    if text in ("auto", "events", "seccomp"):
        return text
    raise ValueError("auto, events or seccomp")


def _reader(text: str) -> int | str:
    """A descriptor's number, ``unix:PATH``, or a file."""
    if text.isdecimal():
        if 3 <= int(text) < 1 << 20:
            return int(text)
        raise ValueError("a descriptor from 3 on: 0 to 2 are the program's")
    if text.removeprefix(UNIX):
        return text
    raise ValueError("a descriptor, a file or unix:PATH")


def _word(text: str) -> str:
    if not text:
        raise ValueError("a name")
    return text


class Option:
    """A row of the table. ``read`` turns text into the value, or raises ValueError with what is
    wanted instead; a switch has no ``placeholder``."""

    def __init__(
        self,
        name: str,
        read: Callable[[str], "Any"],
        default: "Any",
        placeholder: str,
        help: str,
        short: str = "",
    ) -> None:
        self.name = name
        self.key = name.replace("-", "_")
        self.read = read
        self.default = default
        self.placeholder = placeholder
        self.help = help
        self.short = short


OPTIONS = (
    Option("timeout", _seconds, 0.5, "S", "how long one bind() waits for the router [0.5]"),
    Option(
        "startup-timeout", _seconds, 2.0, "S", "how long the first one waits for its search [2]"
    ),
    Option("ports", _ranges, [(1024, 65535)], "RANGES", "publish these only [1024-65535]"),
    Option("deny", _ports, [], "PORT/PROTO,...", "never publish these"),
    Option("ephemeral", _switch, False, "", "also publish ports that the system chooses (port 0)"),
    Option("own-address", _switch, False, "", "also publish binds to this host's LAN address"),
    Option("clients", _names, [], "NAME,...|all", "never publish these programs' UDP ports"),
    Option("servers", _names, [], "NAME,...|all", "publish theirs even if they look like clients"),
    Option("inherited", _switch, False, "", "also publish sockets that it is started with"),
    Option("lease", _lease, 3600, "S", "how long the router may keep a forgotten port [3600]"),
    Option("gateway", _url, None, "URL", "the router's description, if it is not found"),
    Option("interface", _word, None, "IF", "the network interface that leads to the router"),
    Option(
        "protocols",
        _protocols,
        ["upnp", "pcp", "natpmp"],
        "NAME,...",
        "how to ask the router [upnp,pcp,natpmp]",
    ),
    Option("no-pinholes", _switch, False, "", "open nothing in the router's firewall for IPv6"),
    Option("track-close", _tracking, "auto", "HOW", "see sockets end by: auto, events, seccomp"),
    Option("no-io-uring", _switch, False, "", "have io_uring fail, so that programs use bind()"),
    Option("as-parent", _switch, False, "", "stay the program's parent instead of becoming it"),
    Option("argv0", _word, None, "NAME", "what the command is to find as its own name"),
    Option("dry-run", _switch, False, "", "log what would be published, ask no router"),
    Option("on-mapped", _word, None, "CMD", "run this when the router has come to forward a port"),
    Option("on-conflict", _word, None, "CMD", "run this when another host has a port"),
    Option("on-released", _word, None, "CMD", "run this when the router forwards it no more"),
    Option("events", _reader, None, "WHERE", "tell of ports by JSON lines: FD, FILE, unix:PATH"),
    Option("log", _word, None, "FILE", "write the log here"),
    Option("verbose", _switch, False, "", "log every call, also those left alone", "v"),
)
_BY_NAME = {f"--{option.name}": option for option in OPTIONS} | {
    f"-{option.short}": option for option in OPTIONS if option.short
}


class Help(Exception):
    """The user asked for help."""


def parse(
    words: Sequence[str], environ: Mapping[str, str], folder: str
) -> tuple[Settings, list[str]]:
    """The settings, and the command to run. Raises `BadOption`, `Help`. Pure.

    ``words``: what follows ``natsup exec``. ``folder``: what a relative path is relative to.
    """
    settings: Settings = {}
    for option in OPTIONS:
        name = "NATSUP_" + option.key.upper()
        settings[option.key] = (
            _value(option, name, environ[name]) if environ.get(name) else option.default
        )
    rest = list(words)
    given = set()
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        if word == "--":
            break
        if word in ("-h", "--help"):
            raise Help
        name, equals, text = word.partition("=")
        found = _BY_NAME.get(name)
        if found is None:
            raise BadOption(f"unknown option {name}{_nearest(name)}; see natsup exec --help")
        given.add(found.key)
        if not found.placeholder:
            settings[found.key] = _value(found, name, text) if equals else True
            continue
        if not equals:
            if not rest:
                raise BadOption(f"{name} needs a value: {name} {found.placeholder}")
            text = rest.pop(0)
        settings[found.key] = _value(found, name, text)
    for one, other in (("clients", "servers"), ("servers", "clients")):
        if one in given and other not in given:  # by the environment, which comes second
            settings[other] = [name for name in settings[other] if not _among(name, settings[one])]
    if settings["log"] is not None:
        settings["log"] = os.path.join(folder, settings["log"])
    if isinstance(settings["events"], str):
        path = settings["events"].removeprefix(UNIX)
        prefix = UNIX if path != settings["events"] else ""
        settings["events"] = prefix + os.path.join(folder, path)
    if not rest:
        raise BadOption("no command to run: natsup exec [options] -- COMMAND [ARG...]")
    return settings, rest


def _among(name: str, names: Sequence[str]) -> str:
    """That of some names which a process's name does not tell from this one; "" for none."""
    if not names:
        return ""
    from natsup.supervisor.clients import kept

    return next((other for other in names if kept(other) == kept(name)), "")


def _value(option: Option, name: str, text: str) -> "Any":
    try:
        return option.read(text)
    except ValueError as error:
        raise BadOption(f"{name}: {text!r} will not do; give {error}") from None


def check(settings: Settings, environ: Mapping[str, str]) -> None:
    """Do the things that settings name exist here? The program's terminal is no place to say so
    later. Raises `BadOption`."""
    check_state_folder(environ)
    if settings["log"] is not None:
        try:
            with open(settings["log"], "ab"):
                pass
        except OSError as error:
            raise BadOption(
                f"--log: {settings['log']} cannot be written: {error.strerror}"
            ) from None
    if settings["events"] is not None:
        _check_events(settings["events"])
    for name in settings["servers"]:
        same = _among(name, settings["clients"])
        if same:
            more = "" if same == name else f", as {same!r}, of which the kernel keeps 15 bytes"
            raise BadOption(
                f"--servers: {name!r} is among --clients, too{more}; give it to one of them"
            )
    name = settings["interface"]
    if name is not None and ("/" in name or not os.path.exists(f"/sys/class/net/{name}")):
        raise BadOption(f"--interface: there is no {name!r} here; ip link lists what there is")


def _check_events(where: "int | str") -> None:
    """Raises `BadOption` unless events can be told there; a socket may be made later."""
    try:
        if isinstance(where, int):
            from fcntl import F_GETFL, fcntl

            if fcntl(where, F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
                raise OSError(0, "it is open for reading")
        elif where.startswith(UNIX):
            if len(os.fsencode(where.removeprefix(UNIX))) > _LONGEST_SOCKET:
                raise OSError(0, f"it is longer than {_LONGEST_SOCKET} bytes")
        elif not _is_fifo(where):  # which may have no reader yet
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
            os.close(os.open(where, flags, 0o600))
    except OSError as error:
        raise BadOption(f"--events: {where} cannot be written: {error.strerror}") from None


def _is_fifo(path: str) -> bool:
    from stat import S_ISFIFO

    try:
        return S_ISFIFO(os.stat(path).st_mode)
    except OSError:
        return False


def check_state_folder(environ: Mapping[str, str]) -> None:
    """Raises `BadOption` for a folder that would be another one for every working directory."""
    folder = environ.get("NATSUP_STATE_DIR")
    if folder and not os.path.isabs(folder):
        raise BadOption(f"NATSUP_STATE_DIR: {folder!r} will not do; give an absolute path")


def unknown(environ: Mapping[str, str]) -> list[str]:
    """Variables that look like options and are none: mistyped, perhaps."""
    known = {"NATSUP_" + name for name in ("STATE_DIR", *_TOLD)}
    known |= {"NATSUP_" + option.key.upper() for option in OPTIONS}
    return sorted(name for name in environ if name.startswith("NATSUP_") and name not in known)


def _nearest(name: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, _BY_NAME, 1)
    return f" (did you mean {close[0]}?)" if close else ""


def help_text() -> str:
    """The text of `natsup exec --help`."""
    lines = [
        "natsup exec [options] -- COMMAND [ARG...]",
        "",
        "Runs COMMAND unchanged. The TCP and UDP ports it binds are forwarded by the home router",
        "for as long as it has them.",
        "",
    ]
    for option in OPTIONS:
        left = f"--{option.name} {option.placeholder}".rstrip()
        if option.short:
            left = f"-{option.short}, {left}"
        lines.append(f"  {left:<26}{option.help}")
    lines += [
        "",
        "Each is also read from the environment: NATSUP_TIMEOUT=1, NATSUP_EPHEMERAL=yes.",
        "Exit status: the command's own; 125 natsup failed, 126 the command cannot be run,",
        "127 it was not found.",
    ]
    return "\n".join(lines)
