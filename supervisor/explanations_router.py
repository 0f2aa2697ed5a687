"""What `natsup explain` tells of routers' codes. Pure. The words are for who owns the router.

UPnP: WANIPConnection:2 and WANIPv6FirewallControl:1 (Open Connectivity Foundation); PCP: RFC 6887,
section 7.4; NAT-PMP: RFC 6886, section 3.5.
"""

from natsup.supervisor.explanations import Topic
from natsup.upnp.pmp import natpmp, pcp
from natsup.upnp.pmp.answers import Refusal

_PAGE = "Look in the router's page"
_BY_HAND = "forward the port by hand in the router's page"
_ELSEWISE = (
    f'An update of its firmware may help, or protocols = ["pcp", "natpmp"]; else {_BY_HAND}.'
)


def _upnp(code: int, title: str, reason: str, remedy: str) -> Topic:
    return Topic((f"upnp-{code}", str(code)), f"UPnP error {code}: {title}", reason, remedy)


_UPNP = (
    _upnp(
        401,
        "the router cannot do that",
        "It does not know the action: it announces port mappings, or pinholes, and has none.",
        f'{_PAGE} for an update of its firmware, try protocols = ["pcp", "natpmp"], or {_BY_HAND}.',
    ),
    _upnp(
        402,
        "the router rejects the request",
        "A value is wrong in its eyes. Many say so of leases that are not permitted, or where their"
        " table is full; natsup has tried other leases already.",
        "Remove old forwardings in the router's page and restart it; natsup asks again by itself.",
    ),
    _upnp(
        501,
        "the router failed",
        "It took the request and could not carry it out: a full table, a rule of its own that has"
        " the port, or a fault in its software.",
        f"Restart the router. If another port works, {_BY_HAND}, or use the other port.",
    ),
    _upnp(
        600,
        "the router does not accept a value",
        "A value of the request is not valid for it (601: out of its range, 605: too long).",
        _ELSEWISE,
    ),
    _upnp(
        602,
        "the router has not got this action",
        "It is optional, and this router leaves it out.",
        "Nothing has to be done if ports are mapped; natsup goes without it.",
    ),
    _upnp(
        603,
        "the router is out of memory",
        "It has no room for what it was asked.",
        "Restart it, and remove forwardings that nobody needs.",
    ),
    _upnp(
        604,
        "the router wants a person",
        "Somebody has to confirm it, or to change something, in its page.",
        f"{_PAGE}, at UPnP or port sharing, for what waits there.",
    ),
    _upnp(
        606,
        "the router does not permit this host to do it",
        "Some routers let only hosts that their owner has named open ports by themselves.",
        f"{_PAGE} for this host, and permit it to open ports by itself (FRITZ!Box: Internet,"
        " Permit Access, independent port sharing).",
    ),
    _upnp(
        701,
        "the router has no room for another pinhole",
        "Its table of IPv6 pinholes is full.",
        "Remove those that nobody needs, or restart the router.",
    ),
    _upnp(
        702,
        "the router's IPv6 firewall is off",
        "It keeps nobody out, so no pinhole is needed.",
        "Nothing has to be done: the port can be reached. This host's own firewall is all there"
        " is.",
    ),
    _upnp(
        703,
        "the router's owner does not allow pinholes",
        "IPv6 can be opened by hand only.",
        f"{_PAGE}, IPv6 firewall, and let devices open ports, or allow this one by hand.",
    ),
    _upnp(
        704,
        "there is no such pinhole",
        "The router has forgotten it: a restart, or somebody has removed it.",
        "Nothing has to be done: natsup opens it again.",
    ),
    _upnp(
        705,
        "the router opens no pinholes for this protocol",
        "It knows other protocols only.",
        "Allow the port by hand in its IPv6 firewall.",
    ),
    _upnp(
        706,
        "the router wants an internal port",
        "It was told one; it misunderstands the request.",
        "An update of its firmware may help; else allow the port by hand in its IPv6 firewall.",
    ),
    _upnp(
        707,
        "the router wants a protocol",
        "It was told one; it misunderstands the request.",
        "An update of its firmware may help; else allow the port by hand in its IPv6 firewall.",
    ),
    _upnp(
        708,
        "the router opens pinholes for single hosts alone",
        "It wants the address of who is to connect, which a server cannot know.",
        "Allow the port by hand in its IPv6 firewall.",
    ),
    _upnp(
        709,
        "the router opens pinholes only for what has sent something",
        "Nothing has gone out from this port yet.",
        "Nothing has to be done for programs that also connect; else allow the port by hand.",
    ),
    _upnp(
        713,
        "there is no such entry in the router's table",
        "That is how a list ends; some routers say so of a port that is free.",
        "Nothing has to be done.",
    ),
    _upnp(
        714,
        "the router does not forward this port",
        "Nobody has it, or it was removed: by the router's restart, in its page, or by its lease.",
        "Nothing has to be done: natsup maps again what programs still have.",
    ),
    _upnp(
        715,
        "the router wants a single remote host named",
        "It forwards for one address on the Internet only, and natsup forwards for all.",
        f"There is no way by UPnP; {_BY_HAND}.",
    ),
    _upnp(
        716,
        "the router refuses the external port",
        "It does not let this port be chosen, perhaps because it is one of its own.",
        "Let the program use another port.",
    ),
    _upnp(
        718,
        "the router reports a conflict",
        "It says that the port leads to another host. natsup looks at its table then: if another"
        " host is there, bind() fails with EADDRINUSE. If nobody is, it is a forwarding by hand,"
        " the router's own service, or one that it has half forgotten, and bind() goes on without"
        " it.",
        f"{_PAGE} for a forwarding of this port, and remove it; restart the router; or let the"
        " program use another port.",
    ),
    _upnp(
        724,
        "the router wants the same port inside and outside",
        "natsup asks for just that; the router misunderstands the request.",
        _ELSEWISE,
    ),
    _upnp(
        725,
        "the router knows permanent leases only",
        "natsup has asked for one, too, and it refuses that as well.",
        f"Restart the router; else {_BY_HAND}.",
    ),
    _upnp(
        726,
        "the router wants any remote host",
        "natsup asks for just that; the router misunderstands the request.",
        _ELSEWISE,
    ),
    _upnp(
        727,
        "the router cannot forward single ports",
        "It forwards all of them to one host, or none.",
        f"{_PAGE} for a way to forward ports, or an exposed host, if this host is meant to be one.",
    ),
    _upnp(
        728,
        "the router's table is full",
        "It keeps so many forwardings and no more, often 32 or 64, of all hosts together.",
        "Remove old ones in its page, or restart it. natsup asks again when a port of its own"
        " goes.",
    ),
    _upnp(
        729,
        "the router itself uses the port",
        "A service of its own, or a forwarding that its owner has made by hand, has it.",
        f"{_PAGE} for remote access or a forwarding of this port, or let the program use another.",
    ),
    _upnp(
        730,
        "there is no forwarding of that kind",
        "The list that natsup asked for is empty.",
        "Nothing has to be done.",
    ),
    _upnp(
        731,
        "the router's table is read-only",
        "Its owner, or the provider, does not let hosts change it.",
        f"{_PAGE} whether UPnP may change settings; else {_BY_HAND}.",
    ),
    _upnp(
        732,
        "the router refuses the internal port",
        "It wants a port, and was told one; it misunderstands the request.",
        _ELSEWISE,
    ),
    _upnp(
        733,
        "the router rejects the request as inconsistent",
        "Two values contradict each other in its eyes.",
        _ELSEWISE,
    ),
)

