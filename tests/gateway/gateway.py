"""A fake gateway: UPnP (SSDP, description, SOAP), NAT-PMP and PCP in one process, with one table
for all of them, and every quirk.

It notes whatever it was asked. `running` has it in the test's own process, on loopback, where each
process of tests has a network of its own; ``python -m tests.gateway`` on an address of its own.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from tests.gateway import air, firewall, pmp, soap, wire
from tests.gateway.quirks import Quirks
from tests.gateway.table import Refused, Table

# So that tests of several checkouts may run at once: the port of SSDP is always the same.
_NET = f"127.{os.getpid() // 250 % 250 + 1}.{os.getpid() % 250 + 1}"
ROUTER, HERE, IMPOSTOR = (f"{_NET}.{number}" for number in (1, 2, 9))
OTHER = "192.168.1.3"  # only ever named in the table: no loopback address is a host of a LAN
DESCRIPTIONS = Path(__file__).parent / "descriptions"

_SHORT = {
    "GetSpecificPortMappingEntry": "look",
    "AddPortMapping": "add",
    "DeletePortMapping": "delete",
    "GetListOfPortMappings": "list",
}


@dataclass(frozen=True, slots=True)
class Request:
    peer: str
    path: str
    head: bytes
    action: str  # GET for a document
    values: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """As tests name it: ``look``, ``add 3600``, ``GET /d.xml``, ``pcp map 3600``."""
        if self.action == "GET":
            return f"GET {self.path}"
        if self.path in (pmp.NATPMP, pmp.PCP):
            return self.action
        short = _SHORT.get(self.action, self.action)
        return f"add {self.values['NewLeaseDuration']}" if short == "add" else short


class Gateway:
    """``documents``: by path, what is read there; bytes are sent as they are."""

    def __init__(
        self, address: str = ROUTER, quirks: Quirks | None = None, *, ipv6: str | None = None
    ) -> None:
        self.address = address
        self.ipv6 = ipv6  # another one of its own
        self.quirks = quirks or Quirks()
        self.table = Table(self.quirks)
        self.pmp = pmp.Pmp(self.table, self.quirks)
        self.firewall = firewall.Firewall()
        self.documents: dict[str, str | bytes] = {
            "/d.xml": (DESCRIPTIONS / "plain.xml").read_text()
        }
        self.log: list[Request] = []
        self.searches: list[tuple[str, str]] = []  # who searched for what
        self.connections = 0
        self.most_at_once = 0  # requests
        self._open = self._at_work = 0
        self.port = 0
        self._scope = trio.CancelScope()
        self._air: dict[str, trio.socket.SocketType] = {}

    @property
    def url(self) -> str:
        return f"http://{self.address}:{self.port}/d.xml"

    @property
    def asked(self) -> list[str]:
        """The requests, but for the reading of documents, in a word or two each."""
        return [str(request) for request in self.log if request.action != "GET"]

    @property
    def holders(self) -> dict[str, str]:
        """The table: ``TCP 6881`` to the address that it leads to."""
        self.table.expire(trio.current_time())
        entries = self.table.entries
        return {f"{kind} {number}": entry.client for (kind, number), entry in entries.items()}

    async def serve(
        self, port: int = 0, task_status: "trio.TaskStatus[None]" = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Until it is cancelled, or `stop`. Raises OSError if the address is not this host's."""
        (listener,) = await trio.open_tcp_listeners(port, host=self.address)
        self.port = listener.socket.getsockname()[1]
        self.pmp.start(trio.current_time())
        self._scope = trio.CancelScope()
        with self._scope:
            async with trio.open_nursery() as nursery:
                if {pmp.NATPMP, pmp.PCP} & set(self.quirks.speaks):
                    await nursery.start(self._answer_pmp)
                for host in (self.address, air.GROUP):
                    await nursery.start(self._answer_searches, host, nursery)
                listeners = [listener]
                if self.ipv6 is not None:
                    listeners += await trio.open_tcp_listeners(self.port, host=self.ipv6)
                nursery.start_soon(trio.serve_listeners, self._serve, listeners)
                task_status.started()

    def stop(self) -> None:
        """As by a power cut; `serve` may be started again."""
        self._scope.cancel()

    # --- NAT-PMP and PCP ---

    async def _answer_pmp(
        self, task_status: "trio.TaskStatus[None]" = trio.TASK_STATUS_IGNORED
    ) -> None:
        with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as sock:
            await sock.bind((self.address, pmp.PORT))
            self._air["pmp"] = sock
            task_status.started()
            while True:
                data, peer = await sock.recvfrom(2048)
                self._note(data, peer[0])
                for sender, said in self.pmp.datagrams(data, peer[0], trio.current_time()):
                    if not sender:
                        await sock.sendto(said, peer)
                        continue
                    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as other:
                        await other.bind((IMPOSTOR if sender == "stranger" else self.address, 0))
                        await other.sendto(said, peer)

    def _note(self, data: bytes, peer: str) -> None:
        asked = pmp.read(data)
        if asked is None:
            self.log.append(Request(peer, pmp.PCP, data, "what cannot be read"))
            return
        action, values = f"{asked.by} {asked.kind}", {}
        if asked.kind == "map":
            action += f" {asked.lifetime}"
        if asked.key[1]:
            values = {"NewProtocol": asked.key[0], "NewExternalPort": str(asked.key[1])}
        self.log.append(Request(peer, asked.by, data, action, values))

    async def announce(self, sender: str | None = None) -> None:
        """Say to all hosts that it was restarted, or have somebody else say so."""
        said = self.pmp.answer(bytes(2), self.address, trio.current_time())
        with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as sock:
            await sock.bind((sender or self.address, 0))
            own = trio.socket.inet_aton(self.address)
            sock.setsockopt(trio.socket.IPPROTO_IP, trio.socket.IP_MULTICAST_IF, own)
            await sock.sendto(said or b"", pmp.ALL)

    # --- SSDP ---

    async def _answer_searches(
        self,
        host: str,
        nursery: trio.Nursery,
        task_status: "trio.TaskStatus[None]" = trio.TASK_STATUS_IGNORED,
    ) -> None:
        with air.listening(host, self.address) as sock:
            await sock.bind((host, air.PORT))
            self._air[host] = sock
            task_status.started()
            while True:
                data, peer = await sock.recvfrom(8192)
                wanted = air.target(data)
                if wanted is None or not self._hears(host) or "upnp" not in self.quirks.speaks:
                    continue
                self.searches.append((peer[0], wanted))
                said = air.answer(wanted, location=self.url, quirks=self.quirks)
                if said is not None:
                    nursery.start_soon(self._say, said, peer)

    def _hears(self, host: str) -> bool:
        return self.quirks.multicast if host == air.GROUP else self.quirks.unicast

    async def _say(self, said: bytes, peer: tuple[str, int]) -> None:
        await trio.sleep(self.quirks.search_late)
        with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as other:
            await other.bind((self.address, 0))
            sock = other if self.quirks.other_port else self._air[self.address]
            for _ in range(self.quirks.times):
                await sock.sendto(said, peer)

    async def tell(self, kind: str) -> None:
        """Tell everybody that it is ``alive``, or ``byebye``."""
        said = air.notice(kind, location=self.url, quirks=self.quirks)
        await self._air[self.address].sendto(said, (air.GROUP, air.PORT))

    # --- HTTP ---

    async def _serve(self, stream: trio.SocketStream) -> None:
        self._open += 1
        self.connections += 1
        try:
            async with stream:
                if self._open > 1 and self.quirks.one_connection:
                    return
                await self._converse(stream, wire.Reader(stream))
        except wire.Gone:
            return
        finally:
            self._open -= 1

    async def _converse(self, stream: trio.SocketStream, reader: wire.Reader) -> None:
        quirks = self.quirks
        while True:
            head, content = await reader.request()
            self._at_work += 1
            self.most_at_once = max(self.most_at_once, self._at_work)
            try:
                request, status, body = self._take(stream.socket.getpeername()[0], head, content)
                action = request.action
                await trio.sleep(quirks.late.get(action, quirks.late.get("*", 0.0)))
                await wire.answer(
                    stream,
                    status,
                    body,
                    framing=quirks.framing,
                    manner=quirks.manners.get(action, quirks.manners.get("*")),
                    redirect=quirks.redirect,
                )
            finally:
                self._at_work -= 1
            if quirks.closes or b"connection: close" in head.lower():
                return

    def _take(self, peer: str, head: bytes, content: bytes) -> tuple[Request, int, bytes]:
        """Note a request down and carry it out: status and body of the answer."""
        method, path, _ = head.split(b"\r\n")[0].decode("latin-1").split(" ", 2)
        service, action, values = soap.read(head, content.decode())
        request = Request(peer, path, head, action if method == "POST" else method, values)
        self.log.append(request)
        quirks = self.quirks
        if quirks.redirect is not None:
            return request, 301, b""
        host = f"\r\nHost: {self.address}:{self.port}\r\n".encode()
        if quirks.exact_host and host not in head + b"\r\n":
            return request, 404, b"not here\n"
        if method != "POST":
            document = self.documents.get(path)
            if document is None:
                return request, 404, b"not here\n"
            return request, 200, document if isinstance(document, bytes) else document.encode()
        status, text = self._act(request, service)
        return request, status, text.encode()

    def _act(self, request: Request, service: str) -> tuple[int, str]:
        quirks, action = self.quirks, request.action
        if quirks.login:
            return 200, soap.LOGIN
        try:
            if not action or (quirks.exact_header and not soap.exact(request.head)):
                raise Refused(401)
            if quirks.exact_service is not None and service != quirks.exact_service:
                raise Refused(401)
            if service == firewall.SERVICE:
                values = self.firewall.act(
                    action, request.values, peer=request.peer, now=trio.current_time()
                )
                return soap.success(service, action, values, quirks)
            values = self.table.act(
                action,
                request.values,
                peer=request.peer,
                path=request.path,
                now=trio.current_time(),
            )
        except Refused as refused:
            return soap.fault(refused.code, quirks)
        return soap.success(service, action, values, quirks)


@asynccontextmanager
async def running(quirks: Quirks | None = None, *, address: str = ROUTER) -> AsyncIterator[Gateway]:
    """A gateway for as long as the block lasts."""
    gateway = Gateway(address, quirks)
    async with trio.open_nursery() as nursery:
        await nursery.start(gateway.serve)
        yield gateway
        nursery.cancel_scope.cancel()
