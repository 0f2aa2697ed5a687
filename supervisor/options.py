"""The options of `natsup exec`: one table, for the command line, the environment and the files.

Written out here, since argparse alone would take as long to import as everything else the launcher
does. What counts is what stands in the last *layer*: the configuration files (`settings`), then
``NATSUP_OPTION`` in the environment, then the command line.
"""

import os
from _collections_abc import Callable, Mapping, Sequence

from natsup.supervisor import ports
from natsup.supervisor.bare import suppress

TYPE_CHECKING = False  # what type checkers take for true; importing typing takes a millisecond
if TYPE_CHECKING:
    from typing import Any

Settings = dict[str, "Any"]

UNIX = "unix:"  # of --events: a socket, and not a file
# What hooks find in their environment (natsup.supervisor.occasions), and what is no option either.
_TOLD = ("EVENT", "EXTERNAL_ADDRESS", "EXTERNAL_PORT", "PORT", "PROTOCOL", "REASON", "SESSION")


class BadOption(Exception):
    """The message names the option, says what is wrong, and what to type instead."""


def _seconds(text: str) -> float:
    with suppress(ValueError):
        value = float(text)
        if 0 <= value <= 60:
            return value
    raise ValueError("a number of seconds from 0 to 60")


def _lease(text: str) -> int:
    with suppress(ValueError):
        value = int(text)
        if 120 <= value <= 604800:
            return value
    raise ValueError("a number of seconds from 120 to 604800 (a week)")


