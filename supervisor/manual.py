"""`natsup manual`: the manual pages natsup(1) and natsup.toml(5).

They are made of what `--help` is made of: the table of options and the parsers of the commands, and
of the texts of `natsup explain`. What is not said there stands here.
"""

import argparse
import re
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version

from natsup.supervisor import config, grammar, roff
from natsup.supervisor.explain import lookup
from natsup.supervisor.options import OPTIONS, Option
from natsup.supervisor.settings import SYSTEM

_WHAT = "run a program so that the ports it binds are open on the home router"
_ABOUT = (
    "`natsup exec` runs a program unchanged. When the program binds a TCP or UDP port on the"
    " wildcard address, the home router forwards that port to this host before `bind`(2) returns."
    " When another machine on the LAN has the port on the router already, `bind`(2) fails with"
    " EADDRINUSE, as if the port were taken here. When the socket is gone, so is the forwarding.",
    "The router is asked by UPnP, PCP or NAT-PMP. Where there is none, or it says no, the program"
    " goes on as without natsup, and natsup asks again in the background. natsup prints nothing:"
    " the terminal is the program's.",
)
_EXAMPLES = (
    ("A BitTorrent client, and nothing else to be done:", ("natsup exec -- rtorrent",)),
    (
        "One that is not to have its web interface on the Internet:",
        ("natsup exec --deny 9091 -- transmission-daemon -f",),
    ),
    (
        "A systemd service:",
        ("sudo natsup unit minecraft.service --install", "sudo systemctl restart minecraft"),
    ),
    ("What does not work, and what to do about it:", ("natsup doctor",)),
)
_VARIABLES = (
    (
        "NATSUP_STATE_DIR",
        "The state folder, an absolute path. Else it is natsup in `XDG_STATE_HOME`, or"
        " ~/.local/state/natsup; for root /var/lib/natsup.",
    ),
    (
        "XDG_CONFIG_HOME",
        "The folder natsup in it has your own configuration file. Else it is ~/.config.",
    ),
)
_FILES = (
    (SYSTEM, "the configuration for everybody on the machine; see `natsup.toml`(5)"),
    ("~/.config/natsup/config.toml", "your own"),
    ("~/.local/state/natsup/log", "the log, where there is no journal"),
    ("~/.local/state/natsup/history.jsonl", "what happened to ports: `natsup log` shows it"),
    ("~/.local/state/natsup/crashes/", "reports of errors inside natsup"),
)
_LAYERS = (
    "the defaults",
    f"`{SYSTEM}`, for everybody on the machine",
    "`$XDG_CONFIG_HOME/natsup/config.toml`, by default `~/.config/natsup/config.toml`, your own;"
    " `--config FILE` or `NATSUP_CONFIG` names another one, or `none`",
    "the environment, such as `NATSUP_LEASE`",
    "options of `natsup exec`, such as `--lease`",
)
_FILE = (
    "# for every program",
    "lease = 7200",
    'ports = ["1024-65535"]',
    'deny = [9091, "udp/5000-5999"]',
    "",
    "[program.rtorrent]            # those that are started as natsup exec -- rtorrent",
    'ports = ["6881-6999"]',
)
_ABOUT_FILES = (
    "None is needed. What `natsup`(1) does comes from these places; a later one counts more:",
)
_FORM = (
    "The files are TOML. Names and values are those of the options of `natsup exec`: a number"
    " is given without quotes, a list in brackets, and true or false for an option without a value."
    " Paths are absolute. What stands in the table `[program.NAME]` counts for the program"
    " of that name alone, which is the last part of the command as it is typed, and more than what"
    " stands above it.",
    "A name that is none, a value that will not do and a file that others can write are mistakes:"
    " `natsup exec` names the file and the line, and ends with status 125 without starting the"
    " program. `natsup config check` names them all, `natsup config show` tells what is in force"
    " and from where.",
)
_STATUSES = ("status-1", "status-70", "status-125", "status-126", "status-127")


def main(parser: argparse.ArgumentParser, words: Sequence[str]) -> int:
    """Run the command. ``parser`` has no arguments yet. Returns the exit status."""
    parser.description = "Prints a page of the manual: natsup manual | man -l -"
    names = " or ".join(PAGES)
    parser.add_argument(
        "page", nargs="?", choices=list(PAGES), default="natsup.1", metavar="PAGE", help=names
    )
    print(PAGES[parser.parse_args(words).page]())
    return 0


