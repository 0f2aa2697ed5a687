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

import ctypes
import struct

import trio

from natsup.upnp import ssdp

_SO_ATTACH_FILTER = 26
_ETH_P_IP = 0x0800
_UDP = 17
_FRAGMENT = 0x1FFF  # the offset: only a first fragment has a UDP header

# linux/bpf_common.h: load a byte, a half word, a word, at a fixed place or after the IP header
_LD_BYTE, _LD_HALF, _LD_WORD, _LD_HALF_AFTER, _LDX_HEADER = 0x30, 0x28, 0x20, 0x48, 0xB1
_JEQ, _JSET, _RET = 0x15, 0x45, 0x06


def filter_program(gateway: str, port: int = ssdp.PORT) -> bytes:
    """Classic BPF: UDP from this address to this port. The packet begins with its IP header."""
    sender = int.from_bytes(trio.socket.inet_aton(gateway), "big")
    return b"".join(
        struct.pack("=HBBI", *instruction)
        for instruction in (
            (_LD_BYTE, 0, 0, 9),
            (_JEQ, 0, 8, _UDP),
            (_LD_WORD, 0, 0, 12),
            (_JEQ, 0, 6, sender),
            (_LD_HALF, 0, 0, 6),
            (_JSET, 4, 0, _FRAGMENT),
            (_LDX_HEADER, 0, 0, 0),
            (_LD_HALF_AFTER, 0, 0, 2),
            (_JEQ, 0, 1, port),
            (_RET, 0, 0, 0xFFFF),
            (_RET, 0, 0, 0),
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
                program = filter_program(self._gateway, self._port)
                buffer = ctypes.create_string_buffer(program, len(program))
                fprog = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
                self._packets.setsockopt(trio.socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)
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
        """Wait for what the router says next. Raises OSError."""
        return payload(await self._packets.recv(1 << 16))
