"""A server for tests that says whatever a test wants, and the requester that has to bear it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from natsup.upnp import trust
from natsup.upnp.requester import Requester
from tests.upnp.fake import HERE, ROUTER

Handler = Callable[[trio.SocketStream, int], Awaitable[None]]


@asynccontextmanager
async def server(handler: Handler) -> AsyncIterator[trust.Url]:
    """``handler`` is given each connection, and its number from 1 on."""
    count = 0

    async def serve(stream: trio.SocketStream) -> None:
        nonlocal count
        count += 1
        async with stream:
            try:
                await handler(stream, count)
            except trio.BrokenResourceError:
                return

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host=ROUTER)
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield trust.Url(ROUTER, listener.socket.getsockname()[1], "/x")
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def requester(seconds: float = 10.0, at_most: int = 4096) -> AsyncIterator[Requester]:
    made = Requester(HERE, timeout=seconds, at_most=at_most)
    try:
        yield made
    finally:
        made.close()


async def head(stream: trio.SocketStream) -> bytes:
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        more = await stream.receive_some(4096)
        if not more:
            raise trio.BrokenResourceError
        data += more
    return data


def saying(answer: bytes) -> Handler:
    async def handler(stream: trio.SocketStream, number: int) -> None:
        await head(stream)
        await stream.send_all(answer)

    return handler
