"""`natsup doctor`: what works here, what does not, and what to do about it.

    look (kernel, network, router)  →  facts  →  findings  →  text or JSON

Only the first step touches anything. It makes one mapping on the router and takes it back, however
natsup doctor is ended, if it is not by SIGKILL.
"""

import argparse
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from natsup.state.journal import default_directory
from natsup.supervisor import guard, netlink
from natsup.supervisor.settings import of_network
from natsup.upnp import trust

if TYPE_CHECKING:
    from natsup.state.model import Port
    from natsup.supervisor.doctor_facts import Facts, Network, Router

DESCRIPTION = "What natsup needs, whether it works here, and what to do where it does not."
_EPILOG = (
    "One mapping of a port that nobody uses is made on the router, and removed. Exit status: 0"
    " everything that natsup needs works, 1 something does not, 125 bad input."
)
_ENDS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


def main(parser: argparse.ArgumentParser, words: Sequence[str]) -> int:
    """Run the command. ``parser`` has no arguments yet. Returns the exit status. Raises
    `BadOption`."""
    parser.description, parser.epilog = DESCRIPTION, _EPILOG
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument(
        "--gateway", metavar="URL", type=_url, help="the router's description, if it is not found"
    )
    parser.add_argument(
        "--interface", metavar="IF", type=_interface, help="the interface that leads to the router"
    )
    parser.add_argument(
        "--port",
        metavar="PORT",
        type=_port,
        help="the port that a program is to be reached at, such as 6881 (of TCP) or udp/27015",
    )
    options = parser.parse_args(words)
    mistakes = of_network(vars(options), os.environ)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing is to be tidied up yet
    logging.getLogger("natsup").addHandler(logging.NullHandler())  # the report says it all

    from natsup.supervisor import doctor_report, screen
    from natsup.supervisor.doctor_findings import works
    from natsup.supervisor.doctor_path import findings, path

    facts = _look(interface=options.interface, url=options.gateway, wanted=options.port)
    if isinstance(facts, signal.Signals):
        return guard.end_as(facts)
    facts = replace(facts, mistakes=tuple(mistakes))
    found = findings(facts)
    if options.json:
        print(json.dumps(doctor_report.as_json(found, facts), indent=2))
    else:
        terminal = sys.stdout.isatty()
        paper = doctor_report.Paper(
            utf8=screen.utf8(os.environ),
            colour=terminal and not screen.plain(),
            width=screen.width(sys.stdout) if terminal else 0,
        )
        screen.show(doctor_report.as_text(found, path(facts), paper))
    return 0 if works(found) else 1


def _look(
    *, interface: str | None, url: str | None, wanted: "Port | None"
) -> "Facts | signal.Signals":
    """Find everything out; or the signal that natsup doctor is to end by."""
    from natsup.supervisor import doctor_kernel
    from natsup.supervisor.doctor_facts import Facts

    netlink.heed()
    kernel, rights = doctor_kernel.look_at_kernel(), doctor_kernel.look_at_rights()
    path = default_directory(os.environ, os.getuid())
    folder = doctor_kernel.look_at_folder(path)

    import trio

    from natsup.supervisor.doctor_network import look_at_network
    from natsup.supervisor.doctor_survey import Survey, look_around
    from natsup.supervisor.firewall import look_at_firewalls

    ends = [number for number in _ENDS if signal.getsignal(number) is not signal.SIG_IGN]
    ended: signal.Signals | None = None

    survey = Survey()

    async def look() -> "tuple[Network, Router | None] | None":
        async def watch(scope: trio.CancelScope) -> None:
            nonlocal ended
            if ends:
                with trio.open_signal_receiver(*ends) as received:
                    async for number in received:
                        ended = signal.Signals(number)
                        scope.cancel()

        found = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, nursery.cancel_scope)
            await look_around(survey, path, interface=interface, url=url)
            found = await look_at_network(path, survey, interface=interface, url=url, wanted=wanted)
            nursery.cancel_scope.cancel()
        return found

    found = trio.run(look)
    if found is None:
        assert ended is not None
        return ended
    firewalls = look_at_firewalls(*found, wanted)
    shown = "" if wanted is None else str(wanted)
    return Facts(kernel, rights, folder, *found, tuple(survey.asked), firewalls, shown)


def _url(text: str) -> str:
    try:
        return str(trust.read(text))
    except trust.Refused as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is of no use ({error}); give a URL such as"
            " http://192.168.1.1:5000/rootDesc.xml"
        ) from None


def _port(text: str) -> "Port":
    from natsup.state.model import Port, Protocol
    from natsup.supervisor import ports

    try:
        ranges = ports.read(text)
    except ValueError:
        ranges = []
    numbers = {number for _, *ends in ranges for number in ends}
    if len(numbers) != 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; give one such as 6881 or udp/27015")
    if numbers < set(range(1024)):
        raise argparse.ArgumentTypeError(f"natsup leaves ports below 1024 alone, so {text} too")
    return Port(Protocol(ranges[0][0]), numbers.pop())


def _interface(name: str) -> str:
    if "/" in name or name in (".", "..", "") or not os.path.exists(f"/sys/class/net/{name}"):
        raise argparse.ArgumentTypeError(f"there is no {name!r} here; ip link lists what there is")
    return name
