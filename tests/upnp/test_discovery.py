"""Which route is taken, whose answer is believed, and what becomes of a description.

tests/lab has a network with a real router, where all of it comes together.
"""

import sys
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from natsup.state.model import Ignored, Port, Protocol
from natsup.upnp import discovery, network, ssdp, trust
from natsup.upnp.discovery import find_gateway, network_of
from natsup.upnp.igd import Igd
from natsup.upnp.network import NoGateway, Route, choose
from tests.lab.lab import LAN1, ROUTER, WAN, Lab
from tests.upnp import fake
from tests.upnp.fake import HERE, KIND, document

PPP = "urn:schemas-upnp-org:service:WANPPPConnection:1"
ETHERNET = Route("eth0", "192.168.1.1", 100)
WIRELESS = Route("wlan0", "192.168.2.1", 600)
TUNNEL = Route("tun0", "", 0)
VPN = Route("tun1", "10.8.0.1", 0, tunnel=True)


class TestChoice:
    @pytest.mark.parametrize(
        ("routes", "interface", "chosen"),
        [
            ([WIRELESS, ETHERNET], None, ETHERNET),
            ([WIRELESS, ETHERNET], "wlan0", WIRELESS),
            ([TUNNEL, WIRELESS, ETHERNET], None, ETHERNET),
            ([VPN, WIRELESS, ETHERNET], None, ETHERNET),
            ([VPN, ETHERNET], "tun1", VPN),
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
        assert isinstance(found, NoGateway)
        assert found.reason

    def test_behind_a_vpn_is_no_router_at_home(self) -> None:
        found = choose([VPN], None)
        assert isinstance(found, NoGateway)
        assert "--interface tun1" in found.reason


def here(found: "Igd | NoGateway") -> Igd:
    assert isinstance(found, Igd), found
    return found


async def find(
    *,
    interface: str | None = None,
    url: str | None = None,
    known: str | None = None,
    seconds: float = 2.0,
) -> Igd | NoGateway:
    found = await network_of(interface=interface, url=url)
    if isinstance(found, NoGateway):
        return found
    return await find_gateway(found, url=url, known=known, seconds=seconds)


@pytest.fixture(autouse=True)
def _from_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback has addresses enough: give host and router one each."""

    async def towards(host: str, interface: str | None) -> network.Network:
        return network.Network("lo", host, HERE, own=frozenset({HERE, fake.OTHER}))

    monkeypatch.setattr(discovery, "towards", towards)


async def test_a_description_at_a_url() -> None:
    async with fake.running() as router:
        router.documents["/d.xml"] = document((KIND, "/ctl"))
        igd = here(await find(url=router.url, seconds=10))
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
        igd = here(await find(url=router.url, seconds=10))
        assert igd._service.service_type == PPP


async def test_all_addresses_of_this_host_are_known() -> None:
    async with fake.running() as router:
        router.documents["/d.xml"] = document((KIND, "/ctl"))
        router.table["TCP", 6881] = fake.Entry(fake.OTHER, "6881")
        igd = here(await find(url=router.url))
        assert isinstance(await igd.add(Port(Protocol.TCP, 6881), lease=3600), Ignored)
        assert not router.counted["AddPortMapping"]


class Finding:
    """Makes the search find descriptions at these paths at once, and go on to its end."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, clock: trio.testing.MockClock) -> None:
        clock.autojump_threshold = 0.05  # sockets are real: leave the kernel a moment
        self._patch = monkeypatch.setattr

    def __call__(self, router: fake.Router, *paths: str) -> None:
        async def look(interface: str | None) -> network.Network:
            return network.Network("lo", fake.ROUTER, HERE)

        async def search(
            net: network.Network, found: trio.MemorySendChannel[trust.Url], seconds: float
        ) -> None:
            async with found:
                for path in paths:
                    await found.send(trust.Url(fake.ROUTER, router.port, path))
                await trio.sleep(seconds)

        self._patch(discovery, "look", look)
        self._patch(discovery, "_search", search)


@pytest.fixture
def finding(monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock) -> Finding:
    return Finding(monkeypatch, autojump_clock)


async def test_a_description_has_patience_of_its_own(
    finding: Finding, autojump_clock: trio.testing.MockClock
) -> None:
    async with fake.running() as router:
        finding(router, "/d.xml")
        router.documents["/d.xml"] = document((KIND, "/ctl"))
        router.late["/d.xml"] = 8
        assert here(await find(seconds=0.5)).location == router.url


async def test_a_description_that_never_comes(
    finding: Finding, autojump_clock: trio.testing.MockClock
) -> None:
    async with fake.running() as router:
        finding(router, "/d.xml")
        router.odd["GET"] = lambda request: fake.SILENCE
        found = await find(seconds=0.5)
        assert found == NoGateway("the router did not answer in time")
        assert 9 < autojump_clock.current_time() < 15


@pytest.mark.parametrize("action", ["GetStatusInfo", "GetExternalIPAddress"])
async def test_a_condition_is_no_veto(
    action: str, finding: Finding, autojump_clock: trio.testing.MockClock
) -> None:
    async with fake.running() as router:
        finding(router, "/d.xml")
        router.documents["/d.xml"] = document((KIND, "/ip"), (PPP, "/ppp"))
        router.odd[action] = lambda request: fake.SILENCE
        igd = here(await find(seconds=0.5))
        assert igd._service.service_type == KIND
        assert autojump_clock.current_time() < 4


async def test_a_silent_service_does_not_hide_another_s_condition(
    finding: Finding, autojump_clock: trio.testing.MockClock
) -> None:
    async with fake.running() as router:
        finding(router, "/d.xml")
        router.documents["/d.xml"] = document((KIND, "/ip"), (PPP, "/ppp"))
        router.late["/ip"] = 1000
        igd = here(await find(seconds=0.5))
        assert igd._service.service_type == PPP


async def test_another_description_is_tried_while_one_is_slow(
    finding: Finding, autojump_clock: trio.testing.MockClock
) -> None:
    async with fake.running() as router:
        finding(router, "/slow.xml", "/d.xml")
        router.documents["/d.xml"] = document((KIND, "/ctl"))
        router.late["/slow.xml"] = 1000
        assert here(await find(seconds=0.5)).location == router.url
        assert autojump_clock.current_time() < 5


async def test_another_description_is_tried_when_one_is_of_no_use(
    finding: Finding, autojump_clock: trio.testing.MockClock
) -> None:
    async with fake.running() as router:
        finding(router, "/none.xml", "/d.xml")
        router.documents["/d.xml"] = document((KIND, "/ctl"))
        assert here(await find(seconds=30)).location == router.url
        assert autojump_clock.current_time() < 0.9  # at once
        assert router.connections == 2  # and one after the other


async def test_no_answer_to_the_search(
    finding: Finding, autojump_clock: trio.testing.MockClock
) -> None:
    async with fake.running() as router:
        finding(router)
        found = await find(seconds=2)
        assert isinstance(found, NoGateway)
        assert "does not answer" in found.reason
        assert 1 < autojump_clock.current_time() < 4


@pytest.fixture
def loopback_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    def location(text: str, *, sender: str, own: str) -> trust.Url:
        return trust.read(text)

    monkeypatch.setattr(trust, "location", location)


@pytest.mark.usefixtures("loopback_is_followed")
async def test_where_it_was_at_another_time_is_tried_first(
    finding: Finding, autojump_clock: trio.testing.MockClock
) -> None:
    async with fake.running() as router:
        finding(router)  # the search finds nothing
        router.documents["/d.xml"] = document((KIND, "/ctl"))
        assert here(await find(known=router.url, seconds=30)).location == router.url
        assert autojump_clock.current_time() < 5


@pytest.mark.usefixtures("loopback_is_followed")
async def test_where_it_is_not_any_more_the_search_finds_it(
    finding: Finding, autojump_clock: trio.testing.MockClock
) -> None:
    async with fake.running() as router:
        finding(router, "/d.xml")
        router.documents["/d.xml"] = document((KIND, "/ctl"))
        known = router.url.replace("d.xml", "old.xml")
        assert here(await find(known=known, seconds=30)).location == router.url


@pytest.mark.parametrize("known", ["http://192.168.9.9/x", "http://127.0.0.1/x", "nonsense"])
async def test_a_place_on_another_host_is_not_tried(
    known: str, finding: Finding, autojump_clock: trio.testing.MockClock
) -> None:
    async with fake.running() as router:
        finding(router)
        found = await find(known=known, seconds=0.5)
        assert isinstance(found, NoGateway)
        assert "does not answer to UPnP" in found.reason


@pytest.mark.usefixtures("loopback_is_followed")
class TestSearch:
    """On loopback, with the gateway at 127.0.0.1 and another host at 127.0.0.9."""

    NETWORK = network.Network("lo", fake.ROUTER, HERE)

    async def search(
        self, answer: Callable[[trio.socket.SocketType, tuple[str, int]], Awaitable[None]]
    ) -> list[trust.Url]:
        """What is found where the first search is answered so."""
        send, receive = trio.open_memory_channel[trust.Url](10)
        with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as gateway:
            gateway.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_REUSEADDR, 1)
            await gateway.bind((fake.ROUTER, ssdp.PORT))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(discovery._search, self.NETWORK, send, 0.5)
                _, peer = await gateway.recvfrom(4096)
                await answer(gateway, peer)
        return [url async for url in receive]

    def said(self, host: str, path: str) -> bytes:
        return f"HTTP/1.1 200 OK\r\nLOCATION: http://{host}:5000{path}\r\n\r\n".encode()

    async def test_only_the_gateway_is_believed(self) -> None:
        async def answer(gateway: trio.socket.SocketType, peer: tuple[str, int]) -> None:
            assert peer[0] == HERE
            with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as impostor:
                await impostor.bind(("127.0.0.9", 0))
                for host in ("127.0.0.9", fake.ROUTER):
                    await impostor.sendto(self.said(host, "/theirs.xml"), peer)
            await gateway.sendto(self.said(fake.ROUTER, "/d.xml"), peer)

        assert await self.search(answer) == [trust.Url(fake.ROUTER, 5000, "/d.xml")]

    async def test_each_description_once_and_no_more_than_four(self) -> None:
        async def answer(gateway: trio.socket.SocketType, peer: tuple[str, int]) -> None:
            for number in (1, 1, 2, 1, 3, 4, 5, 6):
                await gateway.sendto(self.said(fake.ROUTER, f"/{number}.xml"), peer)

        found = await self.search(answer)
        assert [url.target for url in found] == ["/1.xml", "/2.xml", "/3.xml", "/4.xml"]

    async def test_everybody_is_asked_for_every_target_and_again(self) -> None:
        """There are routers that do not answer what is sent to them alone."""
        send, _ = trio.open_memory_channel[trust.Url](10)
        asked = [f"ST: {target}\r\n".encode() for target in ssdp.TARGETS] * 2
        with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as group:
            group.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_REUSEADDR, 1)
            await group.bind((ssdp.MULTICAST, ssdp.PORT))
            joined = trio.socket.inet_aton(ssdp.MULTICAST) + trio.socket.inet_aton(fake.ROUTER)
            group.setsockopt(trio.socket.IPPROTO_IP, trio.socket.IP_ADD_MEMBERSHIP, joined)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(discovery._search, self.NETWORK, send, 60)
                for wanted in asked:
                    with trio.fail_after(10):
                        data, peer = await group.recvfrom(4096)
                    assert peer[0] == HERE
                    assert wanted in data
                nursery.cancel_scope.cancel()

    async def test_what_is_no_answer_is_passed_over(self) -> None:
        async def answer(gateway: trio.socket.SocketType, peer: tuple[str, int]) -> None:
            for data in (b"", b"\0", b"HTTP/1.1 200 OK\r\nLOCATION: ftp://x/\r\n\r\n"):
                await gateway.sendto(data, peer)
            await gateway.sendto(self.said(fake.ROUTER, "/d.xml"), peer)

        assert [url.target for url in await self.search(answer)] == ["/d.xml"]


