"""What a host firewall makes of a packet that comes in. Pure.

    nft -j list ruleset  →  firewall_nft       ↘
                                                chains  →  judge()  →  passes, may drop, drops
    iptables-save        →  firewall_iptables  ↗

The packet is the first one of a connection from somebody on the Internet whom no rule names, to a
port of this host: what is said of lists of senders is not about it, and no limit of a rate is
reached yet. Rules are read as far as they are understood; where one is not, both cases are followed
and the answer is "may drop".
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from ipaddress import ip_address, ip_network

# Where chains stand: the hook, in the order in which a packet passes them
HOOKS = ("ingress", "prerouting", "input")
_DEEPEST = 32  # jumps; the kernel takes 16 (NFT_JUMP_STACK_SIZE)
_MOST_RULES = 200_000  # that are looked at


class Fits(IntEnum):
    """Does a rule apply to the packet?"""

    NO = 0
    MAYBE = 1
    YES = 2


def both(*parts: Fits) -> Fits:
    return min(parts, default=Fits.YES)


def opposite(part: Fits) -> Fits:
    return Fits(2 - part)


class Verdict(Enum):
    ACCEPT = "accept"
    DROP = "drop"  # or reject
    RETURN = "return"
    JUMP = "jump"
    GOTO = "goto"


@dataclass(frozen=True, slots=True)
class Packet:
    """``interface``: that it comes in by. ``address``: ours, that it goes to. ``protocol``:
    ``"tcp"`` or ``"udp"``."""

    interface: str
    address: str
    protocol: str
    port: int

    @property
    def ipv6(self) -> bool:
        return ":" in self.address


# --- what is said of packets ---

_EPHEMERAL = (32768, 60999)  # from which Linux takes the port of who connects; others from less


def of_sender(network: str, high: str = "") -> Fits:
    """Does a sender whom no rule names come from ``network``, an address or more? ``high``: it is
    the first of a range, and this the last."""
    try:
        if high:
            first, last = ip_address(network), ip_address(high)
            every = 1 << first.max_prefixlen
            many = int(last) - int(first) + 1
            return Fits.YES if many == every else Fits.MAYBE if many > every >> 8 else Fits.NO
        bits = ip_network(network, strict=False).prefixlen
    except ValueError:
        return Fits.MAYBE
    return Fits.YES if not bits else Fits.MAYBE if bits < 8 else Fits.NO


def of_sender_port(low: int, high: int) -> Fits:
    first, last = _EPHEMERAL
    if low <= first and last <= high:
        return Fits.YES
    return Fits.NO if high < first or low > last else Fits.MAYBE


def of_length(packet: Packet, low: int, high: int) -> Fits:
    """Is it so many bytes long, with the headers of IP (RFC 791, RFC 8200), and of TCP or UDP?"""
    shortest = (40 if packet.ipv6 else 20) + (20 if packet.protocol == "tcp" else 8)
    if high < shortest:
        return Fits.NO
    return Fits.YES if low <= shortest and high >= 65535 else Fits.MAYBE


def of_address(packet: Packet, low: str, high: str = "") -> Fits:
    """Does it go to this network, or to this range?"""
    try:
        address = ip_address(packet.address.partition("%")[0])
        if not high:
            return certain(address in ip_network(low, strict=False))
        return certain(int(ip_address(low)) <= int(address) <= int(ip_address(high)))
    except ValueError:
        return Fits.MAYBE


def of_interface(packet: Packet, name: str, wildcard: str) -> Fits:
    """``wildcard``: what a name ends with that stands for all that begin so."""
    if name.endswith(wildcard):
        return certain(packet.interface.startswith(name.removesuffix(wildcard)))
    return certain(packet.interface == name)


def of_flags(packet: Packet, mask: Collection[str], wanted: Collection[str]) -> Fits:
    """The first packet of a connection by TCP has the flag SYN alone."""
    if packet.protocol != "tcp":
        return Fits.NO
    return certain({"syn"} & set(mask) == set(wanted))


def certain(known: bool) -> Fits:
    return Fits.YES if known else Fits.NO


@dataclass(frozen=True, slots=True)
class Rule:
    """``fits`` tells of one packet. ``to``: the chain of a jump."""

    fits: Fits
    verdict: Verdict
    to: str
    text: str


@dataclass(slots=True)
class Chain:
    """``table``: family and name, as nft(8) says them, or "iptables filter" and the like. ``at``:
    which of `HOOKS` it is at, and its priority; None if it is only jumped to."""

    table: str
    name: str
    at: tuple[int, int] | None = None
    accepts: bool = True  # the policy
    rules: list[Rule] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Drop:
    """What drops it: ``rule`` of ``chain``, or that one's policy. ``base``: where the way to it
    began, which is where a rule that lets the packet in has to stand."""

    table: str
    base: str
    chain: str
    rule: str
    sure: bool


def judge(chains: Sequence[Chain]) -> Drop | None:
    """The first drop, or possible drop, on the way in; a sure one counts more. None: it passes.

    An accept ends the chain that began with it, not the way: the next chain is asked as well.
    """
    named = {(chain.table, chain.name): chain for chain in chains}
    possible = None
    for base in sorted((one for one in chains if one.at is not None), key=lambda one: one.at or ()):
        found = _Walk(named, base).run()
        if found is not None and found.sure:
            return found
        possible = possible or found
    return possible


class _Walk:
    """Through one base chain."""

    def __init__(self, named: Mapping[tuple[str, str], Chain], base: Chain) -> None:
        self._named = named
        self._base = base
        self._possible: Drop | None = None
        self._may_be_accepted = False
        self._looked_at = 0

    def run(self) -> Drop | None:
        if not self._through(self._base, True, 0) and not self._base.accepts:
            self._drop(self._base, "policy drop", sure=True)
        return self._possible

    def _through(self, chain: Chain, sure: bool, depth: int) -> bool:
        """Follow the rules; ``sure``: the packet certainly comes here. If it does, does its way
        surely end here?"""
        stays = True  # it has surely not returned
        for rule in chain.rules:
            self._looked_at += 1
            if self._looked_at > _MOST_RULES or depth > _DEEPEST:
                self._drop(chain, "too many rules to follow", sure=False)
                return True
            if rule.fits is Fits.NO:
                continue
            certain = rule.fits is Fits.YES
            if rule.verdict in (Verdict.JUMP, Verdict.GOTO):
                to = self._named.get((chain.table, rule.to))
                if to is None:  # no chain: what it does is not known
                    self._drop(chain, rule.text, sure=False)
                    continue
                ended = self._through(to, sure and certain, depth + 1)
                if certain and (ended or rule.verdict is Verdict.GOTO):
                    return ended and stays
                if not certain and rule.verdict is Verdict.GOTO:
                    sure = stays = False
            elif rule.verdict is Verdict.RETURN:
                if certain:
                    return False
                sure = stays = False
            else:
                if rule.verdict is Verdict.DROP:
                    self._drop(chain, rule.text, sure=sure and certain)
                else:
                    self._may_be_accepted = True
                if certain:
                    return stays
        return False

    def _drop(self, chain: Chain, rule: str, *, sure: bool) -> None:
        sure = sure and not self._may_be_accepted
        if self._possible is None or (sure and not self._possible.sure):
            table, base = self._base.table, self._base.name
            self._possible = Drop(table, base, chain.name, rule, sure)
