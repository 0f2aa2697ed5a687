"""Lists of mappings as routers write them, and what is asked for after each."""

import html
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natsup.state.model import Port, Protocol
from natsup.upnp.adding import Device, Fault, Found, Kind, List, Listed, NoAnswer
from natsup.upnp.listing import LONGEST, MOST, compact, listed, surveying

HERE = "192.168.1.2"
DEVICE = Device(HERE, "192.168.1.1")
PORTS = [Port(Protocol.TCP, number) for number in (7000, 7001, 7002)]
ENTRY = (
    "<p:PortMappingEntry><p:NewRemoteHost></p:NewRemoteHost>"
    "<p:NewExternalPort>7000</p:NewExternalPort><p:NewProtocol>TCP</p:NewProtocol>"
    f"<p:NewInternalPort>7000</p:NewInternalPort><p:NewInternalClient>{HERE}</p:NewInternalClient>"
    "<p:NewEnabled>1</p:NewEnabled><p:NewDescription>x</p:NewDescription>"
    "<p:NewLeaseTime>3600</p:NewLeaseTime></p:PortMappingEntry>"
)
LIST = f'<p:PortMappingList xmlns:p="x">{ENTRY}</p:PortMappingList>'
LINE = f"7000 TCP 7000 {HERE} 1 3600"
FOUND = Found(HERE, "7000", "1", "3600")


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (f"<![CDATA[{LIST}]]>", [LINE]),
        (html.escape(LIST), [LINE]),
        (LIST, [LINE]),
        (LIST.replace("p:", ""), [LINE]),
        (f"\n  {LIST}", [LINE]),
        (f"<x>{ENTRY}{ENTRY}</x>", [LINE, LINE]),
        (ENTRY.replace("<p:NewLeaseTime>3600", "<p:NewLeaseTime>"), [LINE.replace("3600", "-")]),
        (ENTRY.replace("7000", "7 000", 1), [LINE.replace("7000", "-", 1)]),
        ("", []),
        ("no list", []),
    ],
)
def test_what_is_read_of_an_answer(text: str, lines: list[str]) -> None:
    assert compact(f"<a><NewPortListing>{text}</NewPortListing></a>").splitlines() == lines


@pytest.mark.parametrize(
    ("lines", "entries", "count"),
    [
        (LINE, {PORTS[0]: FOUND}, 1),
        (LINE.lower(), {PORTS[0]: FOUND}, 1),
        (f"{LINE}\n{LINE.replace(HERE, '192.168.1.3')}", {}, 2),
        ("", {}, 0),
        ("None", {}, 0),
        (LINE.replace("TCP", "SCTP"), {}, 0),
        (LINE.replace("7000", "-", 1), {}, 0),
        (LINE.replace("7000", "700000", 1), {}, 0),
    ],
)
def test_what_is_made_of_it(lines: str, entries: dict[Port, Found], count: int) -> None:
    assert listed(lines) == Listed(entries, count)


def test_only_what_is_this_hosts_is_believed() -> None:
    survey = surveying(PORTS, DEVICE)
    assert next(survey) == List(Protocol.TCP, 7000, 7002)
    other = Found("192.168.1.3", "7001", "1", "3600")
    with pytest.raises(StopIteration) as end:
        survey.send(Listed({PORTS[0]: FOUND, PORTS[1]: other}, 2))
    result, device = end.value.value
    assert {port: holder.kind for port, holder in result.ours.items()} == {PORTS[0]: Kind.OURS}
    assert result.works
    assert device == DEVICE


@pytest.mark.parametrize("answer", [Fault(401), Fault(None), NoAnswer("late", sent=True)])
def test_a_router_without_lists(answer: Fault | NoAnswer) -> None:
    survey = surveying(PORTS, DEVICE)
    next(survey)
    with pytest.raises(StopIteration) as end:
        survey.send(answer)
    assert not end.value.value[0].works


def test_it_ends_with_a_router_that_lists_others_ports_without_end() -> None:
    survey = surveying([Port(Protocol.TCP, number) for number in range(2000, 4000)], DEVICE)
    next(survey)
    for _ in range(15):
        assert isinstance(survey.send(Listed({}, 5000)), List)
    with pytest.raises(StopIteration):
        survey.send(Listed({}, 5000))


@given(st.text("<>&;:/ pNewPortMappingListExternal7000\n[]!CDAT", max_size=400))
def test_whatever_is_sent_is_read(text: str) -> None:
    listed(compact(f"<NewPortListing>{text}"))
    listed(text)


@pytest.mark.parametrize(
    "part",
    [ENTRY, html.escape(ENTRY), "<p:PortMappingEntry>", "<", "<p:NewEnabled", "&lt;", "<aaaa:"],
)
def test_the_longest_answer_takes_no_time(part: str) -> None:
    body = f"<NewPortListing>{part * (LONGEST // len(part))}</NewPortListing>"
    began = time.process_time()
    lines = compact(body)
    assert len(listed(lines).entries) <= 1
    assert lines.count("\n") < MOST
    assert time.process_time() - began < 1
