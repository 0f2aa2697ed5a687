"""Watching the router: when it is asked, and what it says is a sign of a restart."""

import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from natsup.upnp import ssdp
from natsup.upnp.ears import filter_program, payload
from natsup.upnp.ssdp import Answer, Kind, Notification
from natsup.upnp.watch import Watch, watch
from tests.lab.lab import LAN1, ROUTER, Lab

IGD1, IGD2, ROOT = ssdp.TARGETS[0], ssdp.TARGETS[1], ssdp.TARGETS[-1]
RESTARTED, BACK = "the router was restarted", "the router is back"
ANOTHER = "the router has another description"
A = Answer("/a", IGD1, "uuid:1", 1)
Round = Answer | tuple[Answer, ...] | None  # what is answered to one question


def signs(*rounds: Round) -> list[tuple[int, str]]:
    """The signs that come of this: after the answers to which question, and what."""
    watching = Watch(ROUTER, 0.0)
    made = []
    for number, answers in enumerate(rounds):
        now = watching.ask_at
        watching.ask(now)
        for said in (answers,) if isinstance(answers, Answer) else answers or ():
            watching.hear(said)
        while (deadline := watching.next_deadline()) < watching.ask_at:
            reason = watching.sign(max(now, deadline))
            assert reason is not None
            made.append((number, reason))
    return made


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([], []),
        ([A, A, A], []),
        ([A, replace(A, bootid=2), replace(A, bootid=2)], [(1, RESTARTED)]),
        ([None, A, replace(A, bootid=2)], [(2, RESTARTED)]),
        ([A, replace(A, bootid=None), A], []),
        ([replace(A, bootid=None), A, A], []),
        ([A, replace(A, bootid=None), replace(A, bootid=2)], [(2, RESTARTED)]),
        # One question may be lost on the way, two are left unanswered.
        ([A, None, A], []),
        ([A, None, None, A], [(3, BACK)]),
        ([A, None, None, None, A], [(4, BACK)]),
        ([None, None, None, A, A], []),
        ([A, None, None, replace(A, bootid=2)], [(3, RESTARTED)]),
        ([replace(A, bootid=None), None, None, replace(A, bootid=None)], [(3, BACK)]),
        # A router tells of itself in several ways, which are not all heard at once,
        ([(A, replace(A, location="/b")), A, replace(A, location="/c")], []),
        ([A, A, A, replace(A, location="/b"), replace(A, location="/b")], [(3, ANOTHER)]),
        ([A, A, A, replace(A, name="uuid:2"), A], [(3, ANOTHER)]),
        # and other devices in it have numbers of their own.
        ([(A, replace(A, name="uuid:2", bootid=9))] * 4, []),
        ([(A, replace(A, location="/b", bootid=9))] * 4, []),
        ([(A, replace(A, target=IGD2, bootid=9))] * 4, []),
    ],
)
def test_rows(row: Sequence[Round], expected: list[tuple[int, str]]) -> None:
    assert signs(*row) == expected


def test_signs_become_rare_when_there_is_one_each_time() -> None:
    watching, times = Watch(ROUTER, 0.0), []
    for number in range(1000):
        now = watching.ask_at
        watching.ask(now)
        watching.hear(replace(A, bootid=number))
        if watching.sign(now) is not None:
            times.append(now)
    apart = [later - earlier for earlier, later in pairwise(times)]
    assert apart == sorted(apart)
    assert (apart[0], apart[-1]) == (10, 300)


def test_after_quiet_days_a_sign_is_told_at_once() -> None:
    watching = Watch(ROUTER, 0.0)
    for number in range(50):
        watching.ask(10.0 * number)
        watching.hear(replace(A, bootid=number))
        watching.sign(10.0 * number)
    watching.ask(1e6)
    watching.hear(replace(A, bootid=77))
    assert watching.sign(1e6) == RESTARTED
    watching.hear(replace(A, bootid=78))
    assert (watching.sign(1e6 + 9), watching.sign(1e6 + 10)) == (None, RESTARTED)


def test_a_sign_that_comes_too_soon_is_late_and_not_lost() -> None:
    watching = Watch(ROUTER, 0.0)
    for number in (1, 2, 3):
        watching.ask(0.0)
        watching.hear(replace(A, bootid=number))
        assert watching.sign(0.0) == {1: None, 2: RESTARTED, 3: None}[number]
    watching.ask(100.0)
    assert watching.next_deadline() == 10.0
    assert watching.sign(10.0) == RESTARTED