_PMP = {
    Refusal.VERSION: (
        "It speaks NAT-PMP alone, or a later PCP.",
        "Nothing has to be done: natsup asks in the version that it speaks.",
    ),
    Refusal.NOT_AUTHORIZED: (
        "NAT-PMP or PCP is switched off, or this host, or this port, is not permitted.",
        f"{_PAGE} and switch it on, or permit this host. miniupnpd's rules are in its"
        f" configuration.",
    ),
    Refusal.MALFORMED: (
        "It cannot read the request.",
        'An update of its firmware may help, or protocols = ["upnp"].',
    ),
    Refusal.OPCODE: (
        "It speaks the protocol, but not for mapping ports.",
        "Switch UPnP on, too; natsup takes what works.",
    ),
    Refusal.OPTION: (
        "It lacks an option of PCP; natsup goes without those that are not needed.",
        'Nothing has to be done if ports are mapped; else try protocols = ["upnp"].',
    ),
    Refusal.NETWORK: (
        "It is not connected, or has no address of its own yet.",
        "Wait for the connection; natsup asks again by itself.",
    ),
    Refusal.RESOURCES: (
        "Its table is full.",
        "Remove old forwardings in its page, or restart it. natsup asks again by itself.",
    ),
    Refusal.TRANSPORT: (
        "It forwards other protocols only.",
        f'Try protocols = ["upnp"], or {_BY_HAND}.',
    ),
    Refusal.QUOTA: (
        "This host has as many as one host may have.",
        "Close programs that hold ports, or publish fewer of them (ports, deny).",
    ),
    Refusal.CANNOT_PROVIDE: (
        "Another host has the port, or a rule of the router's own.",
        "Let the program use another port.",
    ),
    Refusal.MISMATCH: (
        "The address that the request comes from is not the one that is in it: there is a NAT, or a"
        " VPN, between this host and the router.",
        "See natsup explain double-nat; or name the interface at home (interface).",
    ),
    Refusal.PEERS: (
        "It was asked for more than it can take at once.",
        'An update of its firmware may help, or protocols = ["upnp"].',
    ),
    Refusal.OTHER: (
        "It answers with a code that no standard has.",
        f'natsup doctor tells more of the router; try protocols = ["upnp"], or {_BY_HAND}.',
    ),
}


def _pmp(refusal: Refusal) -> Topic:
    numbers = {
        "natpmp": [code for code, one in natpmp.REFUSALS.items() if one is refusal],
        "pcp": [code for code, one in pcp.REFUSALS.items() if one is refusal],
    }
    codes = [f"{protocol}-{code}" for protocol, found in numbers.items() for code in found]
    plain = sorted({str(code) for found in numbers.values() for code in found}, key=int)
    shown = ", ".join(codes).replace("natpmp-", "NAT-PMP ").replace("pcp-", "PCP ")
    title = f"{shown}: {refusal.value}" if codes else f"NAT-PMP, PCP: {refusal.value}"
    return Topic((refusal.topic, *codes, *plain), title, *_PMP[refusal])


CODES = (*_UPNP, *map(_pmp, Refusal))
