"""What natsup does with one bind(): leave it to the kernel, or publish the port. Pure.

The rules stand in the order in which they are asked. Those that need only the address come first:
they answer nearly every call, without touching the program's socket.
"""

import socket
import sys

from natsup.state.model import Port, Protocol
from natsup.supervisor.abi import IPPROTO_MPTCP
from natsup.supervisor.ports import LAST, PROTOCOLS, Ports
from natsup.supervisor.sockaddr import AF_INET, Address

# Discovery and mapping protocols of the local network: made for link-local peers, and harmful or
# useless when strangers reach them.
NEVER = frozenset(
    Port(Protocol.UDP, number)
    for number in (
        1900,  # SSDP (UPnP Device Architecture)
        3702,  # WS-Discovery
        5350,  # NAT-PMP and PCP announcements (RFC 6886, RFC 6887)
        5351,  # NAT-PMP and PCP
        5353,  # Multicast DNS (RFC 6762)
        5355,  # LLMNR (RFC 4795)
        6771,  # BitTorrent Local Service Discovery (BEP 14)
    )
)
FIRST_UNPRIVILEGED = 1024
_ALL = Ports((protocol, FIRST_UNPRIVILEGED, LAST) for protocol in PROTOCOLS)
_NONE = Ports()
_IPV4, _NO_PORT, _ANY = AF_INET.to_bytes(2, sys.byteorder), bytes(2), bytes(4)

_PROTOCOLS: dict[tuple[int, int], Protocol] = {
    (socket.SOCK_STREAM, socket.IPPROTO_TCP): Protocol.TCP,
    (socket.SOCK_STREAM, IPPROTO_MPTCP): Protocol.TCP,  # it answers plain TCP as well
    (socket.SOCK_DGRAM, socket.IPPROTO_UDP): Protocol.UDP,
}


class Pass:
    """The kernel does the call itself; natsup neither helps nor watches."""

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __repr__(self) -> str:
        return f"Pass({self.reason!r})"


class Publish:
    """Natsup acts on the call. ``port`` is None where natsup is to choose the number.

    ``ipv4``, ``ipv6``: what the socket takes, and natsup is to publish: by a mapping, and by a
    pinhole.
    """

    __slots__ = ("ipv4", "ipv6", "port", "protocol")

    def __init__(
        self, protocol: Protocol, port: Port | None, *, ipv4: bool = True, ipv6: bool = False
    ) -> None:
        self.protocol = protocol
        self.port = port
        self.ipv4 = ipv4
        self.ipv6 = ipv6

    def __repr__(self) -> str:
        families = f"{', ipv6' * self.ipv6}{', no ipv4' * (not self.ipv4)}"
        return f"Publish({self.port or self.protocol.value}{families})"


class Rules:
    """What the user asked for.

    ``ports``: those that may be published. ``denied``: those that may not, whatever ``ports`` says.
    ``ephemeral``: also publish port 0. ``own_addresses``: specific IPv4 addresses (4 bytes each)
    that count like the wildcard; they are known only once the network has been looked at, so
    ``may_own`` says from the start whether there will be any. ``first_unprivileged``: the kernel's
    own limit (ip(7), ip_unprivileged_port_start): below it a bind may be refused to the program,
    which natsup must not undo. ``pinholes``: publish IPv6, too.
    """

    def __init__(
        self,
        *,
        ports: Ports = _ALL,
        denied: Ports = _NONE,
        ephemeral: bool = False,
        may_own: bool = False,
        pinholes: bool = False,
        first_unprivileged: int = FIRST_UNPRIVILEGED,
    ) -> None:
        self.first_unprivileged = max(first_unprivileged, FIRST_UNPRIVILEGED)
        self.ports = ports
        self.denied = denied
        self.ephemeral = ephemeral
        self.may_own = may_own
        self.pinholes = pinholes
        self.own_addresses: frozenset[bytes] = frozenset()


class Facts:
    """What the kernel says of a borrowed socket (socket(7), ip(7), ipv6(7))."""

    __slots__ = ("bound", "domain", "foreign", "kind", "late", "protocol", "v6only")

    def __init__(
        self,
        domain: int,
        kind: int,
        protocol: int,
        *,
        bound: bool,
        v6only: bool,
        foreign: bool,
        late: bool = False,
    ) -> None:
        self.domain = domain  # SO_DOMAIN
        self.kind = kind  # SO_TYPE
        self.protocol = protocol  # SO_PROTOCOL
        self.bound = bound
        self.v6only = v6only
        self.foreign = foreign  # of another network namespace than natsup's
        self.late = late  # IP_BIND_ADDRESS_NO_PORT: connect() chooses the port, not bind()


_NOT_INTERNET = Pass("not an Internet address")
_SPECIFIC = Pass("a specific address")
_PORT_ZERO = Pass("port 0")
_PRIVILEGED = Pass("a privileged port")
_OUT_OF_RANGE = Pass("port not among those to publish")


def passes_at_sight(raw: bytes, rules: Rules) -> bool:
    """Is it plain that an address, as bind(2) has it, passes? False: ask `judge_address`.

    It says so of IPv4 alone, but that is nearly every call, and takes a quarter of the time.
    """
    if raw[:2] != _IPV4:
        return False
    if raw[4:8] != _ANY:
        return not rules.may_own
    return raw[2:4] == _NO_PORT and not rules.ephemeral


def judge_address(address: Address | None, rules: Rules) -> Pass | None:
    """The rules that need no look at the socket; None: go on with `judge_socket`."""
    if address is None:
        return _NOT_INTERNET
    if not address.wildcard and not (
        rules.may_own and address.ipv4 is not None and address.ipv4 in rules.own_addresses
    ):
        return _SPECIFIC
    if address.port == 0:
        return None if rules.ephemeral else _PORT_ZERO
    if address.port < rules.first_unprivileged:
        return _PRIVILEGED
    return None if rules.ports.has_some(address.port) else _OUT_OF_RANGE


def judge_socket(address: Address, facts: Facts, rules: Rules) -> Pass | Publish:
    """The rest of the rules, for an address that `judge_address` let through."""
    if facts.domain != address.domain:
        return Pass("address and socket are of different families")
    protocol = _PROTOCOLS.get((facts.kind, facts.protocol))
    if protocol is None:
        return Pass("neither TCP nor UDP")
    if facts.bound:
        return Pass("already bound")
    if facts.foreign:
        return Pass("of another network namespace")
    ipv4 = address.ipv4 is not None or not facts.v6only
    ipv6 = address.ipv4 is None and rules.pinholes
    if not ipv4 and not ipv6:
        return Pass("IPv6 alone")
    if address.port == 0:
        if facts.late:
            return Pass("a port for connect() to choose")
        return Publish(protocol, None, ipv4=ipv4, ipv6=ipv6)
    port = Port(protocol, address.port)
    if not rules.ports.has(protocol, port.number):
        return _OUT_OF_RANGE
    if not publishable(port, rules):
        return Pass("a port that is never published")
    return Publish(protocol, port, ipv4=ipv4, ipv6=ipv6)


def publishable(port: Port, rules: Rules) -> bool:
    """May this port face the Internet? The same for a port that natsup chooses."""
    return (
        port.number >= rules.first_unprivileged
        and rules.ports.has(port.protocol, port.number)
        and port not in NEVER
        and not rules.denied.has(port.protocol, port.number)
    )