def asked(count: int, answers: Callable[[str, str], bool]) -> list[tuple[float, str, int]]:
    """When, whom, and with how many targets, where the router answers some as what was asked."""
    watching, made = Watch(ROUTER, 0.0), []
    for _ in range(count):
        now = watching.ask_at
        host, targets = watching.ask(now)
        made.append((now, host, len(targets)))
        for target in targets:
            if answers(host, target):
                watching.hear(replace(A, target=target))
    return made


ALL = len(ssdp.TARGETS)


def test_a_router_is_asked_for_what_it_answers_to() -> None:
    assert asked(4, lambda host, target: target == ROOT) == [
        (0, ROUTER, ALL),
        (2, ROUTER, 1),
        (12, ROUTER, 1),
        (22, ROUTER, 1),
    ]


def test_a_router_that_hears_only_what_goes_to_all() -> None:
    assert asked(6, lambda host, target: host == ssdp.MULTICAST) == [
        (0, ROUTER, ALL),
        (2, ROUTER, ALL),
        (6, ROUTER, ALL),
        (14, ssdp.MULTICAST, ALL),
        (30, ssdp.MULTICAST, 1),
        (90, ssdp.MULTICAST, 1),
    ]


def test_a_router_that_does_not_answer_is_asked_ever_more_rarely() -> None:
    times = [when for when, _, _ in asked(20, lambda host, target: False)]
    apart = [later - earlier for earlier, later in pairwise(times)]
    assert apart == sorted(apart)
    assert (apart[0], apart[-1]) == (2, 300)


def test_a_router_that_went_away_is_asked_for_everything() -> None:
    heard = iter([True] * 2 + [False] * 1000)
    assert asked(6, lambda host, target: target == IGD1 and next(heard)) == [
        (0, ROUTER, ALL),
        (2, ROUTER, 1),
        (12, ROUTER, 1),  # from here on in vain
        (22, ROUTER, 1),
        (32, ROUTER, ALL),
        (42, ROUTER, ALL),
    ]


def test_an_answer_to_what_was_not_asked() -> None:
    """It counts as an answer, but is no target to ask for."""
    watching = Watch(ROUTER, 0.0)
    watching.ask(0.0)
    watching.hear(replace(A, target="x" * 5000))
    assert watching.ask(1.0) == (ROUTER, ssdp.TARGETS)


def test_what_is_remembered_is_bounded() -> None:
    watching = Watch(ROUTER, 0.0)
    for number in range(10_000):
        watching.hear(replace(A, location=f"/{number}"))
    assert len(watching._voices) < 20


@given(
    st.lists(
        st.one_of(
            st.none(),
            st.builds(
                Answer,
                st.sampled_from(["/a", "/b"]),
                st.sampled_from([IGD1, IGD2, ""]),
                st.sampled_from(["", "uuid:1"]),
                st.one_of(st.none(), st.integers(0, 3)),
            ),
        )
    )
)
def test_it_never_asks_or_tells_too_often(steps: list[Answer | None]) -> None:
    watching, told, now = Watch(ROUTER, 0.0), [], 0.0
    for said in steps:
        now = max(now, watching.next_deadline())
        if watching.ask_at <= now:
            watching.ask(now)
            assert watching.ask_at >= now + 2
        if said is not None:
            watching.hear(said)
        if watching.sign(now) is not None:
            told.append(now)
    assert all(later - earlier >= 10 for earlier, later in pairwise(told))


# --- what it says unasked ---

OLD = "urn:dslforum-org:device:InternetGatewayDevice:1"
MEDIA = "urn:schemas-upnp-org:device:MediaServer:1"
ALIVE, BYEBYE, UPDATE = Kind.ALIVE, Kind.BYEBYE, Kind.UPDATE
GOODBYE, MOVED = "the router says goodbye", "the router's description has moved"


def said(
    kind: Kind = ALIVE, bootid: int | None = 1, location: str | None = "/a", target: str = IGD1
) -> Notification:
    return Notification(kind, target, bootid, location)


