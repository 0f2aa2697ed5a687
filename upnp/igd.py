"""A router that speaks UPnP: the `Gateway` of natsup.state, over async-upnp-client.

The library is given its descriptions by us. Those of routers are often broken, it would fetch and
parse a document for every service, and of two services of a kind it keeps the last one only. So
natsup.upnp.description chooses the service, and the library reads a small description of just that
one, out of memory. Faults are read by us as well, before it sees them: many are not well formed.

Importing this module takes a tenth of a second, for the library.
"""

import html
import logging
import re
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address
from typing import Any, TypeVar

import trio

from natsup.state.model import (
    Conflict,
    Ignored,
    Mapped,
    Outcome,
    Port,
    Protocol,
    Removal,
    Unknown,
)
from natsup.upnp import listing, trust
from natsup.upnp.actions import ACTIONS, LIST, LIST_IN, LISTING
from natsup.upnp.adding import (
    Answer,
    Delete,
    Device,
    Done,
    Fault,
    Found,
    Holder,
    Kind,
    List,
    Look,
    NoAnswer,
    Put,
    Step,
    adding,
    looking,
    no_answers,
    removing,
)
from natsup.upnp.checks import Checks
from natsup.upnp.description import Condition, Service
from natsup.upnp.library import HttpResponse, UpnpAction, UpnpError, UpnpFactory, UpnpService
from natsup.upnp.requester import Requester, RequestFailed
from natsup.upnp.turns import Turns

log = logging.getLogger("natsup.upnp")

# What the library raises for one or another kind of nonsense
_NONSENSE = (UpnpError, ValueError, KeyError, AttributeError, UnicodeError)

# What is read of the answers; the rest is other hosts' text
_OUT = {
    "GetSpecificPortMappingEntry": (
        "NewInternalPort",
        "NewInternalClient",
        "NewEnabled",
        "NewLeaseDuration",
    ),
    "GetExternalIPAddress": ("NewExternalIPAddress",),
    "GetStatusInfo": ("NewConnectionStatus",),
    LIST: (LISTING,),
}

# Seconds for what is good to know and nothing waits for
_ASIDE = 2.0
# Seconds for which an address that this host had before cannot be another host's
_FORMER = 60.0
_LATE = "the router did not answer in time"

_T = TypeVar("_T")
Operation = Generator[Step, Answer, tuple[_T, Device]]


def _scpd() -> str:
    """A service description of the actions above. Every value is a string: what routers send for
    a number or a boolean is read where it is used."""
    actions = []
    used = {name: ins for name, (ins, _) in ACTIONS.items()} | {LIST: LIST_IN}
    for name, ins in used.items():
        arguments = [(argument, "in") for argument in ins]
        arguments += [(argument, "out") for argument in _OUT.get(name, ())]
        listed = "".join(
            f"<argument><name>{argument}</name><direction>{direction}</direction>"
            "<relatedStateVariable>Text</relatedStateVariable></argument>"
            for argument, direction in arguments
        )
        actions.append(f"<action><name>{name}</name><argumentList>{listed}</argumentList></action>")
    return (
        '<?xml version="1.0"?><scpd xmlns="urn:schemas-upnp-org:service-1-0">'
        f"<actionList>{''.join(actions)}</actionList><serviceStateTable>"
        '<stateVariable sendEvents="no"><name>Text</name><dataType>string</dataType>'
        "</stateVariable></serviceStateTable></scpd>"
    )


def _device(service: Service) -> str:
    return (
        '<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0">'
        "<specVersion><major>1</major><minor>0</minor></specVersion><device>"
        "<deviceType>urn:schemas-upnp-org:device:WANConnectionDevice:1</deviceType>"
        "<friendlyName>router</friendlyName><manufacturer>-</manufacturer>"
        "<modelName>-</modelName><UDN>uuid:natsup</UDN><serviceList><service>"
        f"<serviceType>{service.kind}</serviceType><serviceId>urn:natsup:1</serviceId>"
        # With its host: a path that begins with // would be taken for one.
        f"<controlURL>{_escape(str(service.control))}</controlURL><eventSubURL/>"
        "<SCPDURL>/natsup/scpd.xml</SCPDURL></service></serviceList></device></root>"
    )


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


