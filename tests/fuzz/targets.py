"""What reads bytes that others have written: a function for each reader, from bytes to nothing.

It raises nothing, whatever the bytes are: what its reader documents is caught here, and what is
read is held against what the rest of natsup relies on. None of them waits or opens a socket: a
million inputs are a matter of minutes.
"""

import io
import json
import tempfile
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, TypeVar, cast

import h11
import trio

from natsup.state import chronicle, history, journal, known, report
from natsup.state.model import Conflict, Ignored, Mapped, Port, Protocol, Unknown
from natsup.upnp import adding, ears, igd, listing, ssdp, trust
from natsup.upnp.description import Service, Unreadable, device, services
from natsup.upnp.description import firewall as find_firewall
from natsup.upnp.library import HttpResponse
from natsup.upnp.pinhole import soap as pinhole_soap
from natsup.upnp.pmp import mapping
from natsup.upnp.pmp.answers import Answer, Map, Query, Silent, Step, Unmap
from natsup.upnp.pmp.languages import Language, NatPmp, Pcp
from natsup.upnp.pmp.timing import Reading
from natsup.upnp.requester import Requester, RequestFailed
from natsup.upnp.router import soap
from natsup.upnp.router.table import Refused, Table
from natsup.upnp.watch import Watch

GATEWAY, HERE = "192.168.1.1", "192.168.1.2"
SECRET = b"not a secret"
URL = trust.Url(GATEWAY, 5000, "/d.xml")
KIND = "urn:schemas-upnp-org:service:WANIPConnection:1"
PORT = Port(Protocol.TCP, 6881)
STEPS: tuple[Step, ...] = (Query(), Map(PORT, 3600), Map(PORT, 3600, insist=True), Unmap(PORT))

_T = TypeVar("_T")


