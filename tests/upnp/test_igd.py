"""The gateway against a router on loopback, whole: library, HTTP, decisions."""

import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trio.testing
from async_upnp_client.const import HttpResponse

from natsup.state.gateway import Gateway
from natsup.state.model import Conflict, Ignored, Mapped, Port, Protocol, Removal, Unknown
from natsup.upnp import trust
from natsup.upnp.adding import Kind
from natsup.upnp.description import Condition, services
from natsup.upnp.igd import Igd, description, normalised
from tests.upnp import fake
from tests.upnp.fake import HERE, OTHER, Entry, Request, Router

PORT = Port(Protocol.TCP, 6881)
KEY = ("TCP", 6881)
LATE = "the router did not answer in time"
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
        assert await igd.check(PORT) == Mapped(3600)
        assert await gateway.remove(PORT) is Removal.GONE
        assert router.table == {}
        assert (await igd.look(PORT)).kind is Kind.NOBODY
        assert await igd.check(PORT) == Ignored("the router did not keep the mapping", full=True)
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


@pytest.mark.parametrize(("said", "seconds"), [("17", 17), ("0", 0), ("", 0), ("soon", 0)])
async def test_the_lease_that_a_look_shows(said: str, seconds: int) -> None:
    async with home() as (router, igd):
        router.table[KEY] = Entry(HERE, "6881", lease=said)
        assert await igd.check(PORT) == Mapped(seconds)


async def test_an_entry_that_names_nobody_is_left_alone() -> None:
    """It is another's for all we know, until this very gateway was made to add it."""
    named = Entry("nas.lan", "6881")
    async with home() as (router, igd):
        router.table[KEY] = named
        assert isinstance(await igd.add(PORT, lease=3600), Ignored)
        assert await igd.remove(PORT) is Removal.FAILED
        assert await igd.check(PORT) == Unknown("the router's entry for the port names no address")
        assert router.table == {KEY: named}
        assert set(router.actions) == {LOOK}
        router.table.clear()
        assert await igd.add(PORT, lease=3600) == Mapped(3600)
        router.table[KEY] = named  # as it calls this host
        router.odd[ADD] = lambda request: fake.success(ADD)
        assert await igd.add(PORT, lease=3600) == Mapped(3600)
        assert await igd.remove(PORT) is Removal.GONE
        assert router.table == {}


async def test_this_host_s_other_address_is_no_other_host_s() -> None:
    async with fake.running() as router:
        igd = await Igd.open(
            router.service, location=router.url, internal_address=HERE, own=frozenset({OTHER})
        )
        router.table[KEY] = Entry(OTHER, "6881")
        assert isinstance(await igd.add(PORT, lease=3600), Ignored)
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


