"""Adding and removing one port mapping: what to ask a router next, given its answers. Pure.

Each operation is a generator: it yields what to ask, is sent what was answered, and returns what
came of it. Nothing here waits or knows how a router is reached.

Two rules shape it. No refusal proves a conflict: only an entry in the router's table that leads to
another host does. And the table is read before a mapping is added, because there are routers that
let one host overwrite another's. So what is in the table and does not say whose it is (a host name,
another address of this host) is left alone too, unless it was made from here.
"""

import ipaddress
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from itertools import repeat

from natsup.state.model import Conflict, Ignored, Mapped, Outcome, Port, Protocol, Removal, Unknown
from natsup.upnp import faults

# What to ask


@dataclass(frozen=True, slots=True)
class Look:
    """GetSpecificPortMappingEntry."""

    port: Port


@dataclass(frozen=True, slots=True)
class Put:
    """AddPortMapping."""

    port: Port
    lease: int  # seconds; 0: for ever


@dataclass(frozen=True, slots=True)
class Delete:
    """DeletePortMapping."""

    port: Port


@dataclass(frozen=True, slots=True)
class List:
    """GetListOfPortMappings: of a protocol, from one port to another."""

    protocol: Protocol
    first: int
    last: int


Step = Look | Put | Delete | List

# What is answered


@dataclass(frozen=True, slots=True)
class Found:
    """The entry that a look found, as the router wrote it."""

    client: str
    internal_port: str
    enabled: str
    lease: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    """The action was carried out."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A UPnP error; None where the answer held no code that could be read."""

    code: int | None


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """The router is silent. ``sent``: the request may have been carried out."""

    reason: str
    sent: bool


def no_answers(reason: str, *, sent: bool) -> Iterator[NoAnswer]:
    """To one request, which was perhaps ``sent``, and to all after it, which are not. Endless."""
    yield NoAnswer(reason, sent=sent)
    yield from repeat(NoAnswer(reason, sent=False))


@dataclass(frozen=True, slots=True)
class Listed:
    """The entries that a list shows for certain; ``count``: of all in it."""

    entries: dict[Port, Found]
    count: int


Answer = Found | Done | Fault | NoAnswer | Listed


@dataclass(frozen=True, slots=True)
class Device:
    """What has been learned of a router, carried from one operation to the next.

    ``here``: this host's address as the router sees it. ``router``: the router's own. ``lan``: how
    many bits of ``here`` name the LAN, 0 where that is not known. ``own``: all of this host's
    addresses, as far as they are known.
    """

    here: str
    router: str
    lan: int = 0
    own: frozenset[str] = frozenset()
    # What this session mapped to addresses that this host had just before, and was not seen to be
    # gone from there: somebody else may have them soon
    former: frozenset[tuple[Port, str]] = frozenset()
    permanent_only: bool = False
    # Codes that this router was seen to answer about a port that nobody can hold
    absent: frozenset[int] = faults.ABSENT
    # Codes that it was asked about so, whatever it answered
    calibrated: frozenset[int] = frozenset()
    # What it was made to forward from here, or may have been, and was not seen to have lost
    added: frozenset[Port] = frozenset()
    # What of that has not been looked at since
    unseen: frozenset[Port] = frozenset()
    # Is it being tried whether it keeps permanent mappings, and no others? None: not yet
    trial: bool | None = None
    granted: int = 0  # seconds that were left of a new mapping when it was looked at; 0: unknown
    prolongs: bool | None = None  # does a renewal prolong a lease? None: it was not seen yet

    def settled(self, port: Port) -> "Device":
        """A port that leads to no former address any more."""
        return replace(self, former=frozenset(one for one in self.former if one[0] != port))


class Kind(Enum):
    NOBODY = "nobody's"
    OURS = "ours"
    STALE = "this host's, but not as we would have it"
    OTHER = "another host's"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Holder:
    """Whose a port is, by the router's table. ``address``: of another host's."""

    kind: Kind
    address: str = ""
    reason: str = ""  # why it is unknown
    silent: bool = False  # the router did not answer at all
    listed: bool = False  # there is an entry, but it does not tell whose
    lease: int = 0  # of ours: seconds left; 0: it does not say, or nothing that makes sense


_UNKNOWN = Holder(Kind.UNKNOWN)
_ENTRY = "the router's entry for the port names"


def _untold(code: int | None) -> str:
    said = "the router does not tell who has the port"
    return said if code is None else faults.with_code(said, code)


