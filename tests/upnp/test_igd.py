"""The gateway against a router on loopback, whole: library, HTTP, decisions."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from natsup.state.gateway import Gateway
from natsup.state.model import Conflict, Ignored, Mapped, Port, Protocol, Removal, Unknown
from natsup.upnp import trust
from natsup.upnp.adding import Kind
from natsup.upnp.description import services
from natsup.upnp.igd import Igd, description
from tests.upnp import fake
from tests.upnp.fake import HERE, OTHER, Entry, Request, Router

PORT = Port(Protocol.TCP, 6881)
KEY = ("TCP", 6881)
ADD, DELETE, LOOK = "AddPortMapping", "DeletePortMapping", "GetSpecificPortMappingEntry"


@asynccontextmanager
async def home(seconds: float = 10.0) -> AsyncIterator[tuple[Router, Igd]]:
    async with fake.running() as router:
        igd = await Igd.open(
            router.service, location=router.url, internal_address=HERE, seconds=seconds
        )
        yield router, igd


async def test_add_renew_remove() -> None:
    async with home() as (router, igd):
        gateway: Gateway = igd
        assert await gateway.add(PORT, lease=3600) == Mapped(3600)
        assert router.table == {KEY: Entry(HERE, "6881", "1", "3600", description(PORT))}
        assert await gateway.add(PORT, lease=3600) == Mapped(3600)
        assert (await igd.look(PORT)).kind is Kind.OURS
        assert await igd.check(PORT) == Mapped(0)
        assert await gateway.remove(PORT) is Removal.GONE
        assert router.table == {}
        assert (await igd.look(PORT)).kind is Kind.NOBODY
        assert await igd.check(PORT) == Ignored("the router did not keep the mapping")
        assert await gateway.remove(PORT) is Removal.GONE
        assert router.counted[DELETE] == 1
        assert await gateway.external_address() == "11.22.33.1"
        assert (gateway.protocol, gateway.internal_address) == ("upnp", HERE)
        assert gateway.location == router.url


async def test_what_an_add_says() -> None:
    async with home() as (router, igd):
        await igd.add(Port(Protocol.UDP, 6881), lease=60)
        sent = router.log[-1]
    assert list(sent.values) == [
        "NewRemoteHost",
        "NewExternalPort",
        "NewProtocol",
        "NewInternalPort",
        "NewInternalClient",
        "NewEnabled",
        "NewPortMappingDescription",
        "NewLeaseDuration",
    ]
    assert sent.values["NewRemoteHost"] == ""
    assert sent.values["NewProtocol"] == "UDP"
    assert sent.values["NewLeaseDuration"] == "60"
    assert sent.path == "/ctl"
    assert f'SOAPAction: "{fake.KIND}#{ADD}"'.encode() in sent.head


@pytest.mark.parametrize("protocol", list(Protocol))
def test_the_name_of_a_mapping_is_one_that_every_router_takes(protocol: Protocol) -> None:
    for number in (1, 65535):
        assert re.fullmatch(r"[A-Za-z0-9 ._-]{1,32}", description(Port(protocol, number)))


async def test_tcp_and_udp_are_two_ports() -> None:
    async with home() as (router, igd):
        router.table["UDP", 6881] = Entry(OTHER, "6881")
        assert await igd.add(PORT, lease=3600) == Mapped(3600)
        assert await igd.add(Port(Protocol.UDP, 6881), lease=3600) == Conflict(OTHER)


async def test_another_hosts_is_left_alone() -> None:
    theirs = Entry(OTHER, "6881")
    async with home() as (router, igd):
        router.table[KEY] = theirs
        assert await igd.add(PORT, lease=3600) == Conflict(OTHER)
        assert await igd.remove(PORT) is Removal.NOT_OURS
        assert (await igd.look(PORT)).address == OTHER
        assert await igd.check(PORT) == Conflict(OTHER)
        assert set(router.actions) == {LOOK}
        assert router.table == {KEY: theirs}


@pytest.mark.parametrize(
    "name", ["Tom & Jerry", "<errorCode>714</errorCode>", "</x><NewInternalClient>", "\x01"]
)
async def test_another_host_s_name_for_a_mapping_hides_nothing(name: str) -> None:
    """There are routers that repeat it as it came."""
    async with home() as (router, igd):
        router.table[KEY] = Entry(OTHER, "6881", name=name)
        assert await igd.add(PORT, lease=3600) == Conflict(OTHER)
        assert router.counted[ADD] == 0


async def test_taken_in_between() -> None:
    async with home() as (router, igd):

        def steal(request: Request) -> None:
            router.table[KEY] = Entry(OTHER, "6881")

        router.odd[ADD] = steal
        assert await igd.add(PORT, lease=3600) == Conflict(OTHER)


async def test_718_though_nobody_has_it() -> None:
    async with home() as (router, igd):
        router.odd[ADD] = lambda request: fake.fault(718)
        assert isinstance(await igd.add(PORT, lease=3600), Ignored)


async def test_718_without_looks() -> None:
    async with home() as (router, igd):
        router.odd[ADD] = lambda request: fake.fault(718)
        router.odd[LOOK] = lambda request: fake.fault(401)
        assert await igd.add(PORT, lease=3600) == Conflict("")


async def test_permanent_only_is_learned() -> None:
    def refuse(request: Request) -> bytes | None:
        return None if request.values["NewLeaseDuration"] == "0" else fake.fault(" 725 ")

    async with home() as (router, igd):
        router.odd[ADD] = refuse
        assert await igd.add(PORT, lease=3600) == Mapped(0)
        assert router.counted[ADD] == 2
        assert await igd.add(PORT, lease=3600) == Mapped(0)
        assert router.counted[ADD] == 3


GLUED = '<s:Body><s:Fault><UPnPErrorxmlns="x"><errorCode>718</errorCode></s:Fault></s:Body>'
SOAP12 = (
    '<e:Envelope xmlns:e="http://www.w3.org/2003/05/soap-envelope"><e:Body><e:Fault>'
    "<e:Detail><errorCode>718</errorCode></e:Detail></e:Fault></e:Body></e:Envelope>"
)


@pytest.mark.parametrize(
    "answer",
    [
        fake.fault(718, status=200),
        fake.http(500, "<errorCode>718</errorCode>"),
        fake.http(500, "<u:errorCode xmlns:u='x'> 718\n</u:errorCode>"),
        fake.http(500, "<ERRORCODE>718</ERRORCODE>"),
        fake.http(500, "\n\n" + fake.envelope("<errorCode>718</errorCode>") + "\0"),
        fake.http(500, GLUED),
        fake.http(500, SOAP12),
    ],
)
async def test_odd_faults(answer: bytes) -> None:
    """718 is the one code that is a conflict where nothing can be looked up."""
    async with home() as (router, igd):
        router.odd[ADD] = lambda request: answer
        router.odd[LOOK] = lambda request: fake.fault(401)
        assert await igd.add(PORT, lease=3600) == Conflict("")


@pytest.mark.parametrize("code", [-911, 899, 600, 10**30])
async def test_a_makers_own_codes(code: int) -> None:
    async with home() as (router, igd):
        router.odd[ADD] = lambda request: fake.fault(code)
        outcome = await igd.add(PORT, lease=3600)
        assert isinstance(outcome, Ignored)
        assert str(code) in outcome.reason


@pytest.mark.parametrize("body", ["", "\r\n", fake.envelope("<ok/>")])
async def test_a_success_that_says_little(body: str) -> None:
    async with home() as (router, igd):
        router.odd[ADD] = lambda request: fake.http(200, body)
        assert await igd.add(PORT, lease=3600) == Mapped(3600)


@pytest.mark.parametrize(
    "answer",
    [
        fake.http(200, "<html><body>Please log in</body></html>"),
        fake.http(200, "<!DOCTYPE html><html></html>"),
        fake.http(500, ""),
        fake.http(404, ""),
        fake.http(500, fake.envelope("<ok/>")),
        fake.http(301, ""),
    ],
)
async def test_what_is_no_success(answer: bytes) -> None:
    async with home() as (router, igd):
        router.odd[ADD] = lambda request: answer
        assert isinstance(await igd.add(PORT, lease=3600), Ignored)


async def test_a_success_in_a_fault_s_clothes_is_seen_in_the_table() -> None:
    async with home() as (router, igd):

        def carry_out(request: Request) -> bytes:
            router.table[KEY] = Entry(HERE, "6881")
            return fake.http(500, fake.envelope("<u:AddPortMappingResponse/>"))

        router.odd[ADD] = carry_out
        assert isinstance(await igd.add(PORT, lease=3600), Mapped)


@pytest.mark.parametrize("body", ["", "<html/>", "<x", "\0" * 99, fake.envelope("<nothing/>")])
async def test_looks_that_say_nothing_are_no_conflict(body: str) -> None:
    async with home() as (router, igd):
        router.odd[LOOK] = lambda request: fake.http(200, body)
        assert (await igd.look(PORT)).kind is Kind.UNKNOWN
        assert await igd.add(PORT, lease=3600) == Mapped(3600)


async def test_an_add_without_an_answer() -> None:
    async with home(seconds=0.3) as (router, igd):
        router.odd[ADD] = lambda request: fake.SILENCE
        assert isinstance(await igd.add(PORT, lease=3600), Unknown)


async def test_a_router_that_hangs_up_on_an_add() -> None:
    async with home() as (router, igd):
        router.odd[ADD] = lambda request: fake.HANG_UP
        assert isinstance(await igd.add(PORT, lease=3600), Unknown)
        assert router.counted[ADD] == 2  # once on the kept connection, once on one of its own


async def test_a_router_that_closes_after_each_answer_without_saying_so() -> None:
    """What is sent at that moment gets an end of the connection for an answer."""
    for action in (ADD, DELETE):
        async with home() as (router, igd):
            dropped: list[Request] = []

            def drop(request: Request, dropped: list[Request] = dropped) -> bytes | None:
                dropped.append(request)
                return fake.HANG_UP if len(dropped) == 1 else None

            router.odd[action] = drop
            assert await igd.add(PORT, lease=3600) == Mapped(3600)
            assert await igd.remove(PORT) is Removal.GONE
            assert len(dropped) == 2


async def test_a_silent_router() -> None:
    async with home(seconds=0.3) as (router, igd):
        for action in (ADD, DELETE, LOOK, "GetExternalIPAddress", "GetStatusInfo"):
            router.odd[action] = lambda request: fake.SILENCE
        assert isinstance(await igd.add(PORT, lease=3600), Ignored | Unknown)
        assert await igd.remove(PORT) is Removal.FAILED
        assert (await igd.look(PORT)).kind is Kind.UNKNOWN
        assert await igd.external_address() is None


async def test_a_router_that_has_gone() -> None:
    async with home() as (_, igd):
        pass
    assert isinstance(await igd.add(PORT, lease=3600), Ignored)
    assert await igd.remove(PORT) is Removal.FAILED
    assert await igd.external_address() is None


async def test_one_request_at_a_time() -> None:
    async with home() as (router, igd):
        async with trio.open_nursery() as nursery:
            for number in range(7000, 7008):
                nursery.start_soon(partial(igd.add, Port(Protocol.TCP, number), lease=3600))
        assert len(router.table) == 8
        assert router.connections == 1


async def test_the_connection_is_given_up() -> None:
    """A second session of this host may be waiting for the only one a router takes."""
    async with home() as (router, one):
        other = await Igd.open(router.service, location=router.url, internal_address=HERE)
        assert await one.add(PORT, lease=3600) == Mapped(3600)
        assert one._requester._stream is None
        assert await other.remove(PORT) is Removal.GONE
        assert await one.external_address() == "11.22.33.1"
        assert one._requester._stream is None
        assert other._requester._stream is None


async def test_a_control_path_that_begins_with_two_slashes() -> None:
    async with fake.running() as router:
        text = fake.document((fake.KIND, f"http://{fake.ROUTER}:{router.port}//ctl"))
        (service,) = services(text, url=trust.read(router.url))
        igd = await Igd.open(service, location=router.url, internal_address=HERE)
        assert await igd.add(PORT, lease=3600) == Mapped(3600)
        assert router.log[-1].path == "//ctl"


@pytest.mark.parametrize(
    ("said", "read"),
    [("9.9.9.9", "9.9.9.9"), ("10.0.0.1", "10.0.0.1"), ("", None), ("pending", None)],
)
async def test_the_external_address(said: str, read: str | None) -> None:
    async with home() as (router, igd):
        router.odd["GetExternalIPAddress"] = lambda request: fake.success(
            "GetExternalIPAddress", NewExternalIPAddress=said
        )
        assert await igd.external_address() == read
