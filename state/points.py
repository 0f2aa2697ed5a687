"""Points at which tests stop a supervisor, to see what its end there does.

`NATSUP_STOP_AT=NAME` in its environment: the process stops (SIGSTOP) when it comes there. Nothing
but the test of a constant is done otherwise.
"""

import os
import signal
from collections.abc import Mapping

VARIABLE = "NATSUP_STOP_AT"
STOP_AT = os.environ.get(VARIABLE, "")

# In the order in which they come. One is reached before what it names is done.
BIND = ("take", "reserve", "ask", "add", "added", "bind", "claim", "answer", "answered")
RELEASE = ("release", "remove", "removed")
RENEWAL = ("renew", "renewed")
COMPARISON = ("check", "checked")
TAKEOVER = ("takeover", "restore", "restored", "taking")
ALL = (*BIND, *RELEASE, *RENEWAL, *COMPARISON, *TAKEOVER)


def reached(name: str) -> None:
    """Stop, if this is the point. Only to be called `if STOP_AT`."""
    if name == STOP_AT:
        os.kill(os.getpid(), signal.SIGSTOP)


def of_successor(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a supervisor that takes a stopped one's place: it stops at points of the
    takeover alone. Pure."""
    found = dict(environ)
    if found.get(VARIABLE) not in TAKEOVER:
        found.pop(VARIABLE, None)
    return found