def holder(answer: Answer, port: Port, device: Device) -> Holder:
    """Whose entry an answer to `Look` shows.

    An entry that is switched off holds its port all the same: its owner can switch it on. What
    does not name another host of the LAN (a host name, the router itself, 0.0.0.0, this host's
    address on another interface) proves nothing.
    """
    if isinstance(answer, Fault):
        if answer.code in device.absent:
            return Holder(Kind.NOBODY)
        return Holder(Kind.UNKNOWN, reason=_untold(answer.code))
    if isinstance(answer, NoAnswer):
        return Holder(Kind.UNKNOWN, reason=answer.reason, silent=True)
    if not isinstance(answer, Found):
        return _UNKNOWN
    try:
        client = ipaddress.IPv4Address(answer.client.strip())
    except ValueError:
        return Holder(Kind.UNKNOWN, reason=f"{_ENTRY} no address", listed=True)
    if str(client) == device.here:
        usable = answer.enabled.strip().lower() not in ("0", "false", "no")
        same = answer.internal_port.strip() == str(port.number)
        kind = Kind.OURS if usable and same else Kind.STALE
        return Holder(kind, lease=_seconds(answer.lease))
    if _leads_back(answer, port, device):
        return Holder(Kind.STALE)
    if str(client) in device.own:
        return Holder(Kind.UNKNOWN, reason=f"{_ENTRY} another address of this host", listed=True)
    if str(client) == device.router or not _is_host(client, device):
        return Holder(Kind.UNKNOWN, reason=f"{_ENTRY} no host of the LAN", listed=True)
    return Holder(Kind.OTHER, str(client))


def _leads_back(entry: Found, port: Port, device: Device) -> bool:
    """To an address that this host had before?"""
    return (port, entry.client.strip()) in device.former


def _is_host(address: ipaddress.IPv4Address, device: Device) -> bool:
    """Can it be a host of the LAN?"""
    lan = ipaddress.IPv4Network((device.here, device.lan), strict=False)
    if address not in lan or address.is_unspecified or address.is_loopback or address.is_multicast:
        return False
    # RFC 3021: a network of two addresses has none to spare
    return lan.prefixlen >= 31 or address not in (lan.network_address, lan.broadcast_address)


def _seconds(text: str) -> int:
    """A number of 32 bits; 0 for what is none."""
    text = text.strip()
    if not text.isascii() or not text.isdigit() or len(text) > 10:
        return 0
    return int(text) if int(text) < 1 << 32 else 0


Looking = Generator[Step, Answer, tuple[Holder, Device]]


def looking(port: Port, device: Device) -> Looking:
    """Find out whose a port is. Also returns what was learned of the router."""
    answer = yield Look(port)
    if (
        isinstance(answer, Fault)
        and answer.code in faults.PERHAPS_ABSENT
        and answer.code not in device.absent
        and answer.code not in device.calibrated
    ):
        # Does it say so of every free port? Ask about one that hardly anybody has.
        other = yield Look(replace(port, number=_unlikely(port.number)))
        if isinstance(other, Fault) and other.code == answer.code:
            device = replace(device, absent=device.absent | {other.code})
        if not isinstance(other, NoAnswer):
            device = replace(device, calibrated=device.calibrated | {answer.code})
    found = holder(answer, port, device)
    said = found.kind is not Kind.UNKNOWN or found.listed
    if said and not (isinstance(answer, Found) and _leads_back(answer, port, device)):
        device = device.settled(port)
    if found.kind is Kind.UNKNOWN:
        return found, device
    if port in device.unseen:
        device = _first_seen(found, replace(device, unseen=device.unseen - {port}))
    if found.kind is not Kind.OURS:
        device = replace(device, added=device.added - {port})
    return found, device


_SHORTEST = 60  # seconds: what is said to be granted for less is taken for so long


def _first_seen(found: Holder, device: Device) -> Device:
    """What the first look at a new mapping tells of the router.

    It may have granted less time than it was asked for. Where there is no mapping any more, it may
    keep permanent ones alone, without saying so (tailscale's issue 18196: DD-WRT), or none, for
    want of room. A permanent one is tried, once, and tells.
    """
    if found.kind is Kind.OURS:
        granted = max(found.lease, _SHORTEST) if found.lease else device.granted
        tried = False if device.trial else device.trial
        return replace(device, granted=granted, trial=tried)
    if found.kind is Kind.NOBODY and device.trial:
        return replace(device, permanent_only=False, trial=False)
    if found.kind is Kind.NOBODY and device.trial is None and not device.permanent_only:
        return replace(device, permanent_only=True, trial=True)
    return device


