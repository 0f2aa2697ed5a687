"""Rules 1 to 3 of `tests.hostile.rules`: who is believed, and where that leads to."""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace

import pytest
import trio

from natsup.state.model import Ignored, Port, Protocol, Unknown
from natsup.upnp import trust
from natsup.upnp.choosing import Speakers, reopen
from natsup.upnp.discovery import find_gateway, search_from
from natsup.upnp.igd import Igd
from natsup.upnp.network import NoGateway, tie
from tests.hostile.lan import NETWORK, Lan, Trap, said
from tests.lab.lab import LAN1, LAN2, ROUTER, WAN, Lab
from tests.upnp import fake
from tests.upnp.fake import KIND, document

GOOD = f"http://{ROUTER}:5000/d.xml"
PORT = Port(Protocol.TCP, 6881)


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lan]:
    with Lab(tmp_path_factory.mktemp("lab")) as lab:
        lab.stop_router()
        yield Lan(lab)


@pytest.fixture
def lan(hosts: Lan) -> Iterator[Lan]:
    with hosts.fresh():
        yield hosts


class Impostors:
    """The router answers searches with what the test says, and is a good one at port 5000."""

    def __init__(self, lan: Lan) -> None:
        self.lan = lan
        self.router = fake.Router(port=5000, documents={"/d.xml": document((KIND, "/ctl"))})
        self._listener = lan.tcp("router", ROUTER, 5000)
        self.traps = {
            name: Trap(lan.tcp(host, address, port))
            for name, host, address, port in (
                ("another host", "lan2", LAN2, 5000),
                ("another host, port 80", "lan2", LAN2, 80),
                ("this host", "lan1", LAN1, 5000),
                ("this host's loopback", "lan1", "127.0.0.1", 5000),
                ("the Internet", "wan", WAN, 5000),
            )
        }

    async def serve(self, test: Callable[["Impostors"], Awaitable[None]]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, self.router._serve, [self._listener])
            await test(self)
            nursery.cancel_scope.cancel()

    async def find(
        self, *answers: bytes, seconds: float = 10.0, other: bytes | None = None
    ) -> Igd | NoGateway:
        """What is found where the router answers so; ``other``: what another host answers before
        it."""
        found: Igd | NoGateway = NoGateway("not looked for")
        async with trio.open_nursery() as nursery:
            air, strange = self.lan.ssdp("router"), self.lan.ssdp("lan2")

            async def answer() -> None:
                _, peer = await air.recvfrom(4096)
                if other is not None:
                    _, peer = await strange.recvfrom(4096)
                    await strange.sendto(other, peer)
                for data in answers:
                    await air.sendto(data, peer)

            nursery.start_soon(answer)
            found = await find_gateway(NETWORK, seconds=seconds)
            nursery.cancel_scope.cancel()
        return found

    def expect_found(self, found: Igd | NoGateway) -> None:
        assert isinstance(found, Igd), found
        assert found.location == GOOD
        self.expect_left_alone()

    def expect_left_alone(self) -> None:
        """Nobody has been led astray."""
        assert [name for name, trap in self.traps.items() if trap.sprung] == []


def play(lan: Lan, test: Callable[[Impostors], Awaitable[None]]) -> None:
    """Run a test on lan1, among the impostors."""
    lan.play(lambda: Impostors(lan).serve(test))


BAD = {
    "another host": f"http://{LAN2}:5000/d.xml",
    "another host, port 80": f"http://{LAN2}/d.xml",
    "this host": f"http://{LAN1}:5000/d.xml",
    "this host's loopback": "http://127.0.0.1:5000/d.xml",
    "the Internet": f"http://{WAN}:5000/d.xml",
    "link-local": "http://169.254.1.1:5000/d.xml",
    "multicast": "http://239.255.255.250:5000/d.xml",
    "unspecified": "http://0.0.0.0:5000/d.xml",
    "broadcast": "http://255.255.255.255:5000/d.xml",
    "a name": "http://localhost:5000/d.xml",
    "a user name": f"http://x@{ROUTER}:5000/bad.xml",
    "a host for a user name": f"http://{ROUTER}:5000@{LAN2}:5000/d.xml",
    "https": f"https://{ROUTER}:5000/bad.xml",
    "a file": "file:///etc/passwd",
    "port 0": f"http://{ROUTER}:0/bad.xml",
    "a port beyond": f"http://{ROUTER}:65536/bad.xml",
    "a fragment": f"http://{ROUTER}:5000/bad.xml#x",
    "IPv6": "http://[::1]:5000/d.xml",
    "IPv4 as IPv6": f"http://[::ffff:{ROUTER}]:5000/bad.xml",
    "another way to write an address": "http://0x7f000001:5000/d.xml",
    "control characters": f"http://{ROUTER}:5000/bad.xml\x1b[2J",
    "another request": f"http://{ROUTER}:5000/bad.xml HTTP/1.1\tX: y",
    "without end": f"http://{ROUTER}:5000/bad.xml?{'x' * 4000}",
}


