"""Which addresses of a router natsup follows. Pure.

Anybody on the LAN can answer a search, and would have natsup send requests wherever they like. So
only plain http to an address in figures is followed, to the host that answered, and from there to
the same host alone.
"""

import ipaddress
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urljoin, urlsplit


class Refused(ValueError):
    """The message says what is wrong with the address, without quoting it."""


@dataclass(frozen=True, slots=True)
class Url:
    """An http URL that has been checked."""

    host: str  # an IPv4 address; for pinholes an IPv6 one, perhaps with its interface
    port: int
    target: str  # path and query, from "/" on

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}{self.target}"

    @property
    def netloc(self) -> str:
        """As the router is to read it, to whom our interfaces mean nothing (RFC 6874)."""
        host = self.host.partition("%")[0]
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


_LONGEST = 1000  # it stands in what `natsup status` shows


@lru_cache(64)
def read(text: str) -> Url:
    """Read an http URL with an IPv4 address. Raises `Refused`."""
    if len(text) > _LONGEST:
        raise Refused("longer than any URL that is meant")
    if not text.isascii() or not text.isprintable() or " " in text:
        raise Refused("characters that no URL has")
    if "#" in text:
        raise Refused("a fragment")
    try:
        parts = urlsplit(text)
        port = 80 if parts.port is None else parts.port
        host = ipaddress.IPv4Address(parts.hostname or "")
    except ValueError as error:
        raise Refused("no IPv4 address and port in figures") from error
    if parts.scheme != "http":
        raise Refused("not http")
    if "@" in parts.netloc:
        raise Refused("a user name")
    if not 1 <= port <= 65535:
        raise Refused("port 0")
    if host.is_unspecified or host.is_multicast or host == ipaddress.IPv4Address(0xFFFFFFFF):
        raise Refused("an address that is no host's")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Url(str(host), port, target)


def location(text: str, *, sender: str, own: str) -> Url:
    """The LOCATION in a search's answer from ``sender``; ``own``: this host. Raises `Refused`."""
    url = read(text)
    if url.host != sender:
        raise Refused("another host than the one that answered")
    host = ipaddress.IPv4Address(url.host)
    if url.host == own or host.is_loopback:
        raise Refused("this host")
    if host.is_link_local:
        raise Refused("a link-local address")
    return url


def control(text: str, *, description: Url, base: str | None = None) -> Url:
    """The control URL in a description; ``base`` is its URLBase. Raises `Refused`.

    A URLBase of another host is passed over: it is more often wrong than meant. (RFC 3986,
    section 5, for what a relative one comes to.)
    """
    start = str(description)
    if base:
        try:
            candidate = read(base.strip())
            if candidate.host == description.host:
                start = str(candidate)
        except Refused:
            pass
    try:
        joined = urljoin(start, text.strip())
    except ValueError as error:
        raise Refused("no URL at all") from error
    url = read(joined)
    if url.host != description.host:
        raise Refused("a control URL on another host")
    return url