def command_page() -> str:
    """natsup(1)."""
    whole = grammar.whole()
    parsers = grammar.by_name(whole)
    return roff.page([
        roff.title("natsup", 1, _source()),
        roff.section("NAME"),
        f"natsup \\- {_WHAT}",
        roff.section("SYNOPSIS"),
        *(roff.text(line) for line in _synopsis(parsers)),
        roff.section("DESCRIPTION"),
        *map(roff.text, _ABOUT),
        roff.section("OPTIONS OF NATSUP EXEC"),
        roff.text("Each is also read from the environment, and from files: see `natsup.toml`(5)."),
        *(roff.term(_head(action), _help(action)) for action in _options(parsers["exec"])),
        roff.section("OTHER COMMANDS"),
        *(line for name in parsers if name != "exec" for line in _command(name, parsers[name])),
        roff.section("ENVIRONMENT"),
        *(roff.term(f"`{name}`", what) for name, what in _VARIABLES),
        roff.text("The options of `natsup exec`, an empty one as if it were not there:"),
        roff.text(", ".join(f"`{_variable(option)}`" for option in OPTIONS)),
        roff.section("FILES"),
        *(roff.term(f"`{path}`", what) for path, what in _FILES),
        roff.section("EXIT STATUS"),
        roff.text("Of `natsup exec` it is the program's own, or one of natsup's:"),
        *_statuses(),
        roff.section("EXAMPLES"),
        *(part for what, lines in _EXAMPLES for part in (roff.text(what), roff.code(lines))),
        roff.section("SEE ALSO"),
        roff.text("`natsup.toml`(5), `bind`(2), `seccomp_unotify`(2)"),
        roff.text("`natsup explain` tells what codes and words mean, and what to do."),
    ])  # fmt: skip


def file_page() -> str:
    """natsup.toml(5)."""
    return roff.page([
        roff.title("natsup.toml", 5, _source()),
        roff.section("NAME"),
        "natsup.toml \\- configuration of natsup",
        roff.section("SYNOPSIS"),
        roff.text(f"`{SYSTEM}`"),
        roff.text("`~/.config/natsup/config.toml`"),
        roff.section("DESCRIPTION"),
        *map(roff.text, _ABOUT_FILES),
        *(roff.term(f"{number}.", place) for number, place in enumerate(_LAYERS, 1)),
        *map(roff.text, _FORM),
        roff.section("RULES FOR PORTS"),
        *(roff.text(f"{topic.reason} {topic.remedy}") for topic in lookup("ports")),
        roff.section("SETTINGS"),
        *(_setting(option) for option in OPTIONS if option.name != "config"),
        roff.section("EXAMPLES"),
        roff.code(_FILE),
        roff.section("SEE ALSO"),
        roff.text("`natsup`(1)"),
    ])  # fmt: skip


PAGES: dict[str, Callable[[], str]] = {"natsup.1": command_page, "natsup.toml.5": file_page}


def _source() -> str:
    return f"natsup {version('natsup')}"


def _synopsis(parsers: dict[str, argparse.ArgumentParser]) -> Iterator[str]:
    yield "`natsup exec` [options] `--` COMMAND [ARG...]"
    for name, parser in parsers.items():
        if name != "exec":
            yield from (f"`natsup {name}`{rest}" for rest in _usages(name, parser))


def _usages(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    """What may follow the command's name, a line for each of its forms."""
    formatter = parser._get_formatter()
    formatter._width = 10_000  # one line, which the page breaks as it likes
    formatter.add_usage(parser.usage, parser._actions, parser._mutually_exclusive_groups)
    for line in formatter.format_help().removeprefix("usage:").strip().splitlines():
        yield re.sub(rf"^.*?natsup {re.escape(name)}", "", line.strip()).replace(" [-h]", "")


def _command(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    yield roff.below(f"natsup {name}")
    about = " ".join(filter(None, (parser.description, parser.epilog)))
    if about:
        yield roff.text(about.replace("%(prog)s", f"natsup {name}"))
    for action in _options(parser):
        yield roff.term(_head(action), _help(action))


def _options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [
        action
        for action in parser._actions
        if action.dest not in ("help", grammar.REST) and action.help != argparse.SUPPRESS
    ]


def _head(action: argparse.Action) -> str:
    value = action.metavar or (action.dest.upper() if action.nargs != 0 else "")
    value = value if isinstance(value, str) else " ".join(value)
    if not action.option_strings:
        return value
    names = ", ".join(f"`{name}`" for name in action.option_strings)
    return f"{names} {value}".rstrip()


def _help(action: argparse.Action) -> str:
    return (action.help or "").replace("%%", "%")


def _variable(option: Option) -> str:
    return f"NATSUP_{option.key.upper()}"


def _statuses() -> Iterator[str]:
    for name in _STATUSES:
        for topic in lookup(name):
            head, _, what = topic.title.removeprefix("Exit status ").partition(": ")
            yield roff.term(head, f"{what[:1].upper()}{what[1:]}. {topic.reason}")


def _setting(option: Option) -> str:
    wanted = config.wanted(option) if option.placeholder else ""
    what = f"{option.help}. Give {wanted}." if wanted and wanted != "a name" else f"{option.help}."
    return roff.term(f"`{option.name}` ({config.kind(option)})", what)
