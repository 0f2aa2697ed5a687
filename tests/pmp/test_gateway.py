"""The gateways against a router on loopback, whole: sockets, bytes, decisions.

Numbers are those of the scenarios that routers in the field gave rise to.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from ipaddress import IPv4Address

import pytest
import trio
import trio.testing

from natsup.state.gateway import Gateway, host
from natsup.state.model import Conflict, Ignored, Mapped, Port, Protocol, Removal, Unknown
from natsup.upnp.pmp import gateway as pmp
from natsup.upnp.pmp.answers import Refusal
from natsup.upnp.pmp.gateway import PmpGateway, speak
from tests.pmp import fake
from tests.pmp.fake import HERE, OTHER, ROUTER, Entry, Router

PORT = Port(Protocol.TCP, 6881)
ANOTHER = Ignored("the router gives another port than the one that was asked for")
LATE = "the router did not answer in time"

both = pytest.mark.parametrize("protocol", ["natpmp", "pcp"])


def client(router: Router, protocol: str, secret: bytes = b"s" * 32) -> PmpGateway:
    return speak(protocol, ROUTER, HERE, secret=lambda: secret, port=router.port)


@asynccontextmanager
async def home(protocol: str) -> AsyncIterator[tuple[Router, PmpGateway]]:
    async with fake.running() as router:
        yield router, client(router, protocol)


@both
async def test_add_renew_remove(protocol: str) -> None:
    async with home(protocol) as (router, pmp):
        gateway: Gateway = pmp
        assert await gateway.add(PORT, lease=3600) == Mapped(3600)
        assert router.table[PORT].client == HERE
        assert await gateway.check(PORT) in (Mapped(3600), Mapped(3599))
        assert await gateway.add(PORT, lease=3600) == Mapped(3600)
        assert await gateway.external_address() == "11.22.33.1"
        assert await gateway.remove(PORT) is Removal.GONE
        assert router.table == {}
        assert await gateway.remove(PORT) is Removal.GONE
        gone = await gateway.check(PORT)
        assert isinstance(gone, Ignored)
        assert not gone.silent
        assert (gateway.protocol, gateway.internal_address) == (protocol, HERE)
        assert gateway.location == f"{protocol}://{ROUTER}:{router.port}"
        assert host(gateway.location) == ROUTER
        assert {source for source, _ in router.sources} == {HERE}


async def test_pcp_tells_the_address_before_anything_is_mapped() -> None:
    async with home("pcp") as (router, gateway):
        assert await gateway.external_address() == "11.22.33.1"
        assert router.table == {}
        assert len(router.asked) == 2
        assert await gateway.external_address() == "11.22.33.1"
        assert len(router.asked) == 2


async def test_after_a_restart_the_address_may_be_another() -> None:
    async with home("pcp") as (router, gateway):
        assert await gateway.external_address() == "11.22.33.1"
        router.epoch, router.outside = 3, IPv4Address("11.22.33.2")
        assert await gateway.look() is None
        assert await gateway.external_address() == "11.22.33.2"


@both
async def test_75_another_hosts_port_is_a_conflict(protocol: str) -> None:
    async with home(protocol) as (router, gateway):
        router.table[PORT] = Entry(OTHER, PORT.number, 3600)
        assert await gateway.add(PORT, lease=3600) == Conflict("")
        assert router.table == {PORT: Entry(OTHER, PORT.number, 3600)}


async def test_79_pcp_that_does_not_heed_the_option() -> None:
    async with home("pcp") as (router, gateway):
        router.heeds_option = False
        router.table[PORT] = Entry(OTHER, PORT.number, 3600)
        assert await gateway.add(PORT, lease=3600) == Conflict("")
        assert list(router.table) == [PORT]


async def test_80_pcp_that_does_not_know_the_option() -> None:
    async with home("pcp") as (router, gateway):
        router.knows_option = False
        assert await gateway.add(PORT, lease=3600) == Mapped(3600)
        asked = len(router.asked)
        router.table[Port(Protocol.TCP, 7000)] = Entry(OTHER, 7000, 3600)
        assert await gateway.add(Port(Protocol.TCP, 7000), lease=3600) == Conflict("")
        assert len(router.asked) == asked + 2  # the option was not sent again


@both
async def test_76_a_router_that_never_gives_what_is_asked_for(protocol: str) -> None:
    async with home(protocol) as (router, gateway):
        router.random = True
        for _ in range(2):
            assert await gateway.add(PORT, lease=3600) == ANOTHER
            assert router.table == {}


async def test_82_a_restarted_natsup_still_owns_its_mappings() -> None:
    async with home("pcp") as (router, gateway):
        assert await gateway.add(PORT, lease=3600) == Mapped(3600)
        again = client(router, "pcp")
        assert await again.add(PORT, lease=3600) == Mapped(3600)
        stranger = client(router, "pcp", secret=b"lost")
        assert await stranger.add(PORT, lease=3600) == Refusal.NOT_AUTHORIZED.outcome()
        assert await stranger.remove(PORT) is Removal.NOT_OURS
        assert await again.remove(PORT) is Removal.GONE
        assert router.table == {}


@pytest.mark.parametrize(
    ("protocol", "result", "refusal"),
    [
        ("natpmp", 2, Refusal.NOT_AUTHORIZED),
        ("natpmp", 3, Refusal.NETWORK),
        ("natpmp", 4, Refusal.RESOURCES),
        ("natpmp", 5, Refusal.OPCODE),
        ("natpmp", 99, Refusal.OTHER),
        ("pcp", 3, Refusal.MALFORMED),
        ("pcp", 8, Refusal.RESOURCES),
        ("pcp", 12, Refusal.MISMATCH),
        ("pcp", 99, Refusal.OTHER),
    ],
)
async def test_83_refusals(protocol: str, result: int, refusal: Refusal) -> None:
    async with home(protocol) as (router, gateway):
        router.refuses = result
        assert await gateway.add(PORT, lease=3600) == refusal.outcome()


async def test_83_a_refusal_is_not_asked_again_while_it_holds() -> None:
    async with home("pcp") as (router, gateway):
        router.refuses = 8
        full = Refusal.RESOURCES.outcome()
        assert await gateway.add(PORT, lease=3600) == full
        router.refuses, asked = 0, len(router.asked)
        assert await gateway.add(PORT, lease=3600) == full
        assert len(router.asked) == asked
        assert await gateway.add(Port(Protocol.UDP, 6881), lease=3600) == Mapped(3600)


async def test_83_what_was_refused_for_want_of_room_is_asked_again_once_there_is_some() -> None:
    async with home("pcp") as (router, gateway):
        other = Port(Protocol.UDP, 6881)
        assert await gateway.add(other, lease=3600) == Mapped(3600)
        router.refuses = 8
        assert await gateway.add(PORT, lease=3600) == Refusal.RESOURCES.outcome()
        router.refuses = 0
        assert await gateway.remove(other) is Removal.GONE
        assert await gateway.add(PORT, lease=3600) == Mapped(3600)


async def test_83_a_refusal_that_does_not_say_for_how_long_is_asked_again() -> None:
    async with home("pcp") as (router, gateway):
        router.refuses, router.error_lifetime = 8, 0
        assert await gateway.add(PORT, lease=3600) == Refusal.RESOURCES.outcome()
        router.refuses = 0
        assert await gateway.add(PORT, lease=3600) == Mapped(3600)


@both
async def test_probing(protocol: str) -> None:
    async with home(protocol) as (_, gateway):
        assert await gateway.probe(10) is None


@pytest.mark.parametrize("length", [4, 8, 12])
async def test_84_a_router_that_speaks_natpmp_alone(length: int) -> None:
    async with home("pcp") as (router, gateway):
        router.odd = lambda data: [bytes.fromhex("008000010000000500000000")[:length]]
        assert await gateway.probe(10) == "the router does not speak PCP"


async def test_84_versions() -> None:
    async with fake.running() as router:
        router.versions = frozenset({0})
        assert await client(router, "natpmp").probe(10) is None
        assert await client(router, "pcp").probe(10) == "the router does not speak PCP"
        router.versions = frozenset({2})
        assert await client(router, "pcp").probe(10) is None
        # Of another version in the answer to NAT-PMP, nothing is NAT-PMP's.
        assert await client(router, "natpmp").probe(0.1) == "the router does not answer to NAT-PMP"


async def test_natpmp_that_is_switched_off() -> None:
    async with home("natpmp") as (router, gateway):
        router.refuses = 2
        why = await gateway.probe(10)
        assert why is not None
        assert why.startswith("the router has switched off NAT-PMP")


@both
async def test_85_nobody_listens(protocol: str) -> None:
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as free:
        await free.bind((ROUTER, 0))
        number = free.getsockname()[1]
    gateway = speak(protocol, ROUTER, HERE, secret=bytes, port=number)
    with trio.fail_after(5):  # it is not waited for
        outcome = await gateway.add(PORT, lease=3600)
        assert outcome == Ignored(f"the router does not listen to {gateway.title}", silent=True)
        assert await gateway.remove(PORT) is Removal.FAILED
        assert isinstance(await gateway.check(PORT), Unknown)
        assert await gateway.probe(10) == f"the router does not answer to {gateway.title}"


@both
async def test_85_silence(protocol: str, autojump_clock: trio.testing.MockClock) -> None:
    autojump_clock.autojump_threshold = 0.05  # sockets are real: leave the kernel a moment
    async with home(protocol) as (router, gateway):
        router.odd = lambda data: []
        begun = trio.current_time()
        assert await gateway.add(PORT, lease=3600) == Unknown(LATE, silent=True)
        assert trio.current_time() - begun == pytest.approx(10)
        # after 0, 0.25, 0.75, 1.75, 3.75 and 7.75 seconds
        assert len(router.asked) == 6
        assert await gateway.remove(PORT) is Removal.FAILED


@both
async def test_one_at_a_time(protocol: str, autojump_clock: trio.testing.MockClock) -> None:
    autojump_clock.autojump_threshold = 0.05
    async with home(protocol) as (router, gateway):
        router.odd = lambda data: []
        outcomes = []

        async def add(number: int) -> None:
            outcomes.append(await gateway.add(Port(Protocol.TCP, number), lease=60))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(add, 7000)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(add, 7001)
        # The first was asked, and the other's turn never came.
        assert set(outcomes) == {Unknown(LATE, silent=True), Ignored(LATE, silent=True)}
        assert len(router.asked) == 6


@both
async def test_86_lost_and_doubled_and_foreign_answers(
    protocol: str, autojump_clock: trio.testing.MockClock
) -> None:
    autojump_clock.autojump_threshold = 0.05
    async with home(protocol) as (router, gateway):

        def late(data: bytes) -> list[bytes] | None:
            if len(router.asked) < 3:
                return []
            usual = router.answer(data, HERE)
            assert usual is not None
            foreign = bytearray(usual)
            foreign[8 if protocol == "natpmp" else 40] ^= 1  # the port
            nonce = bytearray(usual)
            nonce[1] ^= 1  # the opcode
            return [b"", bytes(foreign), bytes(nonce), b"\x00\x82", usual, usual]

        router.odd = late
        begun = trio.current_time()
        assert await gateway.add(PORT, lease=3600) == Mapped(3600)
        assert 0.6 < trio.current_time() - begun < 1
        router.odd = None
        assert await gateway.remove(PORT) is Removal.GONE


@both
async def test_86_answers_from_elsewhere_are_not_heard(
    protocol: str, autojump_clock: trio.testing.MockClock
) -> None:
    """Not from another port of the router's, nor from another host."""
    autojump_clock.autojump_threshold = 0.05
    async with home(protocol) as (router, gateway):
        asked, spoken = trio.Event(), []

        def silent(data: bytes) -> list[bytes]:
            asked.set()
            return []

        with (
            trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as port,
            trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as stranger,
        ):
            await port.bind((ROUTER, 0))
            await stranger.bind((OTHER, 0))

            async def speak_up() -> None:
                await asked.wait()
                answer = router.answer(router.asked[0], HERE)
                assert answer is not None
                for sock in (port, stranger):
                    await sock.sendto(answer, router.sources[0])
                    spoken.append(sock)

            router.odd = silent
            async with trio.open_nursery() as nursery:
                nursery.start_soon(speak_up)
                assert await gateway.add(PORT, lease=3600) == Unknown(LATE, silent=True)
        assert len(spoken) == 2


