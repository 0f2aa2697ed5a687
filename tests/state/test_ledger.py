"""The ledger's rules, an example each."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from natsup.state.ledger import (
    LEASE_ENDED,
    RELEASED,
    Add,
    Check,
    Entry,
    Ledger,
    Note,
    Policy,
    Remove,
    State,
)
from natsup.state.model import Conflict, Ignored, Mapped, Port, Protocol, Removal, Unknown

PORT = Port(Protocol.TCP, 6881)


@pytest.fixture
def ledger() -> Ledger:
    found = Ledger(Policy(check=None, compare=None))
    assert found.gateway_found(0.0) == []
    return found


def mapped(ledger: Ledger, lease: int = 3600, now: float = 0.0, holder: int = 1) -> None:
    ledger.ask(PORT, now)
    ledger.added(PORT, Mapped(lease), now)
    ledger.claim(PORT, holder, now)


def requests(effects: Sequence[object]) -> list[object]:
    return [effect for effect in effects if not isinstance(effect, Note)]


def test_an_ask_is_written_down_and_sent(ledger: Ledger) -> None:
    outcome, effects = ledger.ask(PORT, 0.0)
    assert outcome is None
    assert effects == [
        Note(PORT, State.PENDING, "", None, 0, exists=True),
        Add(PORT, 3600),
    ]


def test_a_second_ask_waits_for_the_first(ledger: Ledger) -> None:
    ledger.ask(PORT, 0.0)
    assert ledger.ask(PORT, 0.0) == (None, [])
    ledger.added(PORT, Mapped(3600), 0.0)
    assert ledger.ask(PORT, 1.0) == (Mapped(3599), [])


def test_it_is_renewed_at_half_time(ledger: Ledger) -> None:
    mapped(ledger, 3600)
    assert ledger.next_deadline() == 1800.0
    assert ledger.tick(1799.9) == []
    assert ledger.tick(1800.0) == [
        Note(PORT, State.MAPPED, "", None, 1, exists=True),  # for how long is not known now
        Add(PORT, 3600),
    ]
    assert ledger.next_deadline() is None
    ledger.added(PORT, Mapped(3600), 1800.0)
    assert ledger.next_deadline() == 3600.0


def test_a_permanent_lease_is_looked_after_too(ledger: Ledger) -> None:
    mapped(ledger, 0)
    assert ledger.next_deadline() == 1800.0
    assert ledger.ask(PORT, 5.0)[0] == Mapped(0)


def test_it_lingers_and_is_taken_over(ledger: Ledger) -> None:
    mapped(ledger)
    assert requests(ledger.release(1, 10.0)) == []
    assert ledger.next_deadline() == 10.25
    assert ledger.ask(PORT, 10.2) == (Mapped(3589), [])
    assert ledger.tick(10.25) == []
    ledger.claim(PORT, 2, 10.3)
    assert ledger.next_deadline() == 1800.0


def test_it_is_removed_after_that(ledger: Ledger) -> None:
    mapped(ledger)
    ledger.release(1, 10.0)
    assert ledger.tick(10.25) == [
        Note(PORT, State.RELEASING, "", 3600.0, 0, exists=True),
        Remove(PORT),
    ]
    assert ledger.removed(PORT, Removal.GONE, 10.3) == [
        Note(PORT, State.GONE, "", None, 0, exists=False)
    ]
    assert ledger.empty
    assert str(ledger) == "empty"


def test_claims_on_one_port_are_one_mapping(ledger: Ledger) -> None:
    mapped(ledger, holder=1)
    ledger.ask(PORT, 1.0)
    ledger.claim(PORT, 2, 1.0)
    ledger.release(1, 2.0)
    assert ledger.next_deadline() == 1800.0
    ledger.release(2, 3.0)
    assert ledger.next_deadline() == 3.25


def test_an_ask_during_a_removal_follows_it(ledger: Ledger) -> None:
    mapped(ledger)
    ledger.release(1, 10.0)
    ledger.tick(11.0)
    assert ledger.ask(PORT, 11.1) == (None, [])
    assert requests(list(ledger.removed(PORT, Removal.GONE, 11.2))) == [Add(PORT, 3600)]


def test_a_conflict_leaves_nothing(ledger: Ledger) -> None:
    ledger.ask(PORT, 0.0)
    ledger.added(PORT, Conflict("192.168.77.3"), 0.1)
    assert ledger.withdraw(PORT, 0.1) == [
        Note(PORT, State.GONE, "held by 192.168.77.3", None, 0, exists=False)
    ]
    assert ledger.empty


def test_a_late_conflict_is_told_and_asked_again(ledger: Ledger) -> None:
    ledger.ask(PORT, 0.0)
    ledger.claim(PORT, 1, 0.5)  # the budget ended
    ledger.added(PORT, Conflict("192.168.77.3"), 3.0)
    entry = ledger.entry(PORT)
    assert entry is not None
    assert (entry.state, entry.reason) == (State.CONFLICT, "held by 192.168.77.3")
    assert ledger.next_deadline() == 3.0 + 900
    assert ledger.tick(1000.0)[-1] == Add(PORT, 3600)


def test_a_lost_mapping_is_not_fought_over(ledger: Ledger) -> None:
    mapped(ledger)
    ledger.tick(1800.0)
    ledger.added(PORT, Conflict("192.168.77.3"), 1800.0)
    assert ledger.next_deadline() == 1800.0 + 900
    ledger.release(1, 1900.0)
    assert ledger.empty


@pytest.mark.parametrize(
    ("outcome", "pauses"),
    [
        (Ignored("no"), [30.0, 60.0, 120.0, 240.0]),
        (Ignored("no", slow=True), [900.0, 1800.0, 3600.0, 3600.0]),
        (Unknown("?"), [5.0, 10.0, 20.0, 40.0]),
    ],
)
def test_it_asks_again_with_patience(
    ledger: Ledger, outcome: Ignored | Unknown, pauses: list[float]
) -> None:
    now = 0.0
    ledger.ask(PORT, now)
    ledger.claim(PORT, 1, now)
    for pause in pauses:
        ledger.added(PORT, outcome, now)
        deadline = ledger.next_deadline()
        assert deadline == now + pause
        now = deadline
        assert ledger.tick(now)[-1] == Add(PORT, 3600)


def test_what_may_exist_is_removed_in_the_end(ledger: Ledger) -> None:
    ledger.ask(PORT, 0.0)
    ledger.claim(PORT, 1, 0.5)
    ledger.added(PORT, Unknown("no answer"), 10.0)
    ledger.release(1, 11.0)
    assert ledger.tick(11.25)[-1] == Remove(PORT)


UNREACHABLE = Ignored("the router cannot be reached", silent=True)


def test_a_renewal_without_an_answer_may_have_been_carried_out(ledger: Ledger) -> None:
    """The lease of an hour would have ended at 3600; the router may hold it until 5410."""
    mapped(ledger)
    ledger.tick(1800.0)
    (note,) = ledger.added(PORT, Unknown("no answer", silent=True), 1810.0)
    assert isinstance(note, Note)
    assert (note.expires, note.exists) == (None, True)
    while True:
        now = ledger.next_deadline()
        assert now is not None
        if now > 4500.0:
            break
        assert Add(PORT, 3600) in ledger.tick(now)
        ledger.added(PORT, UNREACHABLE, now)
    assert requests(ledger.release(1, 4500.0)) == []
    assert ledger.tick(4500.25)[-1] == Remove(PORT)


def test_a_renewal_that_was_not_sent_prolongs_nothing(ledger: Ledger) -> None:
    mapped(ledger)
    ledger.tick(1800.0)
    (note,) = ledger.added(PORT, UNREACHABLE, 1810.0)
    assert isinstance(note, Note)
    assert (note.expires, note.exists) == (3600.0, True)


@pytest.mark.parametrize("wanted", [True, False])
def test_a_lease_ends_without_a_gateway_too(ledger: Ledger, wanted: bool) -> None:
    mapped(ledger)
    ledger.gateway_missing("no router")
    if not wanted:
        ledger.release(1, 20.0)
    assert ledger.next_deadline() == 3600.0
    assert ledger.tick(3599.0) == []
    state, claims = (State.IGNORED, 1) if wanted else (State.GONE, 0)
    assert ledger.tick(3600.0) == [Note(PORT, state, LEASE_ENDED, None, claims, exists=False)]
    assert ledger.next_deadline() is None
    assert ledger.gateway_missing("no router still") == ([], [])  # it says why, already
    assert requests(ledger.gateway_found(3700.0)) == ([Add(PORT, 3600)] if wanted else [])


def test_a_lease_that_may_be_longer_does_not_end_by_itself(ledger: Ledger) -> None:
    mapped(ledger)
    ledger.tick(1800.0)
    ledger.added(PORT, Unknown("no answer"), 1810.0)
    ledger.gateway_missing("no router")
    assert ledger.next_deadline() is None
    assert ledger.tick(9000.0) == []
    assert not ledger.empty


def test_a_removal_that_fails_and_is_wanted_again_is_no_release(ledger: Ledger) -> None:
    mapped(ledger)
    ledger.release(1, 1.0)
    ledger.tick(1.25)
    ledger.ask(PORT, 1.3)
    note, request = ledger.removed(PORT, Removal.FAILED, 1.4)
    assert note == Note(PORT, State.PENDING, "", None, 0, exists=True)
    assert request == Add(PORT, 3600)


def test_a_failed_removal_is_tried_some_times(ledger: Ledger) -> None:
    mapped(ledger)
    ledger.release(1, 0.0)
    now = 0.25
    for _ in range(Policy().removals - 1):
        assert ledger.tick(now)[-1] == Remove(PORT)
        ledger.removed(PORT, Removal.FAILED, now)
        deadline = ledger.next_deadline()
        assert deadline is not None
        now = deadline
    ledger.tick(now)
    (note,) = ledger.removed(PORT, Removal.FAILED, now)
    assert isinstance(note, Note)
    assert note.exists  # it stays written down, for the sweep
    assert ledger.next_deadline() is None
    assert not ledger.empty
    assert requests(ledger.compare(now + 300)) == [Remove(PORT)]
    ledger.removed(PORT, Removal.FAILED, now + 301)
    assert ledger.ask(PORT, now + 302)[1][-1] == Add(PORT, 3600)  # wanted again, it is kept


def test_at_the_end_a_removal_that_failed_is_left_to_others(ledger: Ledger) -> None:
    mapped(ledger)
    assert requests(ledger.close(1.0)) == [Remove(PORT)]
    seen = [(ledger.settled, ledger.empty)]
    ledger.removed(PORT, Removal.FAILED, 1.1)
    seen.append((ledger.settled, ledger.empty))
    assert seen == [(False, False), (True, False)]


def test_what_another_session_wants_is_its_own_affair(ledger: Ledger) -> None:
    mapped(ledger)
    ledger.release(1, 10.0)
    ledger.tick(11.0)
    (note,) = ledger.removed(PORT, Removal.HANDED_OVER, 11.1)
    assert isinstance(note, Note)
    assert note.state is State.GONE
    assert ledger.empty


SILENCE = Unknown("no answer", silent=True)
OTHER = Port(Protocol.UDP, 6881)


def test_a_silent_gateway_is_waited_for_once(ledger: Ledger) -> None:
    mapped(ledger)
    assert ledger.ask(OTHER, 5.0)[0] is None
    ledger.late("no answer within 0.5 s")
    ledger.claim(OTHER, 2, 5.5)
    third = Port(Protocol.TCP, 7000)
    outcome, effects = ledger.ask(third, 6.0)
    assert isinstance(outcome, Ignored)
    assert outcome.silent
    assert requests(effects) == []  # one request at a time finds out whether it answers
    ledger.claim(third, 3, 6.0)
    assert ledger.ask(PORT, 6.1)[0] == Mapped(3593)  # what it has promised already
    ledger.withdraw(PORT, 6.1)
    ledger.added(OTHER, SILENCE, 15.0)
    assert str(ledger).count("no answer") == 2
    assert ledger.next_deadline() == 11.0  # the third port's, which found a request under way
    assert requests(ledger.tick(15.0)) == [Add(third, 3600)]
    assert ledger.tick(1000.0) == []
    ledger.added(third, Mapped(3600), 1001.0)
    assert ledger.next_deadline() == 1001.0
    assert set(requests(ledger.tick(1001.0))) == {Add(OTHER, 3600), Check(PORT), Check(third)}
    assert ledger.ask(Port(Protocol.TCP, 7001), 1001.0)[0] is None  # waited for again


def test_a_silent_gateway_is_tried_by_every_call_that_comes(ledger: Ledger) -> None:
    ledger.ask(PORT, 0.0)
    ledger.claim(PORT, 1, 0.5)
    ledger.added(PORT, SILENCE, 10.0)
    outcome, effects = ledger.ask(OTHER, 11.0)
    assert isinstance(outcome, Ignored)
    assert requests(effects) == [Add(OTHER, 3600)]
    ledger.withdraw(OTHER, 11.0)


def test_a_refusal_is_no_silence(ledger: Ledger) -> None:
    ledger.ask(PORT, 0.0)
    ledger.added(PORT, Ignored("no"), 0.1)
    assert ledger.ask(OTHER, 0.2)[0] is None


@pytest.fixture
def careful() -> Ledger:
    """It looks for its mappings, soon and then every five minutes."""
    found = Ledger()
    found.gateway_found(0.0)
    mapped(found)
    assert found.tick(3.0) == [Check(PORT)]
    found.checked(PORT, Mapped(0), 3.0)
    return found


def test_every_five_minutes_it_looks(careful: Ledger) -> None:
    assert careful.next_deadline() == 300.0
    assert careful.tick(300.0) == [Check(PORT)]
    careful.checked(PORT, Mapped(0), 300.1)
    assert careful.next_deadline() == 600.0


def test_what_is_missing_is_put_back_at_once(careful: Ledger) -> None:
    careful.tick(300.0)
    effects = careful.checked(PORT, Ignored("it is gone"), 300.1)
    assert requests(effects) == [Add(PORT, 3600)]
    note = effects[0]
    assert isinstance(note, Note)
    assert note.state is State.PENDING


def test_whoever_takes_it_away_again_and_again_is_not_fought(careful: Ledger) -> None:
    pauses = []
    now = 300.0
    careful.tick(now)
    for _ in range(6):
        effects = careful.checked(PORT, Ignored("it is gone"), now)
        begin = now
        if not requests(effects):
            deadline = careful.next_deadline()
            assert deadline is not None
            now = deadline
            assert requests(careful.tick(now))[0] == Add(PORT, 3600)
        pauses.append(now - begin)
        careful.added(PORT, Mapped(3600), now)
        careful.tick(now + 3)
        careful.checked(PORT, Mapped(0), now + 3)  # it stays for some minutes
        now += 300
        requests(careful.compare(now))
    assert pauses == [0.0, 60.0, 900.0, 3600.0, 86400.0, 86400.0]


def test_what_is_another_hosts_by_now_is_left_alone(careful: Ledger) -> None:
    careful.tick(300.0)
    (note,) = careful.checked(PORT, Conflict("192.168.77.3"), 300.1)
    assert isinstance(note, Note)
    assert (note.state, note.reason, note.exists) == (
        State.CONFLICT,
        "held by 192.168.77.3",
        False,
    )
    assert careful.next_deadline() == 600.0  # it may have been given back


def test_a_router_that_forgets_at_once_is_asked_ever_more_rarely() -> None:
    ledger = Ledger(Policy(compare=None))
    ledger.gateway_found(0.0)
    mapped(ledger)
    now, pauses = 3.0, []
    for _ in range(5):
        assert ledger.tick(now) == [Check(PORT)]
        effects = ledger.checked(PORT, Ignored("it did not keep it"), now)
        begin = now
        if not requests(effects):
            deadline = ledger.next_deadline()
            assert deadline is not None
            now = deadline
            ledger.tick(now)
        pauses.append(now - begin)
        ledger.added(PORT, Mapped(3600), now)
        now += 3.0
    assert pauses == [0.0, 30.0, 60.0, 120.0, 240.0]


def test_a_shorter_lease_than_asked_for_is_renewed_in_time(careful: Ledger) -> None:
    careful.tick(300.0)
    careful.checked(PORT, Mapped(60), 300.0)
    assert careful.next_deadline() == 330.0
    assert requests(careful.tick(330.0)) == [Add(PORT, 3600)]


def test_a_lease_of_a_second_is_not_renewed_all_the_time(careful: Ledger) -> None:
    careful.tick(300.0)
    careful.checked(PORT, Mapped(1), 300.0)
    assert careful.next_deadline() == 305.0


def test_a_look_without_an_answer_is_repeated() -> None:
    ledger = Ledger(Policy(compare=None))
    ledger.gateway_found(0.0)
    mapped(ledger)
    ledger.tick(3.0)
    ledger.checked(PORT, SILENCE, 13.0)
    assert ledger.next_deadline() == 18.0
    assert ledger.tick(18.0) == [Check(PORT)]


def test_after_a_long_sleep_nothing_is_taken_for_granted(ledger: Ledger) -> None:
    mapped(ledger)
    outcome, effects = ledger.ask(PORT, 3600.0)
    assert outcome is None
    assert requests(effects) == [Add(PORT, 3600)]


def test_without_a_gateway_nobody_waits() -> None:
    ledger = Ledger(Policy(compare=None))
    outcome, effects = ledger.ask(PORT, 0.0)  # the search goes on
    assert outcome is None
    assert effects == [Note(PORT, State.PENDING, "", None, 0, exists=False)]
    assert ledger.gateway_missing("no router")[0] == [PORT]
    ledger.claim(PORT, 1, 0.1)
    assert ledger.ask(PORT, 1.0)[0] == Ignored("no router")
    ledger.claim(PORT, 2, 1.0)
    assert ledger.next_deadline() is None
    assert ledger.gateway_found(60.0)[-1] == Add(PORT, 3600)


def test_another_gateway_gets_everything_anew(ledger: Ledger) -> None:
    mapped(ledger)
    assert requests(ledger.gateway_found(6.0, another=True)) == [Add(PORT, 3600)]


def test_a_gateway_that_is_back_is_looked_through(ledger: Ledger) -> None:
    """It may have lost its table."""
    mapped(ledger)
    assert ledger.gateway_found(5.0) == [Check(PORT)]
    assert ledger.checked(PORT, Mapped(0), 5.1) == []
    assert ledger.next_deadline() == 1800.0


def test_the_end_of_a_session_waits_for_nothing(ledger: Ledger) -> None:
    mapped(ledger)
    assert ledger.close(1.0)[-1] == Remove(PORT)
    ledger.removed(PORT, Removal.GONE, 1.1)
    assert ledger.empty


def test_an_add_under_way_at_the_end_is_taken_back(ledger: Ledger) -> None:
    ledger.ask(PORT, 0.0)
    ledger.close(0.1)
    assert not ledger.empty
    assert ledger.added(PORT, Mapped(3600), 0.2)[-1] == Remove(PORT)


def test_a_new_mapping_is_looked_at_again() -> None:
    ledger = Ledger(Policy(compare=None))
    ledger.gateway_found(0.0)
    mapped(ledger)
    assert ledger.next_deadline() == 3.0
    assert ledger.tick(3.0) == [Check(PORT)]
    assert ledger.ask(PORT, 3.1) == (Mapped(3596), [])
    ledger.withdraw(PORT, 3.1)
    assert ledger.checked(PORT, Mapped(0), 3.2) == []
    assert ledger.next_deadline() == 1800.0
    ledger.tick(1800.0)
    ledger.added(PORT, Mapped(3600), 1800.0)
    assert ledger.next_deadline() == 3600.0  # seen once is enough


@pytest.mark.parametrize(
    ("outcome", "state"),
    [(Ignored("not kept"), State.PENDING), (Conflict("192.168.77.3"), State.CONFLICT)],
)
def test_what_was_not_kept_is_told(outcome: Ignored | Conflict, state: State) -> None:
    ledger = Ledger(Policy(compare=None))
    ledger.gateway_found(0.0)
    mapped(ledger)
    ledger.tick(3.0)
    note = ledger.checked(PORT, outcome, 3.1)[0]
    assert isinstance(note, Note)
    assert (note.state, note.expires) == (state, None)


def test_a_socket_that_ends_during_the_look_is_not_forgotten() -> None:
    ledger = Ledger(Policy(compare=None))
    ledger.gateway_found(0.0)
    mapped(ledger)
    ledger.tick(3.0)
    ledger.release(1, 3.1)
    ledger.checked(PORT, Unknown("no answer"), 3.2)
    assert ledger.next_deadline() == 3.45  # it lingers like any other
    assert ledger.tick(3.45)[-1] == Remove(PORT)


OTHER, THIRD = Port(Protocol.UDP, 7000), Port(Protocol.UDP, 7001)
FOURTH = Port(Protocol.UDP, 7002)
FULL = Ignored("full", full=True)


def refused(ledger: Ledger, port: Port, outcome: Ignored | Conflict, holder: int) -> None:
    ledger.ask(port, 0.0)
    ledger.added(port, outcome, 0.0)
    ledger.claim(port, holder, 0.0)


def removed(ledger: Ledger, removal: Removal, now: float) -> None:
    ledger.release(1, now)
    assert Remove(PORT) in ledger.tick(now + 0.25)
    ledger.removed(PORT, removal, now + 0.3)


def test_a_removal_makes_room_for_one(ledger: Ledger) -> None:
    mapped(ledger)
    refused(ledger, OTHER, FULL, 2)
    refused(ledger, THIRD, FULL, 3)
    assert ledger.next_deadline() == 30
    removed(ledger, Removal.GONE, 10.0)
    assert ledger.next_deadline() == 10.3
    assert requests(ledger.tick(10.3)) == [Add(OTHER, 3600)]
    ledger.added(OTHER, FULL, 10.4)
    assert ledger.tick(29.9) == []  # nobody else is offered what was not there
    assert requests(ledger.tick(30.0)) == [Add(THIRD, 3600)]
    ledger.added(THIRD, FULL, 30.0)
    assert ledger.next_deadline() == 40.4  # not ever later, for a try that was no mere retry


def test_room_goes_to_one_after_the_other(ledger: Ledger) -> None:
    """What the router refuses for a reason of its own does not keep the room from the rest."""
    refused(ledger, OTHER, FULL, 2)
    refused(ledger, THIRD, FULL, 3)
    offered = []
    for now in (1.0, 2.0, 3.0, 4.0):
        mapped(ledger, now=now)
        removed(ledger, Removal.GONE, now)
        (request,) = requests(ledger.tick(now + 0.3))
        assert isinstance(request, Add)
        offered.append(request.port)
        ledger.added(request.port, FULL, now + 0.3)
    assert offered == [OTHER, THIRD, OTHER, THIRD]


def test_two_removals_make_room_for_two(ledger: Ledger) -> None:
    mapped(ledger)
    ledger.ask(FOURTH, 0.0)
    ledger.added(FOURTH, Mapped(3600), 0.0)
    ledger.claim(FOURTH, 4, 0.0)
    refused(ledger, OTHER, FULL, 2)
    refused(ledger, THIRD, FULL, 3)
    ledger.release(1, 1.0)
    ledger.release(4, 1.0)
    assert requests(ledger.tick(1.25)) == [Remove(PORT), Remove(FOURTH)]
    ledger.removed(PORT, Removal.GONE, 1.3)
    ledger.removed(FOURTH, Removal.GONE, 1.3)
    assert requests(ledger.tick(1.3)) == [Add(OTHER, 3600), Add(THIRD, 3600)]


def test_a_full_router_is_not_flooded(ledger: Ledger) -> None:
    """60 ports, room for ten of them, and one that is closed and bound again each second."""
    room, there, tries, now = 10, set[Port](), 0, 0.0

    def carry_out(effects: Sequence[object]) -> None:
        nonlocal tries
        for request in requests(effects):
            if isinstance(request, Remove):
                there.discard(request.port)
                carry_out(ledger.removed(request.port, Removal.GONE, now))
                continue
            assert isinstance(request, Add)
            tries += 1
            if len(there) < room or request.port in there:
                there.add(request.port)
            outcome = Mapped(3600) if request.port in there else FULL
            carry_out(ledger.added(request.port, outcome, now))

    def bind(port: Port, holder: int) -> None:
        carry_out(ledger.ask(port, now)[1])
        carry_out(ledger.claim(port, holder, now))

    for number in range(60):
        bind(Port(Protocol.TCP, 7000 + number), number)
    for second in range(1, 61):
        before, now = tries, float(second)
        holder, port = next((h, p) for h, p in ledger.claims.items() if p in there)
        carry_out(ledger.release(holder, now))
        while (due := ledger.next_deadline()) is not None and due <= second + 0.9:
            now = max(now, due)
            carry_out(ledger.tick(now))
        bind(port, holder)
        if second not in (30, 31):  # when those that were refused at the start are tried again
            assert tries - before <= 4
    assert len(there) == room


@pytest.mark.parametrize("removal", [Removal.NOT_OURS, Removal.HANDED_OVER, Removal.FAILED])
def test_what_is_still_there_makes_no_room(ledger: Ledger, removal: Removal) -> None:
    mapped(ledger)
    refused(ledger, OTHER, FULL, 2)
    removed(ledger, removal, 10.0)
    assert requests(ledger.tick(11.0)) == []


@pytest.mark.parametrize("outcome", [Ignored("no"), Ignored("no", slow=True), Conflict("x")])
def test_room_is_for_those_who_lacked_it(ledger: Ledger, outcome: Ignored | Conflict) -> None:
    mapped(ledger)
    refused(ledger, OTHER, FULL, 2)
    due = ledger.next_deadline()
    assert due is not None
    ledger.tick(due)
    ledger.added(OTHER, outcome, due)
    removed(ledger, Removal.GONE, due)
    assert requests(ledger.tick(due + 1)) == []


def test_room_is_not_for_what_nobody_wants(ledger: Ledger) -> None:
    mapped(ledger)
    refused(ledger, OTHER, FULL, 2)
    ledger.release(2, 1.0)
    removed(ledger, Removal.GONE, 10.0)
    assert ledger.empty
    assert ledger.next_deadline() is None


def test_a_port_that_is_wanted_again_at_once_takes_its_room_back(ledger: Ledger) -> None:
    mapped(ledger)
    refused(ledger, OTHER, FULL, 2)
    ledger.release(1, 10.0)
    ledger.tick(10.25)
    ledger.ask(PORT, 10.26)
    assert requests(ledger.removed(PORT, Removal.GONE, 10.3)) == [Add(PORT, 3600)]
    assert requests(ledger.tick(10.4)) == []


# --- what went before ---


def test_what_was_mapped_is_looked_for_and_renewed(careful: Ledger) -> None:
    """By a ledger that knows it from a journal alone."""
    known = Port(Protocol.TCP, 7000)
    new = Ledger(careful.policy)
    effects = new.restore(known, [5, 6], exists=True, expires=1000.0, reason="", now=100.0)
    (written,) = effects
    assert isinstance(written, Note)
    assert (written.state, written.claims, written.expires) == (State.MAPPED, 2, 1000.0)
    assert requests(new.gateway_found(101.0)) == [Check(known)]
    new.checked(known, Mapped(0), 102.0)
    assert new.next_deadline() is not None
    assert requests(new.tick(550.0)) == [Add(known, new.policy.lease)]
    new.added(known, Mapped(3600), 551.0)
    new.release(5, 552.0)
    new.release(6, 552.0)
    assert requests(new.tick(560.0)) == [Remove(known)]


def test_what_nobody_holds_any_more_is_removed() -> None:
    known, new = Port(Protocol.TCP, 7000), Ledger()
    new.restore(known, [], exists=True, expires=None, reason="", now=100.0)
    assert requests(new.gateway_found(101.0)) == []
    assert requests(new.tick(102.0)) == [Remove(known)]


def test_what_was_not_mapped_is_asked_for() -> None:
    known, new = Port(Protocol.TCP, 7000), Ledger()
    new.restore(known, [5], exists=False, expires=None, reason="full", now=100.0)
    assert requests(new.gateway_found(101.0)) == [Add(known, new.policy.lease)]
    other = Port(Protocol.UDP, 7000)
    (note,) = new.restore(other, [], exists=False, expires=None, reason="", now=0.0)
    assert isinstance(note, Note)
    assert note.state is State.GONE  # it stands in the journal no more


def test_a_lease_that_ended_meanwhile_is_renewed_at_once() -> None:
    known, new = Port(Protocol.TCP, 7000), Ledger(Policy(compare=None))
    new.restore(known, [5], exists=True, expires=50.0, reason="", now=100.0)
    assert requests(new.gateway_found(101.0)) == [Check(known)]
    assert requests(new.checked(known, Ignored("gone"), 102.0)) == [Add(known, new.policy.lease)]


def test_no_lease_is_thought_to_be_longer_than_what_is_asked_for() -> None:
    """It was written down by the wall clock, which was set back since."""
    known, new = Port(Protocol.TCP, 7000), Ledger(Policy(compare=None))
    (written,) = new.restore(known, [5], exists=True, expires=90_000.0, reason="", now=100.0)
    assert isinstance(written, Note)
    assert written.expires == 3700.0
    new.gateway_found(101.0)
    new.checked(known, Mapped(0), 102.0)
    assert requests(new.tick(1900.0)) == [Add(known, new.policy.lease)]


def test_another_session_looks_for_what_is_mapped() -> None:
    """What it misses is looked for again here; the rest is not, as long as it goes on."""
    ledger = Ledger(Policy(check=None, lease=10_000))
    ledger.gateway_found(0.0)
    mapped(ledger, 10_000)
    other = Port(Protocol.UDP, 6881)
    ledger.ask(other, 0.0)
    ledger.added(other, Mapped(10_000), 0.0)
    ledger.claim(other, 2, 0.0)
    assert ledger.next_deadline() == 300.0
    assert ledger.compared([], 250.0) == []
    assert ledger.next_deadline() == 850.0
    unknown = Port(Protocol.UDP, 7)
    assert ledger.compared([PORT, unknown], 500.0) == [Check(PORT)]
    assert ledger.compared([PORT], 500.0) == []  # it is being looked for
    ledger.checked(PORT, Mapped(0), 501.0)
    assert ledger.next_deadline() == 1100.0
    ledger.compare_by(800.0)
    assert ledger.next_deadline() == 800.0
    assert ledger.tick(800.0) == [Check(PORT), Check(other)]


def followed(many: int) -> tuple[Ledger, list[Port]]:
    """Ports that are mapped, and that another session looks for."""
    ledger = Ledger(Policy(check=None, lease=1_000_000))
    ledger.gateway_found(0.0)
    ports = [Port(Protocol.TCP, 7000 + number) for number in range(many)]
    for number, port in enumerate(ports):
        ledger.ask(port, 0.0)
        ledger.added(port, Mapped(1_000_000), 0.0)
        ledger.claim(port, number, 0.0)
    return ledger, ports


def missed(ledger: Ledger, missing: Sequence[Port], now: float) -> list[object]:
    """What is asked for at once when these are missing by another session's word, and by the
    gateway's."""
    found = list[object]()
    for check in requests(ledger.compared(missing, now)):
        assert isinstance(check, Check)
        found += requests(ledger.checked(check.port, Ignored("gone"), now))
    return found + requests(ledger.tick(now))


