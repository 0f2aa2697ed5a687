"""Rules 4, 5 and 8 of `tests.hostile.rules`: what is read of what a router says, and for how long.

On loopback, with a server that says whatever it likes.
"""

import gzip
import logging
import tracemalloc

import pytest
import trio

from natsup.state.model import Ignored, Mapped, Port, Protocol, Unknown
from natsup.upnp import network
from natsup.upnp.discovery import find_gateway, network_of
from natsup.upnp.igd import Igd
from natsup.upnp.network import NoGateway
from natsup.upnp.requester import RequestFailed
from tests.upnp import fake
from tests.upnp.fake import HERE, KIND, ROUTER, document
from tests.upnp.serving import head, requester, saying, server

CAP = 64 * 1024
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
PORT = Port(Protocol.TCP, 6881)
NETWORK = network.Network("lo", ROUTER, HERE)

# How it begins, and how it goes on without end
ENDLESS = {
    "a body": (OK + b"\r\n", b"b" * 1024),
    "a body said to be large": (OK + b"Content-Length: 99999999999\r\n\r\n", b"b" * 1024),
    "chunks": (CHUNKED, b"400\r\n" + b"b" * 1024 + b"\r\n"),
    "chunks of a byte": (CHUNKED, b"1\r\nb\r\n" * 100),
    "chunks with much about them": (CHUNKED, b"1;" + b"x" * 8000 + b"\r\nb\r\n"),
    "one chunk's length": (CHUNKED, b"0" * 1024),
    "trailers": (CHUNKED + b"0\r\n", b"X: y\r\n" * 100),
    "the first line": (b"HTTP/1.1 200 ", b"x" * 1024),
    "a header line": (OK + b"X: ", b"x" * 1024),
    "header lines": (OK, b"X: y\r\n" * 100),
    "folded lines": (OK + b"X: y\r\n", b" y\r\n" * 100),
    "empty lines": (b"", b"\r\n" * 512),
    "NULs": (b"", b"\0" * 1024),
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 20),
    "interim answers with much in them": (
        b"",
        b"HTTP/1.1 102 Processing\r\n" + b"X: y\r\n" * 90 + b"\r\n",
    ),
}


@pytest.mark.parametrize("how", ENDLESS)
async def test_4_what_has_no_end_is_left(how: str) -> None:
    """Soon, and without having kept more than twice what may be kept."""
    begin, more = ENDLESS[how]
    sent = 0

    async def handler(stream: trio.SocketStream, number: int) -> None:
        nonlocal sent
        await head(stream)
        await stream.send_all(begin)
        while True:
            await stream.send_all(more)
            sent += len(more)

    async with server(handler) as url, requester(at_most=CAP) as http:
        tracemalloc.start()
        try:
            with trio.fail_after(10), pytest.raises(RequestFailed):
                await http.get(url, seconds=60)
            most = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert most < 2 << 20
        assert sent < 16 << 20  # with all that the kernel's buffers hold


@pytest.mark.parametrize("count", [100, 101])
async def test_4_a_hundred_header_lines(count: int) -> None:
    answer = OK + b"X: y\r\n" * (count - 1) + b"Content-Length: 0\r\n\r\n"
    async with server(saying(answer)) as url, requester() as http:
        if count <= 100:
            assert await http.get(url, seconds=10) == (200, b"")
        else:
            with pytest.raises(RequestFailed):
                await http.get(url, seconds=10)


@pytest.mark.parametrize(("count", "good"), [(4000, True), (4200, False)])
async def test_4_the_most_pieces(count: int, good: bool) -> None:
    """Of a body that is short enough: each takes as long as a thousand bytes."""
    answer = CHUNKED + b"1\r\nb\r\n" * count + b"0\r\n\r\n"
    async with server(saying(answer)) as url, requester(at_most=CAP) as http:
        if good:
            assert await http.get(url, seconds=10) == (200, b"b" * count)
        else:
            with pytest.raises(RequestFailed, match="no end"):
                await http.get(url, seconds=10)


async def test_4_one_deadline_for_all_of_it() -> None:
    """However slowly it comes: the headers, the body, or nothing."""
    for begin in (b"", OK, OK + b"Content-Length: 1000\r\n\r\n"):

        async def handler(stream: trio.SocketStream, number: int, begin: bytes = begin) -> None:
            await stream.send_all(begin)
            while True:
                await stream.send_all(b"X")
                await trio.sleep(0.01)

        async with server(handler) as url, requester() as http:
            with trio.fail_after(5), pytest.raises(RequestFailed, match="in time"):
                await http.get(url, seconds=0.2)


