"""What routers do, one scenario after the other: what the bind comes to, what the router was asked,
and what its table holds at the end. The numbers are those of the list that test_coverage keeps.

In the rows: S, the port is open; C, bind() fails; I, it goes on, and natsup tries again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from trio.testing import MockClock

from tests.gateway.gateway import HERE, OTHER, ROUTER
from tests.gateway.house import KEY, house, short
from tests.gateway.quirks import Quirks
from tests.gateway.table import Entry

ADD, DELETE, LOOK = "AddPortMapping", "DeletePortMapping", "GetSpecificPortMappingEntry"
THEIRS, OURS = Entry(OTHER, "6881"), Entry(HERE, "6881")
STALE = Entry(HERE, "6882")
NEW = "look, add 3600"


@dataclass(frozen=True)
class Row:
    number: int
    sentence: str
    quirks: Quirks
    outcome: str
    asked: str  # by the time the bind has been answered
    holds: str = ""  # whose the port is then; "" nobody's
    before: Entry | None = None

    def __str__(self) -> str:
        return f"{self.number} {self.sentence}"


def codes(number: int, found: Sequence[tuple[object, str]]) -> list[Row]:
    return [
        Row(
            number,
            f"code {code} is a refusal and no conflict",
            Quirks(faults={ADD: code if isinstance(code, int) else str(code)}),
            "I",
            asked,
        )
        for code, asked in found
    ]


CONFLICTS = [
    Row(1, "a free port is mapped", Quirks(), "S", NEW, HERE),
    Row(2, "another host's port is seen before anything is asked for",
        Quirks(), "C", "look", OTHER, THEIRS),
    Row(3, "another host is quicker between the look and the add",
        Quirks(taken_meanwhile=(OTHER, "6881")), "C", f"{NEW}, look", OTHER),
    Row(4, "718 though nobody holds the port",
        Quirks(faults={ADD: 718}), "I", f"{NEW}, look"),
    Row(5, "718 to a renewal of what is there",
        Quirks(refuses_renewal=718), "S", f"{NEW}, look", HERE, OURS),
    Row(6, "718 because of an entry of this host to another port",
        Quirks(one_internal_port=True, taken_meanwhile=(HERE, "6882")),
        "S", f"{NEW}, look, delete, add 3600", HERE),
    Row(6, "an entry of this host to another port is made anew",
        Quirks(one_internal_port=True), "S", "look, delete, add 3600", HERE, STALE),
    Row(7, "718 where the table cannot be looked at",
        Quirks(faults={ADD: 718, LOOK: 401}), "C", f"{NEW}, look"),
    Row(8, "718 because the router maps to another address alone",
        Quirks(trusts=OTHER, untrusted=718), "I", f"{NEW}, look"),
    Row(8, "a router that maps to the address alone that asks",
        Quirks(trusts=None, untrusted=718), "S", NEW, HERE),
    Row(9, "718 because the port is not permitted",
        Quirks(lowest_port=7000), "I", f"{NEW}, look"),
    Row(10, "729 because the router itself uses the port",
        Quirks(faults={ADD: 729}), "I", f"{NEW}, look"),
    Row(11, "729 because another host holds it",
        Quirks(conflict=729, taken_meanwhile=(OTHER, "6881")), "C", f"{NEW}, look", OTHER),
    Row(12, "501 because another host holds it",
        Quirks(conflict=501, taken_meanwhile=(OTHER, "6881")), "C", f"{NEW}, look", OTHER),
    Row(12, "501 though nobody holds it", Quirks(faults={ADD: 501}), "I", f"{NEW}, look"),
    Row(12, "501 to everything",
        Quirks(faults={ADD: 501, LOOK: 501}), "I", "look, look, add 3600, look"),
    Row(13, "606: this host may not", Quirks(faults={ADD: 606}), "I", NEW),
    Row(14, "a router that would let the port be taken over",
        Quirks(overwrites=True), "C", "look", OTHER, THEIRS),
    *(
        Row(18, f"{code} is how it says that nobody has a port",
            Quirks(absent=code), "S", f"look, {NEW}" if code != 713 else NEW, HERE)
        for code in (713, 402, 501, 606)
    ),
    *(
        Row(19, f"an entry that names {name} is no proof and is left alone",
            Quirks(shows_client=client), "I", "look", OTHER, THEIRS)
        for name, client in (("a host", "nas"), ("no address", "0.0.0.0"), ("the router", ROUTER))
    ),
    Row(20, "another host's entry that is switched off is held",
        Quirks(shows_enabled="0"), "C", "look", OTHER, THEIRS),
]  # fmt: skip

CODES = [
    Row(24, "402 to any lease", Quirks(permanent_only=402), "S", f"{NEW}, add 0", HERE),
    Row(25, "402 to all leases but the longest",
        Quirks(leases=(604800,)), "S", f"{NEW}, add 0, add 604800", HERE),
    Row(26, "402 to everything", Quirks(leases=()), "I", f"{NEW}, add 0, add 604800"),
    *codes(27, [
        *((code, NEW) for code in (401, 715, 716, 724, 726, 727, 728, 731, 732, 733)),
        *((code, f"{NEW}, look") for code in (600, 601, 602, 603, 604, 605, 899, 399, -911)),
        ("nonsense", f"{NEW}, look"),
    ]),
    Row(27, "725 with white space about it",
        Quirks(permanent_only=725, code_form="\n 725 "), "S", f"{NEW}, add 0", HERE),
    Row(27, "725 as faultCode would have it and an empty success",
        Quirks(permanent_only=725, fault_form="faultCode", success_form="empty"),
        "S", f"{NEW}, add 0", HERE),
]  # fmt: skip

TEXTS = [
    *(
        Row(48, f"an answer that is {framing}", Quirks(framing=framing), "S", NEW, HERE)
        for framing in (
            "chunked", "http 1.0", "lf only", "keep open", "continue", "says close", "no reason",
        )
    ),
    *(
        Row(52, f"{name} about its answers",
            Quirks(before_body=before, after_body=after), "S", NEW, HERE)
        for name, before, after in (("a new line", "\n", ""), ("a NUL", "", "\0"))
    ),
    Row(53, "a fault that comes with 200",
        Quirks(fault_status=200, faults={ADD: 718}), "I", f"{NEW}, look"),
    Row(53, "a success that comes with 500", Quirks(success_status=500), "S", f"{NEW}, look", HERE),
    Row(53, "an empty fault",
        Quirks(fault_form="empty", faults={ADD: 718}), "I", f"{NEW}, look"),
    Row(53, "an empty success", Quirks(success_form="empty"), "S", NEW, HERE),
    Row(53, "a blank success", Quirks(success_form="blank"), "S", NEW, HERE),
    Row(53, "a page to log in, though it did as it was told",
        Quirks(success_form="html"), "S", f"{NEW}, look", HERE),
    Row(53, "a page to log in for everything", Quirks(login=True), "I", f"{NEW}, look"),
    *(
        Row(54, f"a fault that is {form}",
            Quirks(fault_form=form, permanent_only=725), "S", f"{NEW}, add 0", HERE)
        for form in ("bare", "no namespace", "glued", "undeclared", "soap 1.2", "capitals")
    ),
    Row(57, "a router that is particular about all of it",
        Quirks(exact_header=True, exact_host=True, capitals=True,
               exact_service="urn:schemas-upnp-org:service:WANIPConnection:1"), "S", NEW, HERE),
    Row(58, "a router that takes short names alone",
        Quirks(longest_name=32), "S", NEW, HERE),
    Row(59, "a router that takes one connection",
        Quirks(one_connection=True), "S", NEW, HERE),
    Row(59, "a router that hangs up after each answer",
        Quirks(closes=True), "S", NEW, HERE),
]  # fmt: skip

ROWS = [*CONFLICTS, *CODES, *TEXTS]


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_row(row: Row, tmp_path: Path, autojump_clock: MockClock) -> None:
    before = {} if row.before is None else {KEY: row.before}
    async with house(tmp_path, autojump_clock, row.quirks, before) as home:
        outcome = await home.bind()
        assert short(outcome) == row.outcome, outcome
        assert ", ".join(home.gateway.asked) == row.asked
        assert home.gateway.holders == ({f"TCP {KEY[1]}": row.holds} if row.holds else {})
        assert home.gateway.most_at_once == 1
        assert all(request.action != "GET" for request in home.gateway.log)