def put_back(ledger: Ledger, ports: Sequence[Port], now: float) -> None:
    for port in ports:
        ledger.added(port, Mapped(1_000_000), now)


def test_what_another_session_cannot_look_for_is_tried_again_when_it_compares() -> None:
    """What another host had may be free, and what could not be removed may be removed by now."""
    ledger, (port, other) = followed(2)
    held = Port(Protocol.UDP, 7000)
    ledger.ask(held, 0.0)
    ledger.added(held, Conflict("192.168.77.3"), 0.0)
    ledger.claim(held, 9, 0.0)
    ledger.release(0, 1.0)
    now = 1.0
    for _ in range(ledger.policy.removals):
        now += 4000.0
        assert Remove(port) in ledger.tick(now)
        ledger.removed(port, Removal.FAILED, now)
    ledger.added(held, Conflict("192.168.77.3"), now)
    assert requests(ledger.compared([], now + 1)) == [Remove(port), Add(held, 1_000_000)]
    assert requests(ledger.compared([], now + 1)) == []  # under way
    ledger.removed(port, Removal.GONE, now + 1)
    ledger.checked(other, Mapped(0), now + 1)
    ledger.added(held, Unknown("silence", silent=True), now + 2)
    assert requests(ledger.compared([], now + 3)) == []
    assert requests(ledger.compared([other], now + 3)) == [Check(other)]


