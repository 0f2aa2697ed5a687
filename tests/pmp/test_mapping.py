"""The operations as conversations, without a router."""

from collections.abc import Generator
from dataclasses import replace
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natsup.state.model import (
    Conflict,
    Ignored,
    Mapped,
    Outcome,
    Port,
    Protocol,
    Removal,
    Unknown,
)
from natsup.upnp.pmp.answers import Answer, Granted, Map, Refusal, Refused, Silent, Step, Unmap
from natsup.upnp.pmp.languages import Language, NatPmp, Pcp
from natsup.upnp.pmp.mapping import TRIAL_LEASE, Device, adding, removing, trying
from tests.gateway.gateway import HERE, OTHER, ROUTER
from tests.gateway.pmp import Pmp
from tests.gateway.quirks import Quirks
from tests.gateway.table import Entry, Table

PORT, LOW = Port(Protocol.UDP, 6881), Port(Protocol.UDP, 80)
KEY = ("UDP", 6881)
TRIAL = Port(Protocol.UDP, 60000)
NEW = Device(60000)
PCP = Device(60000, insists=True, absent=frozenset({Refusal.RESOURCES}))
ASK, TRY = Map(PORT, 3600), Map(TRIAL, TRIAL_LEASE)
ANOTHER = Ignored("the router gives another port than the one that was asked for")
CANNOT = Refused(Refusal.CANNOT_PROVIDE, 30)
DONE = Granted(0, 0)
_T = TypeVar("_T")


def talk(
    operation: Generator[Step, Answer, tuple[_T, Device]], *turns: tuple[Step, Answer]
) -> tuple[_T, Device]:
    """Carry an operation out against a script of what is asked, and answered."""
    asked = []
    try:
        step = next(operation)
        for expected, answer in turns:
            asked.append(step)
            assert step == expected, asked
            step = operation.send(answer)
    except StopIteration as end:
        assert len(asked) == len(turns)
        return end.value  # type: ignore[no-any-return]
    raise AssertionError(f"it asks for more: {step}")


@pytest.mark.parametrize(
    ("device", "turns", "outcome", "honours"),
    [
        # 74: the same port
        (NEW, [(ASK, Granted(6881, 3600))], Mapped(3600), True),
        (NEW, [(ASK, Granted(6881, 60))], Mapped(60), True),
        # 90: no time at all, and far too much
        (
            NEW,
            [(ASK, Granted(6881, 0)), (Unmap(PORT), DONE)],
            Ignored("the router grants the port for no time at all"),
            True,
        ),
        (NEW, [(ASK, Granted(6881, 10**7))], Mapped(86400), True),
        # 75: another port, of a router that has honoured one before
        (
            replace(NEW, honours=True),
            [(ASK, Granted(6882, 3600)), (Unmap(PORT), DONE)],
            Conflict(""),
            True,
        ),
        # and of one that honours a random one
        (
            NEW,
            [
                (ASK, Granted(6882, 3600)),
                (Unmap(PORT), DONE),
                (TRY, Granted(60000, 120)),
                (Unmap(TRIAL), DONE),
            ],
            Conflict(""),
            True,
        ),
        # 76: always another one
        (
            NEW,
            [
                (ASK, Granted(41000, 60)),
                (Unmap(PORT), DONE),
                (TRY, Granted(41001, 60)),
                (Unmap(TRIAL), DONE),
            ],
            ANOTHER,
            False,
        ),
        (
            replace(NEW, honours=False),
            [(ASK, Granted(41000, 60)), (Unmap(PORT), DONE)],
            ANOTHER,
            False,
        ),
        # nothing is learned from a router that says no, or nothing
        (
            NEW,
            [
                (ASK, Granted(6882, 60)),
                (Unmap(PORT), DONE),
                (TRY, Refused(Refusal.NETWORK)),
            ],
            ANOTHER,
            None,
        ),
        # 93: the removal of the other port is not answered
        (
            replace(NEW, honours=True),
            [(ASK, Granted(6882, 3600)), (Unmap(PORT), Silent("late", sent=True))],
            Unknown("late", silent=True),
            True,
        ),
        (NEW, [(ASK, Silent("late", sent=True))], Unknown("late", silent=True), None),
        (NEW, [(ASK, Silent("refused", sent=False))], Ignored("refused", silent=True), None),
    ],
)
def test_natpmp_add(
    device: Device, turns: list[tuple[Step, Answer]], outcome: Outcome, honours: bool | None
) -> None:
    came, after = talk(adding(PORT, 3600, device), *turns)
    assert came == outcome
    assert after.honours is honours


INSIST, TRY_HARD = Map(PORT, 3600, insist=True), Map(TRIAL, TRIAL_LEASE, insist=True)


