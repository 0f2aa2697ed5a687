"""Hearing what a router says unasked, without a port of SSDP's, or of NAT-PMP's and PCP's.

A router that starts, or is switched off properly, tells so at once, to port 1900 of a multicast
group (UPnP Device Architecture 1.1, section 1.2). A UDP socket would have to be bound to that port,
and so keep it from programs that bind it without SO_REUSEADDR: in Linux's udp_lib_lport_inuse()
(net/ipv4/udp.c) the group's own address is in conflict with the wildcard, whatever the device, and
a member of the group with another port gets nothing.

A packet socket (packet(7)) hears all without a port, and what a firewall of this host would drop as
well. It wants CAP_NET_RAW, which a user does not have: then nothing is heard. A filter lets through
what the router sends to that port, and nothing else wakes anybody up.
"""

import trio

from natsup.upnp import bpf, ssdp

_ETH_P_IP = 0x0800
_UDP = 17
_MOST = 100  # packets heard in a second; the kernel keeps some of the rest, and drops the others
_FRAGMENT = 0x1FFF  # the offset: only a first fragment has a UDP header


def filter_program(gateway: str, port: int = ssdp.PORT) -> bytes:
    """Classic BPF: UDP from this address to this port. The packet begins with its IP header."""
    sender = int.from_bytes(trio.socket.inet_aton(gateway), "big")
    return b"".join(
        (
            bpf.instruction(bpf.LD_BYTE, 9),
            bpf.instruction(bpf.JEQ, _UDP, 0, 8),
            bpf.instruction(bpf.LD_WORD, 12),
            bpf.instruction(bpf.JEQ, sender, 0, 6),
            bpf.instruction(bpf.LD_HALF, 6),
            bpf.instruction(bpf.JSET, _FRAGMENT, 4, 0),
            bpf.instruction(bpf.LDX_HEADER, 0),
            bpf.instruction(bpf.LD_HALF_AFTER, 2),
            bpf.instruction(bpf.JEQ, port, 0, 1),
            bpf.instruction(bpf.RET, 0xFFFF),
            bpf.instruction(bpf.RET, 0),
        )
    )


def payload(packet: bytes) -> bytes:
    """What a UDP datagram carries; ``packet`` begins with the IP header (RFC 791, RFC 768)."""
    if not packet:
        return b""
    udp = (packet[0] & 0xF) * 4
    length = int.from_bytes(packet[udp + 4 : udp + 6], "big")
    return packet[udp + 8 : udp + length]


class Ears:
    """Hears one router: `async with Ears(...)`. Entering it raises OSError."""

    def __init__(
        self,
        interface: str,
        address: str,
        gateway: str,
        *,
        group: str = ssdp.MULTICAST,
        port: int = ssdp.PORT,
    ) -> None:
        """``address``: this host's, on ``interface``; ``gateway``: the router's. ``group`` and
        ``port``: to which it speaks."""
        self._group = group
        self._port = port
        self._interface = interface
        self._address = address
        self._gateway = gateway
        self._second = float("-inf")  # when the one began in which packets are being counted
        self._count = 0

    async def __aenter__(self) -> "Ears":
        kind = trio.socket.SOCK_DGRAM
        # A member of the group, so that network card and switches let its packets come here.
        self._member = trio.socket.socket(trio.socket.AF_INET, kind)
        try:
            group = trio.socket.inet_aton(self._group) + trio.socket.inet_aton(self._address)
            membership = trio.socket.IP_ADD_MEMBERSHIP
            self._member.setsockopt(trio.socket.IPPROTO_IP, membership, group)
            # Of no protocol, it hears nothing before the filter is there.
            self._packets = trio.socket.socket(trio.socket.AF_PACKET, kind, 0)
            try:
                bpf.attach(self._packets, filter_program(self._gateway, self._port))
                await self._packets.bind((self._interface, _ETH_P_IP))
            except BaseException:
                self._packets.close()
                raise
        except BaseException:
            self._member.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._packets.close()
        self._member.close()

    async def hear(self) -> bytes:
        """Wait for what the router says next. Raises OSError.

        Whoever sends without end in the router's name is not to keep this host busy.
        """
        now = trio.current_time()
        if now >= self._second + 1:
            self._second, self._count = now, 0
        elif self._count >= _MOST:
            await trio.sleep_until(self._second + 1)
            self._second, self._count = trio.current_time(), 0
        data = await self._packets.recv(1 << 16)
        self._count += 1
        return payload(data)