def test_everything_is_missing_by_another_sessions_word_as_after_a_restart() -> None:
    ledger, ports = followed(3)
    assert missed(ledger, ports[:1], 1000.0) == [Add(ports[0], 1_000_000)]
    put_back(ledger, ports[:1], 1000.0)
    assert set(missed(ledger, ports, 2000.0)) == {Add(port, 1_000_000) for port in ports}


def test_what_is_taken_away_again_and_again_is_not_put_back_at_once() -> None:
    """By another session's word as well."""
    ledger, ports = followed(3)
    assert len(missed(ledger, ports[:2], 1000.0)) == 2
    put_back(ledger, ports[:2], 1000.0)
    assert missed(ledger, ports[:2], 2000.0) == []


def test_a_restart_that_another_session_has_seen_is_forgiven() -> None:
    ledger, (port,) = followed(1)
    for now in (1000.0, 2000.0, 3000.0):
        ledger.forgive()
        assert missed(ledger, [port], now) == [Add(port, 1_000_000)]
        put_back(ledger, [port], now)


class Counted(dict[Port, Entry]):
    """Entries that count how many of them are looked at."""

    looks = 0

    def __getitem__(self, port: Port) -> Entry:
        self.looks += 1
        return super().__getitem__(port)

    def __iter__(self) -> Iterator[Port]:
        for port in super().__iter__():
            self.looks += 1
            yield port

    def values(self) -> Any:
        self.looks += len(self)
        return super().values()

    def items(self) -> Any:
        self.looks += len(self)
        return super().items()


