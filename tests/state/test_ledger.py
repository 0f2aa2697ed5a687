"""The ledger's rules, an example each."""

from collections.abc import Sequence

import pytest

from natsup.state.ledger import Add, Check, Ledger, Note, Policy, Remove, State
from natsup.state.model import Conflict, Ignored, Mapped, Port, Protocol, Removal, Unknown

PORT = Port(Protocol.TCP, 6881)


@pytest.fixture
def ledger() -> Ledger:
    found = Ledger(Policy(check=None))
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
    assert ledger.tick(1800.0) == [Add(PORT, 3600)]  # it is written down already
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


def test_without_a_gateway_nobody_waits() -> None:
    ledger = Ledger()
    assert ledger.ask(PORT, 0.0) == (None, [])  # the search goes on
    assert ledger.gateway_missing("no router")[0] == [PORT]
    ledger.claim(PORT, 1, 0.1)
    assert ledger.ask(PORT, 1.0)[0] == Ignored("no router")
    ledger.claim(PORT, 2, 1.0)
    assert ledger.next_deadline() is None
    assert ledger.gateway_found(60.0)[-1] == Add(PORT, 3600)


def test_another_gateway_gets_everything_anew(ledger: Ledger) -> None:
    mapped(ledger)
    assert ledger.gateway_found(5.0) == []
    assert requests(list(ledger.gateway_found(6.0, another=True))) == [Add(PORT, 3600)]


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
    ledger = Ledger()
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
    [(Ignored("not kept"), State.IGNORED), (Conflict("192.168.77.3"), State.CONFLICT)],
)
def test_what_was_not_kept_is_told(outcome: Ignored | Conflict, state: State) -> None:
    ledger = Ledger()
    ledger.gateway_found(0.0)
    mapped(ledger)
    ledger.tick(3.0)
    (note,) = ledger.checked(PORT, outcome, 3.1)
    assert isinstance(note, Note)
    assert (note.state, note.exists, note.expires) == (state, False, None)
    deadline = ledger.next_deadline()
    assert deadline is not None
    assert ledger.tick(deadline)[-1] == Add(PORT, 3600)


def test_a_socket_that_ends_during_the_look_is_not_forgotten() -> None:
    ledger = Ledger()
    ledger.gateway_found(0.0)
    mapped(ledger)
    ledger.tick(3.0)
    ledger.release(1, 3.1)
    assert ledger.checked(PORT, Unknown("silence"), 3.2)[-1] == Remove(PORT)
