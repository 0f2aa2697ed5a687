"""Opening and closing one pinhole by UPnP: what to ask a router next, given its answers. Pure.

Each operation is a generator, as in `natsup.upnp.adding`.

What a router calls a pinhole by, its UniqueID, is in the answer that opened it and nowhere else.
Where that was lost, the same AddPinhole again brings it back: an open one is prolonged, and keeps
its number (WANIPv6FirewallControl:1, section 2.4.4). So nothing is opened twice.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace

from natsup.state.model import Ignored, Mapped, Outcome, Port, Removal, Unknown
from natsup.upnp.adding import Done, Fault, NoAnswer
from natsup.upnp.faults import with_code

LONGEST = 86400  # seconds

_NOT_AUTHORIZED, _NO_ROOM, _FIREWALL_OFF, _NOT_ALLOWED, _NO_SUCH_ENTRY = 606, 701, 702, 703, 704
_INVALID_ARGS = 402  # miniupnpd 2.3.1: there is no such pinhole
_ABSENT = frozenset({_NO_SUCH_ENTRY, _INVALID_ARGS})

_LOST = Ignored("the router does not have the pinhole any more")
_MEANINGS = {
    401: Ignored("the router cannot open pinholes", slow=True),
    402: Ignored("the router rejects the pinhole as invalid", slow=True),
    501: Ignored("the router failed to open the pinhole", full=True),
    _NOT_AUTHORIZED: Ignored("the router does not permit this host to open pinholes", slow=True),
    _NO_ROOM: Ignored("the router has no room for another pinhole", full=True),
    _NOT_ALLOWED: Ignored("the router does not permit pinholes", slow=True),
    705: Ignored("the router opens no pinholes for the protocol", slow=True),
    706: Ignored("the router wants an internal port, which it was told"),
    707: Ignored("the router wants a protocol, which it was told"),
    708: Ignored("the router opens pinholes for single remote hosts alone", slow=True),
    709: Ignored("the router opens pinholes only for what has sent something out"),
}


def _refusal(code: int) -> Ignored:
    means = _MEANINGS.get(code, Ignored("the router refuses"))
    return replace(means, reason=with_code(means.reason, code))


# What to ask


@dataclass(frozen=True, slots=True)
class Ask:
    """GetFirewallStatus."""


@dataclass(frozen=True, slots=True)
class Open:
    """AddPinhole: everybody may send to this port of ours."""

    port: Port
    lease: int  # seconds


@dataclass(frozen=True, slots=True)
class Renew:
    """UpdatePinhole."""

    handle: str
    lease: int  # seconds


@dataclass(frozen=True, slots=True)
class Look:
    """GetPinholePackets. Of how many there were nothing is made: is there such a pinhole?"""

    handle: str


@dataclass(frozen=True, slots=True)
class Close:
    """DeletePinhole."""

    handle: str


Step = Ask | Open | Renew | Look | Close

# What is answered


@dataclass(frozen=True, slots=True)
class Status:
    enabled: bool  # is there a firewall that keeps anybody out?
    allowed: bool  # are there to be pinholes?


@dataclass(frozen=True, slots=True)
class Opened:
    handle: str  # "" where the answer has none


Answer = Status | Opened | Done | Fault | NoAnswer


@dataclass(frozen=True, slots=True)
class Pinhole:
    """``handle``: "" if it may have been opened, and its number is not known."""

    handle: str
    lease: int  # seconds, as it was asked for


@dataclass(frozen=True, slots=True)
class Device:
    """What has been learned of a router, carried from one operation to the next."""

    status: Status | None = None  # as it was told; None: it is to be asked
    open: Mapping[Port, Pinhole] = field(default_factory=dict)

    def having(self, port: Port, handle: str, lease: int) -> "Device":
        return replace(self, open={**self.open, port: Pinhole(handle, lease)})

    def without(self, port: Port) -> "Device":
        return replace(self, open={p: one for p, one in self.open.items() if p != port})


Opening = Generator[Step, Answer, tuple[Outcome, Device]]


def opening(port: Port, lease: int, device: Device) -> Opening:
    """Open a pinhole for ``lease`` seconds, or renew it.

    Where there is no firewall nothing has to be opened, and the port counts as mapped. It is asked
    anew each time then, and where there are to be no pinholes: users change their minds.
    """
    lease = min(lease or LONGEST, LONGEST)
    if device.status is None or not (device.status.enabled and device.status.allowed):
        answer = yield Ask()
        if isinstance(answer, NoAnswer):  # nothing was asked of it that could linger on
            return Ignored(answer.reason, silent=True), device
        told = answer if isinstance(answer, Status) else Status(enabled=True, allowed=True)
        device = replace(device, status=told)
        if not told.enabled:
            return Mapped(lease), device.without(port)
        if not told.allowed:
            return _refusal(_NOT_ALLOWED), device.without(port)
    known = device.open.get(port)
    if known is not None and known.handle:
        answer = yield Renew(known.handle, lease)
        if isinstance(answer, Done):
            return Mapped(lease, known.handle), device.having(port, known.handle, lease)
        if isinstance(answer, NoAnswer):
            return _unanswered(answer), device
        device = device.without(port)
    return (yield from _opening(port, lease, device))


def _opening(port: Port, lease: int, device: Device) -> Opening:
    answer = yield Open(port, lease)
    if isinstance(answer, Opened):
        return Mapped(lease, answer.handle), device.having(port, answer.handle, lease)
    if isinstance(answer, NoAnswer):
        if answer.sent:
            device = device.having(port, "", lease)
        return _unanswered(answer), device
    code = answer.code if isinstance(answer, Fault) else None
    if code == _FIREWALL_OFF:
        return Mapped(lease), replace(device, status=Status(enabled=False, allowed=False))
    if code == _NOT_ALLOWED:
        device = replace(device, status=Status(enabled=True, allowed=False))
    if code is None:  # it may have been carried out
        return Unknown("the router's answer cannot be understood"), device.having(port, "", lease)
    return _refusal(code), device


def _unanswered(answer: NoAnswer) -> Outcome:
    if answer.sent:
        return Unknown(answer.reason, silent=True)
    return Ignored(answer.reason, silent=True)


def checking(port: Port, device: Device) -> Opening:
    """Is it open still? A router that does not say so clearly is asked to open it again, which
    changes nothing but its lease, and tells by the number."""
    known = device.open.get(port)
    if known is None:
        if device.status is None or device.status.enabled:
            return _LOST, device
        answer = yield Ask()
        if isinstance(answer, NoAnswer):
            return Unknown(answer.reason, silent=True), device
        if isinstance(answer, Status) and answer.enabled:
            return Ignored("the router's firewall was switched on"), replace(device, status=answer)
        return Mapped(0), device
    if known.handle:
        answer = yield Look(known.handle)
        if isinstance(answer, Done):
            return Mapped(0, known.handle), device
        if isinstance(answer, NoAnswer):
            return Unknown(answer.reason, silent=True), device
        if isinstance(answer, Fault) and answer.code == _NO_SUCH_ENTRY:
            return _LOST, device.without(port)
    outcome, device = yield from _opening(port, known.lease, device)
    if isinstance(outcome, Mapped) and known.handle not in ("", outcome.handle):
        return _LOST, device
    return outcome, device


def removing(port: Port, device: Device) -> Generator[Step, Answer, tuple[Removal, Device]]:
    """Close a pinhole. One without a number is opened once more, for a second, to learn it."""
    known = device.open.get(port)
    if known is None:
        return Removal.GONE, device
    handle = known.handle
    if not handle:
        answer = yield Open(port, 1)
        if isinstance(answer, Fault) and answer.code == _FIREWALL_OFF:
            return Removal.GONE, device.without(port)
        if not isinstance(answer, Opened) or not answer.handle:
            return Removal.FAILED, device
        handle = answer.handle
        device = device.having(port, handle, 1)
    answer = yield Close(handle)
    if isinstance(answer, Done) or (isinstance(answer, Fault) and answer.code in _ABSENT):
        return Removal.GONE, device.without(port)
    if isinstance(answer, Fault) and answer.code == _NOT_AUTHORIZED:
        return Removal.NOT_OURS, device.without(port)
    return Removal.FAILED, device
