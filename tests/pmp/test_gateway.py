"""The gateways against a router on loopback, whole: sockets, bytes, decisions.

Numbers are those of the scenarios of tests.gateway; there are more of these in test_scenarios_pmp.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from natsup.state.gateway import Gateway, host
from natsup.state.model import Ignored, Mapped, Port, Protocol, Removal, Unknown
from natsup.upnp.pmp import gateway as pmp
from natsup.upnp.pmp.answers import PORT as NUMBER
from natsup.upnp.pmp.answers import Refusal
from natsup.upnp.pmp.gateway import PmpGateway, speak
from tests.gateway import gateway as fake
from tests.gateway.gateway import HERE, ROUTER
from tests.gateway.house import open_pmp
from tests.gateway.quirks import Quirks

PORT = Port(Protocol.TCP, 6881)
ANOTHER = Ignored("the router gives another port than the one that was asked for")
LATE = "the router did not answer in time"
ALL = ("query", "map", "unmap")

both = pytest.mark.parametrize("protocol", ["natpmp", "pcp"])


@pytest.fixture(autouse=True)
def _one_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The router's clock and the host's are the one of the test."""
    monkeypatch.setattr(pmp, "_now", trio.current_time)


@asynccontextmanager
async def home(protocol: str, *speaks: str) -> AsyncIterator[tuple[fake.Gateway, PmpGateway]]:
    """A router whose clock tells 1000 s, and what speaks to it."""
    quirks = Quirks(speaks=speaks or ("natpmp", "pcp"), pmp_epoch=1000)
    async with fake.running(quirks) as router:
        yield router, open_pmp(router, protocol)


@both
async def test_add_renew_remove(protocol: str) -> None:
    async with home(protocol) as (router, pmp):
        gateway: Gateway = pmp
        assert await gateway.add(PORT, lease=3600) == Mapped(3600)
        assert router.holders == {"TCP 6881": HERE}
        assert await gateway.check(PORT) in (Mapped(3600), Mapped(3599))
        assert await gateway.add(PORT, lease=3600) == Mapped(3600)
        assert await gateway.external_address() == "11.22.33.1"
        assert await gateway.remove(PORT) is Removal.GONE
        assert router.holders == {}
        assert await gateway.remove(PORT) is Removal.GONE
        gone = await gateway.check(PORT)
        assert isinstance(gone, Ignored)
        assert not gone.silent
        assert (gateway.protocol, gateway.internal_address) == (protocol, HERE)
        assert gateway.location == f"{protocol}://{ROUTER}:{NUMBER}"
        assert host(gateway.location) == ROUTER
        assert {request.peer for request in router.log} == {HERE}


async def test_pcp_tells_the_address_before_anything_is_mapped() -> None:
    async with home("pcp") as (router, gateway):
        assert await gateway.external_address() == "11.22.33.1"
        assert router.holders == {}
        assert len(router.asked) == 2
        assert await gateway.external_address() == "11.22.33.1"
        assert len(router.asked) == 2


async def test_after_a_restart_the_address_may_be_another() -> None:
    async with home("pcp") as (router, gateway):
        assert await gateway.external_address() == "11.22.33.1"
        router.quirks.pmp_epoch, router.quirks.external = 3, "11.22.33.2"
        assert await gateway.look() is None
        assert await gateway.external_address() == "11.22.33.2"


@both
async def test_76_a_router_that_never_gives_what_is_asked_for(protocol: str) -> None:
    async with home(protocol) as (router, gateway):
        router.quirks.pmp_other_port = True
        for _ in range(2):
            assert await gateway.add(PORT, lease=3600) == ANOTHER
            assert router.holders == {}


async def test_82_a_restarted_natsup_still_owns_its_mappings() -> None:
    async with home("pcp") as (router, gateway):
        assert await gateway.add(PORT, lease=3600) == Mapped(3600)
        again = open_pmp(router, "pcp")
        assert await again.add(PORT, lease=3600) == Mapped(3600)
        stranger = open_pmp(router, "pcp", b"lost")
        assert await stranger.add(PORT, lease=3600) == Refusal.NOT_AUTHORIZED.outcome()
        assert await stranger.remove(PORT) is Removal.NOT_OURS
        assert await again.remove(PORT) is Removal.GONE
        assert router.holders == {}


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
        router.quirks.pmp_refuses = result
        assert await gateway.add(PORT, lease=3600) == refusal.outcome()


async def test_83_a_refusal_is_not_asked_again_while_it_holds() -> None:
    async with home("pcp") as (router, gateway):
        router.quirks.pmp_refuses = 8
        full = Refusal.RESOURCES.outcome()
        assert await gateway.add(PORT, lease=3600) == full
        router.quirks.pmp_refuses, asked = 0, len(router.asked)
        assert await gateway.add(PORT, lease=3600) == full
        assert len(router.asked) == asked
        assert await gateway.add(Port(Protocol.UDP, 6881), lease=3600) == Mapped(3600)


