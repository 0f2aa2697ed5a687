"""Every command but `exec`, which must not wait for what these import."""

import argparse
import contextlib
import os
import socket
import time
from importlib.metadata import version
from ipaddress import IPv4Address
from typing import Any, NoReturn

from natsup.state.journal import check_folder, default_directory, remove_unread, sessions
from natsup.supervisor import output
from natsup.supervisor.complaints import SEE_FOLDER, complain
from natsup.supervisor.options import BadOption, check_state_folder
from natsup.supervisor.settings import of_network

_ON = {"--watch", "--follow", "-f"}  # status and log print until they are stopped
_DESCRIPTION = "Runs a program so that the ports it binds are open on the home router."
_COMMANDS = (
    ("exec", "[options] -- COMMAND [ARG...]", "run a command; its ports are mapped"),
    ("status", "[--json] [--watch]", "every session's ports, and what state each is in"),
    ("ui", "", "the same on the whole screen, to search in and to act upon"),
    ("log", "[--port PORT] [--follow]", "what happened to ports, when, for whom and why"),
    ("config", "show [PROGRAM] | check [FILE]", "what natsup is told, and from where"),
    ("explain", "[CODE|TOPIC]", "what a code or a word means, and what to do about it"),
    ("doctor", "[--json]", "what works here, what does not, and what to do about it"),
    ("clean", "", "remove from the router what dead sessions left there"),
    ("unit", "NAME.service [--install]", "have a systemd service run under natsup; --clean-timer"),
    ("restart", "[SESSION]", "a new supervisor for sessions that run, after an upgrade"),
    ("release", "SESSION PORT", "take a port off the router, and leave it off"),
    ("retry", "SESSION PORT", "ask the router for a port now"),
    ("demo", "", "the main job, with no router needed"),
    ("gateway", "--internal A --external A", "a small router, to try and to test"),
    ("manual", "[PAGE]", "a manual page: natsup manual | man -l -"),
    ("completions", "SHELL", "what has a shell complete natsup's words"),
)
_DESCRIBE = "\0describe"  # in place of arguments; nobody can type it


def main(words: list[str]) -> int:
    """Run a command line without its first word. Returns the exit status."""
    goes_on = words[:1] in (["demo"], ["gateway"]) or not _ON.isdisjoint(words[1:])
    return output.checked(lambda: _checked(words), goes_on=goes_on)


def _checked(words: list[str]) -> int:
    try:
        check_state_folder(os.environ)
        return _run(words)
    except BadOption as error:
        return complain(str(error))


def _run(words: list[str]) -> int:
    name, rest = (words[0], words[1:]) if words else ("", [])
    if name == "status":
        from natsup.supervisor import status

        return status.main(_Parser(prog="natsup status"), rest)
    if name == "ui":
        from natsup.supervisor import ui

        return ui.main(_Parser(prog="natsup ui"), rest)
    if name == "log":
        from natsup.supervisor import past

        return past.main(_Parser(prog="natsup log"), rest)
    if name == "config":
        from natsup.supervisor import config_command

        return config_command.main(_Parser, rest)
    if name == "explain":
        from natsup.supervisor import explain

        return explain.main(_Parser(prog="natsup explain"), rest)
    if name == "doctor":
        from natsup.supervisor import doctor

        return doctor.main(_Parser(prog="natsup doctor"), rest)
    if name == "clean":
        return _clean(rest)
    if name == "demo":
        what = "The main job, in network namespaces, with no router needed."
        _Parser(prog="natsup demo", description=what).parse_args(rest)
        from natsup.supervisor import demo

        return demo.main()
    if name == "unit":
        from natsup.supervisor import units

        return units.main(_Parser(prog="natsup unit"), rest)
    if name == "restart":
        from natsup.supervisor import restarting

        description = "A new supervisor for sessions that go on, once natsup has been replaced."
        parser = _Parser(prog="natsup restart", description=description)
        return restarting.command(parser, rest)
    if name in ("release", "retry"):
        from natsup.supervisor import ordering

        description = ordering.DESCRIPTIONS[name]
        return ordering.command(_Parser(prog=f"natsup {name}", description=description), name, rest)
    if name == "gateway":
        return _gateway(rest)
    if name == "manual":
        from natsup.supervisor import manual

        return manual.main(_Parser(prog="natsup manual"), rest)
    if name == "completions":
        from natsup.supervisor import completions

        return completions.main(_Parser(prog="natsup completions"), rest)
    if name in ("-h", "--help", "help"):
        print(usage())
        return 0
    if name == "--version":
        print(f"natsup {version('natsup')}")
        return 0
    if name:
        return complain(f"unknown command {name!r}{_nearest(name)}; see natsup --help")
    return complain("no command given; natsup exec -- COMMAND runs one, natsup --help tells more")


