"""The whole command line as one argparse parser, for what describes it: manual and completions.

`natsup exec` itself does without argparse, which is slow to import (see `options`).
"""

import argparse

from natsup.supervisor import commands
from natsup.supervisor.options import OPTIONS, Option

REST = "command"  # the name of what follows the options of `natsup exec`


def whole() -> argparse.ArgumentParser:
    """`natsup`, with a parser below it for every command, in the order of `natsup --help`."""
    parser = argparse.ArgumentParser(prog="natsup", add_help=False)
    parser.add_argument("-h", "--help", action="help", help="what commands there are")
    parser.add_argument("--version", action="store_true", help="which natsup this is")
    below = parser.add_subparsers(metavar="COMMAND")
    _add_exec(below.add_parser("exec", add_help=False, help="run a command; its ports are mapped"))
    for name, (what, described) in commands.described().items():
        below.add_parser(
            name,
            add_help=False,
            conflict_handler="resolve",
            parents=[described],
            help=what,
            description=described.description,
            epilog=described.epilog,
            usage=described.usage,
        )
    return parser


def by_name(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The commands' parsers of `whole`."""
    found: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found |= action.choices
    return found


def _add_exec(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-h", "--help", action="help", help="what options there are")
    for option in OPTIONS:
        _add(parser, option)
    parser.add_argument(REST, nargs=argparse.REMAINDER, metavar="COMMAND", help="what to run")


def _add(parser: argparse.ArgumentParser, option: Option) -> None:
    names = [f"-{option.short}"] * bool(option.short) + [f"--{option.name}"]
    if option.placeholder:
        parser.add_argument(*names, metavar=option.placeholder, help=option.help)
    else:
        parser.add_argument(*names, action="store_true", help=option.help)
