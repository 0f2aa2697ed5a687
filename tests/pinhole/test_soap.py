"""What is sent, and how answers are read, of routers that write them as they like."""

import pytest

from natsup.upnp.adding import Fault
from natsup.upnp.description import Unreadable, firewall
from natsup.upnp.pinhole.opening import Answer
from natsup.upnp.pinhole.soap import SERVICE, read, request
from natsup.upnp.trust import Url
from tests.gateway import soap
from tests.gateway.quirks import Quirks

HERE = Url("fe80::1%eth0", 5555, "/igd/d.xml")


def document(path: str, kind: str = SERVICE) -> str:
    return (
        "<root><device><serviceList><service>"
        f"<serviceType>{kind}</serviceType><controlURL>{path}</controlURL>"
        "</service></serviceList></device></root>"
    )


def test_the_arguments_go_out_in_order() -> None:
    headers, body = request("UpdatePinhole", {"UniqueID": "7", "NewLeaseTime": "60"})
    assert headers["SOAPAction"] == f'"{SERVICE}#UpdatePinhole"'
    assert b"<UniqueID>7</UniqueID><NewLeaseTime>60</NewLeaseTime></u:UpdatePinhole>" in body


def test_a_number() -> None:
    _, body = soap.success(SERVICE, "AddPinhole", {"UniqueID": " 7 "}, Quirks())
    assert read("AddPinhole", 200, body) == {"UniqueID": "7"}


@pytest.mark.parametrize("form", [form for form in soap.FAULTS if form != "empty"])
@pytest.mark.parametrize("status", [500, 200])
def test_a_fault_counts_whatever_the_status(form: str, status: int) -> None:
    _, body = soap.fault(704, Quirks(fault_form=form))
    assert read("UpdatePinhole", status, body) == Fault(704)


@pytest.mark.parametrize(
    ("action", "status", "body", "read_as"),
    [
        ("DeletePinhole", 200, "", {}),
        ("DeletePinhole", 200, soap.LOGIN, Fault(None)),
        ("DeletePinhole", 500, "", Fault(None)),
        ("AddPinhole", 200, "", Fault(None)),
        ("AddPinhole", 200, "<AddPinholeResponse/>", {"UniqueID": ""}),
        ("AddPinhole", 404, soap.LOGIN, Fault(None)),
    ],
)
def test_nonsense(action: str, status: int, body: str, read_as: Answer) -> None:
    assert read(action, status, body) == read_as


@pytest.mark.parametrize(
    ("path", "port", "target"),
    [
        ("/ctl/IP6FCtl", 5555, "/ctl/IP6FCtl"),
        ("ctl?x", 5555, "/igd/ctl?x"),
        ("http://192.168.1.1:49000/up", 49000, "/up"),
        ("http://203.0.113.7/up", 80, "/up"),
    ],
)
def test_the_control_url_is_on_the_router_whatever_it_says(
    path: str, port: int, target: str
) -> None:
    assert firewall(document(path), url=HERE) == Url(HERE.host, port, target)


@pytest.mark.parametrize(
    "text",
    [
        document("/ctl", kind="urn:schemas-upnp-org:service:WANIPConnection:1"),
        document("/a b"),
        document("http://[/"),
        "<!DOCTYPE x>" + document("/ctl"),
        "",
    ],
)
def test_no_such_service(text: str) -> None:
    with pytest.raises(Unreadable):
        firewall(text, url=HERE)


def test_the_interface_is_for_us_alone() -> None:
    assert (str(HERE), HERE.netloc) == ("http://[fe80::1%eth0]:5555/igd/d.xml", "[fe80::1]:5555")
