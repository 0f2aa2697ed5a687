"""Comparing many ports with a router's table by its own lists of them. Pure.

GetListOfPortMappings (WANIPConnection:2, section 2.5.21) lists the mappings of one protocol in a
range of ports. Routers cut such lists off, leave entries out, or list nothing at all. So a list is
believed only where it shows a port as this host's: whatever else it shows, and whatever it does not
show, is looked up by itself.

What is listed comes as a document within the answer, which is escaped, or CDATA, or neither. It is
read by what looks like an entry in it.
"""

import re
from collections import Counter
from collections.abc import Collection, Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from natsup.state.model import Port, Protocol
from natsup.upnp.adding import (
    Answer,
    Device,
    Fault,
    Found,
    Holder,
    Kind,
    List,
    Listed,
    Looking,
    Step,
    looking,
)

FEW = 8  # ports, for which a list is not worth it
MOST = 2000  # entries in a list, which is some 400 bytes for each
LONGEST = 1 << 20  # bytes of an answer
_BEGINNING = 64 * 1024  # within which a list begins
_TAGS = 40  # of an entry; there are ten elements in one
_FULL = 100  # entries: a list of so many, or more, may have been cut off
_REQUESTS = 16
_NOTHING = frozenset({714, 730})  # there is no mapping in the range

# Nothing here may take more than linear time: the text is whatever a router sends.
_TAG = r"<(?:[\w.-]{1,32}:)?"
_ENTRY = re.compile(rf"{_TAG}PortMappingEntry\b[^<>]{{0,200}}>", re.IGNORECASE)
_FIELD = re.compile(
    rf"{_TAG}New(ExternalPort|Protocol|InternalPort|InternalClient|Enabled|LeaseTime)"
    r"\b[^<>]{0,200}>\s{0,32}([\w.:-]{1,64})\s{0,32}</"
)
_LISTING = re.compile(rf"{_TAG}NewPortListing\b[^<>]{{0,200}}>")
_ORDER = ("ExternalPort", "Protocol", "InternalPort", "InternalClient", "Enabled", "LeaseTime")


def compact(body: str) -> str:
    """What an answer lists, of each entry a line: external port, protocol, internal port and
    address, is it enabled, seconds left. "-" stands for what is not said."""
    begin = _LISTING.search(body, 0, _BEGINNING)
    if begin is None:
        return ""
    text = body[begin.end() :]
    if not re.match(r"\s{0,32}<", text):
        text = _unescaped(text)
    if text.count("<") > MOST * _TAGS:  # it is no list, and takes long to look through
        return ""
    lines = []
    for part in _ENTRY.split(text, MOST)[1:]:
        fields: dict[str, str] = {}
        for match in islice(_FIELD.finditer(part[:4096]), 2 * len(_ORDER)):
            name, value = match.groups()
            fields.setdefault(name, value)  # what follows may be a part of its description
        lines.append(" ".join(fields.get(name, "-") for name in _ORDER))
    return "\n".join(lines)


# html.unescape() takes a tenth of a second and more for as much as may be listed.
_ESCAPES = (
    *((escape, "<") for escape in ("&lt;", "&#60;", "&#x3c;", "&#x3C;")),
    *((escape, ">") for escape in ("&gt;", "&#62;", "&#x3e;", "&#x3E;")),
    ("&amp;", "&"),  # at the end: what it begins is escaped twice
)


def _unescaped(text: str) -> str:
    """With its tags; of other characters none matters that anybody escapes."""
    for escape, char in _ESCAPES:
        text = text.replace(escape, char)
    return text


def listed(lines: str) -> Listed:
    """What `compact` has written. A port that is listed twice is not listed for sure."""
    entries = list(_entries(lines))
    times = Counter(port for port, _ in entries)
    certain = {port: found for port, found in entries if times[port] == 1}
    return Listed(certain, len(entries))


def _entries(lines: str) -> Iterator[tuple[Port, Found]]:
    for line in lines.splitlines():
        fields = line.split(" ")
        if len(fields) != len(_ORDER):
            continue
        number, protocol, internal, client, enabled, lease = fields
        if not re.fullmatch(r"[0-9]{1,5}", number) or protocol.lower() not in ("tcp", "udp"):
            continue
        port = Port(Protocol(protocol.lower()), int(number))
        yield port, Found(client, internal, enabled, lease)


@dataclass(frozen=True, slots=True)
class Survey:
    """Which ports are this host's, by the router's lists. ``works``: has it any?"""

    ours: dict[Port, Holder]
    works: bool = True


Surveying = Generator[Step, Answer, tuple[Survey, Device]]


def surveying(ports: Collection[Port], device: Device) -> Surveying:
    """Look for ports in the router's lists. Also returns what was learned of the router."""
    ours: dict[Port, Holder] = {}
    ranges = [sorted(part, key=_number) for part in _by_protocol(ports)]
    requests = 0
    while ranges and requests < _REQUESTS:
        wanted = ranges.pop()
        answer = yield List(wanted[0].protocol, wanted[0].number, wanted[-1].number)
        requests += 1
        if isinstance(answer, Fault) and answer.code in _NOTHING:
            continue
        if not isinstance(answer, Listed):
            # If it is silent, it may be the list that takes it too long: the next look tells.
            return Survey(ours, works=False), device
        missing = []
        for port in wanted:
            found = answer.entries.get(port)
            holder = None
            if found is not None:
                holder, learned = _learn(looking(port, device), found)
                if holder.kind is Kind.OURS:
                    ours[port], device = holder, learned
                    continue
            if found is None:
                missing.append(port)
        if answer.count >= _FULL and len(missing) > FEW:
            half = len(missing) // 2
            ranges += [missing[:half], missing[half:]]
    return Survey(ours), device


def _learn(operation: Looking, found: Found) -> tuple[Holder, Device]:
    """What a look comes to that finds this."""
    next(operation)
    try:
        operation.send(found)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    raise AssertionError("an entry is all that there is to ask for")


def _by_protocol(ports: Iterable[Port]) -> list[list[Port]]:
    kinds: dict[Protocol, list[Port]] = {}
    for port in ports:
        kinds.setdefault(port.protocol, []).append(port)
    return list(kinds.values())


def _number(port: Port) -> int:
    return port.number
