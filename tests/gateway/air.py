"""The fake gateway's SSDP: answers to searches, and what it tells unasked."""

import re

import trio

from tests.gateway.quirks import Quirks

PORT, GROUP = 1900, "239.255.255.250"
ROUTER = "urn:schemas-upnp-org:device:InternetGatewayDevice:1"
_IS = ("upnp:rootdevice", ROUTER, "urn:schemas-upnp-org:service:WANIPConnection:1")


def target(datagram: bytes) -> str | None:
    """What is searched for, if it is a search."""
    if not datagram.startswith(b"M-SEARCH "):
        return None
    found = re.search(rb"^st: *([^\r\n]*)", datagram, re.IGNORECASE | re.MULTILINE)
    return found[1].decode("latin-1").strip() if found else None


def answer(wanted: str, *, location: str, quirks: Quirks) -> bytes | None:
    """What a search is answered with, if it is for this device. Pure."""
    if wanted == "ssdp:all":
        wanted = "upnp:rootdevice"
    if wanted not in (_IS if quirks.targets is None else quirks.targets):
        return None
    lines = [
        quirks.status_line,
        "CACHE-CONTROL: max-age=1800",
        *quirks.more_lines,
        f"LOCATION: {quirks.location or location}",
        f"ST: {wanted}",
        f"USN: uuid:fake::{wanted}",
        *_bootid(quirks),
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def notice(kind: str, *, location: str, quirks: Quirks) -> bytes:
    """``kind``: ``alive`` or ``byebye``. Pure."""
    lines = [
        "NOTIFY * HTTP/1.1",
        f"HOST: {GROUP}:{PORT}",
        f"LOCATION: {location}",
        f"NT: {ROUTER}",
        f"NTS: ssdp:{kind}",
        f"USN: uuid:fake::{ROUTER}",
        *_bootid(quirks),
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def _bootid(quirks: Quirks) -> list[str]:
    return [] if quirks.bootid is None else [f"BOOTID.UPNP.ORG: {quirks.bootid}"]


def listening(host: str, address: str) -> trio.socket.SocketType:
    """A socket that hears what is sent to ``host``, the gateway's own ``address`` or the group."""
    sock = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
    sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_REUSEADDR, 1)
    own = trio.socket.inet_aton(address)
    if host == GROUP:
        joined = trio.socket.inet_aton(GROUP) + own
        sock.setsockopt(trio.socket.IPPROTO_IP, trio.socket.IP_ADD_MEMBERSHIP, joined)
    sock.setsockopt(trio.socket.IPPROTO_IP, trio.socket.IP_MULTICAST_IF, own)
    return sock
