"""Coming in from outside without being there: a connection to the router's external address, which
many routers lead back in (a *hairpin*; RFC 5382, REQ-8) and many do not."""

import secrets
import socket
import struct
from ipaddress import IPv4Address

import trio

from natsup.supervisor.doctor_facts import Hairpin
from natsup.upnp.network import tie

_SECONDS = 2.0
_WORD = 16  # bytes
_AT_ONCE = struct.pack("ii", 1, 0)  # struct linger: socket(7)


def worth_trying(external: str | None) -> bool:
    """Is it an address that a connection can be made to?"""
    try:
        address = IPv4Address(external or "")
    except ValueError:
        return False
    return not (
        address.is_unspecified
        or address.is_loopback
        or address.is_multicast
        or address.is_link_local
        or address.is_reserved
    )


async def hairpin(holder: socket.socket, external: str, number: int, interface: str) -> Hairpin:
    """Connect to the mapped port from this host, and see whether ``holder`` is who is met.

    ``holder``: of TCP, bound to the port on the LAN address. It listens meanwhile, and whoever else
    comes is turned away. Raises nothing for what a network does.
    """
    word = secrets.token_bytes(_WORD)
    address = holder.getsockname()[0]
    holder.listen(4)
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(holder.dup()))
    outcome = Hairpin.LOST

    async with listener:
        with trio.move_on_after(_SECONDS):
            async with trio.open_nursery() as nursery:

                async def call() -> None:
                    nonlocal outcome
                    with trio.socket.socket() as sock:
                        tie(sock, interface)
                        try:
                            await sock.bind((address, 0))
                            await sock.connect((external, number))
                            outcome = Hairpin.ASTRAY  # until the word has come
                            await sock.send(word)
                            await trio.sleep_forever()  # cancelled by who hears it
                        except OSError:
                            over.set()  # nobody will come

                async def hear(stream: trio.SocketStream) -> None:
                    nonlocal outcome
                    # Whoever closes first keeps the port for a minute (TIME_WAIT), from a program
                    # that would bind it: so no closing, but a reset.
                    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
                    async with stream:
                        try:
                            heard = await stream.receive_some(_WORD)
                        except trio.BrokenResourceError:
                            return
                    if heard == word:
                        outcome = Hairpin.CAME
                        over.set()

                over = trio.Event()
                nursery.start_soon(call)
                nursery.start_soon(trio.serve_listeners, hear, [listener])
                await over.wait()
                nursery.cancel_scope.cancel()
    return outcome
