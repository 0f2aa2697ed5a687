"""When the network is looked at, what of it is new, and how the kernel's words are read."""

import socket
import struct
from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from natsup.upnp import bpf, changes, rtnetlink
from natsup.upnp.changes import Changes, difference
from natsup.upnp.network import Network, NoGateway
from natsup.upnp.rtnetlink import Link

HOME = Network("eth0", "192.168.1.1", "192.168.1.2", name="192.168.1.1 00:00:00:00:00:01")
AWAY = Network("eth0", "10.0.0.1", "10.0.0.2")
NONE = NoGateway("there is no default route")


@pytest.mark.parametrize(
    ("used", "found", "new"),
    [
        (HOME, HOME, None),
        (NONE, NONE, None),
        (None, HOME, None),  # the search has not begun
        (HOME, NONE, "gone"),
        (NONE, HOME, "there is a way"),
        (HOME, AWAY, "10.0.0.1 by eth0"),
        (HOME, Network("wlan0", "192.168.1.1", "192.168.1.9"), "by wlan0"),
        (HOME, Network("eth0", "192.168.1.1", "192.168.1.9"), "another address, 192.168.1.9"),
        (HOME, Network("eth0", "192.168.1.1", "192.168.1.2", prefix=24), None),
        (HOME, Network("eth0", "192.168.1.1", "192.168.1.2", name="192.168.1.1 x"), "another rout"),
    ],
)
def test_difference(
    used: Network | NoGateway | None, found: Network | NoGateway, new: str | None
) -> None:
    said = difference(used, found)
    assert said is None if new is None else new in str(said)


def test_it_is_looked_at_once_it_has_settled() -> None:
    told = Changes()
    assert told.next_deadline() is None
    told.told(None, 10.0)
    told.told(None, 10.2)
    assert told.next_deadline() == pytest.approx(10.5)
    for tenth in range(103, 130):  # it never stands still
        told.told(None, tenth / 10)
    assert told.next_deadline() == pytest.approx(12.0)
    assert told.looked(HOME, AWAY, 12.0) is not None
    assert told.next_deadline() is None


def test_what_brings_nothing_new_is_looked_at_more_and_more_rarely() -> None:
    told, now, looks = Changes(), 0.0, 0
    while now < 600:  # a container is started every second
        told.told(None, now)
        deadline = told.next_deadline()
        assert deadline is not None
        if deadline <= now + 1:
            assert told.looked(HOME, HOME, max(now, deadline)) is None
            looks += 1
        now += 1
    assert looks < 30
    told.told(None, now)
    assert told.looked(HOME, AWAY, now + 30) is not None
    told.told(None, now + 31)
    assert told.next_deadline() == now + 31.3


def test_a_link_that_was_gone_and_is_back() -> None:
    told = Changes()
    told.told(Link("eth0", running=True), 1.0)
    assert told.next_deadline() is None  # so it was all the time
    told.told(Link("eth0", running=False), 2.0)
    assert told.looked(HOME, HOME, 3.0) is None
    told.told(Link("eth0", running=False), 4.0)
    assert told.next_deadline() is None
    told.told(Link("eth0", running=True), 5.0)
    assert told.looked(HOME, HOME, 9.0) == "the link eth0 was gone, and is back"
    told.told(None, 20.0)
    assert told.looked(HOME, HOME, 21.0) is None


def test_another_link_is_no_news() -> None:
    told = Changes()
    for running in (False, True):
        told.told(Link("docker0", running), 1.0)
    assert told.looked(HOME, HOME, 2.0) is None


def link(name: bytes, flags: int, kind: int = 16) -> bytes:
    body = struct.pack("=BxHiII", 0, 1, 7, flags, 0)
    body += struct.pack("=HH", 5 + len(name), 3) + name + b"\0"
    return message(kind, body + bytes(-len(body) % 4))


def message(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def test_what_the_kernel_says_is_read() -> None:
    data = link(b"eth0", 0x11043) + link(b"wlan0", 0x1003) + link(b"eth0", 0x11043, 17)
    data += message(20, bytes(8))
    expected = [Link("eth0", True), Link("wlan0", False), Link("eth0", False), None]
    assert list(rtnetlink.told(data)) == expected


@pytest.mark.parametrize("data", [b"", bytes(15), bytes(64), message(16, b"x"), link(b"", 0)[:-3]])
def test_nonsense_is_read_too(data: bytes) -> None:
    list(rtnetlink.told(data))


@pytest.fixture
def told_by_the_filter() -> Callable[[bytes], bool]:
    def passes(data: bytes) -> bool:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with ours, theirs:
            bpf.attach(ours, changes.filter_program())
            theirs.send(data)
            ours.setblocking(False)
            try:
                return ours.recv(100) == data
            except BlockingIOError:
                return False

    return passes


@pytest.mark.parametrize(
    ("kind", "prefix", "passes"),
    [(24, 0, True), (25, 1, True), (24, 24, False), (25, 32, False), (20, 24, True), (16, 9, True)],
)
def test_the_kernel_leaves_out_routes_to_a_part_of_the_world(
    told_by_the_filter: Callable[[bytes], bool], kind: int, prefix: int, passes: bool
) -> None:
    assert told_by_the_filter(message(kind, bytes([2, prefix]) + bytes(10))) is passes


async def test_without_netlink_it_is_looked_at_every_five_minutes(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    monkeypatch.setattr(rtnetlink, "_avoided", True)
    networks = [HOME, HOME, AWAY]
    said = list[str]()

    async def look() -> Network | NoGateway:
        return networks[min(int(trio.current_time() - begun) // 300 - 1, 2)]

    begun = trio.current_time()
    nursery.start_soon(changes.watch, look, lambda: HOME, said.append)
    await trio.sleep(899)
    assert said == []
    await trio.sleep(2)
    assert said == ["the way to the Internet is another one, 10.0.0.1 by eth0"]
