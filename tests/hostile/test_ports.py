"""Rules 6, 7 and 9 to 11 of `tests.hostile.rules`: what is made of what a router says, and what it
is told."""

import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import IPv4Address
from itertools import pairwise

import pytest
import trio
import trio.testing

from natsup.state.model import Conflict, Ignored, Mapped, Port, Protocol, Unknown
from natsup.upnp import adding, ssdp, trust
from natsup.upnp.choosing import Speakers
from natsup.upnp.discovery import find_gateway
from natsup.upnp.ears import Ears
from natsup.upnp.igd import Igd
from natsup.upnp.network import Network
from natsup.upnp.pmp import gateway as pmp_gateway
from natsup.upnp.pmp import natpmp, pcp
from natsup.upnp.pmp.gateway import PmpGateway
from natsup.upnp.watch import Watch
from tests.gateway import gateway, pmp
from tests.gateway.house import open_pmp
from tests.gateway.quirks import Quirks
from tests.upnp import fake
from tests.upnp.fake import HERE, OTHER, ROUTER, Entry

PORT = Port(Protocol.TCP, 6881)
KEY = ("TCP", 6881)


@asynccontextmanager
async def upnp() -> AsyncIterator[tuple[fake.Router, Igd]]:
    async with fake.running() as router:
        own = frozenset({HERE, "192.168.1.2"})
        igd = await Igd.open(router.service, location=router.url, internal_address=HERE, own=own)
        yield router, igd


# Whose the router says that a port is, and what that is not
NOBODYS = {
    "this host's other address": "192.168.1.2",
    "the router": ROUTER,
    "nobody": "0.0.0.0",
    "loopback": "127.0.0.9",
    "everybody": "255.255.255.255",
    "a group": "239.255.255.250",
    "nothing": "",
    "a name": "nas.lan",
    "a name of figures": "192.168.1.3.nip.io",
    "figures of another kind": "0xc0a80103",
    "one number": "3232235779",
    "octal": "192.168.1.003",
    "IPv6": "fe80::1",
    "IPv4 as IPv6": "::ffff:192.168.1.3",
    "with a port": "192.168.1.3:80",
    "control characters": "192.168.1.3&#27;[2J",
    "figures of another script": "\u0661\u0669\u0662.168.1.3",
}


@pytest.mark.parametrize("client", NOBODYS.values(), ids=NOBODYS)
@pytest.mark.parametrize("code", [None, 718])
async def test_6_what_is_no_other_host_s_is_no_conflict(client: str, code: int | None) -> None:
    """Not when it is seen first, and not when the router speaks of a conflict."""
    async with upnp() as (router, igd):
        router.table[KEY] = Entry(client, "6881")
        if code is not None:
            router.odd["AddPortMapping"] = lambda request: fake.fault(code)
        outcome = await igd.add(PORT, lease=3600)
        assert isinstance(outcome, Ignored)
        assert outcome.reason.isprintable()
        assert router.table[KEY].client == client  # and it is left alone


async def test_6_another_host_s_is_one() -> None:
    async with upnp() as (router, igd):
        router.table[KEY] = Entry(OTHER, "6881")
        assert await igd.add(PORT, lease=3600) == Conflict(OTHER)


@pytest.mark.parametrize(
    ("client", "other"),
    [
        ("192.168.1.3", True),
        ("192.168.1.254", True),
        ("192.168.1.0", False),
        ("192.168.1.255", False),
        ("192.168.2.3", False),
        ("10.0.0.1", False),
        ("9.9.9.9", False),
        ("169.254.1.1", False),
    ],
)
def test_6_a_holder_is_a_host_of_this_lan(client: str, other: bool) -> None:
    device = adding.Device("192.168.1.2", "192.168.1.1", 24)
    held = adding.holder(adding.Found(client, "6881", "1"), PORT, device)
    assert (held.kind is adding.Kind.OTHER) == other