def looks_of_one_ports_life(others: int, *, gateway: bool) -> int:
    """How many entries are looked at while one port comes and goes beside many others."""
    ledger = Ledger(Policy())
    if gateway:
        ledger.gateway_found(0.0)
    for number in range(1024, 1024 + others):
        port = Port(Protocol.UDP, number)
        ledger.ask(port, 0.0)
        if gateway:
            answer = Ignored("full", full=True) if number % 2 else Mapped(3600)
            ledger.added(port, answer, 0.0)
        ledger.claim(port, number, 0.0)
    ledger.next_deadline()
    entries = ledger._entries = Counted(ledger._entries)
    mapped(ledger) if gateway else (ledger.ask(PORT, 0.0), ledger.claim(PORT, 1, 0.0))
    ledger.next_deadline()
    ledger.tick(0.5)
    ledger.release(1, 1.0)
    if gateway:
        assert ledger.tick(1.25)
        ledger.removed(PORT, Removal.GONE, 1.5)
    assert ledger.entry(PORT) is None
    assert ledger.empty is not gateway
    assert ledger.settled is not gateway
    ledger.next_deadline()
    return entries.looks


@pytest.mark.parametrize("gateway", [True, False])
def test_what_a_port_costs_does_not_depend_on_how_many_there_are(gateway: bool) -> None:
    few = looks_of_one_ports_life(10, gateway=gateway)
    assert 0 < few < 40
    assert looks_of_one_ports_life(10_000, gateway=gateway) == few