def usage() -> str:
    """The text of `natsup --help`."""
    lines = [_DESCRIPTION, ""]
    for name, arguments, what in _COMMANDS:
        lines.append(f"  natsup {name} {arguments}".rstrip().ljust(43) + f"  {what}")
    return "\n".join([*lines, "", "natsup exec --help lists its options."])


def _nearest(name: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, [command for command, _, _ in _COMMANDS], 1)
    return f" (did you mean {close[0]}?)" if close else ""


class _Described(Exception):
    """In place of a run: how the command's words would have been read."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser


def described() -> dict[str, tuple[str, argparse.ArgumentParser]]:
    """Of every command but exec what it is for, in a few words, and the parser of its words."""
    found = {}
    for name, _, what in _COMMANDS:
        if name != "exec":
            try:
                _run([name, _DESCRIBE])
            except _Described as command:
                found[name] = (what, command.parser)
    return found


class _Parser(argparse.ArgumentParser):
    """argparse, with one line for what is wrong and natsup's own status."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        self._describe(args)
        return super().parse_args(args, namespace)

    def parse_intermixed_args(self, args: Any = None, namespace: Any = None) -> Any:
        self._describe(args)
        return super().parse_intermixed_args(args, namespace)

    def _describe(self, words: object) -> None:
        if words == [_DESCRIBE]:
            raise _Described(self)

    def error(self, message: str) -> NoReturn:
        self.exit(125, f"natsup: {message}; see {self.prog} --help\n")


def _clean(words: list[str]) -> int:
    parser = _Parser(
        prog="natsup clean",
        description="Remove from the router what dead sessions left there, and only that.",
    )
    parser.add_argument("--gateway", metavar="URL", help="the router's description")
    parser.add_argument("--interface", metavar="IF", help="the interface that leads to the router")
    wait = "first wait for sessions of the same service to end, S seconds at most (under systemd)"
    parser.add_argument("--wait", type=_count, default=0, metavar="S", help=wait)
    options = parser.parse_args(words)
    for mistake in of_network(vars(options), os.environ):
        complain(f"left out: {mistake}")

    import trio

    from natsup.state import history
    from natsup.state.secret import secret
    from natsup.state.sweep import SweepReport, forget, sweep
    from natsup.supervisor import netlink
    from natsup.supervisor.neighbours import Announcements
    from natsup.supervisor.takeover import lives
    from natsup.upnp.choosing import Speakers, find, reopen
    from natsup.upnp.discovery import network_of
    from natsup.upnp.network import NoGateway
    from natsup.upnp.pinhole.finding import find_here

    directory = default_directory(os.environ, os.getuid())
    if options.wait:
        from natsup.supervisor.leaving import wait_for_sessions

        wait_for_sessions(directory, options.wait)
    try:
        check_folder(directory)
        dead = [session for session in sessions(directory) if not session.alive]
        left = forget(dead, wall=time.time())
        remove_unread(directory, wall=time.time())
    except OSError as error:
        reason = f"the state folder {directory} cannot be used: {error.strerror}"
        return complain(f"{reason}; {SEE_FOLDER}")
    if not left and options.wait:
        return 0  # it would stand in the service's log at its every end
    if not left:
        print(
            "Nothing was left on the router."
            if dead
            else "Nothing to clean: no session ended without cleaning up."
        )
        return 0

    netlink.heed()

    async def run() -> "SweepReport | NoGateway":
        network = await network_of(interface=options.interface, url=options.gateway)
        if isinstance(network, NoGateway):
            return network
        speakers = Speakers(lambda: secret(directory))
        found = await find(network, speakers, url=options.gateway)
        if isinstance(found, NoGateway) and not any(p.ipv6 for s in left for p in s.ports):
            return found
        mapper = None if isinstance(found, NoGateway) else found
        return await sweep(
            directory,
            mapper,
            wall=time.time,
            neighbours=Announcements(f"clean-{os.getpid()}"),
            lives=lives,
            reopen=lambda location: reopen(location, network, speakers),
            pinholes=lambda protocol: find_here(
                options.interface, mapper, protocol, lambda: secret(directory)
            ),
        )

    done = trio.run(run)
    if isinstance(done, NoGateway):
        return complain(f"no router to clean: {done.reason}; natsup doctor tells more")
    with contextlib.suppress(OSError):  # what was done counts, and is told below
        history.append(directory, [history.line_of(entry) for entry in done.entries])
    print("\n".join(done.lines()) or "Nothing was left on the router.")
    return 1 if done.left else 0