@pytest.mark.parametrize(
    "piece", ["<errorCode", "<a:errorCode ", "<errorCode>", "<errorCode> ", "<errorCode>1x", "a:"]
)
async def test_no_answer_takes_long_to_read(piece: str) -> None:
    """Ten times what a router may send, so that a quadratic reader takes most of a minute."""
    async with home() as (_, igd):
        action = igd._service.action(ADD)
        response = HttpResponse(500, {}, piece * (600_000 // len(piece)))
        began = time.process_time()
        with pytest.raises(Exception, match="None"):
            normalised(action, response)
        assert time.process_time() - began < 5


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
        assert await igd.add(PORT, lease=3600) == Unknown(LATE, silent=True)


async def test_a_look_without_an_answer() -> None:
    async with home(seconds=0.3) as (router, igd):
        router.odd[LOOK] = lambda request: fake.SILENCE
        assert await igd.add(PORT, lease=3600) == Ignored(LATE, silent=True)
        assert await igd.check(PORT) == Unknown(LATE, silent=True)
        assert router.counted[ADD] == 0


async def test_a_turn_that_does_not_come_in_time() -> None:
    async with home(seconds=0.3) as (router, igd):
        outcomes = []

        async def add(number: int) -> None:
            outcomes.append(await igd.add(Port(Protocol.TCP, number), lease=3600))

        router.odd[ADD] = lambda request: fake.SILENCE
        async with trio.open_nursery() as nursery:
            nursery.start_soon(add, 7000)
            nursery.start_soon(add, 7001)
        assert Unknown(LATE, silent=True) in outcomes
        assert Ignored(LATE, silent=True) in outcomes
        assert router.counted[ADD] == 1


@pytest.mark.parametrize("answer", [b"no HTTP\r\n\r\n", fake.http(200, "x" * 100_000)])
async def test_an_answer_that_cannot_be_read_is_no_silence(answer: bytes) -> None:
    async with home() as (router, igd):
        router.odd[ADD] = lambda request: answer
        outcome = await igd.add(PORT, lease=3600)
        assert isinstance(outcome, Ignored)
        assert not outcome.silent
        router.odd[LOOK] = lambda request: answer
        outcome = await igd.add(PORT, lease=3600)
        assert isinstance(outcome, Unknown)
        assert not outcome.silent


async def test_a_router_that_hangs_up_on_an_add() -> None:
    async with home() as (router, igd):
        router.odd[ADD] = lambda request: fake.HANG_UP
        outcome = await igd.add(PORT, lease=3600)
        assert isinstance(outcome, Unknown)
        assert outcome.silent
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
        assert await igd.add(PORT, lease=3600) == Ignored(LATE, silent=True)
        assert await igd.remove(PORT) is Removal.FAILED
        assert (await igd.look(PORT)).kind is Kind.UNKNOWN
        assert await igd.external_address() is None


async def test_a_router_that_has_gone() -> None:
    async with home() as (_, igd):
        pass
    outcome = await igd.add(PORT, lease=3600)
    assert isinstance(outcome, Ignored)
    assert outcome.silent
    assert await igd.remove(PORT) is Removal.FAILED
    assert await igd.external_address() is None


async def test_one_request_at_a_time() -> None:
    async with home() as (router, igd):
        async with trio.open_nursery() as nursery:
            for number in range(7000, 7008):
                nursery.start_soon(partial(igd.add, Port(Protocol.TCP, number), lease=3600))
        assert len(router.table) == 8
        assert router.connections == 1


async def test_what_one_operation_learns_those_that_wait_know() -> None:
    def refuse(request: Request) -> bytes | None:
        return None if request.values["NewLeaseDuration"] == "0" else fake.fault(725)

    async with home() as (router, igd):
        router.odd[ADD] = refuse
        async with trio.open_nursery() as nursery:
            for number in range(7000, 7004):
                nursery.start_soon(partial(igd.add, Port(Protocol.TCP, number), lease=3600))
        assert router.counted[ADD] == 5
        assert await igd.add(PORT, lease=3600) == Mapped(0)
        assert router.counted[ADD] == 6


async def test_the_external_address_is_asked_last() -> None:
    """After what is under way, and after what comes while that is."""
    async with home() as (router, igd), trio.open_nursery() as nursery:

        def ask(request: Request) -> None:
            del router.odd[LOOK]
            nursery.start_soon(igd.external_address)

        def add_more(request: Request) -> None:
            del router.odd[ADD]
            for number in range(7000, 7003):
                nursery.start_soon(partial(igd.add, Port(Protocol.TCP, number), lease=3600))

        router.odd = {LOOK: ask, ADD: add_more}
        await igd.add(PORT, lease=3600)
    assert router.actions == [LOOK, ADD] * 4 + ["GetExternalIPAddress"]


async def test_nobody_waits_long_for_the_external_address(
    autojump_clock: trio.testing.MockClock,
) -> None:
    autojump_clock.autojump_threshold = 0.05  # sockets are real: leave the kernel a moment
    asked = "GetExternalIPAddress"
    async with home() as (router, igd):
        reached = trio.Event()

        def silent(request: Request) -> bytes:
            reached.set()
            return fake.SILENCE

        router.odd[asked] = silent
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(igd.external_address)
            await reached.wait()
            assert await igd.add(PORT, lease=3600) == Mapped(3600)
            assert trio.current_time() - began < 3
        assert router.actions == [asked, LOOK, ADD]


async def test_a_router_that_is_never_idle_is_not_asked_for_its_address(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with home() as (router, igd), igd.turn():
        with trio.fail_after(11):
            assert await igd.external_address() is None
        assert router.actions == []


async def test_a_condition_is_what_was_said_in_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    autojump_clock.autojump_threshold = 0.05
    async with home() as (router, igd):
        router.odd["GetStatusInfo"] = lambda request: fake.SILENCE
        began = trio.current_time()
        assert await igd.condition() == Condition(False, "11.22.33.1")
        assert trio.current_time() - began < 3


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


async def test_a_control_path_that_was_meant_from_the_root() -> None:
    """There are routers that write it without its slash, and descriptions in a folder."""
    async with fake.running() as router:
        url = trust.read(router.url.replace("d.xml", "folder/d.xml"))
        (service,) = services(fake.document((fake.KIND, "ctl")), url=url)
        igd = await Igd.open(service, location=str(url), internal_address=HERE)

        def only_at_the_root(request: Request) -> bytes | None:
            return None if request.path == "/ctl" else fake.http(404, "not here")

        for action in (LOOK, ADD):
            router.odd[action] = only_at_the_root
        assert (await igd.look(PORT)).kind is Kind.NOBODY
        assert await igd.add(PORT, lease=3600) == Mapped(3600)
        paths = [request.path for request in router.log]
        assert paths == ["/folder/ctl", "/ctl", "/ctl", "/ctl"]


async def test_a_path_that_is_nowhere() -> None:
    async with home() as (router, igd):
        router.odd[LOOK] = lambda request: fake.http(404, "not here")
        assert (await igd.look(PORT)).kind is Kind.UNKNOWN
        assert router.counted[LOOK] == 1


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