@pytest.mark.parametrize("body", ["", "<html/>", document(), "<!DOCTYPE x><root/>"])
async def test_a_description_of_no_use(body: str) -> None:
    async with fake.running() as router:
        router.documents["/d.xml"] = body
        assert isinstance(await find(url=router.url, seconds=10), NoGateway)


async def test_no_description() -> None:
    async with fake.running() as router:
        found = await find(url=router.url, seconds=10)
        assert isinstance(found, NoGateway)
        assert "404" in found.reason


async def test_no_router() -> None:
    with trio.socket.socket() as free:
        await free.bind((fake.ROUTER, 0))
        url = f"http://{fake.ROUTER}:{free.getsockname()[1]}/"
        assert isinstance(await find(url=url, seconds=10), NoGateway)


@pytest.mark.parametrize("url", ["https://127.0.0.1/", "http://router.lan/", "", "\x1b[2J"])
async def test_urls_that_are_not_followed(url: str) -> None:
    found = await find(url=url, seconds=10)
    assert isinstance(found, NoGateway)
    assert found.reason.isprintable()


async def test_an_address_that_went_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """No host has an address in 240.0.0.0/4 (RFC 1112, section 4): nothing can be sent from it."""

    async def look(interface: str | None) -> network.Network:
        return network.Network("lo", "127.0.0.1", "240.0.0.1")

    monkeypatch.setattr(discovery, "look", look)
    assert isinstance(await find(seconds=0.2), NoGateway)