@pytest.mark.parametrize("location", BAD.values(), ids=BAD)
def test_1_a_location_that_is_not_followed(lan: Lan, location: str) -> None:
    """It is passed over, and the next one followed."""

    async def main(there: Impostors) -> None:
        there.expect_found(await there.find(said(location), said(GOOD)))
        assert [request.path for request in there.router.log] == ["/d.xml"]

    play(lan, main)


@pytest.mark.parametrize("host", [LAN1, "127.0.0.1", "169.254.1.1"])
def test_1_who_answers_is_not_this_host_nor_on_a_link_of_its_own(host: str) -> None:
    with pytest.raises(trust.Refused):
        trust.location(f"http://{host}/", sender=host, own=LAN1)


def test_1_two_locations_are_none(lan: Lan) -> None:
    async def main(there: Impostors) -> None:
        twice = said(GOOD.replace("d.xml", "1.xml"), f"LOCATION: http://{LAN2}:5000/d.xml\r\n")
        there.expect_found(await there.find(twice, said(GOOD)))
        assert [request.path for request in there.router.log] == ["/d.xml"]

    play(lan, main)


@pytest.mark.parametrize("known", [f"http://{LAN2}:5000/d.xml", "http://127.0.0.1:5000/d.xml"])
def test_1_what_was_known_at_another_time_is_no_exception(lan: Lan, known: str) -> None:
    async def main(there: Impostors) -> None:
        assert isinstance(await find_gateway(NETWORK, known=known, seconds=0.2), NoGateway)
        there.expect_left_alone()

    play(lan, main)


def test_1_nobody_is_the_router_by_another_interface(lan: Lan) -> None:
    """A guest of this host's, say. It has the router's address on the link between the two."""
    lab = lan.lab
    for host, command in (
        ("lan1", f"ip link add guest type veth peer name eth7 netns {lab.name('wan')}"),
        ("lan1", "ip link set guest up"),
        ("wan", f"ip addr add {ROUTER}/32 dev eth7"),
        ("wan", "ip link set eth7 up"),
        ("wan", f"ip route add {LAN1} dev eth7"),
        ("wan", f"ip neigh replace {LAN1} lladdr 02:00:00:00:00:07 dev eth7"),
        ("lan1", "ip link set guest address 02:00:00:00:00:07"),
    ):
        lab.run(host, command.split(), check=True)

    async def main() -> None:
        udp = (trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
        with (
            trio.socket.socket(*udp) as anybodys,
            trio.socket.socket(*udp) as search,
            trio.socket.socket(*udp) as mapping,
        ):
            await anybodys.bind((LAN1, 0))
            await search_from(search, LAN1, "eth0")
            tie(mapping, "eth0")
            await mapping.bind((LAN1, 0))
            spoof, router = lan.udp("wan", ROUTER), lan.udp("router", ROUTER)
            for sock in (search, mapping, anybodys):
                await spoof.sendto(b"guest", sock.getsockname())
            assert await anybodys.recvfrom(64) == (b"guest", spoof.getsockname())
            for sock in (search, mapping):
                await router.sendto(b"router", sock.getsockname())
                assert (await sock.recvfrom(64))[0] == b"router"

    lan.play(main)
    lab.run("lan1", ["ip", "link", "del", "guest"], check=True)


def test_2_another_host_that_answers_first_is_nobody(lan: Lan) -> None:
    async def main(there: Impostors) -> None:
        theirs = said(f"http://{LAN2}:5000/d.xml")
        there.expect_found(await there.find(said(GOOD), other=theirs))

    play(lan, main)


def test_2_another_host_alone_is_no_router(lan: Lan) -> None:
    """Not if it says that it is the router, either."""

    async def main(there: Impostors) -> None:
        for location in (f"http://{LAN2}:5000/d.xml", GOOD):
            found = await there.find(other=said(location), seconds=0.3)
            assert isinstance(found, NoGateway)
            there.expect_left_alone()
            assert there.router.log == []

    play(lan, main)


def test_2_but_for_one_that_the_user_names(lan: Lan) -> None:
    async def main() -> None:
        router = fake.Router(port=5000, documents={"/d.xml": document((KIND, "/ctl"))})
        listener = lan.tcp("lan2", LAN2, 5000)
        url = f"http://{LAN2}:5000/d.xml"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, router._serve, [listener])
            found = await find_gateway(replace(NETWORK, gateway=LAN2), url=url)
            assert isinstance(found, Igd)
            assert found.location == url
            nursery.cancel_scope.cancel()

    lan.play(main)


