"""Signs of a restart: which there are, and that they are heard from the router alone."""

import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from natsup.upnp import notify, ssdp
from natsup.upnp.notify import Signs
from natsup.upnp.ssdp import Kind, Notification
from tests.lab.lab import LAN1, ROUTER, Lab

IGD1, IGD2 = (f"urn:schemas-upnp-org:device:InternetGatewayDevice:{number}" for number in (1, 2))
OLD = "urn:dslforum-org:device:InternetGatewayDevice:1"
MEDIA = "urn:schemas-upnp-org:device:MediaServer:1"
ALIVE, BYEBYE, UPDATE = Kind.ALIVE, Kind.BYEBYE, Kind.UPDATE
GOODBYE, BACK = "the router says goodbye", "the router is back"
RESTARTED, MOVED = "the router was restarted", "the router's description has moved"


def said(
    kind: Kind = ALIVE, bootid: int | None = 1, location: str | None = "/a", target: str = IGD1
) -> Notification:
    return Notification(kind, target, bootid, location)


def signs(*heard: tuple[float, Notification]) -> list[tuple[float, str]]:
    """The signs that come of this, and when."""
    made = []
    machine = Signs()

    def until(now: float) -> None:
        while (deadline := machine.next_deadline()) is not None and deadline <= now:
            assert machine.tick(deadline - 0.01) is None
            reason = machine.tick(deadline)
            assert reason is not None
            made.append((deadline, reason))

    for now, notification in heard:
        until(now)
        machine.hear(notification, now)
    until(1e9)
    return made


@pytest.mark.parametrize(
    ("row", "reasons"),
    [
        ([], []),
        ([said()], []),
        ([said(), said()], []),
        ([said(bootid=1), said(bootid=2)], [RESTARTED]),
        ([said(bootid=1), said(bootid=2), said(bootid=2)], [RESTARTED]),
        ([said(bootid=2), said(bootid=1)], [RESTARTED]),
        ([said(bootid=1), said(bootid=2, location="/b")], [RESTARTED]),
        ([said(location="/a"), said(location="/b")], [MOVED]),
        ([said(bootid=None), said(bootid=None, location="/b")], [MOVED]),
        ([said(bootid=None), said(bootid=None)], []),
        ([said(bootid=None), said(bootid=1)], []),
        ([said(bootid=1), said(bootid=None), said(bootid=2)], [RESTARTED]),
        ([said(), said(location=None), said(location="/b")], [MOVED]),
        ([said(BYEBYE)], [GOODBYE]),
        ([said(BYEBYE), said(BYEBYE)], [GOODBYE]),
        ([said(), said(BYEBYE), said()], [GOODBYE, BACK]),
        ([said(BYEBYE), said(), said()], [GOODBYE, BACK]),
        ([said(), said(BYEBYE), said(), said(BYEBYE)], [GOODBYE, BACK, GOODBYE]),
        ([said(bootid=1), said(UPDATE, bootid=2), said(bootid=2)], []),
        ([said(bootid=1), said(UPDATE, bootid=2), said(bootid=3)], [RESTARTED]),
        ([said(target=OLD), said(target=OLD, bootid=2)], [RESTARTED]),
        # A router has a description for each version,
        ([said(target=IGD1), said(target=IGD2, location="/b"), said(target=IGD1)], []),
        # and is other things as well, which start on their own.
        ([said(target=MEDIA), said(BYEBYE, target=MEDIA), said(target=MEDIA, bootid=2)], []),
        ([said(), said(bootid=7, location="/media", target=MEDIA), said()], []),
    ],
)
def test_rows(row: Sequence[Notification], reasons: list[str]) -> None:
    heard = [(100.0 * number, notification) for number, notification in enumerate(row)]
    assert [reason for _, reason in signs(*heard)] == reasons


def test_what_is_said_in_one_go_is_one_sign() -> None:
    """A second is waited for the rest of it, and the last that was said is the reason."""
    assert signs(
        (0, said()), (5, said(BYEBYE)), (5.1, said(BYEBYE, target=IGD2)), (5.9, said())
    ) == [(6, BACK)]


def test_a_storm_makes_a_sign_every_ten_seconds() -> None:
    storm = [(number / 10, said(bootid=number)) for number in range(1000)]
    times = [when for when, _ in signs(*storm)]
    assert times[0] == pytest.approx(1.1)
    assert all(later - earlier >= 9.99 for earlier, later in pairwise(times))
    assert 9 <= len(times) <= 11


def test_a_sign_that_comes_too_soon_is_late_and_not_lost() -> None:
    assert signs((0, said(BYEBYE)), (3, said())) == [(1, GOODBYE), (11, BACK)]


def test_what_is_remembered_is_bounded() -> None:
    machine = Signs()
    for number in range(10_000):
        machine.hear(said(target=f"{IGD1}{number}"), 0)
    assert len(machine._last) < 20


@given(
    st.lists(st.tuples(st.builds(said, st.sampled_from(Kind), st.integers(0, 3)), st.floats(0, 9)))
)
def test_signs_are_apart_whatever_is_said(steps: list[tuple[Notification, float]]) -> None:
    now, heard = 0.0, []
    for notification, pause in steps:
        now += pause
        heard.append((now, notification))
    times = [when for when, _ in signs(*heard)]
    assert all(later - earlier >= 9.99 for earlier, later in pairwise(times))