async def test_an_interface_that_does_not_exist() -> None:
    found = await find(interface="nsu-none", seconds=10)
    assert isinstance(found, NoGateway)
    assert "nsu-none" in found.reason


async def test_looking_at_the_network_raises_nothing() -> None:
    assert isinstance(await network.look(), network.Network | NoGateway)


NETLINK = pytest.mark.parametrize(
    "before",
    ["", "import natsup.upnp.rtnetlink as r; r.avoid()\n"],
    ids=["with netlink", "without netlink"],
)


@NETLINK
def test_what_the_kernel_knows_of_a_network(lab: Lab, before: str) -> None:
    """That of a host with a second address, beside a router and behind it."""
    lab.run("lan1", ["ip", "addr", "add", "10.9.8.7/28", "dev", "lo"], check=True)
    script = before + (
        "import trio\n"
        "from natsup.upnp.network import *\n"
        "async def main():\n"
        f"    for asked in (look(), look('eth0'), towards('{ROUTER}'), towards('{WAN}')):\n"
        "        found = await asked\n"
        "        print(found.interface, found.gateway, found.address, found.prefix, *found.own)\n"
        "    print((await look('none')).reason)\n"
        "trio.run(main)\n"
    )
    *found, none = lab.run("lan1", [sys.executable, "-c", script], check=True).stdout.splitlines()
    gateways = [(ROUTER, "24"), (ROUTER, "24"), (ROUTER, "24"), (WAN, "0")]
    for line, (gateway, prefix) in zip(found, gateways, strict=True):
        interface, *words = line.split()
        assert (interface, *words[:3]) == ("eth0", gateway, LAN1, prefix)
        assert set(words[3:]) == {LAN1, "10.9.8.7", "127.0.0.1"}
    assert none == "there is no default route by none"