def test_2_the_router_of_another_network_is_not_reopened(lan: Lan) -> None:
    """What a journal says of where mappings are is not followed to wherever it says."""

    async def main(there: Impostors) -> None:
        for location in (f"http://{LAN2}:5000/d.xml", "file:///x", "http://127.0.0.1:5000/d.xml"):
            assert await reopen(location, NETWORK, Speakers(bytes)) is None
        there.expect_left_alone()

    play(lan, main)


ELSEWHERE = (
    f"http://{LAN2}:5000/ctl",
    f"//{LAN2}:5000/ctl",
    f"http://{ROUTER}:5000@{LAN2}:5000/ctl",
    "http://127.0.0.1:5000/ctl",
    f"http://{WAN}:5000/ctl",
    f"\\\\{LAN2}:5000/ctl",
    "file:///ctl",
)


@pytest.mark.parametrize("path", ELSEWHERE)
def test_3_a_control_url_on_another_host_is_no_service(lan: Lan, path: str) -> None:
    async def main(there: Impostors) -> None:
        there.router.documents["/d.xml"] = document((KIND, path), (KIND, "/ctl"))
        found = await there.find(said(GOOD))
        there.expect_found(found)
        assert isinstance(found, Igd)
        assert found._service.control_url.startswith(f"http://{ROUTER}:5000/")
        there.expect_left_alone()

    play(lan, main)


def test_3_a_base_on_another_host_is_passed_over(lan: Lan) -> None:
    async def main(there: Impostors) -> None:
        base = f"<URLBase>http://{LAN2}:5000/</URLBase>"
        there.router.documents["/d.xml"] = document((KIND, "ctl"), base=base)
        found = await there.find(said(GOOD))
        there.expect_found(found)
        assert isinstance(found, Igd)
        assert found._service.control_url == f"http://{ROUTER}:5000/ctl"

    play(lan, main)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_3_no_redirection_is_followed(lan: Lan, status: int) -> None:
    """Not of a description's, nor of an action's."""

    async def main(there: Impostors) -> None:
        where = f"Location: http://{LAN2}:5000/d.xml\r\nContent-Length: 0\r\n\r\n"
        away = f"HTTP/1.1 {status} X\r\n{where}".encode()
        there.router.odd["GET"] = lambda request: away if request.path == "/away.xml" else None
        found = await there.find(said(GOOD.replace("d.xml", "away.xml")), said(GOOD))
        there.expect_found(found)
        assert isinstance(found, Igd)
        there.router.odd = dict.fromkeys(("AddPortMapping",), lambda request: away)
        outcome = await found.add(PORT, lease=3600)
        assert isinstance(outcome, Ignored | Unknown)
        there.expect_left_alone()

    play(lan, main)


def test_4_a_thousand_answers_are_four_descriptions(lan: Lan) -> None:
    """And none of them from other hosts. Each of the four is read once, and all in turn."""

    async def main(there: Impostors) -> None:
        answers = [said(GOOD.replace("d.xml", f"{number % 500}.xml")) for number in range(1000)]
        found = await there.find(*answers, said(GOOD), seconds=1.0)
        assert isinstance(found, NoGateway)
        assert [request.path for request in there.router.log] == [f"/{n}.xml" for n in range(4)]
        assert there.router.connections == 4
        there.expect_left_alone()

    play(lan, main)


def test_4_an_answer_that_is_too_long_is_cut(lan: Lan) -> None:
    async def main(there: Impostors) -> None:
        long = said(GOOD.replace("d", "1")).replace(b"LOCATION", b"X: " + b"x" * 60000 + b"\r\nL")
        there.expect_found(await there.find(long, said(GOOD)))
        assert [request.path for request in there.router.log] == ["/d.xml"]

    play(lan, main)


def test_the_traps_spring(lan: Lan) -> None:
    """What the tests here rely on."""

    async def main(there: Impostors) -> None:
        async with (
            await trio.open_tcp_stream("127.0.0.1", 5000),
            await trio.open_tcp_stream(LAN2, 80),
        ):
            with pytest.raises(AssertionError):
                there.expect_left_alone()
            names = [name for name, trap in there.traps.items() if trap.sprung]
            assert names == ["another host, port 80", "this host's loopback"]
        assert trust.read(GOOD).host == ROUTER

    play(lan, main)