def test_what_another_host_has_is_asked_for_with_every_comparison() -> None:
    """It may have been given back. The question is a look first: nothing is taken away."""
    ledger = Ledger(Policy(check=None))
    ledger.gateway_found(0.0)
    ledger.ask(PORT, 0.0)
    ledger.claim(PORT, 1, 0.0)
    ledger.added(PORT, Conflict("192.168.1.3"), 0.0)
    assert ledger.next_deadline() == 300.0
    assert requests(ledger.tick(300.0)) == [Add(PORT, 3600)]
    ledger.added(PORT, Mapped(3600), 300.0)
    assert requests(ledger.compare(400.0)) == [Check(PORT)]


def test_who_has_it_is_not_known_and_it_is_asked_for_rarely() -> None:
    ledger = Ledger(Policy(check=None))
    ledger.gateway_found(0.0)
    ledger.ask(PORT, 0.0)
    ledger.claim(PORT, 1, 0.0)
    ledger.added(PORT, Conflict(""), 0.0)
    assert ledger.next_deadline() == 900.0


def test_a_restart_is_no_users_removal() -> None:
    """Everything is gone: what waits for its pause is put back with the rest."""
    other = Port(Protocol.TCP, 6882)
    ledger = Ledger(Policy(check=None))
    ledger.gateway_found(0.0)
    for holder, port in enumerate((PORT, other)):
        ledger.ask(port, 0.0)
        ledger.added(port, Mapped(3600), 0.0)
        ledger.claim(port, holder, 0.0)
    now, gone = 0.0, Ignored("it is gone")
    for _ in range(2):  # the user removes one, twice
        ledger.compare(now)
        ledger.checked(other, Mapped(0), now)
        effects = ledger.checked(PORT, gone, now)
        if requests(effects):
            ledger.added(PORT, Mapped(3600), now)
            ledger.compare(now + 1)
            ledger.checked(other, Mapped(0), now + 1)
            ledger.checked(PORT, Mapped(0), now + 1)
    assert ledger.next_deadline() == now + 60
    ledger.tick(now + 60)
    ledger.added(PORT, Mapped(3600), now + 60)
    ledger.compare(now + 70)
    assert requests(ledger.checked(PORT, gone, now + 70)) == []
    assert requests(ledger.checked(other, gone, now + 70)) == [Add(other, 3600)]
    assert requests(ledger.tick(now + 70)) == [Add(PORT, 3600)]


