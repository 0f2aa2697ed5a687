"""HTTP to a router, under trio: async-upnp-client's requester, on h11.

One connection is kept and used for one request at a time. A request has one deadline for all of
it, from connecting to the last byte, because routers drip. What went wrong says whether the router
may have carried the request out, and whether it said anything at all.

Many routers close a connection after each answer and do not say that they will. So when a kept
connection ends before anything has been answered, the request is sent once more on a fresh one,
whatever it is. Should it have been carried out already, that changes nothing: AddPortMapping makes
or renews one and the same mapping, and DeletePortMapping answers that there is none any more.

h11 reads what RFC 9110 allows: HTTP/1.0 and replies without a length, up to the close, among it.
Header lines that end in LF alone are read; folded or broken header lines are not.
"""

import errno
import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import h11
import trio

from natsup.upnp import trust
from natsup.upnp.endpoint import endpoint, family
from natsup.upnp.library import HttpRequest, HttpResponse, UpnpRequester

_HEADERS_AT_MOST = 16 * 1024
_HEADERS = 100  # lines
_PIECES = 4096  # of an answer: routers write line by line, but not byte by byte
_INTERIM = 8  # "100 Continue" and the like, before the answer
_CHUNK = 16 * 1024
_ENDLESS = "the router's answer has no end"
# Where a document without a length ends, for routers that then keep the connection open
_ENDS = re.compile(rb"</(?:[\w.-]{1,32}:)?(?:Envelope|root)\s{0,8}>\s{0,8}\Z", re.IGNORECASE)


class RequestFailed(Exception):
    """``sent``: the router may have carried the request out. ``silent``: there was no answer, or
    not all of it in time, or nothing but beginnings; else there was one that cannot be read."""

    def __init__(self, reason: str, *, sent: bool, silent: bool = True) -> None:
        super().__init__(reason)
        self.sent = sent
        self.silent = silent


