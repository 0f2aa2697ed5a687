"""Searching for a router, and what it tells unasked: SSDP's messages. Pure.

UPnP Device Architecture 1.1, sections 1.3 (search) and 1.2 (advertisement).

Routers answer with all that HTTP forbids, so the reader takes what it can use and passes the rest
over. An answer that says two things about where the description is says nothing.
"""

from dataclasses import dataclass
from enum import Enum

PORT = 1900
MULTICAST = "239.255.255.250"

# One search a target: some routers answer ssdp:all with their first device only, and some answer
# only for what they are.
TARGETS = (
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
    "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
    "upnp:rootdevice",
)
ROUTER = ":device:InternetGatewayDevice:"  # in the names of both versions and of the DSL Forum
_LONGEST = 8192


def search(target: str, *, host: str, wait: int = 1) -> bytes:
    """An M-SEARCH for ``target``, to be sent to ``host``; ``wait``: seconds to answer within."""
    lines = (
        "M-SEARCH * HTTP/1.1",
        f"HOST: {host}:{PORT}",
        'MAN: "ssdp:discover"',
        f"MX: {wait}",
        f"ST: {target}",
        "",
        "",
    )
    return "\r\n".join(lines).encode()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a device says of itself, in one message for each thing that it is."""

    location: str  # of its description
    target: str = ""  # ST: what it answers as
    name: str = ""  # USN: which one of these it is
    bootid: int | None = None  # grows with every restart; devices of UPnP 1.0 have none


def answer(datagram: bytes) -> Answer | None:
    """An answer to a search; None if it is none, or names no single description."""
    start, fields = _read(datagram)
    words = start.split()
    if len(words) < 2 or not words[0].upper().startswith("HTTP/1.") or words[1] != "200":
        return None
    location = _single(fields, "LOCATION")
    if location is None:
        return None
    return Answer(
        location,
        _single(fields, "ST") or "",
        _single(fields, "USN") or "",
        _number(_single(fields, "BOOTID.UPNP.ORG")),
    )


class Kind(Enum):
    ALIVE = "ssdp:alive"
    BYEBYE = "ssdp:byebye"
    UPDATE = "ssdp:update"  # it is about to have another boot number, without a restart


@dataclass(frozen=True, slots=True)
class Notification:
    """What a device tells of itself unasked, in one message for each thing that it is."""

    kind: Kind
    target: str  # NT: what it is
    bootid: int | None = None
    location: str | None = None


def notification(datagram: bytes) -> Notification | None:
    """A NOTIFY; None if it is none. The boot number of an update is the one that it announces."""
    start, fields = _read(datagram)
    if start.split()[:2] != ["NOTIFY", "*"]:
        return None
    target = _single(fields, "NT")
    try:
        kind = Kind((_single(fields, "NTS") or "").lower())
    except ValueError:
        return None
    if target is None:
        return None
    name = "NEXTBOOTID.UPNP.ORG" if kind is Kind.UPDATE else "BOOTID.UPNP.ORG"
    return Notification(kind, target, _number(_single(fields, name)), _single(fields, "LOCATION"))


def _read(datagram: bytes) -> tuple[str, list[tuple[str, str]]]:
    """The first line, and name (in capitals) and value of the fields that have a value."""
    text = datagram[:_LONGEST].decode("latin-1").rstrip("\0")
    start, *lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    fields = []
    for line in lines:
        name, colon, value = line.partition(":")
        if colon and value.strip():
            fields.append((name.strip().upper(), value.strip()))
    return start, fields


def _single(fields: list[tuple[str, str]], name: str) -> str | None:
    found = [value for other, value in fields if other == name]
    return found[0] if len(found) == 1 else None


def _number(text: str | None) -> int | None:
    """A number of 31 bits, as the standard has them; None for what is none."""
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 10:
        return None
    return int(text)
