"""Scenarios of finding a router, reading its description and choosing its service.

On loopback: the search is the real one, to a gateway of one address and a group that an impostor
hears as well.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from natsup.state.model import Mapped, Outcome, Port, Protocol
from natsup.upnp.discovery import find_gateway
from natsup.upnp.igd import Igd
from natsup.upnp.network import Network, NoGateway
from tests.gateway.gateway import DESCRIPTIONS, HERE, IMPOSTOR, ROUTER, Gateway, running
from tests.gateway.house import trust_loopback
from tests.gateway.quirks import Quirks

NETWORK = Network("lo", ROUTER, HERE)
PORT = Port(Protocol.TCP, 6881)
PLAIN = (DESCRIPTIONS / "plain.xml").read_text()


@pytest.fixture(autouse=True)
def _on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    trust_loopback(monkeypatch)


@asynccontextmanager
async def searched(
    clock: MockClock, quirks: Quirks | None = None, **documents: str | bytes
) -> AsyncIterator[Gateway]:
    """``d``: its description; others are at paths of their names."""
    clock.autojump_threshold = 0.01  # sockets are real: leave the kernel a moment
    async with running(quirks) as gateway:
        for name, document in documents.items():
            gateway.documents[f"/{name}.xml"] = document
        yield gateway


async def found(seconds: float = 2.0) -> Igd | NoGateway:
    return await find_gateway(NETWORK, seconds=seconds)


async def added(seconds: float = 2.0) -> Outcome | str:
    """What becomes of the first port; or why there is no gateway."""
    igd = await found(seconds)
    return igd.reason if isinstance(igd, NoGateway) else await igd.add(PORT, lease=3600)


def control(path: str, base: str = "") -> str:
    return PLAIN.replace("<controlURL>/ctl<", f"{base}<controlURL>{path}<")


# --- 46 to 57: descriptions ---


@pytest.mark.parametrize(
    ("path", "base", "asked"),
    [
        ("ctl/x", "", "/ctl/x"),
        ("/ctl/x", "", "/ctl/x"),
        ("http://{host}/ctl/x", "", "/ctl/x"),
        ("ctl", "http://{host}/folder/", "/folder/ctl"),
        ("/ctl", "http://192.168.1.9/", "/ctl"),
    ],
)
async def test_46_wherever_the_control_url_leads_on_the_same_host(
    path: str, base: str, asked: str, autojump_clock: MockClock
) -> None:
    async with searched(autojump_clock) as gateway:
        host = f"{ROUTER}:{gateway.port}"
        text = control(path.format(host=host))
        if base:
            urlbase = f"<URLBase>{base.format(host=host)}</URLBase><device>"
            text = text.replace("<device>", urlbase, 1)
        gateway.documents["/d.xml"] = text
        assert await added() == Mapped(3600)
        assert {request.path for request in gateway.log} == {"/d.xml", asked}


async def test_46_the_control_url_is_on_another_port(autojump_clock: MockClock) -> None:
    async with searched(autojump_clock) as gateway, trio.open_nursery() as nursery:
        other = Gateway(ROUTER)
        await nursery.start(other.serve)
        other.quirks.unicast = other.quirks.multicast = False
        gateway.documents["/d.xml"] = control(f"http://{ROUTER}:{other.port}/ctl")
        assert await added() == Mapped(3600)
        assert (gateway.asked, other.asked) == ([], ["look", "add 3600"])
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "where",
    [
        "http://{impostor}/ctl",
        "http://127.0.0.1:{port}/ctl",
        "file:///etc/passwd",
        "https://{router}/ctl",
        "http://user@{router}/ctl",
        "http://{router}:0/ctl",
        "//{impostor}/ctl",
    ],
)
async def test_47_a_control_url_that_leads_elsewhere_is_not_followed(
    where: str, autojump_clock: MockClock
) -> None:
    async with searched(autojump_clock) as gateway, running(address=IMPOSTOR) as impostor:
        impostor.quirks.multicast = False
        hosts = {"impostor": f"{IMPOSTOR}:{impostor.port}", "router": f"{ROUTER}:{gateway.port}"}
        gateway.documents["/d.xml"] = control(where.format(port=impostor.port, **hosts))
        assert "names no service" in str(await added())
        assert impostor.connections == 0
        assert [str(request) for request in gateway.log] == ["GET /d.xml"]


@pytest.mark.parametrize("framing", ["huge", "long header"])
async def test_50_a_description_without_end_is_left(
    framing: str, autojump_clock: MockClock
) -> None:
    async with searched(autojump_clock, Quirks(framing=framing)) as gateway:
        assert isinstance(await found(), NoGateway)
        assert len(gateway.log) == 1


READABLE = {
    "byte order mark": b"\xef\xbb\xbf" + PLAIN.encode(),
    "latin-1": PLAIN.replace("a fake gateway", "Rüter").encode("latin-1"),
    "ampersand": PLAIN.replace("a fake gateway", "Modem & Router").encode(),
    "new line first": b"\r\n\r\n" + PLAIN.encode(),
    "NUL last": PLAIN.encode() + b"\0",
    "cut off": PLAIN[: PLAIN.index("</serviceList>")].encode(),
    "empty icon": PLAIN.replace(
        "<UDN>", "<iconList><icon><width/></icon></iconList><UDN>"
    ).encode(),
}
UNREADABLE = {
    "entity bomb": (DESCRIPTIONS / "entity-bomb.xml").read_bytes(),
    "DTD": PLAIN.replace("<root", "<!DOCTYPE root><root", 1).encode(),
    "UTF-16": PLAIN.encode("utf-16"),
    "deep": b"<root>" + b"<a>" * 50_000,
    "nothing": b"",
    "zeros": b"\0" * 1000,
    "a page": b"<html><body>Please log in</body></html>",
}


@pytest.mark.parametrize("name", READABLE)
async def test_51_and_52_a_description_that_is_read_all_the_same(
    name: str, autojump_clock: MockClock
) -> None:
    async with searched(autojump_clock, d=READABLE[name]):
        assert await added() == Mapped(3600)


@pytest.mark.parametrize("name", UNREADABLE)
async def test_51_a_description_that_is_refused(name: str, autojump_clock: MockClock) -> None:
    async with searched(autojump_clock, d=UNREADABLE[name]) as gateway:
        assert isinstance(await found(), NoGateway)
        assert gateway.asked == []


async def test_55_a_description_is_not_looked_for_elsewhere(autojump_clock: MockClock) -> None:
    async with searched(autojump_clock) as gateway, running(address=IMPOSTOR) as impostor:
        impostor.quirks.multicast = False
        gateway.quirks.redirect = impostor.url
        assert isinstance(await found(), NoGateway)
        assert impostor.connections == 0


async def test_56_service_descriptions_are_never_fetched(autojump_clock: MockClock) -> None:
    """They are often missing or broken; this one is not there."""
    async with searched(autojump_clock) as gateway:
        assert await added() == Mapped(3600)
        assert [str(request) for request in gateway.log] == ["GET /d.xml", "look", "add 3600"]


# --- 61 to 71: the search and the choice ---


@pytest.mark.parametrize(
    "quirks",
    [
        Quirks(multicast=False),
        Quirks(unicast=False),
        Quirks(other_port=True),
        Quirks(targets=("upnp:rootdevice",)),
        Quirks(targets=("urn:schemas-upnp-org:service:WANPPPConnection:1",)),
        Quirks(search_late=1.5),
    ],
    ids=["unicast only", "multicast only", "another port", "root device", "PPP", "late"],
)
async def test_61_a_router_that_answers_in_one_way_alone(
    quirks: Quirks, autojump_clock: MockClock
) -> None:
    async with searched(autojump_clock, quirks):
        assert await added() == Mapped(3600)


@pytest.mark.parametrize(
    "quirks",
    [
        Quirks(status_line="HTTP/1.0 200 OK"),
        Quirks(status_line="HTTP/1.1 200 Ok"),
        Quirks(status_line="HTTP/1.1 200"),
        Quirks(more_lines=("no colon", "SERVER: ", "User-Agent: redsonic", " folded: x")),
        Quirks(more_lines=("SERVER: R\xfcter\0", "X : y")),
    ],
    ids=["1.0", "Ok", "no reason", "broken lines", "bytes"],
)
async def test_62_an_answer_of_few_manners_is_read(
    quirks: Quirks, autojump_clock: MockClock
) -> None:
    async with searched(autojump_clock, quirks):
        assert await added() == Mapped(3600)


async def test_62_an_answer_with_two_locations_says_nothing(autojump_clock: MockClock) -> None:
    quirks = Quirks(more_lines=(f"LOCATION: http://{ROUTER}:1/x.xml",))
    async with searched(autojump_clock, quirks) as gateway:
        assert "does not answer" in str(await added())
        assert gateway.log == []


@pytest.mark.parametrize(
    "location",
    [
        "http://{impostor}/d.xml",
        "http://127.0.0.1:{port}/d.xml",
        "http://[::1]:{port}/d.xml",
        "https://{router}/d.xml",
        "http://router.local:{port}/d.xml",
        "http://{host}:0/d.xml",
        "http://user@{router}/d.xml",
        "file:///etc/passwd",
        "http://0.0.0.0:{port}/d.xml",
    ],
)
async def test_63_a_location_that_is_not_the_router_s_is_not_followed(
    location: str, autojump_clock: MockClock
) -> None:
    async with searched(autojump_clock) as gateway, running(address=IMPOSTOR) as impostor:
        impostor.quirks.multicast = False
        hosts = {"impostor": f"{IMPOSTOR}:{impostor.port}", "router": f"{ROUTER}:{gateway.port}"}
        gateway.quirks.location = location.format(host=ROUTER, port=gateway.port, **hosts)
        assert "does not answer" in str(await added())
        assert (gateway.connections, impostor.connections) == (0, 0)


async def test_64_the_same_answer_a_hundred_times_is_one(autojump_clock: MockClock) -> None:
    async with searched(autojump_clock, Quirks(times=100)) as gateway:
        assert await added() == Mapped(3600)
        assert gateway.connections == 2  # the description, and the port


async def test_64_a_hundred_who_answer_are_nobody(autojump_clock: MockClock) -> None:
    """Not even one of them is asked for anything."""
    async with (
        searched(autojump_clock, Quirks(search_late=1.0)) as gateway,
        running(Quirks(times=100), address=IMPOSTOR) as impostor,
    ):
        assert await added() == Mapped(3600)
        assert impostor.searches
        assert impostor.connections == 0
        assert gateway.connections == 2


async def test_22_and_65_the_gateway_s_own_answer_counts_though_another_is_quicker(
    autojump_clock: MockClock,
) -> None:
    """The other one would have it that every port is taken."""
    async with searched(autojump_clock, Quirks(search_late=1.0)) as gateway:
        theirs = Quirks(faults={"AddPortMapping": 718, "GetSpecificPortMappingEntry": 401})
        async with running(theirs, address=IMPOSTOR) as impostor:
            assert await added() == Mapped(3600)
            assert impostor.connections == 0
            assert gateway.asked == ["look", "add 3600"]


async def test_66_a_router_that_is_not_the_gateway_is_not_used(autojump_clock: MockClock) -> None:
    autojump_clock.autojump_threshold = 0.01
    async with running(address=IMPOSTOR) as impostor:
        assert "does not answer" in str(await added())
        assert impostor.searches
        assert impostor.connections == 0


@pytest.mark.parametrize(
    ("name", "quirks", "path"),
    [
        ("ip-and-ppp", Quirks(connected={"/ip": "Disconnected"}), "/ppp"),
        ("ip-and-ppp", Quirks(connected={"/ppp": "Disconnected"}), "/ip"),
        ("ip-and-ppp", Quirks(), "/ip"),
        ("ip-and-ppp", Quirks(externals={"/ip": "0.0.0.0"}), "/ppp"),
        ("ip-and-ppp", Quirks(externals={"/ip": "10.0.0.1"}), "/ppp"),
    ],
)
async def test_67_the_service_that_is_connected_is_used(
    name: str, quirks: Quirks, path: str, autojump_clock: MockClock
) -> None:
    text = (DESCRIPTIONS / f"{name}.xml").read_text()
    async with searched(autojump_clock, quirks, d=text) as gateway:
        assert await added() == Mapped(3600)
        assert gateway.log[-1].path == path


async def test_68_disconnected_is_no_veto(autojump_clock: MockClock) -> None:
    text = (DESCRIPTIONS / "ip-and-ppp.xml").read_text()
    quirks = Quirks(connected={"/ip": "Disconnected", "/ppp": "Disconnected"})
    async with searched(autojump_clock, quirks, d=text):
        assert await added() == Mapped(3600)


@pytest.mark.parametrize("chosen", ["1", "2"])
async def test_69_of_two_devices_of_one_type_the_connected_one(
    chosen: str, autojump_clock: MockClock
) -> None:
    other = "/wan/1" if chosen == "2" else "/wan/2"
    text = (DESCRIPTIONS / "two-wan-devices.xml").read_text()
    quirks = Quirks(connected={other: "Disconnected"}, externals={other: "0.0.0.0"})
    async with searched(autojump_clock, quirks, d=text) as gateway:
        assert await added() == Mapped(3600)
        assert gateway.log[-1].path == f"/wan/{chosen}"


@pytest.mark.parametrize("name", ["ppp-only", "dsl-forum", "version-2-with-old-service"])
async def test_70_services_of_other_kinds(name: str, autojump_clock: MockClock) -> None:
    """And each is addressed by the very type that its description gives it."""
    text = (DESCRIPTIONS / f"{name}.xml").read_text()
    async with searched(autojump_clock, d=text) as gateway:
        gateway.quirks.exact_service = text.split("<serviceType>")[1].split("<")[0]
        assert await added() == Mapped(3600)


async def test_70_two_descriptions_of_one_router(autojump_clock: MockClock) -> None:
    """One for each version, of which one is of no use."""
    async with searched(autojump_clock, d="<root/>", v2=PLAIN) as gateway, trio.open_nursery() as n:
        second = Quirks(location=gateway.url.replace("d.xml", "v2.xml"), search_late=0.2)
        other = Gateway(ROUTER, second)
        await n.start(other.serve)
        assert await added() == Mapped(3600)
        assert "GET /v2.xml" in [str(request) for request in gateway.log]
        n.cancel_scope.cancel()


async def test_71_an_answer_twenty_seconds_after_the_search(autojump_clock: MockClock) -> None:
    """The first search is over by then, but not those that follow (see test_finding)."""
    async with searched(autojump_clock, Quirks(search_late=20.0)) as gateway:
        assert isinstance(await found(seconds=2), NoGateway)
        searches = len(gateway.searches)
        assert await added(seconds=25) == Mapped(3600)
        assert len(gateway.searches) - searches <= 8 * 12  # rounds, each to one and to all
