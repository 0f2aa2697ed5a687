"""Socket addresses as bind(2) gets them, read the way the kernel reads them. Pure.

net/socket.c move_addr_to_kernel(), net/ipv4/af_inet.c inet_bind(), net/ipv6/af_inet6.c
inet6_bind(): lengths, the AF_UNSPEC of old, IPv4 inside IPv6.
"""

import struct

AF_UNSPEC, AF_INET, AF_INET6 = 0, 2, 10
LONGEST = 128  # sizeof(struct sockaddr_storage): anything longer is EINVAL
SHORTEST_INET = 16  # sizeof(struct sockaddr_in)
SHORTEST_INET6 = 24  # SIN6_LEN_RFC2133: sin6_scope_id may be missing

_FAMILY = struct.Struct("=H")
_PORT = struct.Struct("!H")
_INET = struct.Struct("!2xH4s")
_MAPPED = bytes(10) + b"\xff\xff"  # ::ffff:0:0/96
_ANY = bytes(4)


class Address:
    """An Internet address to bind: what `read` makes of the bytes.

    ``domain``: the address family that a socket must have for it, AF_INET or AF_INET6.
    ``ipv4``: the four bytes of an IPv4 address, or None where it is an IPv6 address alone; the
    IPv6 wildcard is ``wildcard`` with no ``ipv4``: whether it takes IPv4 is the socket's affair.
    """

    __slots__ = ("domain", "ipv4", "port", "raw", "wildcard")

    def __init__(
        self, raw: bytes, domain: int, port: int, ipv4: bytes | None, *, wildcard: bool
    ) -> None:
        self.raw = raw
        self.domain = domain
        self.port = port  # host order
        self.ipv4 = ipv4
        self.wildcard = wildcard


def read(raw: bytes) -> Address | None:
    """The address in ``raw`` (as long as the caller said), or None if it is no Internet address
    that the kernel would take."""
    if len(raw) < SHORTEST_INET:
        return None
    (family,) = _FAMILY.unpack_from(raw)
    if family == AF_INET6:
        if not SHORTEST_INET6 <= len(raw) <= LONGEST:
            return None
        (port,) = _PORT.unpack_from(raw, 2)
        host = raw[8:24]
        ipv4 = host[12:] if host.startswith(_MAPPED) else None
        return Address(raw, AF_INET6, port, ipv4, wildcard=not any(host if ipv4 is None else ipv4))
    if family not in (AF_INET, AF_UNSPEC) or len(raw) > LONGEST:
        return None
    port, host = _INET.unpack_from(raw)
    wildcard = host == _ANY
    if family == AF_UNSPEC and not wildcard:
        return None
    return Address(raw, AF_INET, port, host, wildcard=wildcard)
