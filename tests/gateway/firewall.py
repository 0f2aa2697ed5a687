"""The fake gateway's firewall for IPv6, WANIPv6FirewallControl:1, and its quirks. Pure; time is
given."""

from dataclasses import dataclass, field

from tests.gateway.table import Refused, Values

SERVICE = "urn:schemas-upnp-org:service:WANIPv6FirewallControl:1"
_LONGEST = 86400  # seconds: section 2.3.6


@dataclass
class FirewallQuirks:
    """All off, it is a good router."""

    enabled: str = "1"
    allowed: str = "1"
    # Action → the code that it is always refused with
    faults: dict[str, int] = field(default_factory=dict)
    room: int | None = None  # for so many pinholes
    absent: int = 704  # what is said of a number that it does not know
    numbers: bool = True  # says which number it has given
    any_client: bool = False  # opens for whom it was not asked by


@dataclass(frozen=True, slots=True)
class Pinhole:
    client: str
    port: int
    protocol: str  # IANA's number
    ends: float


class Firewall:
    """``pinholes``: by their numbers, which are never used again."""

    def __init__(self) -> None:
        self.quirks = FirewallQuirks()
        self.pinholes: dict[int, Pinhole] = {}
        self._given = 0

    @property
    def open(self) -> dict[str, str]:
        """``17 6881`` to the address that is let in to."""
        return {f"{one.protocol} {one.port}": one.client for one in self.pinholes.values()}

    def act(self, action: str, values: Values, *, peer: str, now: float) -> Values:
        """Carry an action out. Raises `Refused`."""
        quirks = self.quirks
        self.expire(now)
        if action in quirks.faults:
            raise Refused(quirks.faults[action])
        if action == "GetFirewallStatus":
            return {"FirewallEnabled": quirks.enabled, "InboundPinholeAllowed": quirks.allowed}
        if quirks.enabled == "0":
            raise Refused(702)
        if quirks.allowed == "0":
            raise Refused(703)
        if action == "AddPinhole":
            return self._add(values, peer, now)
        if action not in ("UpdatePinhole", "DeletePinhole", "GetPinholePackets"):
            raise Refused(401)
        number = int(values["UniqueID"])
        if number not in self.pinholes:
            raise Refused(quirks.absent)
        there = self.pinholes[number]
        if there.client != peer:
            raise Refused(606)
        if action == "GetPinholePackets":
            return {"PinholePackets": "0"}
        if action == "DeletePinhole":
            del self.pinholes[number]
        else:
            ends = now + _lease(values["NewLeaseTime"])
            self.pinholes[number] = Pinhole(there.client, there.port, there.protocol, ends)
        return {}

    def _add(self, values: Values, peer: str, now: float) -> Values:
        quirks = self.quirks
        if list(values) != [
            "RemoteHost",
            "RemotePort",
            "InternalClient",
            "InternalPort",
            "Protocol",
            "LeaseTime",
        ]:
            raise Refused(402)
        client, port, protocol = (
            values[name] for name in ("InternalClient", "InternalPort", "Protocol")
        )
        if client != peer and not quirks.any_client:
            raise Refused(606)
        if values["RemoteHost"] or values["RemotePort"] != "0" or protocol not in ("6", "17"):
            raise Refused(402)
        fresh = Pinhole(client, int(port), protocol, now + _lease(values["LeaseTime"]))
        same = (client, fresh.port, protocol)
        known = [n for n, p in self.pinholes.items() if (p.client, p.port, p.protocol) == same]
        if not known and quirks.room is not None and len(self.pinholes) >= quirks.room:
            raise Refused(701)
        self._given += not known
        number = known[0] if known else self._given
        self.pinholes[number] = fresh
        return {"UniqueID": str(number) if quirks.numbers else ""}

    def expire(self, now: float) -> None:
        self.pinholes = {n: one for n, one in self.pinholes.items() if one.ends > now}


def _lease(text: str) -> int:
    if not 1 <= int(text) <= _LONGEST:
        raise Refused(402)
    return int(text)
