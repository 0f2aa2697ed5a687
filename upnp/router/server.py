"""natsup's own small gateway: a UPnP router that forwards in user space.

It is what `natsup gateway` and `natsup demo` run. It is a real gateway to whoever asks: SSDP,
description, SOAP (WANIPConnection:1), leases that end, TCP and UDP that arrive. Nothing that is
sent to it ends it.
"""

import contextlib
import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address

import h11
import trio

from natsup.state.model import Port
from natsup.upnp import ssdp
from natsup.upnp.actions import ACTIONS
from natsup.upnp.router import soap
from natsup.upnp.router.forward import forward
from natsup.upnp.router.table import MOST, Mapping, Refused, Table

log = logging.getLogger("natsup.upnp")

_DEVICE = "urn:schemas-upnp-org:device:InternetGatewayDevice:1"
_WAN = "urn:schemas-upnp-org:device:WANDevice:1"
_CONNECTION = "urn:schemas-upnp-org:device:WANConnectionDevice:1"
_DESCRIPTION, _CONTROL, _SCPD = "/description.xml", "/control", "/scpd.xml"
_LONGEST_BODY = 64 * 1024
_IDLE_SECONDS = 60.0

_TYPES = {
    "NewExternalPort": "ui2",
    "NewInternalPort": "ui2",
    "NewPortMappingIndex": "ui2",
    "NewLeaseDuration": "ui4",
    "NewUptime": "ui4",
    "NewEnabled": "boolean",
}


def description(udn: str) -> str:
    """The device description. Pure."""

    def device(kind: str, suffix: str, inner: str) -> str:
        return (
            f"<device><deviceType>{kind}</deviceType><friendlyName>natsup gateway</friendlyName>"
            "<manufacturer>natsup</manufacturer><modelName>natsup gateway</modelName>"
            f"<UDN>uuid:{udn}{suffix}</UDN>{inner}</device>"
        )

    service = (
        f"<serviceList><service><serviceType>{soap.SERVICE}</serviceType>"
        "<serviceId>urn:upnp-org:serviceId:WANIPConn1</serviceId>"
        f"<SCPDURL>{_SCPD}</SCPDURL><controlURL>{_CONTROL}</controlURL>"
        "<eventSubURL></eventSubURL></service></serviceList>"
    )
    inner = device(_CONNECTION, "-connection", service)
    inner = device(_WAN, "-wan", f"<deviceList>{inner}</deviceList>")
    root = device(_DEVICE, "", f"<deviceList>{inner}</deviceList>")
    return (
        '<?xml version="1.0"?>\n<root xmlns="urn:schemas-upnp-org:device-1-0">'
        f"<specVersion><major>1</major><minor>0</minor></specVersion>{root}</root>\n"
    )


def service_description() -> str:
    """The service description (SCPD). Pure."""
    actions, variables = [], dict[str, str]()
    for name, (ins, outs) in ACTIONS.items():
        arguments = ""
        for argument, direction in [*((n, "in") for n in ins), *((n, "out") for n in outs)]:
            variable = f"A_ARG_{argument}"
            variables[variable] = _TYPES.get(argument, "string")
            arguments += (
                f"<argument><name>{argument}</name><direction>{direction}</direction>"
                f"<relatedStateVariable>{variable}</relatedStateVariable></argument>"
            )
        actions.append(
            f"<action><name>{name}</name><argumentList>{arguments}</argumentList></action>"
        )
    table = "".join(
        f'<stateVariable sendEvents="no"><name>{name}</name><dataType>{kind}</dataType>'
        "</stateVariable>"
        for name, kind in variables.items()
    )
    return (
        '<?xml version="1.0"?>\n<scpd xmlns="urn:schemas-upnp-org:service-1-0">'
        "<specVersion><major>1</major><minor>0</minor></specVersion>"
        f"<actionList>{''.join(actions)}</actionList>"
        f"<serviceStateTable>{table}</serviceStateTable></scpd>\n"
    )


@dataclass(slots=True)
class _Forward:
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    ended: trio.Event = field(default_factory=trio.Event)  # its sockets are closed


