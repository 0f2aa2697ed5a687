"""What is told of a session's ports, by the ledger itself and what a gateway answers it."""

from natsup.state.happenings import AGAIN, Caller, Event, Teller, What
from natsup.state.ledger import LEASE_ENDED, Add, Check, Effect, Ledger, Note, Remove
from natsup.state.model import Conflict, Ignored, Mapped, Outcome, Port, Protocol, Removal, Unknown

PORT = Port(Protocol.TCP, 7000)
CALLER = Caller("server", 12)
GRANTED = Mapped(3600)
FULL = Ignored("the router's table is full")
MISSING = Ignored("the router did not keep the mapping")


class Told:
    """A ledger with a teller beside it, as the keeper has them."""

    def __init__(self, *, gateway: bool = True) -> None:
        self.ledger = Ledger()
        self.teller = Teller()
        self.now = 0.0
        self.events: list[Event] = []
        self.effects: list[Effect] = []
        if gateway:
            self.take(self.ledger.gateway_found(self.now))

    def take(self, effects: list[Effect]) -> None:
        self.effects = effects
        for effect in effects:
            if isinstance(effect, Note):
                self.events += self.teller.noted(effect, self.now)

    def ask(self, caller: Caller = CALLER) -> None:
        self.teller.asked(PORT, caller)
        self.take(self.ledger.ask(PORT, self.now)[1])

    def claim(self, holder: int = 1) -> None:
        self.take(self.ledger.claim(PORT, holder, self.now))

    def add(self, outcome: Outcome) -> None:
        self.teller.added(PORT, outcome)
        self.take(self.ledger.added(PORT, outcome, self.now))

    def bind(self, outcome: Outcome = GRANTED) -> None:
        self.ask()
        self.add(outcome)
        self.claim()

    def tick(self) -> Effect:
        """Go on to what is due; the request."""
        deadline = self.ledger.next_deadline()
        assert deadline is not None
        self.now = deadline
        self.take(self.ledger.tick(self.now))
        return self.effects[-1]

    def check(self, outcome: Outcome) -> None:
        """The next look for the mapping."""
        while not isinstance(self.tick(), Check):
            pass
        self.events += self.teller.checked(PORT, outcome, self.now)
        self.take(self.ledger.checked(PORT, outcome, self.now))

    def remove(self, removal: Removal = Removal.GONE) -> None:
        if not isinstance(self.effects[-1], Remove):
            assert isinstance(self.tick(), Remove)
        self.events += self.teller.removed(PORT, removal, self.now)
        self.take(self.ledger.removed(PORT, removal, self.now))

    def release(self) -> None:
        self.take(self.ledger.release(1, self.now))

    def what(self) -> list[str]:
        return [event.what.value for event in self.events]


def test_what_another_supervisor_has_told_is_not_told_again() -> None:
    told = Told(gateway=False)
    told.teller.presume_address("203.0.113.1")
    told.teller.mapped_before(PORT)
    told.take(told.ledger.restore(PORT, {1}, exists=True, expires=3600.0, reason="", now=told.now))
    told.take(told.ledger.gateway_found(told.now))
    assert told.events == []
    told.take(told.ledger.release(1, told.now))
    told.events += told.teller.removed(PORT, Removal.GONE, told.now)
    (event,) = told.events
    assert (event.what, event.reason) == (What.REMOVED, "its last socket is gone")
    assert event.external_address == "203.0.113.1"


def test_mapped_and_removed_with_who_and_why() -> None:
    told = Told()
    told.bind()
    told.release()
    told.remove()
    assert told.events == [
        Event(What.MAPPED, PORT, CALLER, lease=3600),
        Event(What.REMOVED, PORT, CALLER, "its last socket is gone"),
    ]


def test_the_end_of_the_session_is_a_reason() -> None:
    told = Told()
    told.bind()
    told.teller.close()
    told.take(told.ledger.close(told.now))
    told.remove()
    assert told.events[-1] == Event(What.REMOVED, PORT, CALLER, "the session ended")


def test_renewals_and_looks_are_no_news() -> None:
    told = Told()
    told.bind()
    for _ in range(50):
        request = told.tick()
        if isinstance(request, Add):
            told.add(Mapped(3600))
        else:
            told.take(told.ledger.checked(PORT, Mapped(0), told.now))
    assert told.what() == ["mapped"]