async def test_4_what_is_packed_is_not_unpacked() -> None:
    """Nobody has asked for it: a kilobyte may stand for a megabyte."""
    bomb = gzip.compress(bytes(64 << 20))
    requests = []

    async def handler(stream: trio.SocketStream, number: int) -> None:
        requests.append(await head(stream))
        about = f"Content-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n"
        await stream.send_all(OK + about.encode() + bomb)

    async with server(handler) as url, requester(at_most=1 << 20) as http:
        assert await http.get(url, seconds=10) == (200, bomb)
    assert b"accept-encoding" not in requests[0].lower()


@pytest.mark.parametrize("length", ["-1", "+4", "4, 5", "0x4", "1e3", "4\r\nContent-Length: 5"])
async def test_4_a_length_that_is_none(length: str) -> None:
    answer = OK + f"Content-Length: {length}\r\n\r\n".encode() + b"body" * 999
    async with server(saying(answer)) as url, requester() as http:
        with pytest.raises(RequestFailed):
            await http.get(url, seconds=10)


@pytest.mark.parametrize(("length", "read"), [(2, b"bo"), (4, b"body"), (6, None)])
async def test_4_a_wrong_length(length: int, read: bytes | None) -> None:
    """What is beyond it is nothing, and what is missing makes it no answer."""
    answer = OK + f"Content-Length: {length}\r\n\r\nbody".encode()
    async with server(saying(answer)) as url, requester() as http:
        for _ in range(2):
            if read is None:
                with pytest.raises(RequestFailed):
                    await http.get(url, seconds=10)
            else:
                assert await http.get(url, seconds=10) == (200, read)


async def described(text: str) -> Igd | NoGateway:
    """What becomes of a router with this description."""
    async with fake.running() as router:
        router.documents["/d.xml"] = text
        return await find_gateway(NETWORK, url=router.url)


@pytest.mark.parametrize(("size", "good"), [(256 * 1024, True), (256 * 1024 + 1, False)])
async def test_4_the_longest_description(size: int, good: bool) -> None:
    text = document((KIND, "/ctl"))
    found = await described(text + " " * (size - len(text)))
    assert isinstance(found, Igd) == good


@pytest.mark.parametrize(("others", "good"), [(63, True), (64, False)])
async def test_4_the_last_service_that_is_looked_at(others: int, good: bool) -> None:
    strange = [("urn:x:service:Other:1", "/x")] * others
    assert isinstance(await described(document(*strange, (KIND, "/ctl"))), Igd) == good


@pytest.mark.parametrize("count", [2, 200])
async def test_4_a_router_of_many_services_is_asked_two_seconds_long(count: int) -> None:
    """For all of them together, and of 64 at the most."""
    text = document(*[(KIND, f"/{number}") for number in range(count)])
    async with fake.running() as router:
        router.documents["/d.xml"] = text
        router.odd = dict.fromkeys(("GetExternalIPAddress",), lambda request: fake.SILENCE)
        with trio.fail_after(5):
            assert isinstance(await find_gateway(NETWORK, url=router.url), Igd)
        assert router.counted["GetExternalIPAddress"] <= 64


@pytest.mark.parametrize(("depth", "good"), [(14, True), (15, False), (2900, False)])
async def test_4_how_deep_a_service_may_be(depth: int, good: bool) -> None:
    text = document((KIND, "/ctl"))
    deep = text.replace("<device>", "<device>" * depth).replace("</device>", "</device>" * depth)
    assert isinstance(await described(deep), Igd) == good


@pytest.mark.parametrize("what", ["<a/>", "<a>", "<?a b?>", "<a b=''/>"])
async def test_4_a_description_of_tags_alone(what: str) -> None:
    """Each costs more than it weighs."""
    text = document((KIND, "/ctl")).replace("<device>", what * 6000 + "<device>")
    with trio.fail_after(5):
        found = await described(text)
    assert isinstance(found, NoGateway)
    assert "too long" in found.reason