def signs_of(
    *heard: tuple[float, Notification], answered: Answer | None = None
) -> list[tuple[float, str]]:
    """The signs that come of what is heard, and when; before that a question was answered."""
    watching, made = Watch(ROUTER, 0.0), []
    watching.ask(0.0)
    if answered is not None:
        watching.hear(answered)

    def until(now: float) -> None:
        while (deadline := watching.next_deadline()) <= now:
            if watching.ask_at <= deadline:
                watching.ask(deadline)
            reason = watching.sign(deadline)
            if reason is not None:
                made.append((deadline, reason))

    for now, notification in heard:
        until(now)
        watching.hear_unasked(notification, now)
    until(1e5)
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
def test_rows_unasked(row: Sequence[Notification], reasons: list[str]) -> None:
    heard = [(1000.0 * number, notification) for number, notification in enumerate(row)]
    assert [reason for _, reason in signs_of(*heard)] == reasons


@pytest.mark.parametrize(
    ("first", "reasons"),
    [
        (said(), []),
        (said(bootid=2), [RESTARTED]),
        (said(bootid=2, target=IGD2), [RESTARTED]),
        (said(bootid=None), []),
        (said(bootid=2, location="/b"), []),  # another description may have another number
        (said(UPDATE, bootid=2), []),
        (said(bootid=2, target=MEDIA), []),
    ],
)
def test_the_first_word_is_compared_with_the_answers(
    first: Notification, reasons: list[str]
) -> None:
    """A router that is restarted before it was ever heard is found out as well."""
    assert [reason for _, reason in signs_of((50, first), answered=A)] == reasons


def test_what_is_said_in_one_go_is_one_sign() -> None:
    """A second is waited for the rest of it, and the last that was said is the reason."""
    row = (0, said()), (5, said(BYEBYE)), (5.1, said(BYEBYE, target=IGD2)), (5.9, said())
    assert signs_of(*row) == [(6, BACK)]
    storm = [(number * 0.9, said(bootid=number)) for number in range(1000)]
    assert len(signs_of(*storm)) > 3


def test_a_router_that_is_heard_is_not_asked() -> None:
    watching = Watch(ROUTER, 0.0)
    watching.ask(0.0)
    watching.hear_unasked(said(), 1.0)
    assert watching.ask_at == 2.0  # it has yet to answer, so that its number is known
    watching.ask(2.0)
    watching.hear(A)
    assert watching.ask_at < 20
    watching.hear_unasked(said(), 3.0)
    assert watching.ask_at == 1803.0
    watching.hear_unasked(said(), 900.0)
    assert watching.ask_at == 2700.0
    watching.hear_unasked(said(bootid=None), 901.0)  # that says nothing of its starts
    watching.hear_unasked(said(target=MEDIA), 902.0)
    assert watching.ask_at == 2700.0
    watching.ask(2700.0)
    assert watching.ask_at == 2710.0
    watching.hear_unasked(said(), 2701.0)
    watching.deaf(2705.0)
    assert watching.next_deadline() == 2705.0


def test_what_is_remembered_of_what_is_said_is_bounded() -> None:
    watching = Watch(ROUTER, 0.0)
    for number in range(10_000):
        watching.hear_unasked(said(target=f"{IGD1}{number}"), 0)
    assert len(watching._said) < 20


@given(
    st.lists(st.tuples(st.builds(said, st.sampled_from(Kind), st.integers(0, 3)), st.floats(0, 9)))
)
def test_signs_are_apart_whatever_is_said(steps: list[tuple[Notification, float]]) -> None:
    now, heard = 0.0, []
    for notification, pause in steps:
        now += pause
        heard.append((now, notification))
    times = [when for when, _ in signs_of(*heard)]
    assert all(later - earlier >= 9.99 for earlier, later in pairwise(times))


def datagram(bootid: int) -> bytes:
    lines = (
        "HTTP/1.1 200 OK",
        f"LOCATION: http://{ROUTER}:5000/d.xml",
        f"ST: {IGD1}",
        f"BOOTID.UPNP.ORG: {bootid}",
        "",
        "",
    )
    return "\r\n".join(lines).encode()


