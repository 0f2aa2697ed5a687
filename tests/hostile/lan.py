"""A LAN whose hosts lie, all in the test's own process: real sockets, in network namespaces.

A thread may be in a network namespace of its own (setns(2)), and its sockets stay there. So natsup
runs on lan1 in a thread, and what the others say comes from sockets that were made on theirs, in
the same event loop.
"""

import ctypes
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

import trio

from natsup.upnp import ssdp
from natsup.upnp.network import Network
from tests.lab.lab import LAN1, ROUTER, Lab

NETWORK = Network("eth0", ROUTER, LAN1, 24, frozenset({LAN1, "127.0.0.1"}))
_CLONE_NEWNET = 0x40000000
_T = TypeVar("_T")


class Lan:
    """The hosts of a lab whose router is whatever the test makes of it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self._open = ExitStack()

    @contextmanager
    def fresh(self) -> Iterator["Lan"]:
        """What is opened meanwhile is closed at the end."""
        with ExitStack() as self._open:
            yield self

    def on(self, host: str, call: Callable[[], _T]) -> _T:
        """Call a function on a host."""
        done: list[_T] = []
        failed: list[BaseException] = []

        def inside() -> None:
            try:
                libc = ctypes.CDLL(None, use_errno=True)
                fd = os.open(f"/run/netns/{self.lab.name(host)}", os.O_RDONLY | os.O_CLOEXEC)
                try:
                    if libc.setns(fd, _CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), "setns")
                finally:
                    os.close(fd)
                done.append(call())
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=inside)
        thread.start()
        thread.join()
        if failed:
            raise failed[0]
        return done[0]

    def play(self, main: Callable[[], Awaitable[_T]]) -> _T:
        """Run a test's event loop on lan1."""

        async def soon() -> _T:
            with trio.fail_after(30):
                return await main()

        return self.on("lan1", lambda: trio.run(soon))

    def udp(self, host: str, address: str, port: int = 0) -> trio.socket.SocketType:
        def make() -> socket.socket:
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address, port))
            return sock

        return trio.socket.from_stdlib_socket(self._open.enter_context(self.on(host, make)))

    def ssdp(self, host: str) -> trio.socket.SocketType:
        """Hears the searches that go to everybody."""

        def make() -> socket.socket:
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("", ssdp.PORT))
            own = socket.inet_aton(ssdp.MULTICAST) + socket.inet_aton("0.0.0.0")
            interface = {"router": "lan"}.get(host, "eth0")
            index = socket.if_nametoindex(interface).to_bytes(4, "little")
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, own + index)
            return sock

        return trio.socket.from_stdlib_socket(self._open.enter_context(self.on(host, make)))

    def tcp(self, host: str, address: str, port: int = 0) -> trio.SocketListener:
        def make() -> socket.socket:
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address, port))
            sock.listen(100)
            return sock

        sock = self._open.enter_context(self.on(host, make))
        return trio.SocketListener(trio.socket.from_stdlib_socket(sock))


def said(location: str, more: str = "") -> bytes:
    """An answer to a search."""
    return (
        f"HTTP/1.1 200 OK\r\nST: {ssdp.TARGETS[0]}\r\nLOCATION: {location}\r\n{more}\r\n"
    ).encode()


class Trap:
    """A listener that nobody is to connect to."""

    def __init__(self, listener: trio.SocketListener) -> None:
        self._socket = listener.socket

    @property
    def sprung(self) -> bool:
        return bool(self._socket.is_readable())
