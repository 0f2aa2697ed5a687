"""UPnP error codes and what real routers mean by them. Pure.

WANIPConnection:1 and :2 (Open Connectivity Foundation) define the codes; routers use them freely,
so that none of them proves a conflict by itself: `natsup.upnp.adding` looks at the table first.
"""

from dataclasses import dataclass, replace

from natsup.state.model import Ignored

NO_SUCH_ENTRY = 714
INDEX_INVALID = 713  # the end of the list; some say it for "no such entry"
CONFLICT = 718
ONLY_PERMANENT = 725
INVALID_ARGS = 402  # also: a lease that is not permitted
UNKNOWN_ACTION = 401

ABSENT = frozenset({NO_SUCH_ENTRY, INDEX_INVALID})
# Some say "no such entry" with one of these; only a look at a port that is surely free tells.
PERHAPS_ABSENT = frozenset({INVALID_ARGS, 501, 606})


# Those that `natsup explain` knows
EXPLAINED = frozenset(
    {401, 402, 501, 600, 602, 603, 604, 606, *range(701, 710), 713, 714, 715, 716, 718}
    | set(range(724, 734))
)


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a refusal to add a mapping comes to, unless the table shows another host's."""

    reason: str
    verify: bool = False  # the table may show that another host has the port
    slow: bool = False  # only the user can change it
    full: bool = False  # it may be that there is no room (402: miniupnp's issue 92)

    def refusal(self) -> Ignored:
        return Ignored(self.reason, slow=self.slow, full=self.full)


_MEANINGS = {
    401: Meaning("the router cannot add port mappings"),
    402: Meaning("the router rejects the request as invalid", full=True),
    501: Meaning("the router failed to carry the request out", verify=True, full=True),
    606: Meaning("the router does not permit this host to map ports", slow=True),
    715: Meaning("the router wants a single remote host named", slow=True),
    716: Meaning("the router refuses the external port"),
    718: Meaning("the router reports a conflict, but nobody holds the port", verify=True),
    724: Meaning("the router wants equal ports, which they are"),
    725: Meaning("the router wants a permanent lease, and refuses it"),
    726: Meaning("the router wants any remote host, which it was given"),
    727: Meaning("the router cannot forward single ports", slow=True),
    728: Meaning("the router's table of port mappings is full", full=True),
    729: Meaning("the router itself, or a fixed rule in it, uses the port", verify=True),
    731: Meaning("the router's table of port mappings is read-only", slow=True),
    732: Meaning("the router refuses the internal port"),
    733: Meaning("the router rejects the request as inconsistent"),
}


def meaning(code: int | None) -> Meaning:
    """What an error code in answer to AddPortMapping means; None: there was none to read."""
    if code is None:
        return Meaning("the router's answer cannot be understood", verify=True)
    means = _MEANINGS.get(code, Meaning("the router refuses", verify=True))
    return replace(means, reason=with_code(means.reason, code))


def with_code(reason: str, code: int) -> str:
    """A clause for people, and where they find more of it."""
    if code in EXPLAINED:
        return f"{reason} (natsup explain {code})"
    return f"{reason} (error {code})"