class Air:
    """Loopback, where the router is 127.0.0.1, and its searches' port is ours to answer on."""

    def __init__(self, nursery: trio.Nursery, clock: trio.testing.MockClock) -> None:
        clock.autojump_threshold = 0.05  # sockets are real: leave the kernel a moment
        self._send, self.signs = trio.open_memory_channel[str](1)
        self._nursery = nursery
        self.router = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)

    async def watch(self, address: str = "127.0.0.1") -> None:
        self.router.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_REUSEADDR, 1)
        await self.router.bind(("127.0.0.1", ssdp.PORT))
        self._nursery.start_soon(watch, "lo", address, "127.0.0.1", self._send)

    async def answer(self, *datagrams: bytes, sender: str = "") -> tuple[str, int]:
        """Answer to the next question that is for IGD1. Returns whom."""
        with trio.fail_after(1000):
            question, client = await self.router.recvfrom(4096)
            while f"ST: {IGD1}\r\n".encode() not in question:
                question, client = await self.router.recvfrom(4096)
        assert question.startswith(b"M-SEARCH * HTTP/1.1\r\n")
        with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as other:
            if sender:
                await other.bind((sender, 0))
            for data in datagrams:
                await (other if sender else self.router).sendto(data, client)
        return str(client[0]), int(client[1])

    async def say(self, *datagrams: bytes, sender: str = "127.0.0.1", to: str = "") -> None:
        """What a router says unasked."""
        with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as sock:
            await sock.bind((sender, 0))
            lo = trio.socket.inet_aton("127.0.0.1")
            sock.setsockopt(trio.socket.IPPROTO_IP, trio.socket.IP_MULTICAST_IF, lo)
            for data in datagrams:
                await sock.sendto(data, (to or ssdp.MULTICAST, ssdp.PORT))


