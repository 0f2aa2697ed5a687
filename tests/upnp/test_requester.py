"""HTTP against routers of few manners, on loopback."""

import struct

import pytest
import trio

from natsup.upnp import trust
from natsup.upnp.requester import RequestFailed
from tests.upnp.fake import HERE, ROUTER
from tests.upnp.serving import head, requester, saying, server


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody",
        b"HTTP/1.1 200 OK\r\nContent-Length:4\r\n\r\nbody",
        b"HTTP/1.1 200\r\nContent-Length: 4\r\n\r\nbody",
        b"HTTP/1.1 200 OK\nContent-Length: 4\n\nbody",
        b"HTTP/1.0 200 OK\r\n\r\nbody",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nbody",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nb\r\n3\r\nody\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody",
    ],
)
async def test_answers(answer: bytes) -> None:
    async with server(saying(answer)) as url, requester() as http:
        assert await http.get(url, seconds=10) == (200, b"body")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\0\0\0\0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\nbody",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\nbody",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nbody",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n" + b"b" * 99999,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"400\r\n"
        + b"b" * 1024
        + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1_000_000 + b"\r\n\r\n",
    ],
)
async def test_what_is_no_answer(answer: bytes) -> None:
    async with server(saying(answer)) as url, requester() as http:
        with pytest.raises(RequestFailed) as caught:
            await http.get(url, seconds=10)
        assert caught.value.sent
        assert caught.value.silent == (not answer)


async def test_an_endless_body_is_left_at_the_cap() -> None:
    async def endless(stream: trio.SocketStream, number: int) -> None:
        await head(stream)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await stream.send_all(b"400\r\n" + b"b" * 1024 + b"\r\n")

    async with server(endless) as url, requester() as http:
        with pytest.raises(RequestFailed, match="no end") as caught:
            await http.get(url, seconds=60)
        assert not caught.value.silent


async def test_nothing_but_beginnings_is_silence() -> None:
    async def flood(stream: trio.SocketStream, number: int) -> None:
        await head(stream)
        while True:
            await stream.send_all(1000 * b"HTTP/1.1 100 Continue\r\n\r\n")

    async with server(flood) as url, requester() as http:
        with pytest.raises(RequestFailed, match="no end") as caught:
            await http.get(url, seconds=60)
        assert caught.value.silent


async def test_a_redirection_is_not_followed() -> None:
    asked = []

    async def handler(stream: trio.SocketStream, number: int) -> None:
        asked.append(await head(stream))
        port = stream.socket.getsockname()[1]
        where = f"http://{ROUTER}:{port}/elsewhere"
        await stream.send_all(
            f"HTTP/1.1 301 Moved\r\nLocation: {where}\r\nContent-Length: 0\r\n\r\n".encode()
        )

    async with server(handler) as url, requester() as http:
        assert await http.get(url, seconds=10) == (301, b"")
    assert len(asked) == 1


async def test_what_is_sent() -> None:
    seen = []

    async def handler(stream: trio.SocketStream, number: int) -> None:
        seen.append((await stream.receive_some(4096), stream.socket.getpeername()[0]))
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with server(handler) as url, requester() as http:
        headers = {"SOAPAction": '"x#y"'}
        await http.request("POST", url, headers, b"<body/>", seconds=10)
    ((data, peer),) = seen
    lines = data.split(b"\r\n")
    assert lines[0] == b"POST /x HTTP/1.1"
    assert f"Host: {ROUTER}:{url.port}".encode() in lines
    assert b'SOAPAction: "x#y"' in lines  # in this very spelling
    assert b"Content-Length: 7" in lines
    assert data.endswith(b"\r\n\r\n<body/>")
    assert b"chunked" not in data
    assert peer == HERE


async def test_the_connection_is_kept() -> None:
    async def handler(stream: trio.SocketStream, number: int) -> None:
        while True:
            await head(stream)
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number)

    async with server(handler) as url, requester() as http:
        assert [await http.get(url, seconds=10) for _ in range(3)] == [(200, b"1")] * 3


async def test_a_connection_that_was_closed_meanwhile_is_opened_anew() -> None:
    closed = trio.Event()

    async def handler(stream: trio.SocketStream, number: int) -> None:
        await head(stream)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number)
        await stream.aclose()
        closed.set()

    async with server(handler) as url, requester() as http:
        assert await http.get(url, seconds=10) == (200, b"1")
        await closed.wait()
        assert http._stream is not None
        with trio.fail_after(10):
            await trio.lowlevel.wait_readable(http._stream.socket)
        assert await http.get(url, seconds=10) == (200, b"2")


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("reset", [True, False])
async def test_what_a_kept_connection_dies_of_is_sent_once_more(method: str, reset: bool) -> None:
    """The router closes the kept connection with the second request in its hands. A reset is what
    its kernel answers to a request that nobody has read."""
    served = []

    async def handler(stream: trio.SocketStream, number: int) -> None:
        for _ in range(2):
            await head(stream)
            served.append(number)
            if served == [1, 1]:
                if reset:
                    linger = struct.pack("ii", 1, 0)
                    stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, linger)
                return
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number)

    async with server(handler) as url, requester() as http:
        assert await http.get(url, seconds=10) == (200, b"1")
        assert await http.request(method, url, {}, b"", seconds=10) == (200, b"2")
        assert served == [1, 1, 2]


