"""Descriptions as routers really write them; the odd ones are files of their own."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from natsup.upnp import trust
from natsup.upnp.description import Condition, Service, Unreadable, best, services
from tests.upnp.fake import KIND, document

URL = trust.Url("192.168.1.1", 5000, "/d.xml")
FOLDER = Path(__file__).parents[1] / "gateway" / "descriptions"
IP2, IP1 = (f"urn:schemas-upnp-org:service:WANIPConnection:{version}" for version in (2, 1))
PPP = "urn:schemas-upnp-org:service:WANPPPConnection:1"


@pytest.mark.parametrize(
    ("path", "where", "at_root"),
    [
        ("ctl", "/folder/ctl", "/ctl"),
        ("a/ctl?x", "/folder/a/ctl?x", "/a/ctl?x"),
        ("/ctl", "/ctl", None),
        ("http://192.168.1.1:6000/ctl", "/ctl", None),
        ("../ctl", "/ctl", None),
    ],
)
def test_a_relative_control_path_may_be_meant_from_the_root(
    path: str, where: str, at_root: str | None
) -> None:
    url = trust.Url("192.168.1.1", 5000, "/folder/d.xml")
    (service,) = services(document((KIND, path)), url=url)
    assert service.control.target == where
    assert (service.at_root.target if service.at_root else None) == at_root


def read(text: str) -> list[tuple[str, str]]:
    return [(service.kind, str(service.control)) for service in services(text, url=URL)]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (
            "two-connections",
            [
                (IP1, "http://192.168.1.1:49000/ip/1"),
                (IP1, "http://192.168.1.1:49000/ip/2"),
                (PPP, "http://192.168.1.1:49000/ppp/1"),
            ],
        ),
        ("raw-ampersand", [(IP1, "http://192.168.1.1:5000/ctl/IPConn")]),
        (
            "dsl-forum",
            [
                (
                    "urn:dslforum-org:service:WANPPPConnection:1",
                    "http://192.168.1.1:5000/upnp/control/WANPPPConn1",
                )
            ],
        ),
        ("astray", [(IP1, "http://192.168.1.1:5000/ctl")]),
    ],
)
def test_files(name: str, found: list[tuple[str, str]]) -> None:
    assert read((FOLDER / f"{name}.xml").read_text()) == found


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text,
        lambda text: "\n\n" + text,
        lambda text: text + "\0\0",
        lambda text: text + "\r\n\0",
        lambda text: "\ufeff" + text,
        lambda text: text + "</junk>",
        lambda text: text.replace("<root xmlns=", "<root xmlns:x="),
        lambda text: text.replace("serviceType", "SERVICETYPE").replace("controlURL", "ControlUrl"),
        lambda text: text.replace('"1.0"', '"1.0" encoding="utf-16"'),
        lambda text: text.replace("<device>", "<device><friendlyName>\xe9 & \x01</friendlyName>"),
        lambda text: text.replace("/ctl", " \n/ctl\t"),
    ],
)
def test_what_is_read_all_the_same(change: Callable[[str], str]) -> None:
    assert read(change(document((KIND, "/ctl")))) == [(KIND, "http://192.168.1.1:5000/ctl")]


def test_the_better_kind_comes_first_whatever_the_order() -> None:
    found = read(document((PPP, "/3"), (IP1, "/2"), (IP2, "/1")))
    assert [kind for kind, _ in found] == [IP2, IP1, PPP]


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\0",
        "hello",
        "<html><body>log in</body></html>",
        "<root/>",
        document(),
        document(("urn:schemas-upnp-org:service:WANCommonInterfaceConfig:1", "/ctl")),
        document((KIND, "")),
        document((KIND, "http://192.168.1.9/ctl")),
        document((KIND, "http://127.0.0.1/ctl")),
        document((KIND, "http://[")),
        document((KIND, "http://\u2100/")),
        document((KIND, "/ctl")).replace("<root", BOMB + "<root"),
        document((KIND, "/ctl")).replace("<root", "<!doctype x><root"),
        "<a>" * 20_000 + document((KIND, "/ctl")).partition("?>")[2] + "</a>" * 20_000,
        document(*[("urn:x:service:Other:1", "/x")] * 64, (KIND, "/ctl")),
    ],
)
def test_unreadable(text: str) -> None:
    with pytest.raises(Unreadable):
        services(text, url=URL)


@pytest.mark.parametrize(("deep", "found"), [(8, True), (40, False)])
def test_depth(deep: int, found: bool) -> None:
    service = document((KIND, "/ctl")).partition("<device>")[2].removesuffix("</device></root>")
    text = "<root>" + "<device>" * deep + service + "</device>" * deep + "</root>"
    if found:
        assert read(text)
    else:
        with pytest.raises(Unreadable):
            services(text, url=URL)


@pytest.mark.parametrize(
    "text",
    [
        "<URLBase>" + " " * 250_000 + "&",
        "<URLBase>" * 28_000 + "&",
        "<service>" * 28_000 + "&",
        "<service><serviceType>" + " " * 250_000 + "&",
        "<service>" + "<serviceType>" * 19_000 + "</service>&",
    ],
)
async def test_text_made_to_take_for_ever(text: str) -> None:
    """In a process of its own: a regular expression that has run wild cannot be interrupted."""
    code = (
        "import sys\nfrom natsup.upnp import description, trust\n"
        "try: description.services(sys.stdin.read(), url=trust.Url('192.168.1.1', 80, '/'))\n"
        "except description.Unreadable: sys.exit(7)"
    )
    with trio.fail_after(30):
        ended = await trio.run_process(
            [sys.executable, "-c", code], stdin=text.encode(), check=False
        )
    assert ended.returncode == 7


@given(st.text(max_size=300), st.text(max_size=60))
def test_any_text(text: str, path: str) -> None:
    for candidate in (text, document((KIND, path)), document((KIND, "/x"), base=text)):
        try:
            found = services(candidate, url=URL)
        except Unreadable:
            continue
        assert {service.control.host for service in found} == {URL.host}


class TestBest:
    @staticmethod
    def service(kind: str, port: int) -> Service:
        return Service(kind, trust.Url("192.168.1.1", port, "/ctl"))

    def test_connected_before_kind(self) -> None:
        ip, ppp = self.service(IP1, 1), self.service(PPP, 2)
        conditions = {ip: Condition(False, "9.9.9.9"), ppp: Condition(True, None)}
        assert best([ip, ppp], conditions) == ppp

    def test_a_public_address_before_a_private_one(self) -> None:
        one, two = self.service(IP1, 1), self.service(IP1, 2)
        for private in ("10.0.0.1", "100.64.0.1", "192.168.9.1"):
            conditions = {one: Condition(True, private), two: Condition(True, "9.9.9.9")}
            assert best([one, two], conditions) == two

    def test_any_address_before_none(self) -> None:
        one, two = self.service(IP1, 1), self.service(IP1, 2)
        for none in (None, "", "0.0.0.0", "127.0.0.1", "x"):
            conditions = {one: Condition(True, none), two: Condition(True, "10.0.0.1")}
            assert best([one, two], conditions) == two

    def test_kind_where_nothing_else_is_known(self) -> None:
        one, two = self.service(IP1, 1), self.service(IP2, 2)
        assert best([one, two], {}) == two

    def test_disconnected_is_no_veto(self) -> None:
        one = self.service(IP1, 1)
        assert best([one], {one: Condition(False, None)}) == one