def told(lab: Lab, script: str, *commands: str) -> list[str]:
    """What a script prints on lan1, line by line, after these commands. ``n`` is the module."""
    for command in commands:
        lab.run("lan1", command.split(), check=True)
    words = [sys.executable, "-c", f"import trio, natsup.upnp.network as n\n{script}"]
    lines: list[str] = lab.run("lan1", words, check=True).stdout.splitlines()
    return lines


SECOND = (  # another interface in the same LAN, as Wi-Fi beside a cable, which comes first
    "ip link add link eth0 name wlan0 type macvlan mode bridge",
    "ip addr flush dev eth0",
    f"ip addr add {LAN1}/24 dev eth0 metric 100",
    "ip addr add 192.168.77.20/24 dev wlan0 metric 600",
    "ip link set wlan0 up",
    f"ip route add default via {ROUTER} dev eth0 metric 100",
    f"ip route add default via {ROUTER} dev wlan0 metric 600",
    f"ip neigh replace {ROUTER} lladdr 02:00:00:00:00:01 dev eth0",
    f"ip neigh replace {ROUTER} lladdr 02:00:00:00:00:02 dev wlan0",
)


@NETLINK
def test_two_interfaces_in_one_lan(lab: Lab, before: str) -> None:
    asked = f"n.look(i) if i != 'url' else n.towards('{ROUTER}', 'wlan0')"
    script = (
        f"{before}for i in (None, 'eth0', 'wlan0', 'url'):\n"
        f"    found = trio.run(lambda: {asked})\n"
        "    print(found.interface, found.address, found.prefix, found.name[-1])\n"
    )
    cable, wireless = f"eth0 {LAN1} 24 1", "wlan0 192.168.77.20 24 2"
    assert told(lab, script, *SECOND) == [cable, cable, wireless, wireless]