class _SoapFault(Exception):
    def __init__(self, code: int | None) -> None:
        super().__init__(code)
        self.code = code


class _NotThere(_SoapFault):
    """HTTP's 404: it is the path that is wrong."""


# Nothing here may take more than linear time: the text is whatever a router sends.
_CODE = re.compile(
    r"<(?:[\w.-]{1,32}:)?errorCode\b[^<>]{0,200}>\s{0,32}(-?\d{1,40})\s{0,32}<", re.IGNORECASE
)

_BEGINNING = 64 * 1024  # where an answer tells what it is; only lists are longer


def normalised(action: UpnpAction, response: HttpResponse) -> HttpResponse:
    """An answer as the library can read it. Raises `_SoapFault`.

    A fault counts whatever the HTTP status. An empty success is a success, for actions that answer
    nothing; a page of HTML, such as a login, is none. Only the values that are used are kept:
    names of mappings are other hosts' text, which many routers repeat without escaping it, so
    that it breaks the XML, or passes for a fault.
    """
    body = (response.body or "").strip().rstrip("\0")
    beginning = body[:_BEGINNING]
    good = 200 <= response.status_code < 300
    answers = re.search(rf"<(?:[\w.-]{{1,32}}:)?{action.name}Response\b", beginning, re.IGNORECASE)
    match = None if good and answers else _CODE.search(beginning)
    if match:
        raise _SoapFault(int(match[1]))
    if response.status_code == 404:
        raise _NotThere(None)
    if not good:
        raise _SoapFault(None)
    if _OUT.get(action.name):
        if not answers:
            raise _SoapFault(None)
        body = body[answers.start() :]
        if action.name == LIST:
            values = f"<{LISTING}>{_escape(listing.compact(body))}</{LISTING}>"
        else:
            values = "".join(_value(name, body) for name in _OUT[action.name])
    elif body and not re.search(r"envelope|response\b", body, re.IGNORECASE):
        raise _SoapFault(None)
    else:
        values = ""
    kind = action.service.service_type
    envelope = "http://schemas.xmlsoap.org/soap/envelope/"
    return HttpResponse(
        200,
        {},
        f'<s:Envelope xmlns:s="{envelope}"><s:Body><u:{action.name}Response xmlns:u="{kind}">'
        f"{values}</u:{action.name}Response></s:Body></s:Envelope>",
    )


def _value(name: str, body: str) -> str:
    """The first element of this name, made good; "" where there is none."""
    match = re.search(rf"<(?:[\w.-]{{1,32}}:)?{name}\b[^<>]{{0,200}}>([^<>]{{0,256}})</", body)
    if match is None:
        return ""
    text = "".join(char for char in html.unescape(match[1]) if char.isprintable())
    return f"<{name}>{_escape(text)}</{name}>"


def description(port: Port) -> str:
    """The mapping's name in the router's table: the same at every renewal, and plain ASCII."""
    return f"natsup {port.protocol.value} {port.number}"


async def _library_service(service: Service, requester: Requester) -> UpnpService:
    """The service as the library knows it; sends nothing."""
    base = f"http://{service.control.netloc}/natsup"
    requester.documents = {f"{base}/device.xml": _device(service), f"{base}/scpd.xml": _scpd()}
    factory = UpnpFactory(requester, non_strict=True, on_post_call_action=normalised)
    device = await factory.async_create_device(f"{base}/device.xml")
    return device.services[service.kind]