@both
async def test_87_a_restart_is_seen_by_the_routers_clock(protocol: str) -> None:
    async with home(protocol) as (router, gateway):
        assert await gateway.add(PORT, lease=3600) == Mapped(3600)
        router.epoch += 1
        assert isinstance(await gateway.check(PORT), Mapped)
        router.epoch = 3
        lost = Ignored("the router was restarted, and may have lost the mapping")
        assert await gateway.check(PORT) == lost
        assert await gateway.add(PORT, lease=3600) == Mapped(3600)
        assert isinstance(await gateway.check(PORT), Mapped)


@both
async def test_87_a_restart_that_another_request_sees_counts_for_all(protocol: str) -> None:
    async with home(protocol) as (router, gateway):
        other = Port(Protocol.UDP, 6881)
        assert await gateway.add(PORT, lease=3600) == Mapped(3600)
        router.epoch = 3
        assert await gateway.add(other, lease=3600) == Mapped(3600)
        assert isinstance(await gateway.check(other), Mapped)
        assert isinstance(await gateway.check(PORT), Ignored)


@both
async def test_87_signs(protocol: str, autojump_clock: trio.testing.MockClock) -> None:
    autojump_clock.autojump_threshold = 0.05
    async with home(protocol) as (router, gateway):
        send, receive = trio.open_memory_channel[str](1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gateway.watch, send)
            await trio.sleep(100)
            assert router.asked == []  # there is nothing to lose
            assert await gateway.add(PORT, lease=3600) == Mapped(3600)
            router.epoch = 3
            begun = trio.current_time()
            assert await receive.receive() == "the router was restarted, by its clock"
            assert trio.current_time() - begun <= 10
            await trio.sleep(100)  # once
            with pytest.raises(trio.WouldBlock):
                receive.receive_nowait()
            nursery.cancel_scope.cancel()


