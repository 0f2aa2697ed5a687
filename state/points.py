"""Points at which tests stop natsup's own processes, to see what becomes of it if they end there.

`NATSUP_STOP_AT=NAME` in its environment: the process stops (SIGSTOP) when it comes there for the
first time. Nothing but the test of a constant is done otherwise.
"""

import os
from _collections_abc import Mapping

VARIABLE = "NATSUP_STOP_AT"
STOP_AT = os.environ.get(VARIABLE, "")

# In the order in which they come. One is reached before what it names is done, or, if it names
# what has been done, at once after that.
START = ("create", "created")
BIND = (
    "take",
    "reserve",
    "reserved",
    "ask",
    "add",
    "added",
    "bind",
    "lent",
    "bound",
    "claim",
    "recorded",
    "answer",
    "answered",
)
PASSING = ("passed", "seen")  # of a bind() that the kernel has to carry out
RELEASE = ("release", "released", "remove", "removed")
RENEWAL = ("renew", "renewed")
COMPARISON = ("check", "checked")
TAKEOVER = ("takeover", "taking", "taken", "restore", "restored", "adopt", "adopted")
COMPACTION = ("compact", "written", "handed", "renamed")
ANEW = ("anew",)
FOLLOWING = ("follow", "followed")  # another guard
GUARDING = ("settle", "settled", "restart", "guarding")  # in the guard
END = ("end", "cleaned", "over")
ALL = (
    *START,
    *BIND,
    *PASSING,
    *RELEASE,
    *RENEWAL,
    *COMPARISON,
    *TAKEOVER,
    *COMPACTION,
    *ANEW,
    *FOLLOWING,
    *GUARDING,
    *END,
)
_SUCCESSORS = (*RENEWAL, *TAKEOVER, *COMPACTION)


def reached(name: str) -> None:
    """Stop, if this is the point. Only to be called `if STOP_AT`."""
    global STOP_AT  # a process stops once
    if name == STOP_AT:
        STOP_AT = ""
        import signal

        os.kill(os.getpid(), signal.SIGSTOP)


def of_successor(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a supervisor that takes a stopped one's place: it stops at points that
    only a successor comes to, or for which tests prepare its journal. Pure."""
    found = dict(environ)
    if found.get(VARIABLE) not in _SUCCESSORS:
        found.pop(VARIABLE, None)
    return found
