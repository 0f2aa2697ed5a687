"""A router for tests: a table, SOAP over HTTP on loopback, and whatever oddity a test wants.

It listens on 127.0.0.1. Tests speak to it from `HERE`, so that host and router have two addresses.
"""

import re
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from natsup.upnp import trust
from natsup.upnp.description import Service, services

HERE, ROUTER = "127.0.0.2", "127.0.0.1"
OTHER = "192.168.1.3"  # only ever named in the table
KIND = "urn:schemas-upnp-org:service:WANIPConnection:1"


@dataclass(frozen=True, slots=True)
class Entry:
    client: str
    internal_port: str
    enabled: str = "1"
    lease: str = "3600"
    name: str = "a mapping"


def http(status: int, body: str, *, close: bool = False) -> bytes:
    data = body.encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: text/xml\r\nContent-Length: {len(data)}\r\n"
    return (head + ("Connection: close\r\n" if close else "") + "\r\n").encode() + data


def envelope(inside: str) -> str:
    return (
        '<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/">'
        f"<s:Body>{inside}</s:Body></s:Envelope>"
    )


def fault(code: object, *, status: int = 500) -> bytes:
    return http(
        status,
        envelope(
            "<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail>"
            '<UPnPError xmlns="urn:schemas-upnp-org:control-1-0">'
            f"<errorCode>{code}</errorCode></UPnPError></detail></s:Fault>"
        ),
    )


def success(action: str, kind: str = KIND, **values: str) -> bytes:
    inside = "".join(f"<{name}>{value}</{name}>" for name, value in values.items())
    return http(
        200, envelope(f'<u:{action}Response xmlns:u="{kind}">{inside}</u:{action}Response>')
    )


def document(*found: tuple[str, str], base: str = "") -> str:
    """A description with (serviceType, controlURL) of each service."""
    listed = "".join(
        f"<service><serviceType>{kind}</serviceType><controlURL>{path}</controlURL></service>"
        for kind, path in found
    )
    return (
        '<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0">'
        f"{base}<device><serviceList>{listed}</serviceList></device></root>"
    )


@dataclass
class Request:
    path: str
    head: bytes
    action: str
    values: dict[str, str]


Oddity = Callable[[Request], bytes | None]


@dataclass
class Router:
    """``odd``: what to answer to an action instead, as bytes; None from it: as usual. ``late``: by
    how many seconds what is at a path is answered late."""

    table: dict[tuple[str, int], Entry] = field(default_factory=dict)
    odd: dict[str, Oddity] = field(default_factory=dict)
    late: dict[str, float] = field(default_factory=dict)
    documents: dict[str, str] = field(default_factory=dict)
    log: list[Request] = field(default_factory=list)
    connections: int = 0
    open_now: int = 0
    port: int = 0

    @property
    def actions(self) -> list[str]:
        return [request.action for request in self.log]

    @property
    def counted(self) -> Counter[str]:
        return Counter(self.actions)

    @property
    def url(self) -> str:
        return f"http://{ROUTER}:{self.port}/d.xml"

    @property
    def service(self) -> Service:
        (found,) = services(document((KIND, "/ctl")), url=trust.read(self.url))
        return found

    def answer(self, request: Request) -> bytes:
        odd = self.odd.get(request.action)
        if odd is not None:
            answer = odd(request)
            if answer is not None:
                return answer
        values = request.values
        if request.action == "GET":
            if request.path in self.documents:
                return http(200, self.documents[request.path])
            return http(404, "")
        if request.action == "GetExternalIPAddress":
            return success(request.action, NewExternalIPAddress="11.22.33.1")
        if request.action == "GetStatusInfo":
            return success(request.action, NewConnectionStatus="Connected")
        key = (values["NewProtocol"], int(values["NewExternalPort"]))
        there = self.table.get(key)
        if request.action == "GetSpecificPortMappingEntry":
            if there is None:
                return fault(714)
            return success(
                request.action,
                NewInternalPort=there.internal_port,
                NewInternalClient=there.client,
                NewEnabled=there.enabled,
                NewPortMappingDescription=there.name,
                NewLeaseDuration=there.lease,
            )
        if request.action == "DeletePortMapping":
            return fault(714) if self.table.pop(key, None) is None else success(request.action)
        assert request.action == "AddPortMapping"
        if there is not None and there.client != values["NewInternalClient"]:
            return fault(718)
        self.table[key] = Entry(
            values["NewInternalClient"],
            values["NewInternalPort"],
            values["NewEnabled"],
            values["NewLeaseDuration"],
            values["NewPortMappingDescription"],
        )
        return success(request.action)

    async def _serve(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        self.open_now += 1
        try:
            async with stream:
                data = b""
                while True:
                    while b"\r\n\r\n" not in data:
                        more = await stream.receive_some(65536)
                        if not more:
                            return
                        data += more
                    head, _, data = data.partition(b"\r\n\r\n")
                    length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
                    wanted = int(length[1]) if length else 0
                    while len(data) < wanted:
                        more = await stream.receive_some(65536)
                        if not more:
                            return
                        data += more
                    body, data = data[:wanted].decode(), data[wanted:]
                    answer = self._take(head, body)
                    await trio.sleep(self.late.get(self.log[-1].path, 0))
                    if answer == SILENCE:
                        await trio.sleep_forever()
                    if answer == HANG_UP:
                        return
                    await stream.send_all(answer.removesuffix(HANG_UP))
                    if answer.endswith(HANG_UP) or b"Connection: close" in answer:
                        return
        except trio.BrokenResourceError:
            return
        finally:
            self.open_now -= 1

    def _take(self, head: bytes, body: str) -> bytes:
        method, path, _ = head.split(b"\r\n")[0].decode().split(" ")
        named = re.search(rb'SOAPAction: "[^"#]*#(\w+)"', head)  # the case of it matters to some
        action = named[1].decode() if named else method
        values = dict(re.findall(r"<(New\w+)>([^<]*)</", body))
        request = Request(path, head, action, values)
        self.log.append(request)
        return self.answer(request)


SILENCE = b"\0silence"
HANG_UP = b"\0hang up"


@asynccontextmanager
async def running() -> AsyncIterator[Router]:
    """A router for as long as the block lasts."""
    router = Router()
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host=ROUTER)
        router.port = listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, router._serve, [listener])
        yield router
        nursery.cancel_scope.cancel()