class Router:
    """A running gateway. ``tell`` is called with a line about everything that happens; ``most``
    is how many mappings it has room for."""

    def __init__(
        self,
        internal: IPv4Address,
        external: IPv4Address,
        tell: Callable[[str], None],
        *,
        most: int = MOST,
    ) -> None:
        self._internal = str(internal)
        self._external = str(external)
        self._tell = tell
        self._table = Table(most)
        self._forwards: dict[Port, _Forward] = {}
        self._one_at_a_time = trio.Lock()  # what changes the table, and with it the sockets
        self._udn = str(uuid.uuid5(uuid.NAMESPACE_URL, f"natsup:{internal}"))
        self._changed = trio.Event()
        self._nursery: trio.Nursery | None = None

    async def serve(
        self, port: int = 0, task_status: "trio.TaskStatus[str]" = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until cancelled; reports the URL of its description once it can be asked.

        ``port``: of its HTTP, 0 for any. Raises OSError if an address is not this host's.
        """
        listeners = await trio.open_tcp_listeners(port, host=self._internal)
        number = listeners[0].socket.getsockname()[1]
        location = f"http://{self._internal}:{number}{_DESCRIPTION}"
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            await nursery.start(self._answer_searches, location)
            nursery.start_soon(self._watch_leases)
            nursery.start_soon(trio.serve_listeners, self._serve_http, listeners)
            task_status.started(location)

    # --- finding it ---

    async def _answer_searches(
        self, location: str, task_status: "trio.TaskStatus[None]" = trio.TASK_STATUS_IGNORED
    ) -> None:
        with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as sock:
            sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_REUSEADDR, 1)
            await sock.bind(("", ssdp.PORT))
            group = IPv4Address(ssdp.MULTICAST).packed + IPv4Address(self._internal).packed
            with contextlib.suppress(OSError):  # no multicast there; asked directly it answers
                sock.setsockopt(trio.socket.IPPROTO_IP, trio.socket.IP_ADD_MEMBERSHIP, group)
            task_status.started()
            while True:
                data, peer = await sock.recvfrom(4096)
                for reply in replies(data, location=location, udn=self._udn):
                    with contextlib.suppress(OSError):
                        await sock.sendto(reply, peer)

    # --- asking it ---

    async def _serve_http(self, stream: trio.SocketStream) -> None:
        try:
            async with stream:
                await self._converse(stream)
        except (OSError, trio.BrokenResourceError, h11.ProtocolError) as error:
            log.debug("a connection ended early: %s", error)
        except Exception:  # whatever it is, it is this connection's alone
            log.exception("a request could not be answered")

    async def _converse(self, stream: trio.SocketStream) -> None:
        http = h11.Connection(h11.SERVER)
        peer = stream.socket.getpeername()[0]
        while True:
            with trio.move_on_after(_IDLE_SECONDS) as patience:
                received = await _read_request(http, stream)
            if patience.cancelled_caught or received is None:
                return
            request, content = received
            status, body = await self._respond(request, content, peer)
            headers = [
                ("Content-Type", 'text/xml; charset="utf-8"'),
                ("Content-Length", str(len(body))),
                ("Server", "natsup UPnP/1.1"),
            ]
            data = http.send(h11.Response(status_code=status, headers=headers)) or b""
            if request.method != b"HEAD":
                data += http.send(h11.Data(data=body)) or b""
            data += http.send(h11.EndOfMessage()) or b""
            await stream.send_all(data)
            if http.our_state is not h11.DONE or http.their_state is not h11.DONE:
                return
            http.start_next_cycle()

    async def _respond(self, request: h11.Request, body: bytes, peer: str) -> tuple[int, bytes]:
        target = request.target.decode("latin-1")
        reading = request.method in (b"GET", b"HEAD")
        if reading and target == _DESCRIPTION:
            return 200, description(self._udn).encode()
        if reading and target == _SCPD:
            return 200, service_description().encode()
        if request.method != b"POST" or target != _CONTROL:
            return 404, b"not here\n"
        try:
            action, arguments = soap.read_action(body)
            return 200, soap.answer(action, await self._act(action, arguments, peer))
        except Refused as error:
            return 500, soap.fault(error)

    async def _act(self, action: str, arguments: dict[str, str], peer: str) -> dict[str, str]:
        now = trio.current_time()
        if action == "AddPortMapping":
            mapping = soap.read_mapping(arguments, now)
            async with self._one_at_a_time:
                await self._add(mapping, peer)
            return {}
        if action == "DeletePortMapping":
            port = soap.read_port(arguments)
            async with self._one_at_a_time:
                await self._stop(self._table.delete(port, requester=peer), "removed")
            return {}
        return soap.look_up(self._table, action, arguments, external=self._external, now=now)

    async def _add(self, mapping: Mapping, peer: str) -> None:
        try:
            before = self._table.add(mapping, requester=peer)
        except Refused as error:
            self._tell(f"{mapping.port} refused to {peer}: {error}")
            raise
        running = before is not None and before.internal_port == mapping.internal_port
        if not running:
            if before is not None:
                await self._stop(before, "replaced")
            await self._start(mapping)
            self._tell(f"{mapping.port} → {mapping.client}:{mapping.internal_port}")
        self._changed.set()

    async def _start(self, mapping: Mapping) -> None:
        assert self._nursery is not None
        running = _Forward()

        async def run(task_status: "trio.TaskStatus[None]" = trio.TASK_STATUS_IGNORED) -> None:
            try:
                with running.scope:
                    await forward(mapping, self._external, task_status)
            finally:
                running.ended.set()

        try:
            await self._nursery.start(run)
        except OSError:
            self._table.delete(mapping.port, requester=mapping.client)
            self._tell(f"{mapping.port} refused: the router itself uses the port")
            raise Refused(729, "ConflictWithOtherMechanisms") from None
        self._forwards[mapping.port] = running

    async def _stop(self, mapping: Mapping, why: str) -> None:
        """When it returns, the port is free."""
        running = self._forwards.pop(mapping.port, None)
        if running is not None:
            running.scope.cancel()
            await running.ended.wait()
        self._tell(f"{mapping.port} → {mapping.client} {why}")

    async def _watch_leases(self) -> None:
        while True:
            self._changed = trio.Event()
            end = self._table.next_end()
            with trio.CancelScope() as scope:
                if end is not None:
                    scope.deadline = end
                await self._changed.wait()
            async with self._one_at_a_time:
                for mapping in self._table.expire(trio.current_time()):
                    await self._stop(mapping, "ended with its lease")


def replies(data: bytes, *, location: str, udn: str) -> list[bytes]:
    """What an SSDP datagram is answered with: one message, if it searches for us. Pure."""
    text = data.decode("latin-1").replace("\r\n", "\n")
    start, _, rest = text.partition("\n")
    if not start.upper().startswith("M-SEARCH "):
        return []
    headers = {}
    for line in rest.split("\n"):
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip().upper()] = value.strip()
    target = headers.get("ST", "")
    ours = ("upnp:rootdevice", f"uuid:{udn}", _DEVICE, _WAN, _CONNECTION, soap.SERVICE)
    if target == "ssdp:all":
        target = "upnp:rootdevice"
    if target not in ours:
        return []
    usn = f"uuid:{udn}" if target.startswith("uuid:") else f"uuid:{udn}::{target}"
    lines = (
        "HTTP/1.1 200 OK",
        "CACHE-CONTROL: max-age=1800",
        "EXT:",
        f"LOCATION: {location}",
        "SERVER: natsup UPnP/1.1",
        f"ST: {target}",
        f"USN: {usn}",
        "",
        "",
    )
    return ["\r\n".join(lines).encode()]


async def _read_request(
    http: h11.Connection, stream: trio.SocketStream
) -> tuple[h11.Request, bytes] | None:
    """One whole request; None when the client has gone. Raises h11.RemoteProtocolError."""
    request, body = None, b""
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await stream.receive_some(16384))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
            if len(body) > _LONGEST_BODY:
                return None
        elif isinstance(event, h11.EndOfMessage):
            assert request is not None
            return request, body
        else:
            return None