@pytest.fixture
def air(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> Air:
    return Air(nursery, autojump_clock)


async def test_a_restart_is_seen(air: Air, autojump_clock: trio.testing.MockClock) -> None:
    await air.watch()
    await air.answer(datagram(1))
    await air.answer(datagram(2))
    assert await air.signs.receive() == RESTARTED
    assert autojump_clock.current_time() < 11
    air.router.close()


async def test_silence_is_seen(air: Air, autojump_clock: trio.testing.MockClock) -> None:
    await air.watch()
    await air.answer(datagram(1))
    for _ in range(3):
        await air.answer()
    await air.answer(datagram(1))
    assert await air.signs.receive() == BACK
    air.router.close()


async def test_only_the_router_is_heard(air: Air, autojump_clock: trio.testing.MockClock) -> None:
    await air.watch()
    await air.answer(datagram(1))
    await air.answer(datagram(1), datagram(2), sender="127.0.0.9")
    await air.answer(b"", b"\0", b"x" * 9000, ssdp.search(IGD1, host="x"))
    with pytest.raises(trio.WouldBlock):
        air.signs.receive_nowait()
    await air.answer(datagram(2))
    assert await air.signs.receive() == RESTARTED
    air.router.close()


async def test_an_address_that_went_away(air: Air, autojump_clock: trio.testing.MockClock) -> None:
    """No host has an address in 240.0.0.0/4 (RFC 1112, section 4). It may be back one day."""
    await air.watch("240.0.0.1")
    with trio.move_on_after(1000) as silence:
        await air.signs.receive()
    assert silence.cancelled_caught
    air.router.close()


async def test_between_questions_it_holds_no_port(
    air: Air, autojump_clock: trio.testing.MockClock
) -> None:
    await air.watch()
    client = await air.answer(datagram(1))
    await trio.sleep(1)
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as other:
        await other.bind(("", client[1]))
    air.router.close()


async def test_it_ends_when_nobody_wants_to_know(autojump_clock: trio.testing.MockClock) -> None:
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            air = Air(nursery, autojump_clock)
            await air.watch()
            air.signs.close()
            await air.answer(datagram(1))
            await air.answer(datagram(2))
            air.router.close()


def notify(kind: str, bootid: int, target: str = IGD1) -> bytes:
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


async def test_a_goodbye_is_heard(air: Air, autojump_clock: trio.testing.MockClock) -> None:
    await air.watch()
    await air.answer(datagram(1))
    await air.say(notify("ssdp:byebye", 1), sender="127.0.0.9")  # anybody
    await air.say(notify("ssdp:byebye", 1, MEDIA), b"", b"\0", b"x" * 9000)
    with pytest.raises(trio.WouldBlock):
        air.signs.receive_nowait()
    await air.say(notify("ssdp:byebye", 1))
    assert await air.signs.receive() == GOODBYE
    await air.say(notify("ssdp:alive", 2))
    assert await air.signs.receive() == BACK
    air.router.close()


async def test_ssdp_is_everybodys(air: Air, autojump_clock: trio.testing.MockClock) -> None:
    """Whoever shares its port with nobody can have it."""
    await air.watch()
    await air.answer(datagram(1))
    await trio.sleep(5)
    air.router.close()
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as other:
        await other.bind(("", ssdp.PORT))
        await air.say(notify("ssdp:alive", 2))
        assert await air.signs.receive() == RESTARTED


async def test_a_router_that_is_heard_and_numbers_its_starts_is_not_asked(
    air: Air, autojump_clock: trio.testing.MockClock
) -> None:
    await air.watch()
    await air.answer(datagram(1))
    await trio.sleep(5)
    await air.say(notify("ssdp:alive", 1))

    async def questions(seconds: float) -> int:
        count = 0
        with trio.move_on_after(seconds):
            while True:
                await air.router.recvfrom(4096)
                count += 1
        return count

    await questions(30)  # what was asked before
    assert await questions(1000) == 0
    assert await questions(1000) > 0
    air.router.close()


def test_what_the_packet_filter_lets_through() -> None:
    program = list(struct.iter_unpack("=HBBI", filter_program("1.2.3.4")))

    def passes(packet: bytes) -> bool:
        """Classic BPF (bpf(4)), as far as the filter uses it."""
        accumulator = index = counter = 0
        while True:
            code, true, false, k = program[counter]
            counter += 1
            if code == 0x06:
                return bool(k)
            size = {0x30: 1, 0x28: 2, 0x20: 4, 0x48: 2, 0xB1: 1}.get(code)
            if size is not None:
                at = k + (index if code == 0x48 else 0)
                value = int.from_bytes(packet[at : at + size], "big")
                if code == 0xB1:
                    index = (value & 0xF) * 4
                else:
                    accumulator = value
            else:
                holds = accumulator == k if code == 0x15 else bool(accumulator & k)
                counter += true if holds else false

    def packet(
        protocol: int = 17,
        sender: bytes = b"\1\2\3\4",
        offset: int = 0,
        port: int = 1900,
        more: int = 0,
    ) -> bytes:
        head = struct.pack("!BBHHHBBH", 0x45 + more, 0, 0, 0, offset, 1, protocol, 0)
        return head + sender + bytes(4 + 4 * more) + struct.pack("!HHHH", 5, port, 11, 0) + b"abc!"

    assert passes(packet())
    assert passes(packet(more=2))  # with options
    assert passes(packet(offset=0x2000))  # the first fragment
    assert not passes(packet(offset=5))
    assert not passes(packet(protocol=6))
    assert not passes(packet(sender=b"\1\2\3\5"))
    assert not passes(packet(port=1901))
    assert payload(packet()) == payload(packet(more=2)) == b"abc"
    assert payload(b"") == payload(b"\x45") == b""


WATCH = f"""
import trio
from natsup.upnp.watch import watch

async def main():
    send, receive = trio.open_memory_channel(0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch, "eth0", "{LAN1}", "{ROUTER}", send)
        async for sign in receive:
            print(sign, flush=True)

trio.run(main)
"""


def test_a_real_router_that_loses_its_power(lab: Lab) -> None:
    """Its boot number is the time of its start, in seconds."""
    chain = "add chain inet filter output { type filter hook output priority 0; }"
    rule = f"add rule inet filter output ip daddr {LAN1} udp sport 1900 counter"
    lab.run("router", ["nft", f"{chain}; {rule}"], check=True)
    look = ["nft", "list", "chain", "inet", "filter", "output"]

    def has_answered() -> bool:
        return "packets 0" not in lab.run("router", look, check=True).stdout

    process = lab.popen("lan1", [sys.executable, "-c", WATCH], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lab.wait_for(has_answered)
    lab.stop_router()
    next_second = int(time.time()) + 1
    lab.wait_for(partial(lambda second: time.time() >= second, next_second))
    lab.start_router()
    assert process.stdout.readline() == RESTARTED + "\n"