async def test_what_a_fresh_connection_dies_of_is_not_sent_again() -> None:
    served = []

    async def handler(stream: trio.SocketStream, number: int) -> None:
        await head(stream)
        served.append(number)

    async with server(handler) as url, requester() as http:
        with pytest.raises(RequestFailed, match="broke") as caught:
            await http.get(url, seconds=10)
        assert (caught.value.sent, caught.value.silent) == (True, True)
        assert served == [1]


async def test_it_is_sent_no_third_time() -> None:
    served = []

    async def handler(stream: trio.SocketStream, number: int) -> None:
        await head(stream)
        served.append(number)
        if served == [1]:
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            await head(stream)
            served.append(number)

    async with server(handler) as url, requester() as http:
        assert await http.get(url, seconds=10) == (200, b"")
        with pytest.raises(RequestFailed, match="broke"):
            await http.get(url, seconds=10)
        assert served == [1, 1, 2]


@pytest.mark.parametrize("reset", [True, False])
async def test_what_has_begun_to_be_answered_is_not_sent_again(reset: bool) -> None:
    served = []

    async def handler(stream: trio.SocketStream, number: int) -> None:
        for answer in (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 200 OK\r\n"):
            await head(stream)
            served.append(number)
            await stream.send_all(answer)
        if reset:
            linger = struct.pack("ii", 1, 0)
            stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, linger)

    async with server(handler) as url, requester() as http:
        assert await http.get(url, seconds=10) == (200, b"")
        with pytest.raises(RequestFailed) as caught:
            await http.get(url, seconds=10)
        assert (caught.value.sent, caught.value.silent) == (True, reset)
        assert served == [1, 1]


async def test_one_deadline_for_a_router_that_drips(autojump_clock: trio.testing.MockClock) -> None:
    """A byte a second would keep a deadline for each read alive for ever."""

    async def drip(stream: trio.SocketStream, number: int) -> None:
        await head(stream)
        for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n" + b"b" * 4000:
            await stream.send_all(bytes([byte]))
            await trio.sleep(1)

    autojump_clock.autojump_threshold = 0.05  # sockets are real: leave the kernel a moment
    async with server(drip) as url, requester() as http:
        began = trio.current_time()
        with pytest.raises(RequestFailed, match="in time") as caught:
            await http.get(url, seconds=7)
        assert caught.value.sent
        assert trio.current_time() - began < 60


@pytest.mark.parametrize(
    "end", [b"</s:Envelope>", b"</Envelope>\r\n", b"</root>", b"</S:ENVELOPE >"]
)
async def test_an_answer_without_a_length_on_a_connection_that_stays_open(end: bytes) -> None:
    async def handler(stream: trio.SocketStream, number: int) -> None:
        await head(stream)
        await stream.send_all(b"HTTP/1.0 200 OK\r\n\r\n<x/>" + end[:5])
        await stream.send_all(end[5:])
        await trio.sleep_forever()

    async with server(handler) as url, requester() as http:
        assert await http.get(url, seconds=30) == (200, b"<x/>" + end)
        assert http._stream is None


@pytest.mark.parametrize("junk", [b"\r\n", b"\0", b"HTTP/1.1 200 OK\r\n\r\n"])
async def test_what_stands_after_an_answer_is_not_taken_for_the_next(junk: bytes) -> None:
    async def handler(stream: trio.SocketStream, number: int) -> None:
        await head(stream)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number + junk)
        await stream.receive_some(4096)

    async with server(handler) as url, requester() as http:
        for body in (b"1", b"2"):
            answer = await http.request("GET", url, {}, b"", seconds=10)
            assert answer == (200, body)


async def test_what_is_said_unasked_is_not_taken_for_the_next_answer() -> None:
    """Some say that they have waited too long, before they close (RFC 9110, section 15.5.9)."""
    answered = trio.Event()

    async def handler(stream: trio.SocketStream, number: int) -> None:
        await head(stream)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number)
        await answered.wait()
        await stream.send_all(b"HTTP/1.1 408 Timeout\r\nContent-Length: 0\r\n\r\n")
        await stream.receive_some(4096)

    async with server(handler) as url, requester() as http:
        assert await http.get(url, seconds=10) == (200, b"1")
        answered.set()
        assert http._stream is not None
        with trio.fail_after(10):
            await trio.lowlevel.wait_readable(http._stream.socket)
        assert await http.get(url, seconds=10) == (200, b"2")


async def test_silence() -> None:
    async def handler(stream: trio.SocketStream, number: int) -> None:
        await trio.sleep_forever()

    async with server(handler) as url, requester(seconds=0.2) as http:
        with pytest.raises(RequestFailed, match="in time") as caught:
            await http.request("GET", url, {}, b"", seconds=None)
        assert (caught.value.sent, caught.value.silent) == (True, True)
        assert http._stream is None


async def test_nobody_there() -> None:
    with trio.socket.socket() as free:
        await free.bind((ROUTER, 0))
        url = trust.Url(ROUTER, free.getsockname()[1], "/")
        async with requester() as http:
            with pytest.raises(RequestFailed) as caught:
                await http.get(url, seconds=10)
            assert (caught.value.sent, caught.value.silent) == (False, True)


async def test_a_request_given_up_leaves_no_half_read_answer_behind() -> None:
    reached = trio.Event()

    async def handler(stream: trio.SocketStream, number: int) -> None:
        await head(stream)
        if number == 1:
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nha")
            reached.set()
            await trio.sleep_forever()
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody")

    async with server(handler) as url, requester() as http:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: http.get(url, seconds=60))
            await reached.wait()
            nursery.cancel_scope.cancel()
        assert http._stream is None
        assert await http.get(url, seconds=10) == (200, b"body")