HALVED = (
    "ip route del default",
    "ip link add tun7 type veth peer name tun8",
    "ip link set tun8 up",
    "ip addr add 10.8.0.2/24 dev tun7",
    "ip link set tun7 up",
    "ip route add 0.0.0.0/1 via 10.8.0.1 dev tun7",
    "ip route add 128.0.0.0/1 via 10.8.0.1 dev tun7",
)


@NETLINK
def test_the_halves_of_a_default_route(lab: Lab, before: str) -> None:
    """As a VPN makes them. Behind it is not the router at home, but it may be asked for."""
    script = (
        f"{before}print(trio.run(n.look).reason)\n"
        "print(trio.run(n.look, 'eth0').reason)\n"
        "found = trio.run(n.look, 'tun7')\n"
        "print(found.gateway, found.address)\n"
        f"print(trio.run(n.towards, '{ROUTER}').address)\n"
    )
    first, *rest = told(lab, script, *HALVED)
    assert first.startswith("there is no default route, only the two halves of one (0.0.0.0/1 and")
    assert first.endswith("--gateway URL, or ask the VPN's by --interface tun7")
    assert len(first) < 300  # what the history keeps of a reason
    assert rest == ["there is no default route by eth0", "10.8.0.1 10.8.0.2", LAN1]


def test_a_default_route_comes_before_a_vpns_halves(lab: Lab) -> None:
    script = "print(trio.run(n.look).gateway)"
    assert told(lab, script, *HALVED[1:]) == [ROUTER]


@NETLINK
def test_routes_that_lead_nowhere_are_none(lab: Lab, before: str) -> None:
    script = f"{before}print(trio.run(n.look).reason)"
    commands = ("ip route del default", "ip route add unreachable default metric 10")
    assert told(lab, script, *commands) == ["there is no default route"]


@NETLINK
def test_an_address_of_many_on_an_interface(lab: Lab, before: str) -> None:
    """Labels, peers and second addresses: the one that faces the router counts."""
    script = (
        f"{before}found = trio.run(n.look)\n"
        "print(found.address, found.prefix, *sorted(found.own))\n"
    )
    commands = (
        "ip addr add 192.168.77.33/26 dev eth0 label eth0:1",
        "ip addr add 10.5.5.5 peer 10.6.6.6/30 dev eth0",
        "ip link set eth0 down",
        "ip link set eth0 up",
        f"ip route replace default via {ROUTER} src 192.168.77.33",
        "ip route replace 192.168.77.0/24 dev eth0 src 192.168.77.33",
    )
    addresses = "10.5.5.5 127.0.0.1 192.168.77.2 192.168.77.33"
    assert told(lab, script, *commands) == [f"192.168.77.33 26 {addresses}"]


@NETLINK
def test_no_way(lab: Lab, before: str) -> None:
    script = f"{before}print(trio.run(n.towards, '{WAN}').reason)"
    assert told(lab, script, "ip route del default") == [f"there is no way to {WAN}"]


def test_a_router_that_is_named_needs_no_files(lab: Lab) -> None:
    """systemd's ProcSubset=pid leaves none of them; which interface it is by, the address tells."""
    script = (
        "import pathlib, natsup.upnp.rtnetlink as r, natsup.upnp.procnet as p\n"
        "r.avoid()\n"
        "p._NET = pathlib.Path('/nowhere')\n"
        f"for host in ('{ROUTER}', '{WAN}'):\n"
        "    found = trio.run(n.towards, host)\n"
        "    print(found.interface, found.address, found.prefix)\n"
        "print(trio.run(n.look).reason)\n"
    )
    assert told(lab, script) == [
        f"eth0 {LAN1} 24",
        f"eth0 {LAN1} 0",
        "the kernel's routes cannot be read: No such file or directory",
    ]


async def test_what_is_imported_before_there_is_a_router() -> None:
    """The library is slow to import, and so is pyroute2, which a session does without."""
    code = (
        "import sys, natsup.upnp.discovery, natsup.upnp.description, natsup.upnp.adding\n"
        "slow = {'aiohttp', 'async_upnp_client', 'pyroute2', 'defusedxml'}\n"
        "sys.exit(bool(slow & set(sys.modules)))"
    )
    assert (await trio.run_process([sys.executable, "-c", code], check=False)).returncode == 0
