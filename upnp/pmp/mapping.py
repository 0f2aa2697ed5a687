"""Adding and removing one port mapping by NAT-PMP or PCP: what to ask next. Pure.

Each operation is a generator, as in `natsup.upnp.adding`: it yields what to ask, is sent what was
answered, and returns what came of it.

Neither protocol tells who has a port. A router that cannot give the one that is wanted gives
another, even if it was told not to (miniupnpd, as Debian and OpenWrt build it). That is undone at
once: the program would announce the wrong number. It means that another host has the port if this
router is known to give what it is asked for, because it has done so before, or does so for a port
at random, which nobody has. There are routers that never do, a VPN's for example, and with them it
means nothing.
"""

from collections.abc import Generator
from dataclasses import dataclass, replace

from natsup.state.model import Conflict, Ignored, Mapped, Outcome, Port, Protocol, Removal, Unknown
from natsup.upnp.pmp.answers import Answer, Granted, Map, Refusal, Refused, Silent, Step, Unmap

TRIAL_LEASE = 120  # seconds
_LONGEST = 86400  # seconds: what is granted for longer is renewed so often all the same
_PRIVILEGED = 1024  # many routers give nobody a port below it
_ANOTHER = "the router gives another port than the one that was asked for"


@dataclass(frozen=True, slots=True)
class Device:
    """What has been learned of a router, carried from one operation to the next.

    ``trial``: the number of a port to try it with, at random. ``insists``: can it be told to give
    the port or none? ``honours``: does it give the port that is asked for, if nobody has it? None:
    not known. ``absent``: refusals by which it says that there is nothing to remove.
    """

    trial: int
    insists: bool = False
    honours: bool | None = None
    external_address: str | None = None
    absent: frozenset[Refusal] = frozenset()


Adding = Generator[Step, Answer, tuple[Outcome, Device]]


def adding(port: Port, lease: int, device: Device) -> Adding:
    """Forward a port to this host for ``lease`` seconds, or renew that."""
    answer, device = yield from _mapping(port, lease, device)
    if isinstance(answer, Silent):
        if answer.sent:
            return Unknown(answer.reason, silent=True), device
        return Ignored(answer.reason, silent=True), device
    if isinstance(answer, Refused) and answer.refusal is not Refusal.CANNOT_PROVIDE:
        return answer.refusal.outcome(), device
    if isinstance(answer, Granted):
        if answer.external_port == port.number:
            device = replace(device, honours=True)
            if answer.lifetime:
                return Mapped(min(answer.lifetime, _LONGEST)), device
            yield Unmap(port)  # for how long it is open is anybody's guess
            return Ignored("the router grants the port for no time at all"), device
        undone = yield Unmap(port)
        if isinstance(undone, Silent):  # the other port may be open still
            return Unknown(undone.reason, silent=True), device
    if device.honours is None:
        device = yield from _trying(port.protocol, device)
    if device.honours and port.number >= _PRIVILEGED:
        return Conflict(""), device
    return Ignored(_ANOTHER, taken=True), device


def trying(device: Device) -> Generator[Step, Answer, tuple[None, Device]]:
    """Find out whether the router gives what it is asked for, and under which address."""
    return None, (yield from _trying(Protocol.TCP, device))


def _trying(protocol: Protocol, device: Device) -> Generator[Step, Answer, Device]:
    """Ask for a port that hardly anybody has, and give it back. Nothing listens there."""
    port = Port(protocol, device.trial)
    answer, device = yield from _mapping(port, TRIAL_LEASE, device)
    if isinstance(answer, Granted):
        yield Unmap(port)
        return replace(device, honours=answer.external_port == port.number)
    if isinstance(answer, Refused) and answer.refusal is Refusal.CANNOT_PROVIDE:
        return replace(device, honours=False)
    return device


def _mapping(
    port: Port, lease: int, device: Device
) -> Generator[Step, Answer, tuple[Answer, Device]]:
    answer = yield Map(port, lease, insist=device.insists)
    if device.insists and isinstance(answer, Refused) and answer.refusal is Refusal.OPTION:
        device = replace(device, insists=False)
        answer = yield Map(port, lease)
    if isinstance(answer, Granted) and answer.external_address is not None:
        device = replace(device, external_address=answer.external_address)
    return answer, device


def removing(port: Port, device: Device) -> Generator[Step, Answer, tuple[Removal, Device]]:
    """Stop forwarding a port. Both protocols remove this host's own mappings alone (RFC 6886,
    section 3.4; RFC 6887, section 15.1)."""
    answer = yield Unmap(port)
    if isinstance(answer, Granted):
        return Removal.GONE, device
    if isinstance(answer, Refused):
        if answer.refusal in device.absent:
            return Removal.GONE, device
        if answer.refusal is Refusal.NOT_AUTHORIZED:
            return Removal.NOT_OURS, device
    return Removal.FAILED, device
