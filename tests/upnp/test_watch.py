"""Watching the router: when it is asked, and which answers are signs of a restart."""

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
from natsup.upnp.ssdp import Answer
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
        self._nursery.start_soon(watch, address, "127.0.0.1", self._send)

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


WATCH = f"""
import trio
from natsup.upnp.watch import watch

async def main():
    send, receive = trio.open_memory_channel(0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch, "{LAN1}", "{ROUTER}", send)
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