@pytest.mark.parametrize("code", [501, 606, 713, 714, 725, 728, 729, -911, 10**30])
async def test_6_no_code_is_a_conflict_by_itself(code: int) -> None:
    async with upnp() as (router, igd):
        router.odd["AddPortMapping"] = lambda request: fake.fault(code)
        assert isinstance(await igd.add(PORT, lease=3600), Ignored)


async def test_6_a_success_is_looked_at_before_it_is_believed() -> None:
    """Who says that all is well, and forwards to somebody else, is found out by the look after."""
    async with upnp() as (router, igd):
        router.odd["AddPortMapping"] = lambda request: fake.success("AddPortMapping")
        assert await igd.add(PORT, lease=3600) == Mapped(3600)
        router.table[KEY] = Entry(OTHER, "6881")
        assert await igd.check(PORT) == Conflict(OTHER)
        assert await igd.remove(PORT) is not None
        assert router.table[KEY].client == OTHER


async def test_7_a_name_is_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def ask(*words: object, **more: object) -> None:
        asked.append(words)
        raise OSError("nobody is to be asked")

    async with upnp() as (router, igd):
        for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex", "gethostbyaddr"):
            monkeypatch.setattr(socket, name, ask)
        for name in ("getaddrinfo", "getnameinfo"):
            monkeypatch.setattr(trio.socket, name, ask)
        router.table[KEY] = Entry("localhost", "6881")
        outcome = await igd.add(PORT, lease=3600)
        assert isinstance(outcome, Ignored)
        assert "no address" in outcome.reason
        with pytest.raises(trust.Refused):
            trust.location("http://localhost/", sender=ROUTER, own=HERE)
        assert asked == []


Lies = Callable[[bytes], list[tuple[str, bytes]]]


class Liar(pmp.Pmp):
    """Carries out what it is asked; ``lies`` makes what is sent of the answer, and by whom: "" by
    itself, "port" by another port of its own, "stranger" by another host."""

    def __init__(self, router: gateway.Gateway, lies: Lies | None) -> None:
        super().__init__(router.table, router.quirks)
        self._lies = lies
        self.start(trio.current_time())

    def datagrams(self, data: bytes, peer: str, now: float) -> list[tuple[str, bytes]]:
        answer = self.answer(data, peer, now)
        assert answer is not None
        return [("", answer)] if self._lies is None else self._lies(answer)


@asynccontextmanager
async def lying(
    protocol: str, lies: Lies | None = None
) -> AsyncIterator[tuple[gateway.Gateway, PmpGateway]]:
    quirks = Quirks(speaks=("natpmp", "pcp"), pmp_epoch=1000)
    async with gateway.running(quirks) as router:
        router.pmp = Liar(router, lies)
        yield router, open_pmp(router, protocol)


both = pytest.mark.parametrize("protocol", ["natpmp", "pcp"])


@both
def test_9_the_router_is_heard_by_its_own_interface(protocol: str) -> None:
    """What that keeps out: see `tests.hostile.test_finding`."""
    network = Network("eth7", ROUTER, HERE)
    assert Speakers(bytes).get(protocol, network)._interface == "eth7"


@both
@pytest.mark.parametrize("liar", ["stranger", "port"])
async def test_9_an_answer_from_elsewhere_is_none(
    protocol: str, liar: str, autojump_clock: trio.testing.MockClock
) -> None:
    """Not from another host, nor from another port of the router's; with the very bytes of a good
    answer, which the router itself does not give."""
    autojump_clock.autojump_threshold = 0.05
    async with lying(protocol, lambda answer: [(liar, answer)]) as (router, natsup):
        outcome = await natsup.add(PORT, lease=3600)
        assert isinstance(outcome, Unknown)
        assert outcome.silent
        assert router.asked


