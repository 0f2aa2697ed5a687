"""Which protocol a router is spoken to by: one that speaks all of them, on loopback."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from natsup.state.gateway import Gateway
from natsup.upnp import choosing, discovery, trust
from natsup.upnp.choosing import Speakers, find, reopen
from natsup.upnp.network import Network, NoGateway
from natsup.upnp.pmp.answers import PORT
from tests.gateway import gateway as fake
from tests.gateway.gateway import HERE, ROUTER
from tests.gateway.quirks import Quirks

NETWORK = Network("lo", ROUTER, HERE)


class World:
    """``upnp_after``: seconds until the search for UPnP finds a description; None: it does not."""

    def __init__(self, router: fake.Gateway) -> None:
        self.router = router
        self.quirks = router.quirks
        self.upnp_after: float | None = 0.0
        self.speakers = Speakers(lambda: b"secret")

    async def search(
        self, net: Network, found: "trio.MemorySendChannel[trust.Url]", seconds: float
    ) -> None:
        with found:
            if self.upnp_after is None:
                await trio.sleep(seconds)
                return
            await trio.sleep(self.upnp_after)
            found.send_nowait(trust.read(self.router.url))

    async def find(self, **more: object) -> Gateway | NoGateway:
        with trio.fail_after(60):
            return await find(NETWORK, self.speakers, **more)  # type: ignore[arg-type]

    async def protocol(self, **more: object) -> str:
        found = await self.find(**more)
        assert not isinstance(found, NoGateway), found.reason
        return found.protocol


@pytest.fixture
async def world(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> AsyncIterator[World]:
    autojump_clock.autojump_threshold = 0.05  # sockets are real: leave the kernel a moment
    async with _world(monkeypatch) as made:
        yield made


@asynccontextmanager
async def _world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    async with fake.running(Quirks(speaks=("upnp", "pcp", "natpmp"))) as router:
        made = World(router)
        monkeypatch.setattr(discovery, "_search", made.search)
        yield made


async def test_upnp_is_preferred(world: World) -> None:
    assert await world.protocol() == "upnp"


async def test_upnp_is_preferred_if_it_answers_a_little_later(world: World) -> None:
    world.upnp_after = 0.8
    assert await world.protocol() == "upnp"


async def test_upnp_that_takes_its_time_to_describe_itself_is_preferred(world: World) -> None:
    world.quirks.late["GET"] = 3.0
    assert await world.protocol() == "upnp"


async def test_upnp_that_does_not_answer_is_not_waited_for_long(world: World) -> None:
    """72."""
    world.upnp_after = None
    begun = trio.current_time()
    assert await world.protocol(seconds=10.0) == "pcp"
    assert trio.current_time() - begun < 1.5


async def test_upnp_that_cannot_be_used_is_not_waited_for(world: World) -> None:
    world.router.documents["/d.xml"] = "nonsense"
    world.upnp_after = 0.0
    assert await world.protocol() == "pcp"


async def test_a_router_that_speaks_natpmp_alone(world: World) -> None:
    """84: it says so in answer to PCP."""
    world.upnp_after = None
    world.quirks.speaks = ("natpmp",)
    assert await world.protocol() == "natpmp"


@pytest.mark.parametrize(
    ("protocols", "chosen"),
    [
        (("natpmp", "upnp"), "natpmp"),
        (("pcp", "natpmp", "upnp"), "pcp"),
        (("natpmp", "pcp"), "natpmp"),
        (("upnp",), "upnp"),
    ],
)
async def test_the_user_has_the_last_word(
    world: World, protocols: tuple[str, ...], chosen: str
) -> None:
    assert await world.protocol(protocols=protocols) == chosen


async def test_what_was_chosen_before_is_taken_at_once(world: World) -> None:
    world.upnp_after = None
    begun = trio.current_time()
    assert await world.protocol(prefer="natpmp") == "natpmp"
    assert trio.current_time() - begun < 0.5
    assert await world.protocol(prefer="natpmp", protocols=("pcp",)) == "pcp"
    world.upnp_after = 0.5
    assert await world.protocol(prefer="upnp", protocols=("pcp", "upnp")) == "upnp"


async def test_what_is_not_asked_for_is_not_asked(world: World) -> None:
    assert await world.protocol(protocols=("upnp",)) == "upnp"
    assert [str(one) for one in world.router.log] == ["GET /d.xml"]
    world.router.log.clear()
    assert await world.protocol(protocols=("pcp", "natpmp")) == "pcp"
    assert set(world.router.asked) == {"pcp query", "natpmp query"}
    assert all(one.action != "GET" for one in world.router.log)


@pytest.mark.parametrize(
    ("protocols", "named"),
    [
        (("upnp",), "UPnP"),
        (("pcp",), "PCP"),
        (("upnp", "pcp", "natpmp"), "UPnP, PCP or NAT-PMP"),
    ],
)
async def test_nobody_answers(world: World, protocols: tuple[str, ...], named: str) -> None:
    world.upnp_after = None
    world.quirks.pmp_mute = ("query",)
    assert await world.find(protocols=protocols) == NoGateway(
        f"the router at {ROUTER} does not answer to {named}; is it switched on there?"
    )


async def test_natpmp_that_is_switched_off_is_what_is_said(world: World) -> None:
    world.upnp_after = None
    world.quirks.speaks, world.quirks.pmp_off = ("natpmp",), 2
    found = await world.find()
    assert isinstance(found, NoGateway)
    assert found.reason.startswith("the router has switched off NAT-PMP")


async def test_what_is_wrong_with_upnp_is_what_is_said(world: World) -> None:
    world.router.documents["/d.xml"] = "nonsense"
    world.quirks.pmp_mute = ("query",)
    found = await world.find()
    assert isinstance(found, NoGateway)
    assert "does not answer" not in found.reason


async def test_what_was_learned_is_kept_for_the_next_search(world: World) -> None:
    first = await world.find(protocols=("pcp",))
    assert await world.find(protocols=("pcp",)) is first


async def test_reopening(world: World) -> None:
    """What was made by one protocol is removed by it."""
    for protocols in (("upnp",), ("pcp",), ("natpmp",)):
        found = await world.find(protocols=protocols)
        assert not isinstance(found, NoGateway)
        again = await reopen(found.location, NETWORK, Speakers(lambda: b"secret"))
        assert again is not None
        assert (again.protocol, again.location) == (protocols[0], found.location)
    for elsewhere in (
        "http://127.0.0.9:1/d.xml",
        "ftp://x",
        f"pcp://127.0.0.9:{PORT}",
        world.router.url.replace("d.xml", "old.xml"),
    ):
        assert await reopen(elsewhere, NETWORK, world.speakers) is None
    world.quirks.pmp_mute = ("query",)
    assert await reopen(f"pcp://{ROUTER}:{PORT}", NETWORK, world.speakers) is None


def test_the_order_by_default() -> None:
    assert choosing.PROTOCOLS == ("upnp", "pcp", "natpmp")