def test_what_may_have_been_restarted_is_looked_through_a_little_later() -> None:
    ledger = Ledger(Policy(check=None))
    ledger.gateway_found(0.0)
    mapped(ledger)
    assert requests(ledger.gateway_found(100.0, delay=3.0)) == []
    assert ledger.next_deadline() == 103.0
    assert requests(ledger.tick(103.0)) == [Check(PORT)]


# --- the user ---


def test_what_the_user_releases_is_removed_at_once_and_stays_away(ledger: Ledger) -> None:
    mapped(ledger)
    assert ledger.give_back(PORT, 1.0) == [
        Note(PORT, State.RELEASING, "", 3600.0, 1, exists=True, released=True),
        Remove(PORT),
    ]
    released = Note(PORT, State.RELEASED, RELEASED, None, 1, exists=False, released=True)
    assert ledger.removed(PORT, Removal.GONE, 2.0) == [released]
    assert ledger.next_deadline() is None
    for effects in ledger.gateway_found(3.0), ledger.gateway_found(3.0, another=True):
        assert requests(effects) == []
    assert ledger.ask(PORT, 4.0) == (Ignored(RELEASED), [])
    assert requests(ledger.claim(PORT, 2, 4.0)) == []
    ledger.release(1, 5.0)
    ledger.release(2, 5.0)
    assert str(ledger) == f"{PORT} released ({RELEASED})"  # for the program that comes back
    assert ledger.empty