async def test_9_an_answer_with_another_nonce_is_none(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """From the router's own address and port: who guesses those two has the nonce to guess yet."""
    autojump_clock.autojump_threshold = 0.05

    def forged(answer: bytes) -> list[tuple[str, bytes]]:
        said = pcp.decode(answer)
        assert isinstance(said, pcp.Response)
        assert said.mapping is not None
        lies = [
            replace(said.mapping, nonce=bytes(12)),
            replace(said.mapping, internal_port=6882),
            replace(said.mapping, protocol=17),
        ]
        return [("", pcp.encode_response(replace(said, mapping=lie))) for lie in lies]

    async with lying("pcp", forged) as (_, natsup):
        outcome = await natsup.add(PORT, lease=3600)
        assert isinstance(outcome, Unknown)
        assert outcome.silent


@both
@pytest.mark.parametrize("number", [0, 22, 6880, 6882, 65535])
async def test_9_only_the_port_that_was_asked_for_is_granted(protocol: str, number: int) -> None:
    """Any other one is somebody else's, and is given back at once."""

    def another(answer: bytes) -> list[tuple[str, bytes]]:
        if protocol == "natpmp":
            told = natpmp.decode(answer)
            if told is not None and told.external_port:
                answer = natpmp.encode_response(replace(told, external_port=number))
        else:
            said = pcp.decode(answer)
            if isinstance(said, pcp.Response) and said.mapping is not None and said.lifetime:
                lie = replace(said.mapping, external_port=number)
                answer = pcp.encode_response(replace(said, mapping=lie))
        return [("", answer)]

    async with lying(protocol, another) as (router, natsup):
        assert isinstance(await natsup.add(PORT, lease=3600), Ignored)
        assert router.holders == {}


@both
async def test_9_an_announcement_is_a_reason_to_ask_and_no_more(
    protocol: str, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock at nought in it, a hundred times, and from whom it may be: the router is asked once,
    and what it says counts. From other hosts it is nothing."""
    autojump_clock.autojump_threshold = 0.05
    monkeypatch.setattr(pmp_gateway, "_EVERY", 1000.0)
    monkeypatch.setattr(pmp_gateway, "_now", trio.current_time)
    forged = (
        natpmp.encode_response(natpmp.Response(0, 0, 0, IPv4Address("11.22.33.1"))),
        pcp.encode_response(pcp.Response(pcp.ANNOUNCE, 0, 0, 0)),
    )

    async def announce(sender: str) -> None:
        with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as sock:
            await sock.bind((sender, 0))
            own = trio.socket.inet_aton(sender)
            sock.setsockopt(trio.socket.IPPROTO_IP, trio.socket.IP_MULTICAST_IF, own)
            for data in forged:
                await sock.sendto(data, pmp.ALL)

    send, receive = trio.open_memory_channel[str](10)
    async with lying(protocol) as (router, natsup), trio.open_nursery() as nursery:
        assert await natsup.add(PORT, lease=3600) == Mapped(3600)
        nursery.start_soon(lambda: natsup.watch(send, interface="lo"))
        await trio.testing.wait_all_tasks_blocked()
        asked = len(router.asked)
        await announce(gateway.IMPOSTOR)
        await trio.sleep(20)
        assert len(router.asked) == asked
        for _ in range(50):
            await announce(gateway.ROUTER)
        await trio.sleep(9)
        assert len(router.asked) == asked + 1
        with pytest.raises(trio.WouldBlock):
            receive.receive_nowait()
        nursery.cancel_scope.cancel()


def storm(count: int) -> list[bytes]:
    """Restarts and goodbyes without end."""
    said = []
    for number in range(count):
        kind = ("ssdp:alive", "ssdp:byebye", "ssdp:update")[number % 3]
        said.append(
            f"NOTIFY * HTTP/1.1\r\nNT: {ssdp.TARGETS[number % 2]}\r\nNTS: {kind}\r\n"
            f"LOCATION: http://{ROUTER}:{number}/\r\nBOOTID.UPNP.ORG: {number}\r\n"
            f"NEXTBOOTID.UPNP.ORG: {number + 7}\r\n\r\n".encode()
        )
    return said


def test_10_a_storm_of_restarts_is_a_sign_now_and_then() -> None:
    """An hour of ten a second. What is remembered of them does not grow, either."""
    watch, signs = Watch(ROUTER, 0.0), []
    heard = [ssdp.notification(data) for data in storm(600)]
    asked = 0
    for tick in range(36_000):
        now = tick / 10
        said = heard[tick % len(heard)]
        assert said is not None
        watch.hear_unasked(said, now)
        if watch.ask_at <= now:
            watch.ask(now)
            asked += 1
        if watch.sign(now) is not None:
            signs.append(now)
    assert 1 <= len(signs) <= 20
    assert min(later - sooner for sooner, later in pairwise(signs)) >= 10
    assert asked <= 36
    assert len(watch._said) <= 16
    assert len(watch._voices) <= 16


def test_10_a_storm_of_answers_is_a_sign_now_and_then() -> None:
    watch, signs = Watch(ROUTER, 0.0), 0
    for minute in range(60):
        now = minute * 60.0
        watch.ask(now)
        for number in range(200):
            watch.hear(
                ssdp.Answer(f"http://{ROUTER}/{number}", ssdp.TARGETS[0], "", number + minute)
            )
        signs += watch.sign(now + 1) is not None
    assert signs <= 20
    assert len(watch._voices) <= 16


async def test_10_whoever_talks_without_end_is_heard_a_hundred_times_a_second(
    autojump_clock: trio.testing.MockClock,
) -> None:
    autojump_clock.autojump_threshold = 0.05
    heard = 0
    async with Ears("lo", "127.0.0.1", ROUTER) as ears, trio.open_nursery() as nursery:

        async def talk() -> None:
            with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as sock:
                await sock.bind((ROUTER, 0))
                lo = trio.socket.inet_aton("127.0.0.1")
                sock.setsockopt(trio.socket.IPPROTO_IP, trio.socket.IP_MULTICAST_IF, lo)
                for data in storm(250):
                    await sock.sendto(data, (ssdp.MULTICAST, ssdp.PORT))

        nursery.start_soon(talk)
        for seconds in (0.9, 1.9, 2.9):
            with trio.move_on_at(seconds):
                while True:
                    assert await ears.hear()
                    heard += 1
            assert heard <= 100 * (seconds + 0.1)
        assert heard == 250
        nursery.cancel_scope.cancel()


async def test_11_what_a_router_is_told_is_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the program is called. Values are those that natsup itself makes."""
    monkeypatch.setenv("USER", "<x>&'")
    async with upnp() as (router, igd):
        for port in (PORT, Port(Protocol.UDP, 65535)):
            await igd.add(port, lease=3600)
            await igd.remove(port)
        sent = [(name, value) for one in router.log for name, value in one.values.items()]
        assert len(sent) > 20
        for name, value in sent:
            assert re.fullmatch(r"[A-Za-z0-9 .]{0,32}", value), (name, value)
        for request in router.log:
            assert request.path == "/ctl"
            lines = request.head.decode("ascii").split("\r\n")
            assert all(line.isprintable() for line in lines)
            assert f"Host: {ROUTER}:{router.port}" in lines
        named = {value for name, value in sent if name == "NewPortMappingDescription"}
        assert named == {"natsup tcp 6881", "natsup udp 65535"}


async def test_11_a_control_url_is_no_way_to_put_more_into_a_request() -> None:
    """Nor into what the library is told of the service."""
    path = '/ctl?a=<b>&amp;c="d"\'e'
    async with fake.running() as router:
        router.documents["/d.xml"] = fake.document((fake.KIND, path.replace("<b>", "&lt;b&gt;")))
        igd = await find_gateway(Network("lo", ROUTER, HERE), url=router.url)
        assert isinstance(igd, Igd)
        assert await igd.add(PORT, lease=3600) == Mapped(3600)
        assert {request.path for request in router.log} == {"/d.xml", path.replace("&amp;", "&")}
