"""Opening and closing a pinhole by UPnP, decided without a router."""

from collections.abc import Generator
from typing import TypeVar

import pytest

from natsup.state.model import Ignored, Mapped, Port, Protocol, Removal, Unknown
from natsup.upnp.adding import Done, Fault, NoAnswer
from natsup.upnp.pinhole.opening import (
    Answer,
    Ask,
    Close,
    Device,
    Look,
    Open,
    Opened,
    Renew,
    Status,
    Step,
    checking,
    opening,
    removing,
)

PORT = Port(Protocol.TCP, 6881, ipv6=True)
ON, OFF, NOT_ALLOWED = Status(True, True), Status(False, False), Status(True, False)
KNOWN = Device(ON)
OPEN = KNOWN.having(PORT, "7", 3600)
UNKNOWN = KNOWN.having(PORT, "", 3600)
SILENT, UNSENT = NoAnswer("silence", sent=True), NoAnswer("no way", sent=False)
T = TypeVar("T")


def run(operation: Generator[Step, Answer, T], *script: tuple[Step, Answer]) -> T:
    """Carry an operation out: what has to be asked, and what is answered."""
    try:
        step = next(operation)
        for asked, answer in script:
            assert step == asked
            step = operation.send(answer)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError(f"{step} was not expected")


def test_a_first_one() -> None:
    assert run(opening(PORT, 3600, Device()), (Ask(), ON), (Open(PORT, 3600), Opened("7"))) == (
        Mapped(3600, "7"),
        OPEN,
    )


def test_the_firewall_is_asked_once() -> None:
    assert run(opening(PORT, 3600, KNOWN), (Open(PORT, 3600), Opened("7")))[1] == OPEN


@pytest.mark.parametrize(("lease", "asked"), [(604800, 86400), (0, 86400), (1, 1)])
def test_a_lease_is_a_day_at_most_and_never_endless(lease: int, asked: int) -> None:
    outcome, _ = run(opening(PORT, lease, KNOWN), (Open(PORT, asked), Opened("7")))
    assert outcome == Mapped(asked, "7")


def test_a_router_that_does_not_tell_its_status_is_tried() -> None:
    outcome, device = run(
        opening(PORT, 3600, Device()), (Ask(), Fault(401)), (Open(PORT, 3600), Opened("7"))
    )
    assert (outcome, device) == (Mapped(3600, "7"), OPEN)


def test_without_a_firewall_nothing_has_to_be_opened() -> None:
    outcome, device = run(opening(PORT, 3600, Device()), (Ask(), OFF))
    assert outcome == Mapped(3600)
    assert run(removing(PORT, device)) == (Removal.GONE, device)
    assert run(checking(PORT, device), (Ask(), OFF))[0] == Mapped(0)
    switched_on, device = run(checking(PORT, device), (Ask(), ON))
    assert switched_on == Ignored("the router's firewall was switched on")
    assert run(opening(PORT, 3600, device), (Open(PORT, 3600), Opened("7")))[1] == OPEN


def test_a_firewall_that_was_switched_off_meanwhile() -> None:
    outcome, device = run(opening(PORT, 3600, KNOWN), (Open(PORT, 3600), Fault(702)))
    assert outcome == Mapped(3600)
    assert device.status == OFF


def test_where_there_are_to_be_none_it_is_asked_again_each_time() -> None:
    outcome, device = run(opening(PORT, 3600, Device()), (Ask(), NOT_ALLOWED))
    assert isinstance(outcome, Ignored)
    assert outcome.slow
    again = run(opening(PORT, 3600, device), (Ask(), ON), (Open(PORT, 3600), Opened("7")))
    assert again == (Mapped(3600, "7"), OPEN)
    outcome, device = run(opening(PORT, 3600, KNOWN), (Open(PORT, 3600), Fault(703)))
    assert isinstance(outcome, Ignored)
    assert device.status == NOT_ALLOWED


@pytest.mark.parametrize(
    ("code", "slow", "full"),
    [
        (401, True, False),
        (501, False, True),
        (606, True, False),
        (701, False, True),
        (705, True, False),
        (708, True, False),
        (709, False, False),
        (729, False, False),
    ],
)
def test_what_a_refusal_means(code: int, slow: bool, full: bool) -> None:
    outcome, device = run(opening(PORT, 3600, KNOWN), (Open(PORT, 3600), Fault(code)))
    assert isinstance(outcome, Ignored)
    assert (outcome.slow, outcome.full, outcome.silent) == (slow, full, False)
    assert device == KNOWN