class Igd:
    """A router's service that maps ports. See `natsup.state.gateway.Gateway`."""

    protocol = "upnp"

    def __init__(
        self,
        location: str,
        internal_address: str,
        service: UpnpService,
        elsewhere: UpnpService | None,
        requester: Requester,
        timeout: float,
        device: Device,
    ) -> None:
        self.location = location
        self.internal_address = internal_address
        self._service = service
        self._elsewhere = elsewhere  # the same service by another path, should it not be there
        self._requester = requester
        self._timeout = timeout
        self._one_at_a_time = Turns()
        self._turns = 0  # operations under way or waiting
        self._idle = trio.Event()  # set, and another one made, when there are none
        self._device = device
        self._former_until = 0.0
        lists = service.service_type.endswith("WANIPConnection:2")
        self._checks = Checks(self.look, self._survey, lists=lists)

    @classmethod
    async def open(
        cls,
        service: Service,
        *,
        location: str,
        internal_address: str,
        lan: int = 0,
        own: frozenset[str] = frozenset(),
        seconds: float = 10.0,
    ) -> "Igd":
        """Make a gateway of a service; sends nothing. An operation may take ``seconds``.

        ``lan``: how many bits of the internal address name the LAN, 0 if that is not known.
        ``own``: all of this host's addresses.
        """
        requester = Requester(internal_address, timeout=seconds)
        made = await _library_service(service, requester)
        elsewhere = None
        if service.at_root is not None:
            elsewhere = await _library_service(replace(service, control=service.at_root), requester)
        device = Device(internal_address, trust.read(location).host, lan, own)
        return cls(location, internal_address, made, elsewhere, requester, seconds, device)

    def inherit(self, former: Mapping[Port, str]) -> None:
        """Some ports lead to addresses that this host had before, and may be led here."""
        self._device = replace(self._device, former=frozenset(former.items()))
        self._former_until = trio.current_time() + _FORMER

    async def add(self, port: Port, *, lease: int) -> Outcome:
        """See `Gateway.add`."""
        return await self._run(partial(adding, port, lease))

    async def remove(self, port: Port) -> Removal:
        """See `Gateway.remove`."""
        return await self._run(partial(removing, port))

    async def check(self, port: Port) -> Outcome:
        """See `Gateway.check`. The lease is what the router says is left of it; 0: it does not say,
        or it is for ever. Many say 0, or what is wrong (miniupnp's issues 222 and 466)."""
        with self._busy():
            seen = await self._checks.see(port)
        if seen.kind is Kind.OURS:
            return Mapped(seen.lease)
        if seen.kind is Kind.OTHER:
            return Conflict(seen.address)
        if seen.kind is Kind.UNKNOWN:
            return Unknown(seen.reason, silent=seen.silent)
        # Where there is no room for it, some say that they made it.
        return Ignored("the router did not keep the mapping", full=True)

    async def look(self, port: Port) -> Holder:
        """Whose a port is, by the router's table."""
        return await self._run(partial(looking, port))

    async def _survey(self, ports: Sequence[Port]) -> listing.Survey:
        return await self._run(partial(listing.surveying, ports))

    async def external_address(self) -> str | None:
        """See `Gateway.external_address`. Whatever the router calls it, if it is an address.

        It lets everything else go first, and holds nobody up for long: a bind may be waiting.
        """
        with trio.move_on_after(self._timeout):
            while self._turns:
                await self._idle.wait()
            return (await self.condition(status=False)).external_address
        return None

    async def condition(self, *, status: bool = True, seconds: float = _ASIDE) -> Condition:
        """Is it connected (asked only if ``status``), and under which address? What it will not
        say in ``seconds`` is left out."""
        address: object = None
        connection: object = None
        with trio.move_on_after(seconds):
            async with self.turn() as come:
                if come:
                    address = await self._call("GetExternalIPAddress", {})
                if come and status:
                    connection = await self._call("GetStatusInfo", {})
        found = _text(address, "NewExternalIPAddress")
        connected = _text(connection, "NewConnectionStatus").lower() in ("connected", "up")
        return Condition(connected, _address(found))

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[bool]:
        """See `Turns.turn`."""
        with self._busy():
            async with self._one_at_a_time.turn() as come:
                yield come

    @contextmanager
    def _busy(self) -> Iterator[None]:
        """The connection is given up when there is nothing left to do: there are routers that take
        a single one, and another session of this host wants it too."""
        self._turns += 1
        try:
            yield
        finally:
            self._turns -= 1
            if not self._turns:
                self._requester.close()
                self._idle.set()
                self._idle = trio.Event()

    async def _run(self, begin: Callable[[Device], Operation[_T]]) -> _T:
        """Carry an operation of natsup.upnp.adding out: see `Turns.carry_out`.

        It begins with its turn, and so with what was learned before that.
        """
        async with self.turn() as come:
            if self._device.former and trio.current_time() >= self._former_until:
                self._device = replace(self._device, former=frozenset())
            result, self._device = await self._one_at_a_time.carry_out(
                begin(self._device),
                self._ask,
                come=come,
                seconds=self._timeout,
                late=no_answers(_LATE, sent=come),
            )
            return result

    async def _list(self, step: List) -> Answer:
        arguments = {
            "NewStartPort": str(step.first),
            "NewEndPort": str(step.last),
            "NewProtocol": step.protocol.value.upper(),
            "NewManage": "0",  # this host's own alone, where the router makes a difference
            "NewNumberOfPorts": str(listing.MOST),
        }
        with self._requester.longer(listing.LONGEST):
            answer = await self._call(LIST, arguments)
        return listing.listed(_text(answer, LISTING)) if isinstance(answer, Mapping) else answer

    async def _ask(self, step: Step) -> Answer:
        if isinstance(step, List):
            return await self._list(step)
        port = step.port
        key = {
            "NewRemoteHost": "",
            "NewExternalPort": str(port.number),
            "NewProtocol": "UDP" if port.protocol is Protocol.UDP else "TCP",  # some want capitals
        }
        if isinstance(step, Look):
            answer = await self._call("GetSpecificPortMappingEntry", key)
            if not isinstance(answer, Mapping):
                return answer
            return Found(
                _text(answer, "NewInternalClient"),
                _text(answer, "NewInternalPort"),
                _text(answer, "NewEnabled"),
                _text(answer, "NewLeaseDuration"),
            )
        if isinstance(step, Put):
            more = {
                "NewInternalPort": str(port.number),
                "NewInternalClient": self.internal_address,
                "NewEnabled": "1",
                "NewPortMappingDescription": description(port),
                "NewLeaseDuration": str(step.lease),
            }
            answer = await self._call("AddPortMapping", {**key, **more})
        else:
            assert isinstance(step, Delete)
            answer = await self._call("DeletePortMapping", key)
        return Done() if isinstance(answer, Mapping) else answer

    async def _call(
        self, name: str, arguments: dict[str, Any]
    ) -> Mapping[str, Any] | Fault | NoAnswer:
        """Call an action; the arguments go out in the order they are given in."""
        try:
            try:
                return await self._service.action(name).async_call(**arguments)
            except _NotThere:
                if self._elsewhere is None:
                    raise
                self._service, self._elsewhere = self._elsewhere, self._service
                return await self._service.action(name).async_call(**arguments)
        except _SoapFault as fault:
            log.debug("%s: error %s", name, fault.code)
            return Fault(fault.code)
        except RequestFailed as error:
            log.debug("%s: %s", name, error)
            return NoAnswer(str(error), error.sent) if error.silent else Fault(None)
        except _NONSENSE as error:
            log.debug("%s: an answer that cannot be read (%s)", name, type(error).__name__)
            return Fault(None)


def _text(answer: object, name: str) -> str:
    return str(answer.get(name, "")) if isinstance(answer, Mapping) else ""


def _address(text: str) -> str | None:
    try:
        return str(IPv4Address(text.strip()))
    except ValueError:
        return None
