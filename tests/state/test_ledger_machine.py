"""The ledger against a model of a router, in any order of events that hypothesis can think of."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from natsup.state.ledger import (
    Add,
    Check,
    Effect,
    Leave,
    Ledger,
    Note,
    Policy,
    Remove,
    Request,
    State,
)
from natsup.state.model import Conflict, Ignored, Mapped, Outcome, Port, Protocol, Removal, Unknown

PORTS = [Port(protocol, number) for protocol in Protocol for number in (7000, 7001)]
ports = st.sampled_from(PORTS)
seconds = st.floats(0.01, 5000)


class LedgerMachine(RuleBasedStateMachine):
    """The router answers truthfully or not at all; what it forwards is the model's."""

    @initialize()
    def start(self) -> None:
        self.ledger = Ledger(Policy())
        self.now = 1000.0
        self.forwarded: set[Port] = set()
        self.foreign: set[Port] = set()
        self.written: dict[Port, Note] = {}
        self.requests: list[Request] = []
        self.left: set[Port] = set()  # the checks of these are needless
        self.asks: list[Port] = []
        self.claims: dict[int, Port] = {}
        self.next_claim = 1
        self.released: set[Port] = set()  # by the user
        self.connected = False
        self.promised: dict[Port, float] = {}  # until when, by the router's last word
        self.until: dict[Port, float] = {}  # until when it forwards a port, said or not

    def carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Note):
                self.written[effect.port] = effect
                continue
            if isinstance(effect, Leave):
                assert Check(effect.port) in self.requests
                self.left.add(effect.port)
                continue
            assert effect.port not in [request.port for request in self.requests], "two at once"
            noted = self.written.get(effect.port)
            assert noted is not None, "a request without a note"
            assert noted.exists, "a request that its note does not announce"
            if isinstance(effect, Add):
                assert noted.expires is None, "the lease may be prolonged any moment"
                assert effect.port not in self.released, "a released port published"
            if isinstance(effect, Remove) and effect.port not in self.released:
                assert effect.port not in self.claims.values(), "a claimed port removed"
                assert effect.port not in self.asks, "a wanted port removed"
            self.requests.append(effect)

    # --- the program ---

    @rule(port=ports)
    def ask(self, port: Port) -> None:
        outcome, effects = self.ledger.ask(port, self.now)
        self.asks.append(port)
        self.carry_out(effects)
        if isinstance(outcome, Mapped):
            assert self.promised[port] > self.now
            assert port not in self.released

    @precondition(lambda self: self.asks)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        port = data.draw(st.sampled_from(self.asks))
        self.asks.remove(port)
        if data.draw(st.booleans()):
            self.claims[self.next_claim] = port
            self.carry_out(self.ledger.claim(port, self.next_claim, self.now))
            self.next_claim += 1
        else:
            self.carry_out(self.ledger.withdraw(port, self.now))

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        holder = data.draw(st.sampled_from(sorted(self.claims)))
        del self.claims[holder]
        self.carry_out(self.ledger.release(holder, self.now))

    @rule(holder=st.integers(10**6, 10**7))
    def release_what_nobody_knows(self, holder: int) -> None:
        assert self.ledger.release(holder, self.now) == []

    # --- the user ---

    @rule(port=ports)
    def the_user_releases(self, port: Port) -> None:
        known = {*self.asks, *self.claims.values(), *self.released}
        if port in known:
            self.released.add(port)
        effects = self.ledger.give_back(port, self.now)
        assert (effects is not None) == (port in known)
        self.carry_out(effects or [])
        assert port not in known or self.written[port].released

    @rule(port=ports)
    def the_user_tries_again(self, port: Port) -> None:
        known = {*self.asks, *self.claims.values(), *self.released}
        self.released.discard(port)
        effects = self.ledger.retry(port, self.now)
        assert (effects is not None) == (port in known)
        self.carry_out(effects or [])

    # --- what is not asked ---

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def needless(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(self.requests))
        port = request.port
        wanted = port in {*self.asks, *self.claims.values()} - self.released
        again = isinstance(request, Remove)
        if port in self.left if isinstance(request, Check) else wanted is again:
            self.forget(request)
            outcome, effects = self.ledger.needless(port, self.now)
            self.carry_out(effects)
            if isinstance(outcome, Mapped):
                assert self.promised[port] > self.now

    def forget(self, request: Request) -> None:
        self.requests.remove(request)
        if isinstance(request, Check):
            self.left.discard(request.port)

    # --- the router ---

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(self.requests))
        silent = data.draw(st.booleans())
        self.forget(request)
        if isinstance(request, Remove):
            carried_out = not silent or data.draw(st.booleans())
            if carried_out:
                self.forwarded.discard(request.port)
            self.promised.pop(request.port, None)
            removal = Removal.FAILED if silent else Removal.GONE
            self.carry_out(self.ledger.removed(request.port, removal, self.now))
            return
        outcome: Outcome
        silence = Unknown("silence", silent=data.draw(st.booleans()))
        if isinstance(request, Check):
            outcome = silence if silent else self.truth(request.port)
            if not isinstance(outcome, (Mapped, Unknown)):
                self.promised.pop(request.port, None)
            self.carry_out(self.ledger.checked(request.port, outcome, self.now))
            return
        self.promised.pop(request.port, None)
        if silent and data.draw(st.booleans()):
            outcome = Ignored("unreachable", silent=True)
        elif request.port in self.foreign:
            outcome = silence if silent else Conflict("192.168.77.3")
        elif silent:
            if data.draw(st.booleans()):
                self.forwarded.add(request.port)
                self.until[request.port] = self.now + data.draw(st.sampled_from([3600, 10**9]))
            outcome = silence
        elif request.port not in self.forwarded and data.draw(st.booleans()):
            outcome = Ignored(
                "not today", slow=data.draw(st.booleans()), full=data.draw(st.booleans())
            )
        else:
            self.forwarded.add(request.port)
            outcome = Mapped(data.draw(st.sampled_from([0, 60, 3600])))
            self.promised[request.port] = self.now + (outcome.lease or 10**9)
            self.until[request.port] = self.promised[request.port]
        self.carry_out(self.ledger.added(request.port, outcome, self.now))

    def truth(self, port: Port) -> Outcome:
        if port in self.forwarded:
            return Mapped(0)
        return Conflict("192.168.77.3") if port in self.foreign else Ignored("not kept")

    @rule(port=ports)
    def another_host_comes_or_goes(self, port: Port) -> None:
        if port in self.foreign:
            self.foreign.discard(port)
        elif port not in self.forwarded:
            self.foreign.add(port)

    @rule(port=ports)
    def the_router_forgets(self, port: Port) -> None:
        if port not in [request.port for request in self.requests]:
            self.forwarded.discard(port)

    @rule()
    def a_call_waits_in_vain(self) -> None:
        self.ledger.late("no answer in time")

    @rule()
    def a_sign_of_a_restart(self) -> None:
        if self.connected:
            self.carry_out(self.ledger.compare(self.now))

    @rule(missing=st.sets(ports))
    def another_session_has_looked(self, missing: set[Port]) -> None:
        effects = self.ledger.compared(missing, self.now)
        assert self.connected or not effects
        self.carry_out(effects)

    @rule(when=seconds)
    def no_other_session_looks(self, when: float) -> None:
        self.ledger.compare_by(self.now + when)

    @rule()
    def gateway_comes(self) -> None:
        self.connected = True
        self.carry_out(self.ledger.gateway_found(self.now))

    @rule()
    def gateway_goes(self) -> None:
        self.connected = False
        _, effects = self.ledger.gateway_missing("no router")
        self.carry_out(effects)

    @rule(pause=seconds)
    def time_passes(self, pause: float) -> None:
        self.now += pause
        for port, until in self.until.items():
            if until <= self.now:  # the router forgets it by itself
                self.forwarded.discard(port)
        self.carry_out(self.ledger.tick(self.now))

    # --- what must hold ---

    @invariant()
    def it_knows_who_holds_what(self) -> None:
        assert self.ledger.claims == self.claims

    @invariant()
    def what_is_wanted_has_an_entry(self) -> None:
        for port in {*self.asks, *self.claims.values()}:
            assert self.ledger.entry(port) is not None

    @invariant()
    def what_may_be_forwarded_is_written_down(self) -> None:
        for port in self.forwarded:
            assert port in self.written
            note = self.written[port]
            assert note.exists
            # By the journal, a sweep forgets it then.
            assert note.expires is None or note.expires >= self.until[port]

    @invariant()
    def it_knows_when_to_wake_up(self) -> None:
        idle = [entry for entry in self.ledger if not entry.under_way]
        if not self.connected:
            times = [entry.expires for entry in idle if entry.exists]
        elif self.ledger._silent:
            times = [entry.due for entry in idle if len(idle) == len(list(self.ledger))]
        else:
            times = [entry.due for entry in idle]
        if self.connected and any(entry.exists or entry.held_by for entry in self.ledger):
            times.append(self.ledger._verify_at)
            if not self.ledger._silent:
                times.append(self.ledger._compare_at)
        known = [when for when in times if when is not None]
        assert self.ledger.next_deadline() == min(known, default=None)

    @invariant()
    def it_prints(self) -> None:
        assert str(self.ledger)

    def teardown(self) -> None:
        """After quiet, the router forwards exactly what is claimed, as far as it can."""
        if not hasattr(self, "ledger"):
            return
        self.foreign.clear()
        for port in self.asks:
            self.carry_out(self.ledger.withdraw(port, self.now))
        self.asks.clear()
        if not self.connected:
            self.gateway_comes()
        for _ in range(400):
            while self.requests:
                request = self.requests.pop(0)
                if isinstance(request, Add):
                    self.forwarded.add(request.port)
                    self.until[request.port] = self.now + 3600
                    self.carry_out(self.ledger.added(request.port, Mapped(3600), self.now))
                elif isinstance(request, Check):
                    outcome = self.truth(request.port)
                    self.carry_out(self.ledger.checked(request.port, outcome, self.now))
                else:
                    self.forwarded.discard(request.port)
                    self.carry_out(self.ledger.removed(request.port, Removal.GONE, self.now))
            if self.forwarded == self.published() and not self.unsettled():
                break
            deadline = self.ledger.next_deadline()
            if deadline is None:
                break
            assert deadline < float("inf")
            self.now = max(self.now, deadline)
            self.carry_out(self.ledger.tick(self.now))
        assert self.forwarded == self.published()
        assert all(e.state is self.last_state(e.port) for e in self.ledger)
        self.released.clear()
        self.claims.clear()
        self.carry_out(self.ledger.close(self.now))
        for request in self.requests:
            assert isinstance(request, Remove)
            self.forwarded.discard(request.port)
            self.carry_out_end(request)
        assert self.forwarded == set()
        assert self.ledger.empty
        assert self.ledger.settled

    def published(self) -> set[Port]:
        return set(self.claims.values()) - self.released

    def last_state(self, port: Port) -> State:
        return State.RELEASED if port in self.released else State.MAPPED

    def unsettled(self) -> bool:
        return any(entry.state is not self.last_state(entry.port) for entry in self.ledger)

    def carry_out_end(self, request: Remove) -> None:
        for effect in self.ledger.removed(request.port, Removal.GONE, self.now):
            assert isinstance(effect, Note)
            assert effect.state is State.GONE


LedgerMachine.TestCase.settings = settings(
    max_examples=300,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestLedger = LedgerMachine.TestCase