def test_a_release_is_taken_back(ledger: Ledger) -> None:
    mapped(ledger)
    ledger.give_back(PORT, 1.0)
    ledger.removed(PORT, Removal.GONE, 2.0)
    effects = ledger.retry(PORT, 3.0)
    assert effects is not None
    assert requests(effects) == [Add(PORT, 3600)]
    ledger.added(PORT, Mapped(3600), 3.0)
    entry = ledger.entry(PORT)
    assert entry is not None
    assert entry.state is State.MAPPED


def test_a_release_is_taken_back_while_it_is_removed(ledger: Ledger) -> None:
    mapped(ledger)
    ledger.give_back(PORT, 1.0)
    assert requests(ledger.retry(PORT, 1.0) or []) == []
    assert requests(ledger.removed(PORT, Removal.GONE, 2.0)) == [Add(PORT, 3600)]


def test_a_release_that_nobody_needs_is_forgotten(ledger: Ledger) -> None:
    mapped(ledger)
    ledger.give_back(PORT, 1.0)
    ledger.removed(PORT, Removal.GONE, 2.0)
    ledger.release(1, 5.0)
    (gone,) = ledger.retry(PORT, 6.0) or []
    assert isinstance(gone, Note)
    assert (gone.state, gone.released) == (State.GONE, False)


