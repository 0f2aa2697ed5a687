"""SSDP's messages, as routers really write them."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natsup.upnp import ssdp
from natsup.upnp.ssdp import Answer

URL = "http://192.168.1.1:5000/rootDesc.xml"


def test_the_search() -> None:
    lines = ssdp.search(ssdp.TARGETS[0], host="239.255.255.250").decode().split("\r\n")
    assert lines[0] == "M-SEARCH * HTTP/1.1"
    assert "HOST: 239.255.255.250:1900" in lines
    assert 'MAN: "ssdp:discover"' in lines
    assert f"ST: {ssdp.TARGETS[0]}" in lines
    assert lines[-2:] == ["", ""]


def test_the_targets_name_both_versions_of_a_router_and_both_services() -> None:
    joined = " ".join(ssdp.TARGETS)
    for wanted in ("Device:1", "Device:2", "WANIPConnection:1", "WANPPPConnection:1", "rootdevice"):
        assert wanted in joined
    assert len(set(ssdp.TARGETS)) == len(ssdp.TARGETS)


@pytest.mark.parametrize(
    "text",
    [
        "HTTP/1.1 200 OK\r\nLOCATION: {}\r\n\r\n",
        "HTTP/1.0 200 OK\r\nLocation: {}\r\n\r\n",
        "HTTP/1.1 200 Ok\r\nlocation:{}\r\n\r\n",
        "HTTP/1.1 200\r\nLocation : {}\r\n",
        "HTTP/1.1 200 OK\nLOCATION: {}\n\n",
        "HTTP/1.1 200 OK\r\nno colon here\r\nLOCATION: {}\r\n\r\n",
        "HTTP/1.1 200 OK\r\nSERVER: \r\nUser-Agent: x\r\nLOCATION: {}\r\n\r\n",
        "HTTP/1.1 200 OK\r\nSERVER: a\r\n b\r\nLOCATION: {}\r\n\r\n",
        "HTTP/1.1 200 OK\r\nSERVER: caf\xe9\r\nLOCATION: {}\r\n\r\n",
        "HTTP/1.1 200 OK\r\nSERVER: a\0b\r\nLOCATION: {}\r\n\r\n\0\0",
        "HTTP/1.1 200 OK\r\nLOCATION:\r\nLOCATION: {}\r\n\r\n",
    ],
)
def test_answers(text: str) -> None:
    assert ssdp.answer(text.format(URL).encode("latin-1")) == Answer(URL)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\r\n",
        "HTTP/1.1 404 Not Found\r\nLOCATION: {}\r\n\r\n",
        "NOTIFY * HTTP/1.1\r\nLOCATION: {}\r\n\r\n",
        "M-SEARCH * HTTP/1.1\r\nLOCATION: {}\r\n\r\n",
        "HTTP/1.1 200 OK\r\nST: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nLOCATION: {}\r\nLocation: http://192.168.1.9/\r\n\r\n",
        "HTTP/1.1 200 OK LOCATION: {}",
    ],
)
def test_what_is_no_answer(text: str) -> None:
    assert ssdp.answer(text.format(URL).encode("latin-1")) is None


@given(st.binary(max_size=3000))
def test_any_bytes(data: bytes) -> None:
    for candidate in (data, b"HTTP/1.1 200 OK\r\n" + data):
        found = ssdp.answer(candidate)
        assert found is None or found.location == found.location.strip() != ""
        assert found is None or b"location" in data.lower()
        assert found is None or found.bootid is None or 0 <= found.bootid < 10**10


IGD = "urn:schemas-upnp-org:device:InternetGatewayDevice:1"
ANSWER = (
    f"HTTP/1.1 200 OK\r\nST: {IGD}\r\nUSN: uuid:7::{IGD}\r\n"
    f"LOCATION: {URL}\r\nBOOTID.UPNP.ORG: 17\r\n\r\n"
)
READ = Answer(URL, IGD, f"uuid:7::{IGD}", 17)


@pytest.mark.parametrize(
    ("old", "new", "read"),
    [
        ("\r\n", "\r\n", READ),
        ("\r\n", "\n", READ),
        ("BOOTID.UPNP.ORG", "BootId.UPnP.org", READ),
        ("BOOTID.UPNP.ORG", "X", replace(READ, bootid=None)),
        (": 17", ": -17", replace(READ, bootid=None)),
        (": 17", ": " + "1" * 5000, replace(READ, bootid=None)),
        (": 17", ": \u00b2", replace(READ, bootid=None)),
        (": 17", ": 17\r\nBOOTID.UPNP.ORG: 18", replace(READ, bootid=None)),
        ("ST:", "X:", replace(READ, target="")),
        ("USN:", "X:", replace(READ, name="")),
    ],
)
def test_what_an_answer_says(old: str, new: str, read: Answer) -> None:
    assert old in ANSWER
    assert ssdp.answer(ANSWER.replace(old, new).encode("latin-1")) == read