def _gateway(words: list[str]) -> int:
    from natsup.upnp.router.table import MOST

    parser = _Parser(
        prog="natsup gateway",
        description=(
            "A small UPnP router that forwards TCP and UDP in user space, for trying natsup and for"
            " tests. It maps ports of its external address to hosts that reach its internal one."
        ),
    )
    inside = "this host's address on the inside, where it is asked"
    outside = "this host's address on the outside, where mapped ports are opened"
    address: dict[str, Any] = {"type": _address, "required": True, "metavar": "ADDRESS"}
    parser.add_argument("--internal", help=inside, **address)
    parser.add_argument("--external", help=outside, **address)
    parser.add_argument("--port", type=_port, default=0, help="of its HTTP [any that is free]")
    room = f"how many ports it maps at a time, then it refuses as routers do [{MOST}]"
    parser.add_argument("--limit", type=_count, default=MOST, metavar="N", help=room)
    options = parser.parse_args(words)
    for name, given in (("--internal", options.internal), ("--external", options.external)):
        if not _is_here(given):
            return complain(f"{name}: {given} is no address of this host; ip addr lists them")

    import trio

    from natsup.upnp.router.server import Router

    async def run() -> None:
        router = Router(options.internal, options.external, _tell, most=options.limit)
        async with trio.open_nursery() as nursery:
            location = await nursery.start(router.serve, options.port)
            _tell(f"router: ready, its description is at {location}")

    status = 0
    try:
        trio.run(run)
    except* KeyboardInterrupt:
        pass
    except* OSError as group:
        reasons = [str(error.strerror or error) for error in _leaves(group)]
        status = complain(
            f"{options.internal} cannot be served: {reasons[0]}; is the port taken, or UDP port"
            " 1900?"
        )
    return status


class _Unheard(Exception):
    """Nobody reads what the router does, or it cannot be written."""


def _tell(line: str) -> None:
    try:
        print(line, flush=True)
    except OSError as error:
        raise _Unheard from error


def _address(text: str) -> IPv4Address:
    try:
        return IPv4Address(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no IPv4 address") from None


def _port(text: str) -> int:
    if text.isdecimal() and int(text) < 65536:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no port; give a number up to 65535")


def _count(text: str) -> int:
    if text.isdecimal() and len(text) < 10:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no number; give one from 0 on")


def _is_here(address: IPv4Address) -> bool:
    """Is this one of the addresses of this host?"""
    if address.is_unspecified or address.is_multicast:
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind((str(address), 0))
        except OSError:
            return False
    return True


def _leaves(group: BaseExceptionGroup[OSError]) -> list[OSError]:
    """The errors in a group of groups."""
    found: list[OSError] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
