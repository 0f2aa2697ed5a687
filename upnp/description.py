"""Reading a router's description: which services it has, and the best one for us. Pure.

Read tolerantly, because many are broken: by their XML where it can be parsed, else by what looks
like a service in the text. A document with a DTD is not read at all.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import unescape
from ipaddress import IPv4Address
from urllib.parse import urljoin, urlsplit
from xml.etree.ElementTree import Element, ParseError

from natsup.upnp.trust import Refused, Url, control

# The best kind first. The old names of the DSL Forum are still met on DSL routers.
_KINDS = (
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
    "urn:dslforum-org:service:WANIPConnection:1",
    "urn:dslforum-org:service:WANPPPConnection:1",
)
_FIREWALL = "urn:schemas-upnp-org:service:WANIPv6FirewallControl:"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")  # RFC 3986, section 3.1
_MOST_SERVICES = 64
_DEEPEST = 16
_MOST_MARKS = 6000  # tags and attributes: defusedxml takes a microsecond or more for each


class Unreadable(ValueError):
    """The message says why a description is of no use."""


@dataclass(frozen=True, slots=True)
class Service:
    """A service that can map ports."""

    kind: str  # its serviceType, exactly as in the description
    control: Url
    at_root: Url | None = None  # where the control URL is instead, if it is not where RFC 3986 says


def services(document: str, *, url: Url) -> list[Service]:
    """The services that can map ports, in the order of `_KINDS`. Raises `Unreadable`.

    Those with a control URL that is not to be trusted are left out.
    """
    if "<!DOCTYPE" in document.upper() or "<!ENTITY" in document.upper():
        raise Unreadable("the router's description has a DTD")
    if document.count("<") + document.count("=") > _MOST_MARKS:
        raise Unreadable("the router's description is too long")
    base, found = _read(document)
    usable = []
    for kind, path in found[:_MOST_SERVICES]:
        if kind not in _KINDS:
            continue
        try:
            where = control(path, description=url, base=base)
            at_root = None
            if not path.startswith("/") and not _SCHEME.match(path):
                at_root = control(f"/{path}", description=url, base=base)
        except Refused:
            continue
        usable.append(Service(kind, where, at_root if at_root != where else None))
    if not usable:
        raise Unreadable("the router's description names no service that maps ports")
    return sorted(usable, key=lambda service: _KINDS.index(service.kind))


def firewall(document: str, *, url: Url) -> Url:
    """Where the service is that opens pinholes: always on the host that the description at ``url``
    was read from, whatever it says itself. Raises `Unreadable`."""
    if "<!DOCTYPE" in document.upper() or "<!ENTITY" in document.upper():
        raise Unreadable("the router's description has a DTD")
    _, found = _read(document)
    for kind, path in found[:_MOST_SERVICES]:
        if kind.startswith(_FIREWALL):
            try:
                parts = urlsplit(urljoin(f"http://router{url.target}", path))
                port = url.port if parts.hostname == "router" else parts.port or 80
            except ValueError:
                continue
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            if target.isascii() and target.isprintable() and " " not in target:
                return Url(url.host, port, target)
    raise Unreadable("the router's UPnP has no service that opens pinholes")


@dataclass(frozen=True, slots=True)
class Device:
    """What a router says that it is. ``names``: all makers and models in its description, for a
    maker's software often names itself further down."""

    vendor: str = ""
    model: str = ""
    names: tuple[str, ...] = ()


_MAKER = ("manufacturer", "modelName", "modelNumber")
_MOST_NAMES = 12
_LONGEST_NAME = 64


def device(document: str) -> Device:
    """Which router it is, as far as it says. Never raises."""

    def every(name: str) -> list[str]:
        found = re.findall(rf"<{name}>([^<]{{1,1000}})</{name}>", document, re.IGNORECASE)
        return [unescape(text).strip()[:_LONGEST_NAME] for text in found[:_MOST_NAMES]]

    vendors, models, numbers = map(every, _MAKER)
    vendor, model, number = (names[0] if names else "" for names in (vendors, models, numbers))
    if number and number not in model and number.lower() not in ("1", "1.0"):
        model = f"{model} {number}".strip()
    every_name = dict.fromkeys([*vendors, *models, model])
    return Device(vendor, model, tuple(name for name in every_name if name))


def _read(document: str) -> tuple[str | None, list[tuple[str, str]]]:
    """URLBase, and (serviceType, controlURL) of every service."""
    from defusedxml.ElementTree import fromstring  # not needed before there is a router

    try:
        root = fromstring(document.strip().rstrip("\0"), forbid_dtd=True)
    except (ParseError, ValueError):
        return _by_text(document)
    base = None
    for element in root:
        if _name(element) == "urlbase" and element.text:
            base = element.text.strip()
    return base, list(_walk(root, 0))


def _walk(element: Element, depth: int) -> Iterator[tuple[str, str]]:
    if depth > _DEEPEST:
        return
    if _name(element) == "service":
        parts = {_name(child): (child.text or "").strip() for child in element}
        if parts.get("servicetype") and parts.get("controlurl"):
            yield parts["servicetype"], parts["controlurl"]
        return
    for child in element:
        yield from _walk(child, depth + 1)


def _name(element: Element) -> str:
    tag = element.tag
    return tag.rpartition("}")[2].lower() if isinstance(tag, str) else ""


# Nothing here may take more than linear time: the text is whatever a router sends.
_SERVICE = re.compile("<service>", re.IGNORECASE)
_SERVICE_END = re.compile("</service>", re.IGNORECASE)
_LONGEST_SERVICE = 4000


def _by_text(document: str) -> tuple[str | None, list[tuple[str, str]]]:
    found = []
    for start in _SERVICE.split(document)[1:]:
        part = start[:_LONGEST_SERVICE]
        end = _SERVICE_END.search(part)
        if end is None:
            continue
        part = part[: end.start()]
        kind, path = _field("serviceType", part), _field("controlURL", part)
        if kind and path:
            found.append((kind, path))
    return _field("URLBase", document), found


def _field(name: str, text: str) -> str | None:
    match = re.search(rf"<{name}>([^<]{{0,1000}})</{name}>", text, re.IGNORECASE)
    return match[1].strip() if match else None


@dataclass(frozen=True, slots=True)
class Condition:
    """What a service says of itself. Never a veto: routers that say "Disconnected" work."""

    connected: bool = False
    external_address: str | None = None


def best(candidates: list[Service], conditions: Mapping[Service, Condition]) -> Service:
    """The service to use: connected, with a public address, of the best kind."""

    def score(service: Service) -> tuple[int, int, int]:
        condition = conditions.get(service, Condition())
        return (
            0 if condition.connected else 1,
            _address_rank(condition.external_address),
            _KINDS.index(service.kind),
        )

    return min(candidates, key=score)


def _address_rank(text: str | None) -> int:
    try:
        address = IPv4Address(text or "")
    except ValueError:
        return 2
    if address.is_unspecified or address.is_loopback:
        return 2
    return 0 if address.is_global else 1
