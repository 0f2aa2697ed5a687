"""What is made of the kernel's answers, where it seldom gives them: from a socket of the test's."""

import errno
import socket
import struct
from collections.abc import Iterator

import pytest

from natsup.upnp.rtnetlink import Kernel, Path

DONE, NEW_ROUTE = 3, 24
INTERRUPTED = 0x10


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The kernel's end of the next `Kernel`'s socket."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(10)
    monkeypatch.setattr("natsup.upnp.rtnetlink.socket.socket", lambda *_: ours)
    with ours, theirs:
        yield theirs


def message(kind: int, body: bytes, flags: int = 0) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 0, 0) + body


def route(gateway: str, flags: int = 0) -> bytes:
    body = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 254, 0, 0, 1, 0)
    return message(NEW_ROUTE, body + struct.pack("=HH", 8, 5) + socket.inet_aton(gateway), flags)


def done(number: int = 0, flags: int = 0) -> bytes:
    return message(DONE, struct.pack("=i", -number), flags)


@pytest.mark.parametrize("where", ["in a message", "at the end"])
def test_a_list_that_was_changed_is_read_again(kernel: socket.socket, where: str) -> None:
    flags = (INTERRUPTED, 0) if where == "in a message" else (0, INTERRUPTED)
    kernel.send(route("10.0.0.1", flags[0]))
    kernel.send(done(flags=flags[1]))
    kernel.send(route("10.0.0.2") + done())
    with Kernel() as reader:
        assert reader.wide_routes() == [Path("", "10.0.0.2", "")]


def test_a_list_that_never_stands_still_is_taken_as_it_is(kernel: socket.socket) -> None:
    for number in range(1, 6):
        kernel.send(route(f"10.0.0.{number}") + done(flags=INTERRUPTED))
    with Kernel() as reader:
        assert [path.gateway for path in reader.wide_routes()] == ["10.0.0.5"]


def test_an_error_in_the_midst_of_a_list(kernel: socket.socket) -> None:
    kernel.send(route("10.0.0.1"))
    kernel.send(done(errno.ENOMEM))
    with Kernel() as reader, pytest.raises(OSError, match="memory") as caught:
        reader.wide_routes()
    assert caught.value.errno == errno.ENOMEM
