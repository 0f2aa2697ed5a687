"""Forwarding ports in user space: TCP by relaying streams, UDP by relaying datagrams.

The inside sees the router as its peer. A real router rewrites addresses in the kernel; this one
needs no privilege.
"""

import contextlib

import trio

from natsup.state.model import Protocol
from natsup.upnp.router.table import Mapping

_CHUNK = 65536
_IDLE_SECONDS = 60.0  # after which a UDP peer is forgotten
_MOST_PEERS = 256


async def forward(
    mapping: Mapping, external: str, task_status: "trio.TaskStatus[None]" = trio.TASK_STATUS_IGNORED
) -> None:
    """Forward one mapping from the address ``external`` until cancelled.

    Raises OSError before it has started, if the port cannot be had there.
    """
    if mapping.port.protocol is Protocol.TCP:
        await _tcp(mapping, external, task_status)
    else:
        await _udp(mapping, external, task_status)


async def _tcp(mapping: Mapping, external: str, task_status: "trio.TaskStatus[None]") -> None:
    listeners = await trio.open_tcp_listeners(mapping.port.number, host=external)

    async def serve(outside: trio.SocketStream) -> None:
        try:
            inside = await trio.open_tcp_stream(mapping.client, mapping.internal_port)
        except OSError:
            await outside.aclose()
            return
        async with outside, inside, trio.open_nursery() as nursery:
            nursery.start_soon(_pump, outside, inside)
            nursery.start_soon(_pump, inside, outside)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        task_status.started()


async def _pump(source: trio.SocketStream, sink: trio.SocketStream) -> None:
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        async for data in source:
            await sink.send_all(data)
        await sink.send_eof()


async def _udp(mapping: Mapping, external: str, task_status: "trio.TaskStatus[None]") -> None:
    peers: dict[tuple[str, int], trio.socket.SocketType] = {}
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as outside:
        await outside.bind((external, mapping.port.number))
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                data, peer = await outside.recvfrom(_CHUNK)
                inside = peers.get(peer)
                if inside is None:
                    if len(peers) >= _MOST_PEERS:
                        continue
                    try:
                        inside = await _towards(mapping)
                    except OSError:  # no way there, or no descriptor left
                        continue
                    peers[peer] = inside
                    nursery.start_soon(_answers, inside, outside, peer, peers)
                with contextlib.suppress(OSError):
                    await inside.send(data)


async def _towards(mapping: Mapping) -> trio.socket.SocketType:
    """A UDP socket connected to the inside. Raises OSError."""
    inside = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
    try:
        await inside.connect((mapping.client, mapping.internal_port))
    except BaseException:
        inside.close()
        raise
    return inside


async def _answers(
    inside: trio.socket.SocketType,
    outside: trio.socket.SocketType,
    peer: tuple[str, int],
    peers: dict[tuple[str, int], trio.socket.SocketType],
) -> None:
    """Bring one peer what the inside answers, until that is silent for a while."""
    with inside:
        while True:
            with trio.move_on_after(_IDLE_SECONDS) as patience:
                try:
                    await outside.sendto(await inside.recv(_CHUNK), peer)
                except OSError:  # nobody listens inside, or the peer has gone
                    continue
            if patience.cancelled_caught:
                del peers[peer]
                return