def test_a_router_that_will_not_is_told_of_once() -> None:
    told = Told()
    told.bind(FULL)
    for _ in range(20):
        assert isinstance(told.tick(), Add)
        told.add(FULL)
    assert told.events == [Event(What.IGNORED, PORT, CALLER, "the router's table is full")]
    told.tick()
    told.add(Unknown("no answer", silent=True))
    told.tick()
    told.add(Mapped(3600))
    assert told.what() == ["ignored", "ignored", "mapped"]


def test_a_program_that_tries_again_and_again_is_told_of_every_hour() -> None:
    told = Told()
    for _ in range(100):
        told.bind(FULL)
        told.release()
        told.now += AGAIN / 25
    assert told.what() == ["ignored"] * 4


def test_lost_and_put_back() -> None:
    told = Told()
    told.bind()
    told.check(MISSING)
    told.add(Mapped(3600))
    assert told.events[1:] == [
        Event(What.LOST, PORT, CALLER, "the router did not keep the mapping"),
        Event(What.PUT_BACK, PORT, CALLER, lease=3600),
    ]


def test_lost_for_good_is_told_of_once() -> None:
    told = Told()
    told.bind()
    told.check(MISSING)
    for _ in range(5):
        told.add(FULL)
        assert isinstance(told.tick(), Add)
    assert told.what() == ["mapped", "lost", "ignored"]


SILENT = Unknown("the router did not answer in time", silent=True)
UNREACHABLE = Ignored("the router cannot be reached", silent=True)


def renewal(told: Told) -> None:
    """Go on to the next renewal, or the next try of it."""
    while not isinstance(told.tick(), Add):
        told.take(told.ledger.checked(PORT, Mapped(0), told.now))


def test_a_renewal_that_fails_is_told_of_once_and_so_is_its_end() -> None:
    told = Told()
    told.bind()
    for outcome in (SILENT, UNREACHABLE, SILENT, Mapped(3600)):
        renewal(told)
        told.add(outcome)
    assert told.events[1:] == [
        Event(What.NOT_RENEWED, PORT, CALLER, "the router did not answer in time"),
        Event(What.MAPPED, PORT, CALLER, "renewed after all", lease=3600),
    ]


def test_what_is_lost_while_it_is_not_renewed_is_told_and_put_back() -> None:
    told = Told()
    told.bind()
    while told.now < 3600:
        renewal(told)
        told.add(UNREACHABLE)
    told.take(told.ledger.gateway_found(told.now))
    told.add(Mapped(3600))
    assert told.what() == ["mapped", "not renewed", "lost", "put back"]


def test_reasons_that_alternate_are_told_of_once_each() -> None:
    told = Told()
    told.bind(FULL)
    for number in range(20):
        assert isinstance(told.tick(), Add)
        told.add(Ignored(("no route to host", "connection refused")[number % 2], silent=True))
    assert told.what() == ["ignored"] * 3


def test_reasons_that_are_new_each_time_are_not_told_for_ever() -> None:
    told = Told()
    told.bind(FULL)
    for number in range(50):
        assert isinstance(told.tick(), Add)
        told.add(Ignored(f"error {number}"))
    assert told.what() == ["ignored"] * 8


def test_a_lease_that_ends_without_a_router_is_a_loss() -> None:
    told = Told()
    told.bind()
    told.take(told.ledger.gateway_missing("no router answered")[1])
    deadline = told.ledger.next_deadline()
    assert deadline == 3600
    told.now = deadline
    told.take(told.ledger.tick(told.now))
    told.take(told.ledger.gateway_missing("no router answered")[1])
    assert told.events[1:] == [Event(What.LOST, PORT, CALLER, LEASE_ENDED)]
    told.take(told.ledger.gateway_found(told.now))
    told.add(Mapped(0))
    assert told.what() == ["mapped", "lost", "put back"]


def test_lost_to_another_host() -> None:
    told = Told()
    told.bind()
    told.check(Conflict("192.168.77.3"))
    told.tick()
    told.add(Conflict("192.168.77.3"))
    assert told.events[1:] == [
        Event(What.LOST, PORT, CALLER, "held by 192.168.77.3", holder="192.168.77.3")
    ]


def test_a_silent_router_has_lost_nothing() -> None:
    told = Told()
    told.bind()
    told.check(Unknown("no answer", silent=True))
    told.check(Ignored("no answer", silent=True))
    assert told.what() == ["mapped"]