@pytest.mark.parametrize(
    ("device", "turns", "outcome"),
    [
        # 78: it is told to give the port or none, and heeds it
        (replace(PCP, honours=True), [(INSIST, CANNOT)], Conflict("")),
        (
            PCP,
            [(INSIST, CANNOT), (TRY_HARD, Granted(60000, 120)), (Unmap(TRIAL), DONE)],
            Conflict(""),
        ),
        (PCP, [(INSIST, CANNOT), (TRY_HARD, CANNOT)], ANOTHER),
        # 79: it does not
        (
            replace(PCP, honours=True),
            [(INSIST, Granted(6882, 3600)), (Unmap(PORT), DONE)],
            Conflict(""),
        ),
        # 80: it does not know the option
        (PCP, [(INSIST, Refused(Refusal.OPTION)), (ASK, Granted(6881, 3600))], Mapped(3600)),
        (
            replace(PCP, honours=True),
            [
                (INSIST, Refused(Refusal.OPTION)),
                (ASK, Granted(6882, 3600)),
                (Unmap(PORT), DONE),
            ],
            Conflict(""),
        ),
        # 83: what is no conflict
        *(
            ([PCP, [(INSIST, Refused(refusal, 30))], refusal.outcome()])
            for refusal in Refusal
            if refusal not in (Refusal.OPTION, Refusal.CANNOT_PROVIDE)
        ),
    ],
)
def test_pcp_add(device: Device, turns: list[tuple[Step, Answer]], outcome: Outcome) -> None:
    came, _ = talk(adding(PORT, 3600, device), *turns)
    assert came == outcome


def test_the_option_that_a_router_does_not_know_is_not_sent_again() -> None:
    _, device = talk(
        adding(PORT, 3600, PCP),
        (INSIST, Refused(Refusal.OPTION)),
        (ASK, Granted(6881, 3600, "11.22.33.1")),
    )
    assert device.external_address == "11.22.33.1"
    talk(adding(PORT, 3600, device), (ASK, Granted(6881, 3600)))


def test_a_port_that_no_host_gets_is_no_conflict() -> None:
    """77: below 1024."""
    turns: list[tuple[Step, Answer]] = [(Map(LOW, 3600), Granted(1024, 3600)), (Unmap(LOW), DONE)]
    assert talk(adding(LOW, 3600, replace(NEW, honours=True)), *turns)[0] == ANOTHER


@pytest.mark.parametrize(
    ("device", "answer", "removal"),
    [
        (NEW, DONE, Removal.GONE),
        (PCP, Refused(Refusal.RESOURCES), Removal.GONE),
        (NEW, Refused(Refusal.RESOURCES), Removal.FAILED),
        (NEW, Refused(Refusal.NOT_AUTHORIZED), Removal.NOT_OURS),
        (NEW, Refused(Refusal.NETWORK), Removal.FAILED),
        (NEW, Silent("late", sent=True), Removal.FAILED),
    ],
)
def test_remove(device: Device, answer: Answer, removal: Removal) -> None:
    """89."""
    assert talk(removing(PORT, device), (Unmap(PORT), answer))[0] is removal


def test_a_trial_tells_the_address_too() -> None:
    port = Port(Protocol.TCP, 60000)
    _, device = talk(
        trying(PCP),
        (Map(port, TRIAL_LEASE, insist=True), Granted(60000, 120, "11.22.33.1")),
        (Unmap(port), DONE),
    )
    assert (device.honours, device.external_address) == (True, "11.22.33.1")


def carry_out(
    operation: Generator[Step, Answer, tuple[_T, Device]], router: Pmp, language: Language
) -> _T:
    """Carry an operation out against a router, by the bytes that it is sent, without a network."""
    step = next(operation)
    try:
        while True:
            said = router.answer(language.encode(step), HERE, 0.0)
            assert said is not None
            heard = language.read(said, step)
            assert heard is not None
            step = operation.send(heard.answer)
    except StopIteration as end:
        return end.value[0]  # type: ignore[no-any-return]


@given(
    natural=st.booleans(),
    held=st.sets(st.sampled_from([6881, 6882, 60000, 60001])),
    refuses=st.sampled_from([0, 0, 0, 2, 4, 8, 11]),
    random=st.booleans(),
    heeds=st.booleans(),
    knows=st.booleans(),
    lifetime=st.sampled_from([None, 0, 1, 10**7]),
    insists=st.booleans(),
    honours=st.sampled_from([None, True, False]),
)
def test_whatever_a_router_does_no_other_port_stays_open(
    natural: bool,
    held: set[int],
    refuses: int,
    random: bool,
    heeds: bool,
    knows: bool,
    lifetime: int | None,
    insists: bool,
    honours: bool | None,
) -> None:
    """And nobody else's is taken, nor one reported that is not there; nor, but by a router that
    gives what it is asked for, that another host has one."""
    language: Language = NatPmp() if natural else Pcp(bytes, ROUTER, HERE)
    theirs = {("UDP", number): Entry(OTHER, str(number)) for number in sorted(held)}
    quirks = Quirks(
        speaks=("natpmp", "pcp"),
        pmp_refuses=refuses,
        pmp_other_port=random,
        pcp_heeds_option=heeds,
        pcp_knows_option=knows,
        pmp_lifetime=lifetime,
    )
    table = Table(quirks)
    table.entries.update(theirs)
    device = replace(language.device(60000), honours=honours)
    if not natural:
        device = replace(device, insists=insists)
    outcome = carry_out(adding(PORT, 3600, device), Pmp(table, quirks), language)
    ours = {key for key, entry in table.entries.items() if entry.client == HERE}
    assert {key: entry for key, entry in table.entries.items() if key not in ours} == theirs
    assert ours <= {KEY}
    if isinstance(outcome, Mapped):
        assert ours == {KEY}
    else:
        assert ours == set()
    if isinstance(outcome, Conflict):
        assert honours is not False
        assert KEY in theirs or (honours and (random or refuses == 11))


def test_every_refusal_is_a_clause() -> None:
    for refusal in Refusal:
        assert str(refusal.outcome()).startswith(("the router ", "another router "))