@both
async def test_87_what_a_request_sees_is_a_sign_at_once(
    protocol: str, autojump_clock: trio.testing.MockClock
) -> None:
    autojump_clock.autojump_threshold = 0.05
    async with home(protocol) as (router, gateway):
        send, receive = trio.open_memory_channel[str](1)
        assert await gateway.add(PORT, lease=3600) == Mapped(3600)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gateway.watch, send)
            router.epoch = 3
            await gateway.add(PORT, lease=3600)
            begun = trio.current_time()
            await receive.receive()
            assert trio.current_time() - begun < 1
            receive.close()
            router.epoch = 1
            await gateway.look()  # nobody receives any more, and it ends


@both
async def test_88_announcements(
    protocol: str, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are hints to look at the clock, if they are the router's own, and not all the time."""
    autojump_clock.autojump_threshold = 0.05
    monkeypatch.setattr(pmp, "_EVERY", 1000.0)
    async with home(protocol) as (router, gateway):

        async def announce(sender: str) -> None:
            with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as sock:
                await sock.bind((sender, 0))
                lo = trio.socket.inet_aton("127.0.0.1")
                sock.setsockopt(trio.socket.IPPROTO_IP, trio.socket.IP_MULTICAST_IF, lo)
                await sock.sendto(b"whatever", ("224.0.0.1", 5350))

        send, receive = trio.open_memory_channel[str](1)
        assert await gateway.add(PORT, lease=3600) == Mapped(3600)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(gateway.watch, send, interface="lo"))
            await trio.testing.wait_all_tasks_blocked()  # it listens
            asked = len(router.asked)
            await announce(OTHER)
            await trio.sleep(20)
            assert len(router.asked) == asked
            for _ in range(20):
                await announce(ROUTER)
            await trio.sleep(6)
            assert len(router.asked) == asked + 1
            await announce(ROUTER)
            await trio.sleep(6)
            assert len(router.asked) == asked + 1
            router.epoch = 3
            begun = trio.current_time()
            await announce(ROUTER)
            assert await receive.receive() == "the router was restarted, by its clock"
            assert trio.current_time() - begun <= 6
            nursery.cancel_scope.cancel()


async def test_90_a_mapping_whose_time_is_over_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    async with home("natpmp") as (router, gateway):
        router.lifetime = 60
        assert await gateway.add(PORT, lease=3600) == Mapped(60)
        ahead = pmp._now() + 61
        monkeypatch.setattr(pmp, "_now", lambda: ahead)
        router.epoch += 61
        gone = await gateway.check(PORT)
        assert gone == Ignored("it is not known whether the router has the mapping")


async def test_no_way_to_the_router() -> None:
    gateway = speak("pcp", ROUTER, "192.0.2.7", secret=bytes)  # no address of ours
    outcome = await gateway.add(PORT, lease=60)
    assert isinstance(outcome, Ignored)
    assert outcome.silent
