"""Addresses as sockets and URLs want them, of IPv4 and IPv6.

A link-local IPv6 address is written with its interface, ``fe80::1%eth0`` (RFC 4007, section 11):
without it nobody knows which network it is in.
"""

import socket

Endpoint = tuple[str, int] | tuple[str, int, int, int]


def family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def endpoint(address: str, port: int) -> Endpoint:
    """For bind() and connect(). Raises OSError if the interface is no more."""
    if ":" not in address:
        return address, port
    host, _, interface = address.partition("%")
    return host, port, 0, socket.if_nametoindex(interface) if interface else 0
