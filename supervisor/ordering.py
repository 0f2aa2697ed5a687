"""`natsup release` and `natsup retry`: what the user tells a session. See `orders`."""

import argparse
import json
import socket
from collections.abc import Sequence

from natsup.state.journal import SessionRecord
from natsup.state.ledger import State
from natsup.state.model import Port
from natsup.state.report import printable
from natsup.supervisor import orders
from natsup.supervisor.complaints import complain
from natsup.supervisor.leading import owner
from natsup.supervisor.past import ports
from natsup.supervisor.restarting import NotRunning, name_of, running

DESCRIPTIONS = {
    orders.RELEASE: (
        "Take a port off the router, while the program keeps its socket. It is not put back until"
        " natsup retry, or until the program is started anew by natsup exec."
    ),
    orders.RETRY: "Ask the router for a port now: one that it refused, or that was released.",
}
_WANTED = {orders.RELEASE: (State.RELEASED, State.GONE), orders.RETRY: (State.MAPPED, State.GONE)}
_SECONDS = orders.WAIT_SECONDS + 2.0


class Untold(Exception):
    """The session did not carry it out, or nobody knows; for a reason that it tells."""


def command(parser: argparse.ArgumentParser, what: str, words: Sequence[str]) -> int:
    """The command line's part: RELEASE or RETRY. Returns the exit status: 1 if the router would
    not."""
    parser.add_argument("session", help="its name or pid, by natsup status --json")
    parser.add_argument("port", metavar="PORT[/PROTO]", type=ports, help="6881, 6881/udp")
    options = parser.parse_args(words)
    try:
        found = [
            (session, port)
            for session in running(options.session)
            for port in sorted(options.port & session.ports.keys())
        ]
        if not found:
            raise NotRunning(
                f"session {options.session} has no such port; natsup status lists them"
            )
        status = 0
        for session, port in found:
            state, reason = tell(session, what, port)
            why = f" ({printable(reason)})" if reason else ""
            print(f"{port.kind} {port.number} of {name_of(session)}: {state}{why}")
            status = max(status, state not in _WANTED[what])
    except (NotRunning, Untold) as error:
        return complain(str(error))
    return status


def tell(session: SessionRecord, what: str, port: Port) -> tuple[str, str]:
    """Have a session carry out an order, which takes some seconds at most. Returns the port's state
    after that, and why. Raises Untold."""
    name = name_of(session)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(_SECONDS)
        try:
            sock.connect(orders.name(session.header.session))
            if session.path is None or owner(sock) != session.path.stat().st_uid:
                raise Untold(f"{name}: somebody else answers in its place")
            sock.sendall(json.dumps({what: str(port)}).encode() + b"\n")
            with sock.makefile("rb") as file:
                answer = json.loads(file.readline(1 << 16))
            if "error" in answer:
                raise Untold(f"{name}: {printable(str(answer['error']))}")
            return str(answer["state"]), str(answer["reason"])
        except ConnectionRefusedError:
            raise Untold(
                f"{name}: it takes no orders; it runs in another network namespace, or began with"
                " an older natsup (natsup restart)"
            ) from None
        except TimeoutError:
            raise Untold(f"{name}: no answer within {_SECONDS:.0f} s; see its log") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Untold(f"{name}: its answer was lost; natsup status tells more") from error