def test_what_is_added_meanwhile_is_removed(ledger: Ledger) -> None:
    ledger.ask(PORT, 0.0)
    (note,) = ledger.give_back(PORT, 0.0) or []
    assert isinstance(note, Note)
    assert note.released
    assert requests(ledger.added(PORT, Mapped(3600), 1.0)) == [Remove(PORT)]


def test_a_conflict_is_tried_again_at_once(ledger: Ledger) -> None:
    ledger.ask(PORT, 0.0)
    ledger.claim(PORT, 1, 0.0)
    ledger.added(PORT, Conflict("192.168.77.3"), 0.0)
    effects = ledger.retry(PORT, 1.0)
    assert effects is not None
    assert requests(effects) == [Add(PORT, 3600)]
    assert requests(ledger.retry(PORT, 1.0) or []) == []  # it is under way


def test_without_a_router_it_is_released_all_the_same(ledger: Ledger) -> None:
    mapped(ledger)
    ledger.gateway_missing("no router")
    (note,) = ledger.give_back(PORT, 1.0) or []
    assert isinstance(note, Note)
    assert (note.exists, note.released) == (True, True)
    assert requests(ledger.gateway_found(2.0)) == [Remove(PORT)]


def test_nobody_has_it(ledger: Ledger) -> None:
    assert ledger.give_back(PORT, 1.0) is None
    assert ledger.retry(PORT, 1.0) is None


@pytest.mark.parametrize("exists", [True, False])
def test_a_release_outlives_a_ledger(exists: bool) -> None:
    ledger = Ledger()
    ledger.restore(PORT, [1], exists=exists, expires=None, reason="", now=0.0, released=True)
    expected = [Remove(PORT)] if exists else []
    assert requests(ledger.gateway_found(1.0)) == expected
    assert ledger.ask(PORT, 2.0)[0] == Ignored(RELEASED)