def _ports(text: str) -> list[ports.Range]:
    with suppress(ValueError):
        return ports.read(text)
    raise ValueError("ports and ranges, such as 6881-6999,udp/27960")


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
    wanted instead, as it does for the empty text; a switch has no ``placeholder``. ``adds``: what
    is given in one layer is not replaced by the next, but added to. ``empty``: the empty text will
    do all the same."""

    def __init__(
        self,
        name: str,
        read: Callable[[str], "Any"],
        default: "Any",
        placeholder: str,
        help: str,
        short: str = "",
        *,
        adds: bool = False,
        empty: bool = False,
    ) -> None:
        self.name = name
        self.key = name.replace("-", "_")
        self.read = read
        self.default = default
        self.placeholder = placeholder
        self.help = help
        self.short = short
        self.adds = adds
        self.empty = empty


OPTIONS = (
    Option("timeout", _seconds, 0.5, "S", "how long one bind() waits for the router [0.5]"),
    Option(
        "startup-timeout", _seconds, 2.0, "S", "how long the first one waits for its search [2]"
    ),
    Option("ports", _ports, _ports("1024-65535"), "PORTS", "publish these only [1024-65535]"),
    Option("deny", _ports, [], "PORTS", "do not publish these"),
    Option("never", _ports, [], "PORTS", "nor these, whatever else is given", adds=True),
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
    Option("argv0", _word, None, "NAME", "what the command is to find as its own name", empty=True),
    Option("dry-run", _switch, False, "", "log what would be published, ask no router"),
    Option("on-mapped", _word, None, "CMD", "run this when the router has come to forward a port"),
    Option("on-conflict", _word, None, "CMD", "run this when another host has a port"),
    Option("on-released", _word, None, "CMD", "run this when the router forwards it no more"),
    Option("events", _reader, None, "WHERE", "tell of ports by JSON lines: FD, FILE, unix:PATH"),
    Option("config", _word, None, "FILE|none", "read this file instead of your own config.toml"),
    Option("log", _word, None, "FILE", "write the log here"),
    Option("verbose", _switch, False, "", "log every call, also those left alone", "v"),
)
_BY_NAME = {f"--{option.name}": option for option in OPTIONS} | {
    f"-{option.short}": option for option in OPTIONS if option.short
}


class Help(Exception):
    """The user asked for help."""


class Given:
    """A setting as somebody has given it. ``where``: what it is called there, for messages.

    Raises `BadOption` for a text that will not do."""

    __slots__ = ("key", "option", "text", "value", "where")

    def __init__(self, option: Option, text: str, where: str, key: tuple[str, ...] = ()) -> None:
        self.option = option
        self.text = text
        self.where = where
        self.key = key  # where it stands in a file
        if "\0" in text:  # which ends what the supervisor is told (natsup.supervisor.page)
            raise BadOption(f"{where}: {text!r} will not do; give it without the NUL")
        try:
            # A list can be empty in a file, where it is no slip
            empty = not text and key and option.default == []
            self.value = [] if empty else "" if option.empty and not text else option.read(text)
        except ValueError as error:
            raise BadOption(f"{where}: {text!r} will not do; give {error}") from None


Layer = Sequence[Given]


def parse(
    words: Sequence[str], environ: Mapping[str, str], folder: str
) -> tuple[Settings, list[str]]:
    """The settings without those of files, and the command to run. Raises `BadOption`, `Help`.

    ``words``: what follows ``natsup exec``. ``folder``: what a relative path is relative to. Pure.
    """
    given, command = split(words)
    return values(decide([of_environment(environ), given]), folder), command


def split(words: Sequence[str]) -> tuple[list[Given], list[str]]:
    """The options on a command line, and the command behind them. Raises `BadOption`, `Help`."""
    given = []
    rest = list(words)
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
        if not equals and not found.placeholder:
            text = "yes"
        elif not equals:
            if not rest:
                raise BadOption(f"{name} needs a value: {name} {found.placeholder}")
            text = rest.pop(0)
        given.append(Given(found, text, name))
    if not rest:
        raise BadOption("no command to run: natsup exec [options] -- COMMAND [ARG...]")
    return given, rest


def of_environment(environ: Mapping[str, str]) -> list[Given]:
    """The options in an environment; an empty one is none. Raises `BadOption`."""
    names = [(option, "NATSUP_" + option.key.upper()) for option in OPTIONS]
    return [Given(option, environ[name], name) for option, name in names if environ.get(name)]


def decide(layers: Sequence[Layer]) -> dict[str, list[Given]]:
    """What counts, of layers of which the last comes first, by the options' keys: one for each that
    is given, or all where they add up."""
    decided: dict[str, list[Given]] = {}
    for layer in layers:
        here = {given.option.key for given in layer}
        for given in layer:
            before = decided.get(given.option.key, []) if given.option.adds else []
            decided[given.option.key] = [*before, given]
        for one, other in (("clients", "servers"), ("servers", "clients")):
            if one in here and other not in here and other in decided:
                last = decided.pop(other)[-1]
                names = decided[one][-1].value
                rest = ",".join(name for name in last.value if not among(name, names))
                if rest:
                    decided[other] = [Given(last.option, rest, last.where, last.key)]
    return decided


def values(decided: Mapping[str, Layer], folder: str) -> Settings:
    """The settings that come of it. ``folder``: what a relative path is relative to."""
    settings = {option.key: option.default for option in OPTIONS}
    for key, layer in decided.items():
        settings[key] = layer[-1].value
        if len(layer) > 1:
            settings[key] = [one for given in layer for one in given.value]
    if settings["log"] is not None:
        settings["log"] = os.path.join(folder, settings["log"])
    if isinstance(settings["events"], str):
        path = settings["events"].removeprefix(UNIX)
        prefix = UNIX if path != settings["events"] else ""
        settings["events"] = prefix + os.path.join(folder, path)
    return settings


def as_words(decided: Mapping[str, Layer]) -> list[str]:
    """Options of a command line that say the same as all layers do; what is empty is left out."""
    return [
        f"--{layer[0].option.name}={text}"
        for layer in decided.values()
        if (text := ",".join(given.text for given in layer if given.text))
    ]


def among(name: str, names: Sequence[str]) -> str:
    """That of some names which a process's name does not tell from this one; "" for none."""
    if not names:
        return ""
    from natsup.supervisor.clients import kept

    return next((other for other in names if kept(other) == kept(name)), "")


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
        "Each is also read from the environment: NATSUP_TIMEOUT=1, NATSUP_EPHEMERAL=yes, and",
        "before that from configuration files: natsup config show says what is in force.",
        "Exit status: the command's own; 125 natsup failed, 126 the command cannot be run,",
        "127 it was not found, 70 an error inside natsup (natsup explain 125).",
    ]
    return "\n".join(lines)