class Requester(UpnpRequester):
    """Speaks to one router. The connection comes from ``source``, the address that mappings lead
    to: many routers map a port only to the host that asks. ``timeout`` in seconds, ``at_most`` in
    bytes of a body. Requests are not to overlap: the caller sees to that."""

    def __init__(self, source: str, *, timeout: float = 10.0, at_most: int = 64 * 1024) -> None:
        self._source = source
        self._timeout = timeout
        self._at_most = at_most
        self._stream: trio.SocketStream | None = None
        self._http: h11.Connection | None = None
        self._heard = False  # has the request under way been answered by a byte or more?
        self._peer = ("", 0)
        # Documents that are answered from here, by URL: see natsup.upnp.igd
        self.documents: dict[str, str] = {}

    async def async_http_request(self, http_request: HttpRequest) -> HttpResponse:
        """One request and its answer, whatever its status. Raises `RequestFailed`."""
        if http_request.method == "GET" and http_request.url in self.documents:
            return HttpResponse(200, {}, self.documents[http_request.url])
        status, body = await self.request(
            http_request.method,
            trust.read(http_request.url),
            http_request.headers,
            (http_request.body or "").encode(),
            seconds=http_request.timeout,
        )
        return HttpResponse(status, {}, body.decode("utf-8", "replace"))

    async def get(self, url: trust.Url, *, seconds: float) -> tuple[int, bytes]:
        """Status and body of a document. Redirections are not followed. Raises `RequestFailed`."""
        return await self.request("GET", url, {}, b"", seconds=seconds)

    async def request(
        self,
        method: str,
        url: trust.Url,
        headers: Mapping[str, str],
        body: bytes,
        *,
        seconds: float | None,
    ) -> tuple[int, bytes]:
        """Send one request and read the answer to its end. Raises `RequestFailed`."""
        sent = False
        done = False
        try:
            with trio.move_on_after(self._timeout if seconds is None else seconds):
                while True:  # twice at the most: the second connection is none that was kept
                    kept = self._kept(url)
                    # First, so that it follows the connection at once: a router that has to wait
                    # for it goes to sleep in between.
                    data = self._compose(method, url, headers, body)
                    if not kept:
                        await self._connect(url)
                    sent = True
                    self._heard = False
                    try:
                        answer = await self._exchange(data)
                    except h11.RemoteProtocolError as error:
                        raise RequestFailed(
                            "the router's answer cannot be read", sent=True, silent=False
                        ) from error
                    except (OSError, trio.BrokenResourceError) as error:
                        self.close()
                        if kept and not self._heard:
                            continue
                        raise RequestFailed(
                            "the router broke the connection off", sent=True
                        ) from error
                    done = True
                    return answer
        except OSError as error:
            raise RequestFailed(
                f"the router cannot be reached: {error.strerror or error}", sent=sent
            ) from error
        finally:
            if not done:
                self.close()
        raise RequestFailed("the router did not answer in time", sent=sent)

    @contextmanager
    def longer(self, at_most: int) -> Iterator[None]:
        """While the block lasts, answers may have so many bytes."""
        before, self._at_most = self._at_most, at_most
        try:
            yield
        finally:
            self._at_most = before

    def _kept(self, url: trust.Url) -> bool:
        """Is there a connection? If not, everything but that is made ready for one."""
        if self._stream is not None and self._peer == (url.host, url.port) and self._fresh():
            return True
        self.close()
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEADERS_AT_MOST)
        return False

    async def _connect(self, url: trust.Url) -> None:
        """Raises OSError."""
        # trio's own sockets look at addresses as if they were names, which here takes as long as
        # the rest of the connecting.
        sock = socket.socket(family(self._source))
        try:
            sock.setblocking(False)
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
            sock.bind(endpoint(self._source, 0))
            error = sock.connect_ex(endpoint(url.host, url.port))
            if error == errno.EINPROGRESS:
                await trio.lowlevel.wait_writable(sock)
                error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise OSError(error, os.strerror(error))
        except BaseException:
            sock.close()
            raise
        self._stream = stream
        self._peer = (url.host, url.port)

    def _fresh(self) -> bool:
        """Has the router neither closed the kept connection nor said anything unasked?"""
        assert self._stream is not None
        return not self._stream.socket.is_readable()

    def _compose(
        self, method: str, url: trust.Url, headers: Mapping[str, str], body: bytes
    ) -> bytes:
        """A request as it is sent."""
        http = self._http
        assert http is not None
        fields = {"Host": url.netloc, "User-Agent": "natsup", **headers}
        if body:
            fields["Content-Length"] = str(len(body))
        request = h11.Request(method=method, target=url.target, headers=list(fields.items()))
        data = http.send(request) or b""
        if body:
            data += http.send(h11.Data(data=body)) or b""
        return data + (http.send(h11.EndOfMessage()) or b"")

    async def _exchange(self, data: bytes) -> tuple[int, bytes]:
        """Send a request, and read the answer."""
        stream, http = self._stream, self._http
        assert stream is not None
        assert http is not None
        await stream.send_all(data)
        status, size, framed = 0, 0, True
        received, pieces, interim = 0, 0, 0
        parts: list[bytes] = []
        tail = b""
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                more = await stream.receive_some(_CHUNK)
                if not more and not self._heard:
                    raise trio.BrokenResourceError("closed before the answer")
                self._heard = True
                received += len(more)
                if received > 2 * (self._at_most + _HEADERS_AT_MOST):
                    raise _endless()
                http.receive_data(more)
                continue
            pieces += 1
            if pieces > max(_PIECES, self._at_most // 128):
                raise _endless()
            if isinstance(event, h11.Response | h11.InformationalResponse):
                interim += isinstance(event, h11.InformationalResponse)
                if len(event.headers) > _HEADERS or interim > _INTERIM:
                    raise _endless()
                status = event.status_code
                names = {name for name, _ in event.headers}
                framed = bool(names & {b"content-length", b"transfer-encoding"})
            elif isinstance(event, h11.Data):
                size += len(event.data)
                if size > self._at_most:
                    raise RequestFailed(_ENDLESS, sent=True, silent=False)  # a page for people?
                parts.append(bytes(event.data))
                tail = (tail + event.data[-64:])[-64:]
                if not framed and _ENDS.search(tail):
                    break
            elif isinstance(event, h11.EndOfMessage):
                break
            elif isinstance(event, h11.ConnectionClosed):
                raise h11.RemoteProtocolError("closed before the answer")
        # What stands after the answer would be read as the beginning of the next one.
        rest, _ = http.trailing_data
        if http.our_state is h11.DONE and http.their_state is h11.DONE and not rest:
            http.start_next_cycle()
        else:
            self.close()
        return status, b"".join(parts)

    def close(self) -> None:
        """Give the connection up."""
        if self._stream is not None:
            self._stream.socket.close()
        self._stream = self._http = None


def _endless() -> RequestFailed:
    return RequestFailed(_ENDLESS, sent=True)
