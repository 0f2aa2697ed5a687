"""What is told agrees with the ledger, in any order of events that hypothesis can think of."""

from itertools import pairwise

from hypothesis import HealthCheck, settings
from hypothesis.stateful import initialize, invariant

from natsup.state.happenings import Caller, Event, Teller, What
from natsup.state.ledger import Effect, Ledger, Note, State
from natsup.state.model import Outcome, Port, Removal
from tests.state.test_ledger_machine import PORTS, LedgerMachine

CALLER = Caller("x", 1)
FORWARDED = (What.MAPPED, What.PUT_BACK)


class TellingLedger(Ledger):
    """A ledger with a teller beside it, as the keeper has them."""

    def __init__(self) -> None:
        super().__init__()
        self.teller = Teller()
        self.told: dict[Port, list[Event]] = {port: [] for port in PORTS}

    def tell(self, events: list[Event]) -> None:
        for event in events:
            assert event.port is not None
            self.told[event.port].append(event)

    def ask(self, port: Port, now: float) -> tuple[Outcome | None, list[Effect]]:
        self.teller.asked(port, CALLER)
        return super().ask(port, now)

    def added(self, port: Port, outcome: Outcome, now: float) -> list[Effect]:
        self.teller.added(port, outcome)
        return super().added(port, outcome, now)

    def checked(self, port: Port, outcome: Outcome, now: float) -> list[Effect]:
        self.tell(self.teller.checked(port, outcome, now))
        return super().checked(port, outcome, now)

    def removed(self, port: Port, removal: Removal, now: float) -> list[Effect]:
        self.tell(self.teller.removed(port, removal, now))
        return super().removed(port, removal, now)


class HappeningsMachine(LedgerMachine):
    @initialize()
    def start(self) -> None:
        super().start()
        self.ledger: TellingLedger = TellingLedger()

    def carry_out(self, effects: list[Effect]) -> None:
        super().carry_out(effects)
        for effect in effects:
            if isinstance(effect, Note):
                self.ledger.tell(self.ledger.teller.noted(effect, self.now))

    @invariant()
    def what_was_told_last_is_so(self) -> None:
        for port, told in self.ledger.told.items():
            entry = self.ledger.entry(port)
            last = told[-1].what if told else None
            if entry is None:
                assert last not in (*FORWARDED, What.NOT_RENEWED)
            elif entry.released:
                assert last not in FORWARDED
            elif entry.state is State.MAPPED and entry.claims:
                assert last in FORWARDED
            elif entry.state in (State.IGNORED, State.CONFLICT) and entry.claims:
                if last is What.NOT_RENEWED:
                    assert entry.exists
                else:
                    assert last in (What.IGNORED, What.CONFLICT, What.LOST, What.NOT_REMOVED)

    @invariant()
    def nothing_is_told_twice(self) -> None:
        for told in self.ledger.told.values():
            for before, after in pairwise(told):
                assert not (before.what in FORWARDED and after.what in FORWARDED)
                if before.what in (What.LOST, What.CONFLICT, What.NOT_RENEWED):
                    assert after.what is not before.what

    @invariant()
    def everything_has_a_reason(self) -> None:
        for told in self.ledger.told.values():
            for event in told:
                assert event.caller == CALLER
                assert event.reason or event.what in FORWARDED


HappeningsMachine.TestCase.settings = settings(
    max_examples=200,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestHappenings = HappeningsMachine.TestCase
del LedgerMachine