async def test_83_what_was_refused_for_want_of_room_is_asked_again_once_there_is_some() -> None:
    async with home("pcp") as (router, gateway):
        other = Port(Protocol.UDP, 6881)
        assert await gateway.add(other, lease=3600) == Mapped(3600)
        router.quirks.pmp_refuses = 8
        assert await gateway.add(PORT, lease=3600) == Refusal.RESOURCES.outcome()
        router.quirks.pmp_refuses = 0
        assert await gateway.remove(other) is Removal.GONE
        assert await gateway.add(PORT, lease=3600) == Mapped(3600)


async def test_83_a_refusal_that_does_not_say_for_how_long_is_asked_again() -> None:
    async with home("pcp") as (router, gateway):
        router.quirks.pmp_refuses, router.quirks.pcp_error_lifetime = 8, 0
        assert await gateway.add(PORT, lease=3600) == Refusal.RESOURCES.outcome()
        router.quirks.pmp_refuses = 0
        assert await gateway.add(PORT, lease=3600) == Mapped(3600)


@both
async def test_probing(protocol: str) -> None:
    async with home(protocol) as (_, gateway):
        assert await gateway.probe(10) is None


@pytest.mark.parametrize("length", [4, 8, 12])
async def test_84_a_router_that_speaks_natpmp_alone(length: int) -> None:
    async with home("pcp", "natpmp") as (router, gateway):
        router.quirks.pmp_downgrade = length
        assert await gateway.probe(10) == "the router does not speak PCP"


async def test_84_versions() -> None:
    async with home("pcp") as (router, _):
        router.quirks.speaks = ("natpmp",)
        assert await open_pmp(router, "natpmp").probe(10) is None
        assert await open_pmp(router, "pcp").probe(10) == "the router does not speak PCP"
        router.quirks.speaks = ("pcp",)
        assert await open_pmp(router, "pcp").probe(10) is None
        # Of another version in the answer to NAT-PMP, nothing is NAT-PMP's.
        assert (
            await open_pmp(router, "natpmp").probe(0.1) == "the router does not answer to NAT-PMP"
        )


async def test_natpmp_that_is_switched_off() -> None:
    async with home("natpmp") as (router, gateway):
        router.quirks.pmp_off = 2
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
        router.quirks.pmp_mute = ALL
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
        router.quirks.pmp_mute = ALL
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
async def test_87_a_restart_is_seen_by_the_routers_clock(protocol: str) -> None:
    async with home(protocol) as (router, gateway):
        assert await gateway.add(PORT, lease=3600) == Mapped(3600)
        router.quirks.pmp_epoch += 1
        assert isinstance(await gateway.check(PORT), Mapped)
        router.quirks.pmp_epoch = 3
        lost = Ignored("the router was restarted, and may have lost the mapping")
        assert await gateway.check(PORT) == lost
        assert await gateway.add(PORT, lease=3600) == Mapped(3600)
        assert isinstance(await gateway.check(PORT), Mapped)


@both
async def test_87_a_restart_that_another_request_sees_counts_for_all(protocol: str) -> None:
    async with home(protocol) as (router, gateway):
        other = Port(Protocol.UDP, 6881)
        assert await gateway.add(PORT, lease=3600) == Mapped(3600)
        router.quirks.pmp_epoch = 3
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
            router.quirks.pmp_epoch = 3
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
            router.quirks.pmp_epoch = 500
            await gateway.add(PORT, lease=3600)
            begun = trio.current_time()
            await receive.receive()
            assert trio.current_time() - begun < 1
            receive.close()
            router.quirks.pmp_epoch = 3
            await gateway.look()  # nobody receives any more, and it ends


async def test_90_a_mapping_whose_time_is_over_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    async with home("natpmp") as (router, gateway):
        router.quirks.pmp_lifetime = 60
        assert await gateway.add(PORT, lease=3600) == Mapped(60)
        ahead = pmp._now() + 61
        monkeypatch.setattr(pmp, "_now", lambda: ahead)
        router.quirks.pmp_epoch += 61
        gone = await gateway.check(PORT)
        assert gone == Ignored("it is not known whether the router has the mapping")


async def test_no_way_to_the_router() -> None:
    gateway = speak("pcp", ROUTER, "192.0.2.7", secret=bytes)  # no address of ours
    outcome = await gateway.add(PORT, lease=60)
    assert isinstance(outcome, Ignored)
    assert outcome.silent