def finish(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """What comes of a coroutine that waits for nothing, without an event loop."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return cast(_T, end.value)
    coroutine.close()
    raise AssertionError("it waits for something")


def plain(text: str) -> None:
    """It may be shown on a terminal as it is, and kept."""
    assert text.isprintable()
    assert len(text) < 2000


# --- SSDP ---


def ssdp_answer(data: bytes) -> None:
    said = ssdp.answer(data)
    if said is None:
        return
    watch = Watch(GATEWAY, 0.0)
    watch.ask(0.0)
    watch.hear(said)
    try:
        url = trust.location(said.location, sender=GATEWAY, own=HERE)
    except trust.Refused as error:
        plain(str(error))
        return
    assert url.host == GATEWAY
    assert 1 <= url.port <= 65535
    plain(str(url))
    assert trust.read(str(url)) == url


def ssdp_notify(data: bytes) -> None:
    """Several of them, as a packet socket hears them: each with its IP header."""
    watch = Watch(GATEWAY, 0.0)
    now = 0.0
    for packet in data.split(b"\0\0\0\0")[:16]:
        said = ssdp.notification(ears.payload(packet)) or ssdp.notification(packet)
        if said is not None:
            watch.hear_unasked(said, now)
        now += 1.0
        reason = watch.sign(now)
        if reason is not None:
            plain(reason)
    assert watch.next_deadline() <= now + 1800.0


# --- descriptions, SOAP ---


def description(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    said = device(text)
    assert max(map(len, (said.vendor, said.model, *said.names))) < 200
    assert len(said.names) < 50
    try:
        found = services(text, url=URL)
    except Unreadable as error:
        plain(str(error))
        return
    assert 0 < len(found) <= 64
    for service in found:
        for url in (service.control, service.at_root):
            assert url is None or url.host == GATEWAY


class _Memory(Requester):
    """Answers every request with the same, from memory."""

    status = 200
    body = b""

    async def async_http_request(self, http_request: Any) -> HttpResponse:
        if http_request.method == "GET":
            return await super().async_http_request(http_request)
        return HttpResponse(self.status, {}, self.body.decode("utf-8", "replace"))


_memory = _Memory(HERE)
_igd = igd.Igd(
    str(URL),
    HERE,
    finish(igd._library_service(Service(KIND, URL), _memory)),
    None,
    _memory,
    10.0,
    adding.Device(HERE, GATEWAY, 24),
)


def _asked(step: adding.Step, status: int, body: bytes) -> adding.Answer:
    _memory.status, _memory.body = status, body
    return finish(_igd._ask(step))


def soap_add(data: bytes) -> None:
    for step in (adding.Put(PORT, 3600), adding.Delete(PORT)):
        answer = _asked(step, 200, data)
        assert isinstance(answer, adding.Done | adding.Fault)


def soap_look(data: bytes) -> None:
    answer = _asked(adding.Look(PORT), 200, data)
    assert isinstance(answer, adding.Found | adding.Fault)
    held = adding.holder(answer, PORT, adding.Device(HERE, GATEWAY, 24))
    plain(held.reason)
    if held.kind is adding.Kind.OTHER:
        assert str(IPv4Address(held.address)) == held.address
        assert held.address.startswith("192.168.1.")
        assert held.address not in (HERE, GATEWAY)
    assert 0 <= held.lease < 1 << 32


def soap_list(data: bytes) -> None:
    ports = [Port(protocol, 6881 + number) for number in range(20) for protocol in Protocol]
    device = adding.Device(HERE, GATEWAY, 24)
    operation = listing.surveying(ports, device)
    answer = _asked(adding.List(Protocol.TCP, 6881, 6900), 200, data)
    assert isinstance(answer, adding.Listed | adding.Fault)
    try:
        next(operation)
        for _ in range(20):
            operation.send(answer)
    except StopIteration as end:
        ours = end.value[0].ours
    else:
        raise AssertionError("it asks for ever")
    assert set(ours) <= set(ports)


def soap_address(data: bytes) -> None:
    _memory.status, _memory.body = 200, data
    answer = finish(_igd._call("GetExternalIPAddress", {}))
    told = igd._address(igd._text(answer, "NewExternalIPAddress"))
    assert told is None or str(IPv4Address(told)) == told


def soap_fault(data: bytes) -> None:
    """Whatever comes with a status of 500 is a fault, and none of them a conflict by itself."""
    for step in (adding.Put(PORT, 3600), adding.Look(PORT), adding.Delete(PORT)):
        answer = _asked(step, 500, data)
        assert isinstance(answer, adding.Fault)
    operation = adding.adding(PORT, 3600, adding.Device(HERE, GATEWAY, 24))
    asked: adding.Step = next(operation)
    try:
        for _ in range(16):
            said = adding.Fault(714) if isinstance(asked, adding.Look) else answer
            asked = operation.send(said)
    except StopIteration as end:
        outcome = end.value[0]
        assert not isinstance(outcome, Conflict)
        plain(outcome.reason)
        return
    raise AssertionError("it asks for ever")


def soap_request(data: bytes) -> None:
    """What natsup's own router is asked."""
    table = Table(4)
    try:
        action, values = soap.read_action(data)
        if action == "AddPortMapping":
            table.add(soap.read_mapping(values, 0.0), requester=HERE)
        said = soap.answer("X", soap.look_up(table, action, values, external="1.2.3.4", now=0.0))
    except Refused as error:
        said = soap.fault(error)
    assert len(said) < 4096


def firewall(data: bytes) -> None:
    """The description, for who opens pinholes."""
    try:
        url = find_firewall(data.decode("utf-8", "replace"), url=URL)
    except Unreadable as error:
        plain(str(error))
        return
    assert url.host == GATEWAY
    assert 1 <= url.port <= 65535
    plain(url.target)


def soap_pinhole(data: bytes) -> None:
    body = data.decode("utf-8", "replace")
    for action in ("GetFirewallStatus", "AddPinhole", "UpdatePinhole", "GetPinholePackets"):
        for status in (200, 500):
            said = pinhole_soap.read(action, status, body)
            assert isinstance(said, dict | adding.Fault)
            if isinstance(said, dict):
                assert status == 200
                assert all(len(value) <= 64 for value in said.values())


# --- HTTP ---


class _Stream:
    """An answer in pieces: of the length that its first byte says, so that they end anywhere. Each
    is a turn of the event loop's, so that there are not too many of them to one input."""

    def __init__(self, data: bytes) -> None:
        self._rest = io.BytesIO(data[1:])
        self._piece = max((data[0] if data else 0) * 8 + 1, len(data) // 32)
        self.socket = self

    async def send_all(self, data: bytes) -> None: ...

    async def receive_some(self, most: int) -> bytes:
        return self._rest.read(min(most, self._piece))

    def close(self) -> None: ...


HTTP_AT_MOST = 64 * 1024


def http(data: bytes) -> None:
    requester = Requester(HERE, at_most=HTTP_AT_MOST)
    assert not requester._kept(URL)
    request = requester._compose("GET", URL, {}, b"")
    requester._stream = cast(trio.SocketStream, _Stream(data))
    try:
        status, body = finish(requester._exchange(request))
    except (RequestFailed, h11.RemoteProtocolError, trio.BrokenResourceError):
        return
    assert 100 <= status < 1000
    assert len(body) <= HTTP_AT_MOST


# --- NAT-PMP, PCP ---


def _pmp(language: Language, data: bytes) -> None:
    """Datagrams, each of the length that the byte before it says, or of what is left."""
    datagrams: list[bytes] = []
    while data and len(datagrams) < 8:
        datagrams.append(data[1 : data[0] + 1])
        data = data[data[0] + 1 :]
    before: Reading | None = None
    for number, datagram in enumerate(datagrams):
        for step in STEPS:
            heard = language.read(datagram, step)
            if heard is None or heard.epoch is None:
                continue
            now = Reading(heard.epoch, float(number))
            if before is not None:
                language.lost(before, now)
            before = now
    _operate(language, datagrams)


def _operate(language: Language, datagrams: list[bytes]) -> None:
    """A mapping made and removed, with these answers to whatever is asked, and then with none."""
    rest = iter(datagrams)
    device = language.device(50000)
    for operation in (mapping.adding(PORT, 3600, device), mapping.removing(PORT, device)):
        try:
            step = next(operation)
            for _ in range(16):
                language.encode(step)
                answer: Answer = Silent("silence", sent=True)
                for datagram in rest:
                    heard = language.read(datagram, step)
                    if heard is not None:
                        answer = heard.answer
                        break
                step = operation.send(answer)
        except StopIteration as end:
            outcome = end.value[0]
            if isinstance(outcome, Mapped):
                assert 0 < outcome.lease <= 86400
            elif isinstance(outcome, Ignored | Unknown):
                plain(outcome.reason)
        else:
            raise AssertionError("it asks for ever")


def natpmp(data: bytes) -> None:
    _pmp(NatPmp(), data)


def pcp(data: bytes) -> None:
    _pmp(Pcp(lambda: SECRET, GATEWAY, HERE), data)


# --- what natsup itself has written, or somebody else in its folder ---


def _folder() -> Path:
    """In memory, where there is such a place, and gone with this process."""
    where = Path("/dev/shm")
    folder = tempfile.TemporaryDirectory(dir=where if where.is_dir() else None)
    _kept.append(folder)
    return Path(folder.name)


_kept: list["tempfile.TemporaryDirectory[str]"] = []


def journal_lines(data: bytes) -> None:
    session = journal.replay(io.BytesIO(data))
    if session is None:
        return
    assert len(session.clients) <= 100
    for session.alive in (True, False):
        json.dumps(report.as_json([session]))
        for line in report.as_text([session], now=1.0e9, zone=UTC).split("\n"):
            assert line.isprintable()


def networks(data: bytes) -> None:
    if not _kept:
        _folder()
    folder = Path(_kept[0].name)
    (folder / known._NAME).write_bytes(data)
    for name in ("192.168.1.1 02:00:00:00:00:01", ""):
        known.recall(folder, name, wall=1.0e9)


def history_line(data: bytes) -> None:
    entry = history.entry_of(data)
    if entry is None:
        return
    json.dumps(chronicle.as_json(entry))
    assert chronicle.as_text([entry], zone=UTC).isprintable()


@dataclass(frozen=True, slots=True)
class Target:
    """``most``: bytes that its reader ever gets; what is longer was cut or refused before. natsup's
    own files may be longer, but each of their lines stands by itself."""

    run: Callable[[bytes], None]
    most: int


TARGETS = {
    "ssdp-answer": Target(ssdp_answer, 8192),
    "ssdp-notify": Target(ssdp_notify, 1 << 16),
    "description": Target(description, 256 * 1024),
    "soap-add": Target(soap_add, 64 * 1024),
    "soap-look": Target(soap_look, 64 * 1024),
    "soap-list": Target(soap_list, listing.LONGEST),
    "soap-address": Target(soap_address, 64 * 1024),
    "soap-fault": Target(soap_fault, 64 * 1024),
    "firewall": Target(firewall, 256 * 1024),
    "soap-pinhole": Target(soap_pinhole, 64 * 1024),
    "soap-request": Target(soap_request, 64 * 1024),
    "http": Target(http, 2 * HTTP_AT_MOST),
    "natpmp": Target(natpmp, 2048),
    "pcp": Target(pcp, 2048),
    "journal": Target(journal_lines, 1 << 12),
    "networks": Target(networks, 1 << 16),
    "history": Target(history_line, 1 << 16),
}