def test_renewed_by_its_number() -> None:
    assert run(opening(PORT, 600, OPEN), (Renew("7", 600), Done())) == (
        Mapped(600, "7"),
        KNOWN.having(PORT, "7", 600),
    )


@pytest.mark.parametrize("code", [704, 402, 501, 606, None])
def test_one_that_cannot_be_renewed_is_opened_anew(code: int | None) -> None:
    outcome, device = run(
        opening(PORT, 3600, OPEN),
        (Renew("7", 3600), Fault(code)),
        (Open(PORT, 3600), Opened("8")),
    )
    assert (outcome, device) == (Mapped(3600, "8"), KNOWN.having(PORT, "8", 3600))


def test_silence() -> None:
    assert run(opening(PORT, 3600, Device()), (Ask(), SILENT)) == (
        Ignored("silence", silent=True),
        Device(),
    )
    assert run(opening(PORT, 3600, KNOWN), (Open(PORT, 3600), SILENT)) == (
        Unknown("silence", silent=True),
        UNKNOWN,
    )
    assert run(opening(PORT, 3600, KNOWN), (Open(PORT, 3600), UNSENT)) == (
        Ignored("no way", silent=True),
        KNOWN,
    )
    assert run(opening(PORT, 3600, OPEN), (Renew("7", 3600), SILENT)) == (
        Unknown("silence", silent=True),
        OPEN,
    )


def test_an_answer_that_cannot_be_read_may_have_opened_it() -> None:
    outcome, device = run(opening(PORT, 3600, KNOWN), (Open(PORT, 3600), Fault(None)))
    assert isinstance(outcome, Unknown)
    assert device == UNKNOWN


def test_it_is_there_or_forgotten() -> None:
    assert run(checking(PORT, OPEN), (Look("7"), Done())) == (Mapped(0, "7"), OPEN)
    outcome, device = run(checking(PORT, OPEN), (Look("7"), Fault(704)))
    assert isinstance(outcome, Ignored)
    assert device == KNOWN
    assert isinstance(run(checking(PORT, KNOWN))[0], Ignored)


@pytest.mark.parametrize("code", [401, 402, 501, None])
def test_a_router_that_does_not_say_is_asked_for_it_once_more(code: int | None) -> None:
    look, again = (Look("7"), Fault(code)), Open(PORT, 3600)
    assert run(checking(PORT, OPEN), look, (again, Opened("7")))[0] == Mapped(3600, "7")
    outcome, device = run(checking(PORT, OPEN), look, (again, Opened("8")))
    assert isinstance(outcome, Ignored)
    assert device == KNOWN.having(PORT, "8", 3600)


def test_closed_by_its_number() -> None:
    assert run(removing(PORT, OPEN), (Close("7"), Done())) == (Removal.GONE, KNOWN)
    assert run(removing(PORT, KNOWN)) == (Removal.GONE, KNOWN)


@pytest.mark.parametrize(
    ("answer", "removal", "device"),
    [
        (Fault(704), Removal.GONE, KNOWN),
        (Fault(402), Removal.GONE, KNOWN),
        (Fault(606), Removal.NOT_OURS, KNOWN),
        (Fault(501), Removal.FAILED, OPEN),
        (SILENT, Removal.FAILED, OPEN),
    ],
)
def test_what_became_of_closing_it(answer: Answer, removal: Removal, device: Device) -> None:
    assert run(removing(PORT, OPEN), (Close("7"), answer)) == (removal, device)


def test_one_without_a_number_is_asked_for_it_first() -> None:
    learn = (Open(PORT, 1), Opened("7"))
    assert run(removing(PORT, UNKNOWN), learn, (Close("7"), Done())) == (Removal.GONE, KNOWN)
    failed, device = run(removing(PORT, UNKNOWN), learn, (Close("7"), SILENT))
    assert (failed, device) == (Removal.FAILED, KNOWN.having(PORT, "7", 1))
    assert run(removing(PORT, UNKNOWN), (Open(PORT, 1), SILENT)) == (Removal.FAILED, UNKNOWN)
    assert run(removing(PORT, UNKNOWN), (Open(PORT, 1), Fault(702))) == (Removal.GONE, KNOWN)
