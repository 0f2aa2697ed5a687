"""The small gateway's table and messages, without a network."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natsup.state.model import Port, Protocol
from natsup.upnp.router import server, soap
from natsup.upnp.router.table import Mapping, Refused, Table

A, B = "192.168.77.2", "192.168.77.3"


def mapping(number: int = 7000, client: str = A, ends: float | None = None) -> Mapping:
    return Mapping(Port(Protocol.TCP, number), client, number, "x", ends)


def code(error: pytest.ExceptionInfo[Refused]) -> int:
    return error.value.code


def test_a_host_maps_and_renews_its_port() -> None:
    table = Table()
    assert table.add(mapping(), requester=A) is None
    assert table.add(mapping(ends=10.0), requester=A) == mapping()
    assert list(table) == [mapping(ends=10.0)]
    assert table.delete(mapping().port, requester=A) == mapping(ends=10.0)
    assert list(table) == []


def test_another_hosts_port_is_a_conflict() -> None:
    table = Table()
    table.add(mapping(client=B), requester=B)
    with pytest.raises(Refused) as error:
        table.add(mapping(), requester=A)
    assert code(error) == 718
    with pytest.raises(Refused) as error:
        table.delete(mapping().port, requester=A)
    assert code(error) == 606
    assert list(table) == [mapping(client=B)]


def test_nobody_maps_for_another() -> None:
    with pytest.raises(Refused) as error:
        Table().add(mapping(client=B), requester=A)
    assert code(error) == 606


def test_what_is_not_there() -> None:
    table = Table()
    with pytest.raises(Refused) as error:
        table.find(mapping().port)
    assert code(error) == 714
    for index in (0, -1):
        with pytest.raises(Refused) as error:
            table.at(index)
        assert code(error) == 713


def test_leases_end() -> None:
    table = Table()
    table.add(mapping(7000, ends=10.0), requester=A)
    table.add(mapping(7001), requester=A)
    assert table.next_end() == 10.0
    assert table.expire(9.9) == []
    assert table.expire(10.0) == [mapping(7000, ends=10.0)]
    assert list(table) == [mapping(7001)]
    assert table.next_end() is None


def test_a_full_table_says_so() -> None:
    table = Table(3)
    for number in range(3):
        table.add(mapping(2000 + number), requester=A)
    with pytest.raises(Refused) as error:
        table.add(mapping(1999), requester=A)
    assert code(error) == 728
    table.add(mapping(2000, ends=5.0), requester=A)  # a renewal is no new entry


GOOD = {
    "NewRemoteHost": "",
    "NewExternalPort": "7000",
    "NewProtocol": "TCP",
    "NewInternalPort": "7000",
    "NewInternalClient": A,
    "NewEnabled": "1",
    "NewPortMappingDescription": "x",
    "NewLeaseDuration": "60",
}


def test_a_mapping_is_read() -> None:
    assert soap.read_mapping(GOOD, 100.0) == mapping(ends=160.0)
    assert soap.read_mapping({**GOOD, "NewLeaseDuration": "0"}, 100.0) == mapping()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("NewRemoteHost", "11.22.33.9", 726),
        ("NewExternalPort", "0", 716),
        ("NewExternalPort", "65536", 402),
        ("NewExternalPort", "-1", 402),
        ("NewExternalPort", "x", 402),
        ("NewInternalPort", "0", 732),
        ("NewProtocol", "SCTP", 402),
        ("NewInternalClient", "myhost", 402),
        ("NewLeaseDuration", "604801", 402),
        ("NewLeaseDuration", "9" * 5000, 402),
        ("NewLeaseDuration", "", 402),
    ],
)
def test_a_bad_argument_is_refused(name: str, value: str, expected: int) -> None:
    with pytest.raises(Refused) as error:
        soap.read_mapping({**GOOD, name: value}, 0.0)
    assert code(error) == expected


def test_a_request_is_read() -> None:
    inner = "".join(f"<{name}>{value}</{name}>" for name, value in GOOD.items())
    body = (
        '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>'
        f'<u:AddPortMapping xmlns:u="{soap.SERVICE}">{inner}</u:AddPortMapping>'
        "</s:Body></s:Envelope>"
    )
    assert soap.read_action(body.encode()) == ("AddPortMapping", GOOD)


@pytest.mark.parametrize("encoding", ["none", "utf-7", "hex", "rot13", "idna", "utf-16"])
def test_no_encoding_confuses_it(encoding: str) -> None:
    with pytest.raises(Refused):
        soap.read_action(f'<?xml version="1.0" encoding="{encoding}"?><a/>'.encode())


@given(st.binary(max_size=200))
def test_no_bytes_confuse_it(body: bytes) -> None:
    with pytest.raises(Refused):
        soap.read_action(body)
    assert isinstance(server.replies(body, location="http://x/", udn="u"), list)


def test_a_search_is_answered_once() -> None:
    search = b"M-SEARCH * HTTP/1.1\r\nST: upnp:rootdevice\r\nMX: 1\r\n\r\n"
    (reply,) = server.replies(search, location="http://192.168.77.1:5/d", udn="u")
    assert b"LOCATION: http://192.168.77.1:5/d\r\n" in reply
    other = search.replace(b"upnp:rootdevice", b"urn:other")
    assert server.replies(other, location="http://x/", udn="u") == []
    assert server.replies(b"NOTIFY * HTTP/1.1\r\n\r\n", location="http://x/", udn="u") == []


def test_a_refusal_keeps_nothing_of_the_one_before() -> None:
    """An exception that is raised again has all its tracebacks, with whatever they hold."""
    refusals = []
    for _ in range(2):
        with pytest.raises(Refused) as error:
            soap.read_action(b"nonsense")
        refusals.append(error.value)
    assert refusals[0] is not refusals[1]
