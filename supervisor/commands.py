"""Every command but `exec`, which must not wait for what these import."""

import argparse
import json
import os
import sys
import time
from importlib.metadata import version

from natsup.state import report
from natsup.state.journal import default_directory, sessions

_DESCRIPTION = "Runs a program so that the ports it binds are open on the home router."
_COMMANDS = (
    ("exec", "[options] -- COMMAND [ARG...]", "run a command; its ports are mapped"),
    ("status", "[--json]", "every session's ports, and what state each is in"),
    ("clean", "", "remove from the router what dead sessions left there"),
    ("demo", "", "the main job, with no router needed"),
    ("gateway", "--internal A --external A", "a small router, to try and to test"),
)


def main(words: list[str]) -> int:
    """Run a command line without its first word. Returns the exit status."""
    name, rest = (words[0], words[1:]) if words else ("", [])
    if name == "status":
        return _status(rest)
    if name == "clean":
        return _clean(rest)
    if name == "demo":
        _no_options("demo", "The main job, in network namespaces, with no router needed.", rest)
        from natsup.supervisor import demo

        return demo.main()
    if name == "gateway":
        from natsup.upnp.router import command

        return command.main(rest)
    if name in ("-h", "--help", "help"):
        print(usage())
        return 0
    if name == "--version":
        print(f"natsup {version('natsup')}")
        return 0
    if name:
        close = _nearest(name)
        print(f"natsup: unknown command {name!r}{close}; see natsup --help", file=sys.stderr)
    else:
        print(usage(), file=sys.stderr)
    return 125


def usage() -> str:
    """The text of `natsup --help`."""
    lines = [_DESCRIPTION, ""]
    for name, arguments, what in _COMMANDS:
        lines.append(f"  natsup {name} {arguments}".rstrip().ljust(42) + f"  {what}")
    return "\n".join([*lines, "", "natsup exec --help lists its options."])


def _nearest(name: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, [command for command, _, _ in _COMMANDS], 1)
    return f" (did you mean {close[0]}?)" if close else ""


def _no_options(name: str, what: str, words: list[str]) -> None:
    argparse.ArgumentParser(prog=f"natsup {name}", description=what).parse_args(words)


def _status(words: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="natsup status", description="Every session's ports, and what state each is in."
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    options = parser.parse_args(words)
    directory = default_directory(os.environ, os.getuid())
    try:
        found = sessions(directory)
    except OSError as error:
        return _complain(f"the state folder {directory} cannot be read: {error.strerror}")
    if options.json:
        print(json.dumps(report.as_json(found), indent=2))
    else:
        print(report.as_text(found, now=time.time()))
    return 0


def _clean(words: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="natsup clean",
        description="Remove from the router what dead sessions left there, and only that.",
    )
    parser.add_argument("--gateway", metavar="URL", help="the router's description")
    parser.add_argument("--interface", metavar="IF", help="the interface that leads to the router")
    options = parser.parse_args(words)

    import trio

    from natsup.state.sweep import SweepReport, sweep
    from natsup.upnp.discovery import NoGateway, find_gateway

    directory = default_directory(os.environ, os.getuid())
    try:
        if not any(not session.alive for session in sessions(directory)):
            print("Nothing to clean: no session ended without cleaning up.")
            return 0
    except OSError as error:
        return _complain(f"the state folder {directory} cannot be read: {error.strerror}")

    async def run() -> "SweepReport | NoGateway":
        found = await find_gateway(interface=options.interface, url=options.gateway)
        if isinstance(found, NoGateway):
            return found
        return await sweep(directory, found, wall=time.time)

    done = trio.run(run)
    if isinstance(done, NoGateway):
        return _complain(f"no router to clean: {done.reason}")
    print("\n".join(done.lines()) or "Nothing was left on the router.")
    return 1 if done.left else 0


def _complain(message: str) -> int:
    print(f"natsup: {message}", file=sys.stderr)
    return 125