def test_a_conflict_that_comes_late() -> None:
    told = Told()
    told.ask()
    told.claim()
    for _ in range(3):
        told.add(Conflict("192.168.77.3"))
        told.tick()
    assert told.events == [
        Event(What.CONFLICT, PORT, CALLER, "held by 192.168.77.3", holder="192.168.77.3")
    ]


def test_a_refusal_is_told_of_once_for_each_program_in_an_hour() -> None:
    teller, conflict = Teller(), Conflict("")
    found = [teller.refused(PORT, CALLER, conflict, now * 10.0) for now in range(721)]
    assert [n for n, events in enumerate(found) if events] == [0, 360, 720]
    assert found[0] == [Event(What.REFUSED, PORT, CALLER, "held by another host", holder="")]
    assert teller.refused(PORT, Caller("other", 13), conflict, 7200.0)


def test_no_router() -> None:
    told = Told(gateway=False)
    told.take(told.ledger.gateway_missing("no router answered")[1])
    told.ask()
    told.claim()
    for _ in range(5):
        told.take(told.ledger.gateway_missing("no router answered")[1])
    assert told.events == [Event(What.IGNORED, PORT, CALLER, "no router answered")]
    told.take(told.ledger.gateway_found(told.now))
    told.add(Mapped(0))
    assert told.events[1:] == [Event(What.MAPPED, PORT, CALLER)]


def test_another_router() -> None:
    told = Told()
    told.bind()
    told.events += told.teller.another_gateway(told.now, "this host has another router now")
    told.take(told.ledger.gateway_found(told.now, another=True))
    told.add(Mapped(3600))
    assert told.what() == ["mapped", "lost", "mapped"]


def test_the_results_of_removals() -> None:
    for removal, what in (
        (Removal.NOT_OURS, "not ours"),
        (Removal.HANDED_OVER, "handed over"),
    ):
        told = Told()
        told.bind()
        told.release()
        told.remove(removal)
        assert told.what() == ["mapped", what]
    told = Told()
    told.bind()
    told.release()
    for _ in range(3):
        told.remove(Removal.FAILED)
    told.remove()
    assert told.what() == ["mapped", "not removed", "removed"]


def test_a_port_that_is_probed_is_mapped_once() -> None:
    told = Told()
    told.bind()
    for _ in range(5):
        told.release()
        told.now += 0.1
        told.ask()
        told.claim()
    assert told.what() == ["mapped"]


def test_the_address_outside_is_told_when_it_changes() -> None:
    teller = Teller()
    assert len(teller.external_address("11.22.33.1")) == 1
    assert teller.external_address("11.22.33.1") == []
    assert len(teller.external_address("11.22.33.2")) == 1


def test_an_external_address_of_another_time_counts_until_it_is_told() -> None:
    told = Told()
    told.teller.presume_address("11.22.33.1")
    told.bind()
    assert [(event.what, event.external_address) for event in told.events] == [
        (What.MAPPED, "11.22.33.1")
    ]
    assert len(told.teller.external_address("11.22.33.1")) == 1  # told, though no news
    assert told.teller.external_address("11.22.33.1") == []
    told.teller.presume_address("11.22.33.2")  # whoever knows does not presume
    assert told.teller.external_address("11.22.33.1") == []
    told.teller.another_gateway(told.now, "it is another one")
    told.teller.presume_address("11.22.33.2")
    assert len(told.teller.external_address("11.22.33.3")) == 1


def test_what_is_remembered_is_bounded() -> None:
    teller = Teller()
    for number in range(1, 2000):
        port = Port(Protocol.UDP, number)
        teller.refused(port, CALLER, Conflict(""), 0.0)
        ledger = Ledger()
        teller.asked(port, CALLER)
        ledger.ask(port, 0.0)
        ledger.gateway_missing("none")
        for effect in ledger.withdraw(port, 0.0):
            assert isinstance(effect, Note)
            teller.noted(effect, 0.0)
    assert max(len(teller._refused), len(teller._over)) <= 256
    assert teller._records == {}


def test_what_the_user_releases_is_told_of_once() -> None:
    told = Told()
    told.bind()
    told.take(told.ledger.give_back(PORT, told.now) or [])
    told.remove()
    told.take(told.ledger.give_back(PORT, told.now) or [])  # again
    assert told.what() == ["mapped", "released", "removed"]
    assert told.events[-1].reason == "released by hand"
    told.ask()
    told.claim(2)
    told.take(told.ledger.retry(PORT, told.now) or [])
    told.add(GRANTED)
    assert told.what()[3:] == ["mapped"]
    assert {event.caller for event in told.events} == {CALLER}