def _unlikely(number: int) -> int:
    return 64738 + number % 97 + 1 if number < 60000 else 21011 + number % 97


Adding = Generator[Step, Answer, tuple[Outcome, Device]]


def adding(port: Port, lease: int, device: Device) -> Adding:
    """Forward a port to this host for ``lease`` seconds, or renew that."""
    seen, device = yield from looking(port, device)
    if seen.kind is Kind.OTHER:
        return Conflict(seen.address), device
    if seen.silent:  # nothing was asked of it that could linger on
        return Ignored(seen.reason, silent=True), device
    if seen.listed and port not in device.added:
        return Ignored(f"{seen.reason}, and is left alone"), device
    renewal = seen.kind is Kind.OURS
    # There are routers that prolong nothing (miniupnp's issue 199).
    anew = device.prolongs is False and _runs_out(seen.lease, lease)
    cleaned = seen.kind is Kind.STALE or (renewal and anew)
    if cleaned:
        yield Delete(port)
    leases = [0] if device.permanent_only or lease == 0 else [lease, 0]
    tried = 0
    while True:
        wanted = leases.pop(0)
        tried += 1
        answer = yield Put(port, wanted)
        if isinstance(answer, Done):
            permanent = wanted == 0 and (device.permanent_only or lease != 0)
            device = replace(device, permanent_only=permanent, added=device.added | {port})
            device = device.settled(port)
            if not renewal:
                device = replace(device, unseen=device.unseen | {port})
            elif _runs_out(seen.lease, wanted) and device.prolongs is None:
                again, device = yield from looking(port, device)
                if again.kind is Kind.OURS and again.lease:
                    device = replace(device, prolongs=again.lease > seen.lease)
                if device.prolongs is False:
                    yield Delete(port)
                    cleaned, leases = True, [wanted]
                    continue
            return _mapped(wanted, device), device
        if isinstance(answer, NoAnswer):
            if answer.sent:
                device = replace(device, added=device.added | {port}).settled(port)
                return Unknown(answer.reason, silent=True), device
            return Ignored(answer.reason, silent=True), device
        code = answer.code if isinstance(answer, Fault) else None
        if code == faults.ONLY_PERMANENT and wanted != 0 and tried < 3:
            leases = [0]
            continue
        if code == faults.INVALID_ARGS and tried < 3:
            leases = leases or [604800 if tried > 1 else 3600]
            continue
        means = faults.meaning(code)
        if not means.verify:
            return means.refusal(), device
        seen, device = yield from looking(port, device)
        if seen.kind is Kind.OTHER:
            return Conflict(seen.address), device
        if seen.kind is Kind.OURS:
            return _mapped(wanted, device), replace(device, added=device.added | {port})
        if seen.kind is Kind.STALE and not cleaned:
            cleaned = True
            yield Delete(port)
            leases = [wanted]
            continue
        if code == faults.CONFLICT and seen.kind is Kind.UNKNOWN and not seen.listed:
            return Conflict(""), device
        if code is None and seen.kind is Kind.UNKNOWN:  # it may have been carried out
            return Unknown(means.reason), replace(device, added=device.added | {port})
        return replace(means.refusal(), taken=seen.kind is Kind.STALE), device


def _runs_out(left: int, wanted: int) -> bool:
    """Has some of a lease been used up, by what the router says is left of it? 0: it does not."""
    return 0 < left < wanted * 3 // 4


def _mapped(wanted: int, device: Device) -> Mapped:
    return Mapped(device.granted if _runs_out(device.granted, wanted) else wanted)


Removing = Generator[Step, Answer, tuple[Removal, Device]]


def removing(port: Port, device: Device) -> Removing:
    """Stop forwarding a port, if it leads to this host.

    Where the table cannot be read it is removed unseen: it is only asked for what we added. Where
    it has an entry that does not say whose it is, that has to have been added from here.
    """
    seen, device = yield from looking(port, device)
    if seen.silent or (seen.listed and port not in device.added):
        return Removal.FAILED, device
    if seen.kind is Kind.NOBODY:
        return Removal.GONE, device
    if seen.kind in (Kind.OTHER, Kind.STALE):
        return Removal.NOT_OURS, device
    answer = yield Delete(port)
    gone = replace(device, added=device.added - {port})
    if isinstance(answer, Done) or (isinstance(answer, Fault) and answer.code in faults.ABSENT):
        return Removal.GONE, gone
    if isinstance(answer, Fault) and answer.code == 606:
        return Removal.NOT_OURS, gone
    return Removal.FAILED, device
