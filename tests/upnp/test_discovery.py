"""Which route is taken, and what becomes of a description at a given URL.

The search itself needs a network of its own: tests/lab has one with a real router.
"""

import sys

import pytest
import trio

from natsup.upnp import discovery, network
from natsup.upnp.discovery import NoGateway, find_gateway
from natsup.upnp.igd import Igd
from natsup.upnp.network import NoNetwork, Route, choose
from tests.upnp import fake
from tests.upnp.fake import HERE, KIND, document

PPP = "urn:schemas-upnp-org:service:WANPPPConnection:1"
ETHERNET = Route("eth0", "192.168.1.1", 100)
WIRELESS = Route("wlan0", "192.168.2.1", 600)
TUNNEL = Route("tun0", "", 0)


class TestChoice:
    @pytest.mark.parametrize(
        ("routes", "interface", "chosen"),
        [
            ([WIRELESS, ETHERNET], None, ETHERNET),
            ([WIRELESS, ETHERNET], "wlan0", WIRELESS),
            ([TUNNEL, WIRELESS, ETHERNET], None, ETHERNET),
        ],
    )
    def test_chosen(self, routes: list[Route], interface: str | None, chosen: Route) -> None:
        assert choose(routes, interface) == chosen

    @pytest.mark.parametrize(
        ("routes", "interface"),
        [([], None), ([TUNNEL], None), ([ETHERNET], "wlan0"), ([TUNNEL, ETHERNET], "tun0")],
    )
    def test_none(self, routes: list[Route], interface: str | None) -> None:
        found = choose(routes, interface)
        assert isinstance(found, NoNetwork)
        assert found.reason


def here(found: "Igd | NoGateway") -> Igd:
    assert isinstance(found, Igd), found
    return found


@pytest.fixture(autouse=True)
def _from_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback has addresses enough: give host and router one each."""
    monkeypatch.setattr(discovery, "address_towards", lambda host: HERE)


async def test_a_description_at_a_url() -> None:
    async with fake.running() as router:
        router.documents["/d.xml"] = document((KIND, "/ctl"))
        igd = here(await find_gateway(url=router.url, seconds=10))
        assert igd.internal_address == HERE
        assert igd.location == router.url
        assert router.actions == ["GET"]


async def test_of_two_services_the_connected_one() -> None:
    async with fake.running() as router:
        router.documents["/d.xml"] = document((KIND, "/ip"), (PPP, "/ppp"))

        def state(request: fake.Request) -> bytes:
            up = "Connected" if request.path == "/ppp" else "Disconnected"
            return fake.success("GetStatusInfo", NewConnectionStatus=up)

        router.odd["GetStatusInfo"] = state
        igd = here(await find_gateway(url=router.url, seconds=10))
        assert igd._service.service_type == PPP


@pytest.mark.parametrize("body", ["", "<html/>", document(), "<!DOCTYPE x><root/>"])
async def test_a_description_of_no_use(body: str) -> None:
    async with fake.running() as router:
        router.documents["/d.xml"] = body
        assert isinstance(await find_gateway(url=router.url, seconds=10), NoGateway)


async def test_no_description() -> None:
    async with fake.running() as router:
        found = await find_gateway(url=router.url, seconds=10)
        assert isinstance(found, NoGateway)
        assert "404" in found.reason


async def test_no_router() -> None:
    with trio.socket.socket() as free:
        await free.bind((fake.ROUTER, 0))
        url = f"http://{fake.ROUTER}:{free.getsockname()[1]}/"
        assert isinstance(await find_gateway(url=url, seconds=10), NoGateway)


@pytest.mark.parametrize("url", ["https://127.0.0.1/", "http://router.lan/", "", "\x1b[2J"])
async def test_urls_that_are_not_followed(url: str) -> None:
    found = await find_gateway(url=url, seconds=10)
    assert isinstance(found, NoGateway)
    assert found.reason.isprintable()


async def test_an_address_that_went_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """No host has an address in 240.0.0.0/4 (RFC 1112, section 4): nothing can be sent from it."""

    async def look(interface: str | None) -> network.Network:
        return network.Network("lo", "127.0.0.1", "240.0.0.1")

    monkeypatch.setattr(discovery, "look", look)
    assert isinstance(await find_gateway(seconds=0.2), NoGateway)


async def test_an_interface_that_does_not_exist() -> None:
    found = await find_gateway(interface="nsu-none", seconds=10)
    assert isinstance(found, NoGateway)
    assert "nsu-none" in found.reason


async def test_looking_at_the_network_raises_nothing() -> None:
    assert isinstance(await network.look(), network.Network | NoNetwork)


async def test_what_is_imported_before_there_is_a_router() -> None:
    """The library and pyroute2 are slow to import: half a second before a program's first bind."""
    code = (
        "import sys, natsup.upnp.discovery, natsup.upnp.description, natsup.upnp.adding\n"
        "slow = {'aiohttp', 'async_upnp_client', 'pyroute2', 'defusedxml'}\n"
        "sys.exit(bool(slow & set(sys.modules)))"
    )
    assert (await trio.run_process([sys.executable, "-c", code], check=False)).returncode == 0
