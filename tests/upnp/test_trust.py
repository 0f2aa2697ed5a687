"""Which addresses are followed."""

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natsup.upnp import trust

GATEWAY, OWN = "192.168.1.1", "192.168.1.2"
DESCRIPTION = trust.Url(GATEWAY, 5000, "/folder/d.xml")


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://192.168.1.1:5000/a/b?c=d", trust.Url(GATEWAY, 5000, "/a/b?c=d")),
        ("http://192.168.1.1", trust.Url(GATEWAY, 80, "/")),
        ("HTTP://192.168.1.1:1/", trust.Url(GATEWAY, 1, "/")),
        ("http://192.168.1.1:65535?x", trust.Url(GATEWAY, 65535, "/?x")),
    ],
)
def test_good(text: str, url: trust.Url) -> None:
    assert trust.read(text) == url
    assert trust.read(str(url)) == url


BAD = (
    "",
    "192.168.1.1",
    "https://192.168.1.1/",
    "file:///etc/passwd",
    "ftp://192.168.1.1/",
    "//192.168.1.1/",
    "http://router.lan/",
    "http://user@192.168.1.1/",
    "http://user:word@192.168.1.1/",
    "http://192.168.1.1:0/",
    "http://192.168.1.1:65536/",
    "http://192.168.1.1:-1/",
    "http://192.168.1.1:x/",
    "http://[::1]/",
    "http://[::ffff:192.168.1.1]/",
    "http://[",
    "http://3232235777/",
    "http://0xc0a80101/",
    "http://192.168.257/",
    "http://0.0.0.0/",
    "http://239.255.255.250/",
    "http://255.255.255.255/",
    "http://192.168.1.1/a b",
    "http://192.168.1.1/\r\nHost: x",
    "http://192.168.1.1/\0",
    "http://192.168.1.1/\u2028",
    "http://\uff11.1.1.1/",
)


@pytest.mark.parametrize("text", BAD)
def test_bad(text: str) -> None:
    with pytest.raises(trust.Refused) as caught:
        trust.read(text)
    assert str(caught.value).isprintable()


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    for candidate in (text, f"http://192.168.1.1{text}", f"http://{text}"):
        try:
            url = trust.read(candidate)
        except trust.Refused:
            continue
        assert str(url).isascii()
        assert url.target.startswith("/")
        assert str(IPv4Address(url.host)) == url.host


@given(st.text(max_size=200), st.text(max_size=50))
def test_any_control_url_stays_on_the_host(text: str, base: str) -> None:
    for candidate in (text, f"http://{text}", f"//{text}"):
        try:
            url = trust.control(candidate, description=DESCRIPTION, base=f"http://{base}")
        except trust.Refused:
            continue
        assert url.host == GATEWAY


class TestLocation:
    def test_the_gateways_own(self) -> None:
        assert trust.location(str(DESCRIPTION), sender=GATEWAY, own=OWN) == DESCRIPTION

    def test_another_host_than_the_sender(self) -> None:
        with pytest.raises(trust.Refused):
            trust.location("http://192.168.1.9/", sender=GATEWAY, own=OWN)

    @pytest.mark.parametrize("host", [OWN, "127.0.0.1"])
    def test_this_host(self, host: str) -> None:
        with pytest.raises(trust.Refused):
            trust.location(f"http://{host}/", sender=host, own=OWN)


class TestControl:
    @pytest.mark.parametrize(
        ("text", "base", "url"),
        [
            ("/ctl", None, "http://192.168.1.1:5000/ctl"),
            ("ctl", None, "http://192.168.1.1:5000/folder/ctl"),
            (" /ctl\n", None, "http://192.168.1.1:5000/ctl"),
            ("http://192.168.1.1:6000/ctl", None, "http://192.168.1.1:6000/ctl"),
            ("/ctl", "http://192.168.1.1:7000/", "http://192.168.1.1:7000/ctl"),
            ("ctl", "http://192.168.1.1:7000/x/", "http://192.168.1.1:7000/x/ctl"),
            ("/ctl", "http://192.168.1.9:7000/", "http://192.168.1.1:5000/ctl"),
            ("/ctl", "http://router.lan/", "http://192.168.1.1:5000/ctl"),
            ("/ctl", "http://[", "http://192.168.1.1:5000/ctl"),
            ("/ctl", "", "http://192.168.1.1:5000/ctl"),
        ],
    )
    def test_followed(self, text: str, base: str | None, url: str) -> None:
        assert str(trust.control(text, description=DESCRIPTION, base=base)) == url

    @pytest.mark.parametrize(
        "text",
        [
            "http://192.168.1.9/ctl",
            "//192.168.1.9/ctl",
            "http://127.0.0.1/ctl",
            "file:///ctl",
            "http://user@192.168.1.1/ctl",
            "http://router.lan/ctl",
            "http://[",
            "http://\u2100/",
        ],
    )
    def test_refused(self, text: str) -> None:
        with pytest.raises(trust.Refused):
            trust.control(text, description=DESCRIPTION)