def datagram(kind: str, bootid: int, target: str = IGD1) -> bytes:
    lines = (
        "NOTIFY * HTTP/1.1",
        f"HOST: {ssdp.MULTICAST}:{ssdp.PORT}",
        f"LOCATION: http://{ROUTER}:5000/d.xml",
        f"NT: {target}",
        f"NTS: {kind}",
        f"BOOTID.UPNP.ORG: {bootid}",
        "",
        "",
    )
    return "\r\n".join(lines).encode()


class Air:
    """What is heard on loopback, where the gateway is 127.0.0.1."""

    def __init__(self, nursery: trio.Nursery, clock: trio.testing.MockClock) -> None:
        clock.autojump_threshold = 0.05  # sockets are real: leave the kernel a moment
        self._nursery = nursery
        self._send, self.signs = trio.open_memory_channel[str](0)

    async def listen(self, address: str = "127.0.0.1") -> None:
        await self._nursery.start(notify.listen, address, "127.0.0.1", self._send)

    async def say(self, *datagrams: bytes, sender: str = "127.0.0.1", to: str = "") -> None:
        with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as sock:
            await sock.bind((sender, 0))
            lo = trio.socket.inet_aton("127.0.0.1")
            sock.setsockopt(trio.socket.IPPROTO_IP, trio.socket.IP_MULTICAST_IF, lo)
            for data in datagrams:
                await sock.sendto(data, (to or ssdp.MULTICAST, ssdp.PORT))


@pytest.fixture
def air(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> Air:
    return Air(nursery, autojump_clock)


async def test_a_restart_is_heard(air: Air, autojump_clock: trio.testing.MockClock) -> None:
    await air.listen()
    await air.say(datagram("ssdp:alive", 1), datagram("ssdp:alive", 2))
    assert await air.signs.receive() == RESTARTED
    await air.say(datagram("ssdp:byebye", 2))
    assert await air.signs.receive() == GOODBYE
    assert 11 <= autojump_clock.current_time() < 13


async def test_only_the_router_is_heard(air: Air, autojump_clock: trio.testing.MockClock) -> None:
    await air.listen()
    await air.say(datagram("ssdp:byebye", 1), sender="127.0.0.9")
    with trio.move_on_after(60) as silence:
        await air.signs.receive()
    assert silence.cancelled_caught
    await air.say(datagram("ssdp:alive", 1), datagram("ssdp:alive", 2))
    assert await air.signs.receive() == RESTARTED


async def test_noise_is_no_sign(air: Air, autojump_clock: trio.testing.MockClock) -> None:
    await air.listen()
    media = datagram("ssdp:byebye", 1, MEDIA)
    await air.say(b"", b"\0", b"x" * 9000, ssdp.search(IGD1, host="x"), media)
    await air.say(datagram("ssdp:alive", 1))
    with trio.move_on_after(60) as silence:
        await air.signs.receive()
    assert silence.cancelled_caught


@pytest.mark.parametrize("option", [trio.socket.SO_REUSEADDR, trio.socket.SO_REUSEPORT])
@pytest.mark.parametrize("first", [True, False])
async def test_the_port_is_shared(
    option: int, first: bool, air: Air, autojump_clock: trio.testing.MockClock
) -> None:
    """With a program that answers searches: what is sent to this host alone is that one's."""
    if first:
        await air.listen()
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as other:
        other.setsockopt(trio.socket.SOL_SOCKET, option, 1)
        await other.bind(("", ssdp.PORT))
        if not first:
            await air.listen()
        for _ in range(4):
            await air.say(datagram("ssdp:byebye", 1), to="127.0.0.1")
            with trio.fail_after(10):
                assert await other.recvfrom(4096)
        await air.say(datagram("ssdp:alive", 1), datagram("ssdp:alive", 2))
        assert await air.signs.receive() == RESTARTED


async def test_an_address_that_went_away(air: Air, autojump_clock: trio.testing.MockClock) -> None:
    """No host has an address in 240.0.0.0/4 (RFC 1112, section 4): nothing can be joined there."""
    await air.listen("240.0.0.1")
    assert [sign async for sign in air.signs] == []


async def test_it_ends_when_nobody_listens_to_it(autojump_clock: trio.testing.MockClock) -> None:
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            air = Air(nursery, autojump_clock)
            await air.listen()
            air.signs.close()
            await air.say(datagram("ssdp:byebye", 1))


LISTEN = f"""
import trio
from natsup.upnp import notify

async def main():
    send, receive = trio.open_memory_channel(0)
    async with trio.open_nursery() as nursery:
        await nursery.start(notify.listen, "{LAN1}", "{ROUTER}", send)
        print("ready", flush=True)
        async for sign in receive:
            print(sign, flush=True)

trio.run(main)
"""


def test_a_real_router_that_loses_its_power(lab: Lab) -> None:
    """It does not say goodbye, and its boot number is the time of its start, in seconds."""
    process = lab.popen("lan1", [sys.executable, "-c", LISTEN], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    for _ in range(2):
        lab.stop_router()
        next_second = int(time.time()) + 1
        lab.wait_for(partial(lambda second: time.time() >= second, next_second))
        lab.start_router()
    assert process.stdout.readline() == RESTARTED + "\n"
