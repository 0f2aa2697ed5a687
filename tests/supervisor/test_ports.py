"""Rules for ports: lists of ranges, and the sets that they are."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natsup.state.model import Port, Protocol
from natsup.supervisor.ports import Ports, joined, read
from natsup.supervisor.verdict import NEVER, Rules, publishable

NUMBERS = st.integers(1, 65535)
NAMES = st.sampled_from(["tcp", "udp"])


@st.composite
def ranges(draw: st.DrawFn) -> list[tuple[str, int, int]]:
    """Ranges that are small and near each other, so that they touch and overlap."""
    found = []
    for protocol, low, more in draw(
        st.lists(st.tuples(NAMES, st.integers(1, 60), st.integers(0, 12)), max_size=8)
    ):
        found.append((protocol, low, low + more))
    return found


def members(found: list[tuple[str, int, int]]) -> set[tuple[str, int]]:
    return {(protocol, n) for protocol, low, high in found for n in range(low, high + 1)}


@given(ranges(), NAMES, st.integers(1, 80))
def test_a_set_of_ranges_is_a_set(
    found: list[tuple[str, int, int]], protocol: str, number: int
) -> None:
    wanted = members(found)
    assert Ports(found).has(protocol, number) == ((protocol, number) in wanted)
    assert Ports(found).has_some(number) == any((p, number) in wanted for p in ("tcp", "udp"))


@given(ranges())
def test_ranges_are_joined_where_they_touch(found: list[tuple[str, int, int]]) -> None:
    few = joined(found)
    assert members(few) == members(found)
    for (one, _, high), (other, low, _) in pairwise(few):
        assert one < other or (one == other and high + 1 < low)
    assert joined(few) == few
    assert joined(reversed(found)) == few


@given(ranges().filter(bool), st.booleans())
def test_what_is_written_is_read(found: list[tuple[str, int, int]], swapped: bool) -> None:
    parts = [
        f" {low}-{high}/{protocol.upper()}" if swapped else f"{protocol}/{low}-{high}"
        for protocol, low, high in found
    ]
    assert read(",".join(parts)) == found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", [("tcp", 1, 1), ("udp", 1, 1)]),
        ("65535/udp", [("udp", 65535, 65535)]),
        ("tcp/1 - 2", [("tcp", 1, 2)]),
    ],
)
def test_some_lists(text: str, expected: list[tuple[str, int, int]]) -> None:
    assert read(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", ",", "1,", "0", "65536", "2-1", "-1", "1-", "1-2-3", "tcp", "tcp/", "/1"),
        *("1/tcp/udp", "sctp/1", "udp6/1", "a", "\uff11", "1_0", "+1", "0x10", "1.0", "\0"),
        "9" * 5000,
    ],
)
def test_what_is_no_list(text: str) -> None:
    with pytest.raises(ValueError, match=r"^no (port|range|protocol): "):
        read(text)


@given(st.text(max_size=30))
def test_any_text_is_a_list_or_none(text: str) -> None:
    try:
        found = read(text)
    except ValueError:
        return
    assert all(1 <= low <= high <= 65535 and one in ("tcp", "udp") for one, low, high in found)


@given(ranges(), ranges(), ranges(), NAMES, st.integers(1, 80))
def test_nothing_lifts_never(
    allowed: list[tuple[str, int, int]],
    denied: list[tuple[str, int, int]],
    never: list[tuple[str, int, int]],
    protocol: str,
    number: int,
) -> None:
    """The small numbers stand for those from 2000 on."""

    def up(found: list[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
        return [(one, low + 2000, high + 2000) for one, low, high in found]

    rules = Rules(ports=Ports(up(allowed)), denied=Ports([*up(denied), *up(never)]))
    one = (protocol, number)
    wanted = one in members(allowed) and one not in members(denied) | members(never)
    port = Port(Protocol(protocol), number + 2000)
    assert publishable(port, rules) == (wanted and port not in NEVER)