LAUGHS = "".join(
    f'<!ENTITY {name} "{f"&{before};" * 10}">'
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
DOCTYPES = {
    "a DTD": "<!DOCTYPE root>",
    "in small letters": "<!doctype root>",
    "an entity": '<!DOCTYPE root [<!ENTITY a "b">]>',
    "laughs by the billion": f'<!DOCTYPE root [<!ENTITY a "aaaaaaaaaa">{LAUGHS}]>',
    "one large entity": f'<!DOCTYPE root [<!ENTITY i "{"x" * 50_000}">]>',
    "a file": '<!DOCTYPE root [<!ENTITY i SYSTEM "file:///etc/passwd">]>',
    "a document": '<!DOCTYPE root [<!ENTITY i SYSTEM "{trap}">]>',
    "a DTD elsewhere": '<!DOCTYPE root SYSTEM "{trap}">',
    "a parameter": '<!DOCTYPE root [<!ENTITY % i SYSTEM "{trap}"> %i;]>',
}


@pytest.mark.parametrize("which", DOCTYPES)
async def test_5_no_dtd_is_read(which: str) -> None:
    """In a description it makes it none, in an answer it is nothing; nobody is asked for it."""
    asked = []

    async def handler(stream: trio.SocketStream, number: int) -> None:
        asked.append(number)

    async with server(handler) as trap, fake.running() as router:
        doctype = DOCTYPES[which].replace("{trap}", str(trap))
        text = document((KIND, "/ctl")).replace("<root", f"{doctype}<root")
        router.documents["/d.xml"] = text.replace("<device>", "<device><x>&i;&i;&i;</x>")
        with trio.fail_after(5):
            found = await find_gateway(NETWORK, url=router.url)
        assert isinstance(found, NoGateway)
        assert "DTD" in found.reason

        def odd(request: fake.Request) -> bytes:
            body = fake.success("GetSpecificPortMappingEntry", NewInternalClient="&i;")
            return fake.http(200, doctype + body.partition(b"\r\n\r\n")[2].decode())

        router.documents["/d.xml"] = document((KIND, "/ctl"))
        router.odd["GetSpecificPortMappingEntry"] = odd
        igd = await find_gateway(NETWORK, url=router.url)
        assert isinstance(igd, Igd)
        with trio.fail_after(5):
            assert isinstance(await igd.add(PORT, lease=3600), Ignored)
        assert asked == []


NASTY = "\x1b]0;owned\x07\x1b[2J\r\nroot: logged in\u202e\u2028\0"
ESCAPED = "".join(f"&#{ord(char)};" for char in NASTY)


@pytest.mark.parametrize("nasty", [NASTY, ESCAPED], ids=["raw", "escaped"])
async def test_8_what_a_router_says_is_not_repeated(
    nasty: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in the log, not in a reason, and not as an address."""
    caplog.set_level(logging.DEBUG, "natsup")
    said: list[str] = []
    async with fake.running() as router:
        router.documents["/d.xml"] = document((KIND, "/ctl"), base=f"<URLBase>{nasty}</URLBase>")
        igd = await find_gateway(NETWORK, url=router.url)
        assert isinstance(igd, Igd)
        for odd in (
            fake.fault(nasty),
            fake.fault(f"718{nasty}"),
            fake.success("AddPortMapping", NewX=nasty),
            fake.success("GetExternalIPAddress", NewExternalIPAddress=f"1.1.1.1{nasty}"),
            fake.success(
                "GetSpecificPortMappingEntry",
                NewInternalClient=nasty,
                NewInternalPort=nasty,
                NewEnabled=nasty,
                NewLeaseDuration=nasty,
                NewPortMappingDescription=nasty,
            ),
            f"HTTP/1.1 200 {nasty}\r\n\r\n".encode() + fake.HANG_UP,
            nasty.encode() + fake.HANG_UP,
        ):
            for action in ("AddPortMapping", "GetSpecificPortMappingEntry", "GetExternalIPAddress"):
                router.odd = {action: lambda request, odd=odd: odd}  # type: ignore[misc]
                outcome = await igd.add(PORT, lease=3600)
                if isinstance(outcome, Ignored | Unknown):
                    said.append(outcome.reason)
                else:
                    assert isinstance(outcome, Mapped)
                assert await igd.external_address() in (None, "11.22.33.1")
        router.documents["/d.xml"] = nasty
        for found in (
            await find_gateway(NETWORK, url=router.url),
            await network_of(interface=None, url=f"{router.url}{nasty}\x1b"),
        ):
            assert isinstance(found, NoGateway)
            said.append(found.reason)
    assert caplog.records
    said += [record.getMessage() for record in caplog.records if record.name == "natsup.upnp"]
    for text in said:
        assert text.isprintable(), text
        assert "owned" not in text
        assert "logged in" not in text
