"""The fake gateway's HTTP: good and bad manners."""

import re
import struct
from collections.abc import Callable

import trio

# How an answer is put on the wire
FRAMINGS: dict[str, Callable[[int, bytes], bytes]] = {
    "length": lambda status, body: (
        b"HTTP/1.1 %d X\r\nContent-Type: text/xml\r\nContent-Length: %d\r\n\r\n%b"
        % (status, len(body), body)
    ),
    "says close": lambda status, body: (
        b"HTTP/1.1 %d X\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b"
        % (status, len(body), body)
    ),
    "no reason": lambda status, body: (
        b"HTTP/1.1 %d\r\nContent-Length:%d\r\n\r\n%b" % (status, len(body), body)
    ),
    "chunked": lambda status, body: (
        b"HTTP/1.1 %d X\r\nTransfer-Encoding: chunked\r\n\r\n" % status
        + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in _split(body))
        + b"0\r\n\r\n"
    ),
    "http 1.0": lambda status, body: b"HTTP/1.0 %d X\r\n\r\n%b" % (status, body),
    "lf only": lambda status, body: (
        b"HTTP/1.1 %d X\nContent-Length: %d\n\n%b" % (status, len(body), body)
    ),
    # Without a length, and yet the connection stays
    "keep open": lambda status, body: b"HTTP/1.1 %d X\r\n\r\n%b" % (status, body),
    "continue": lambda status, body: (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b"
        % (status, len(body), body)
    ),
    "huge": lambda status, body: b"HTTP/1.1 %d X\r\n\r\n%b" % (status, b"x" * 10_000_000),
    "long header": lambda status, body: (
        b"HTTP/1.1 %d X\r\nX: %b\r\n\r\n" % (status, b"x" * 1_000_000)
    ),
}
_CLOSING = ("says close", "http 1.0", "huge", "long header")

# What is sent again and again, without an end: what comes first, and the rest
_CHUNKED = b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n"
_FLOODS = {
    "continue for ever": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    "small chunks": (_CHUNKED, b"1\r\nx\r\n" * 1000),
    "blank lines": (b"", b"\r\n" * 1000),
    "headers": (b"HTTP/1.1 200 X\r\n", b"X: y\r\n" * 1000),
}

# What is done in place of answering, or with the answer
MANNERS = ("silent", "drip", "reset", "hang up", "endless", *_FLOODS)


def _split(body: bytes) -> list[bytes]:
    return [part for part in (body[:1], body[1:50], body[50:]) if part]


class Gone(Exception):
    """The connection has ended, by either side."""


class Reader:
    """Requests from a connection, one after the other."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._data = b""

    async def request(self) -> tuple[bytes, bytes]:
        """Its head and its body. Raises `Gone`."""
        while b"\r\n\r\n" not in self._data:
            await self._more()
        head, _, self._data = self._data.partition(b"\r\n\r\n")
        length = re.search(rb"^content-length: *(\d+)", head, re.IGNORECASE | re.MULTILINE)
        wanted = int(length[1]) if length else 0
        while len(self._data) < wanted:
            await self._more()
        body, self._data = self._data[:wanted], self._data[wanted:]
        return head, body

    async def _more(self) -> None:
        try:
            more = await self._stream.receive_some(65536)
        except trio.BrokenResourceError:
            raise Gone from None
        if not more:
            raise Gone
        self._data += more


async def answer(
    stream: trio.SocketStream,
    status: int,
    body: bytes,
    *,
    framing: str,
    manner: str | None,
    redirect: str | None,
) -> None:
    """Put an answer on the wire. Raises `Gone` if the connection is at its end then."""
    data = FRAMINGS[framing](status, body)
    if redirect is not None:
        where = redirect.encode()
        data = b"HTTP/1.1 301 X\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % where
    try:
        if manner == "silent":
            await trio.sleep_forever()
        if manner == "hang up":
            raise Gone
        if manner == "reset":
            linger = struct.pack("ii", 1, 0)
            stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, linger)
            raise Gone
        if manner == "endless":
            await stream.send_all(b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n")
            while True:
                await stream.send_all(b"1000\r\n" + b"x" * 4096 + b"\r\n")
        if manner in _FLOODS:
            beginning, more = _FLOODS[manner]
            await stream.send_all(beginning)
            while True:
                await stream.send_all(more)
        if manner == "drip":
            for byte in data:
                await stream.send_all(bytes([byte]))
                await trio.sleep(1)
        await stream.send_all(data)
    except trio.BrokenResourceError:
        raise Gone from None
    if framing in _CLOSING:
        raise Gone
