"""The ledger: what ports this session wants, and what the gateway was made to forward. Pure.

Events go in, effects come out: what to write down, and what to ask the gateway. Whoever carries
the effects out reports back with another event. ``now`` is in seconds of any monotonic clock.

What a lease on a router means:

* A mapping is made for a time and forgotten by the router after it, or, with some routers, never.
  It is renewed at half time, by our own clock: what routers report of it cannot be relied on.
* A request without an answer may have been carried out. Until the gateway has been seen to hold
  nothing, the mapping *exists* as far as the ledger goes, and is removed in the end.
* One request at a time is under way for a port. What happens meanwhile is noted, and follows.
* A mapping whose last socket has gone lingers: programs probe a port, close it, and bind it again
  some milliseconds later. A socket that comes back in time takes the mapping over.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, StrEnum

from natsup.state.model import Conflict, Ignored, Mapped, Outcome, Port, Removal, Unknown


class State(StrEnum):
    """What people are told of a port."""

    PENDING = "pending"  # asked for, or about to be
    MAPPED = "mapped"
    CONFLICT = "conflict"  # the program has it here, but another host has it on the gateway
    IGNORED = "ignored"  # the gateway will not; it is asked again
    RELEASING = "releasing"
    GONE = "gone"  # nothing is left: the entry is dropped


@dataclass(frozen=True, slots=True)
class Policy:
    """All in seconds."""

    lease: int = 3600
    linger: float = 0.25
    check: float | None = 3.0  # after a port was mapped, to see that it is; None: never
    retry: float = 30.0  # after "ignored", doubling
    slow_retry: float = 900.0  # where only the user can change the answer
    recheck: float = 5.0  # after no answer, doubling
    longest_retry: float = 3600.0
    removals: int = 5  # how often a removal is tried


# Effects


@dataclass(frozen=True, slots=True)
class Note:
    """Write down what stands about a port. Comes before the request that it announces."""

    port: Port
    state: State
    reason: str
    expires: float | None  # on the ledger's clock; None: no lease, or no mapping
    claims: int
    exists: bool  # the gateway forwards it, or may


@dataclass(frozen=True, slots=True)
class Add:
    port: Port
    lease: int  # seconds


@dataclass(frozen=True, slots=True)
class Remove:
    port: Port


@dataclass(frozen=True, slots=True)
class Check:
    """See whether the gateway kept the mapping: there are some that say so and do not."""

    port: Port


Request = Add | Remove | Check
Effect = Note | Request


class _Request(Enum):
    ADD = "add"
    REMOVE = "remove"
    CHECK = "check"


@dataclass(slots=True)
class Entry:
    """One port that somebody wants, or that the gateway may still forward."""

    port: Port
    state: State = State.PENDING
    reason: str = ""
    asks: int = 0  # calls that wait for an answer or have not said what became of it
    claims: set[int] = field(default_factory=set)
    expires: float | None = None
    exists: bool = False
    under_way: _Request | None = None
    due: float | None = None  # when to renew, retry or remove
    check_at: float | None = None  # when a new mapping is to be checked
    confirmed: bool = False  # it has been
    failures: int = 0
    noted: bool = False

    @property
    def wanted(self) -> bool:
        return bool(self.asks or self.claims)

    def note(self) -> Note:
        self.noted = self.state is not State.GONE
        # From the moment a request leaves, what it asks for may be there.
        exists = self.exists or self.under_way is _Request.ADD
        return Note(self.port, self.state, self.reason, self.expires, len(self.claims), exists)

    def __str__(self) -> str:
        parts = [f"{self.port} {self.state}"]
        if self.reason:
            parts.append(f"({self.reason})")
        if self.asks:
            parts.append(f"asks={self.asks}")
        if self.claims:
            parts.append(f"claims={len(self.claims)}")
        if self.exists:
            parts.append("exists")
        if self.under_way:
            parts.append(f"under way: {self.under_way.value}")
        return " ".join(parts)


class Ledger:
    """The session's ports. Every method that returns effects returns them in order."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.policy = policy or Policy()
        self._entries: dict[Port, Entry] = {}
        self._holders: dict[int, Port] = {}
        self._gateway = False
        self._missing = ""  # why there is no gateway; "" while the search goes on
        self._closing = False

    def __str__(self) -> str:
        return "; ".join(str(self._entries[port]) for port in sorted(self._entries)) or "empty"

    @property
    def claims(self) -> dict[int, Port]:
        """The sockets that hold ports, by their cookies."""
        return dict(self._holders)

    @property
    def empty(self) -> bool:
        """Is there nothing left that the gateway may forward?"""
        return not any(entry.exists or entry.under_way for entry in self._entries.values())

    def entry(self, port: Port) -> Entry | None:
        return self._entries.get(port)

    # --- what programs do ---

    def ask(self, port: Port, now: float) -> tuple[Outcome | None, list[Effect]]:
        """A call wants the port. None: the answer comes with `added` or `gateway_missing`.

        Each ask ends with `claim` or `withdraw`.
        """
        entry = self._entries.setdefault(port, Entry(port))
        entry.asks += 1
        if entry.state is State.MAPPED:
            if not entry.under_way:  # it may have lingered: from now on it is to be renewed again
                entry.due = self._next(entry, now)
            return Mapped(self._left(entry, now)), []
        if entry.claims and entry.state in (State.IGNORED, State.CONFLICT):
            return Ignored(entry.reason), []  # known, and asked again in the background
        if entry.under_way:
            return None, []
        if not self._gateway:
            if not self._missing:
                return None, []
            entry.state, entry.reason = State.IGNORED, self._missing
            return Ignored(self._missing), [entry.note()]
        return None, self._add(entry)

    def claim(self, port: Port, holder: int, now: float) -> list[Effect]:
        """The ask came to a bound socket, which holds the port from now on."""
        entry = self._entries[port]
        entry.asks -= 1
        entry.claims.add(holder)
        self._holders[holder] = port
        if entry.due is None and not entry.under_way and self._gateway:
            entry.due = now + self._backoff(self.policy.retry, entry)
        return [entry.note()]

    def withdraw(self, port: Port, now: float) -> list[Effect]:
        """The ask came to nothing."""
        entry = self._entries[port]
        entry.asks -= 1
        return self._settle(entry, now, self.policy.linger)

    def release(self, holder: int, now: float) -> list[Effect]:
        """A socket is no more. One that is not known is passed over."""
        port = self._holders.pop(holder, None)
        if port is None:
            return []
        entry = self._entries[port]
        entry.claims.discard(holder)
        if entry.wanted:
            return [entry.note()]
        return self._settle(entry, now, self.policy.linger)

    # --- what the gateway says ---

    def added(self, port: Port, outcome: Outcome, now: float) -> list[Effect]:
        """The answer to `Add`."""
        entry = self._entries[port]
        entry.under_way = None
        entry.reason = "" if isinstance(outcome, Mapped) else str(outcome)
        if not isinstance(outcome, Mapped):
            entry.confirmed, entry.check_at = False, None
        if isinstance(outcome, Mapped):
            entry.state, entry.exists, entry.failures = State.MAPPED, True, 0
            entry.expires = now + outcome.lease if outcome.lease else None
            if not entry.confirmed and self.policy.check is not None:
                entry.check_at = now + self.policy.check
            half = now + (outcome.lease or self.policy.lease) / 2
            entry.due = half if entry.check_at is None else min(half, entry.check_at)
        elif isinstance(outcome, Conflict):
            entry.state, entry.exists, entry.expires = State.CONFLICT, False, None
            entry.due = now + self._backoff(self.policy.slow_retry, entry)
        elif isinstance(outcome, Ignored):
            entry.state = State.IGNORED
            if entry.expires is not None and entry.expires <= now:
                entry.exists, entry.expires = False, None
            base = self.policy.slow_retry if outcome.slow else self.policy.retry
            entry.due = now + self._backoff(base, entry)
        else:
            assert isinstance(outcome, Unknown)
            entry.state, entry.exists = State.PENDING, True
            entry.due = now + self._backoff(self.policy.recheck, entry)
        if entry.wanted and (entry.claims or entry.exists):
            return [entry.note()]
        return self._settle(entry, now, 0.0)

    def checked(self, port: Port, outcome: Outcome, now: float) -> list[Effect]:
        """The answer to `Check`: `Mapped` if it is there, `Unknown` if the gateway will not say."""
        entry = self._entries[port]
        if not isinstance(outcome, (Mapped, Unknown)):
            entry.exists, entry.expires = False, None
            return self.added(port, outcome, now)
        entry.under_way, entry.check_at, entry.confirmed = None, None, True
        entry.due = self._next(entry, now)
        return self._settle(entry, now, 0.0)

    def removed(self, port: Port, removal: Removal, now: float) -> list[Effect]:
        """The answer to `Remove`."""
        entry = self._entries[port]
        entry.under_way = None
        if removal is Removal.FAILED:
            entry.failures += 1
            entry.reason = "the gateway did not answer the removal"
            if entry.failures >= self.policy.removals and not entry.wanted:
                # What is written down stays so: another session, or natsup clean, tries again.
                note = entry.note()
                del self._entries[port]
                return [note]
        else:
            entry.exists, entry.expires, entry.failures = False, None, 0
            entry.confirmed, entry.check_at = False, None
        if entry.wanted:
            return self._add(entry)
        if entry.exists:
            entry.due = now + self._backoff(self.policy.recheck, entry, count=False)
            return [entry.note()]
        return self._drop(entry)

    def gateway_found(self, now: float, *, another: bool = False) -> list[Effect]:
        """There is a gateway. ``another``: not the one that the existing mappings were made on,
        where they are left to their leases."""
        self._gateway, self._missing = True, ""
        effects: list[Effect] = []
        for entry in list(self._entries.values()):
            if another and not entry.under_way:
                entry.exists, entry.expires = False, None
            if entry.under_way:
                continue
            if entry.wanted and (another or entry.state is not State.MAPPED):
                entry.failures = 0
                effects += self._add(entry)
            elif not entry.wanted:
                effects += self._settle(entry, now, 0.0)
        return effects

    def gateway_missing(self, reason: str) -> tuple[list[Port], list[Effect]]:
        """There is none, and ``reason`` says why. Returns the ports that somebody waits for."""
        self._gateway, self._missing = False, reason
        waited_for, effects = [], list[Effect]()
        for entry in self._entries.values():
            if entry.under_way or entry.state is State.MAPPED:
                continue
            if entry.wanted and (entry.state, entry.reason) != (State.IGNORED, reason):
                entry.state, entry.reason, entry.due = State.IGNORED, reason, None
                effects.append(entry.note())
            if entry.asks:
                waited_for.append(entry.port)
        return waited_for, effects

    # --- time ---

    def next_deadline(self) -> float | None:
        """When to call `tick` next; None: not before another event."""
        if not self._gateway:
            return None
        due = [e.due for e in self._entries.values() if e.due is not None and not e.under_way]
        return min(due, default=None)

    def tick(self, now: float) -> list[Effect]:
        """Do what is due."""
        effects: list[Effect] = []
        for entry in list(self._entries.values()):
            if entry.due is None or entry.due > now or entry.under_way or not self._gateway:
                continue
            if not entry.wanted:
                effects += self._remove(entry) if entry.exists else self._drop(entry)
            elif entry.check_at is not None and entry.check_at <= now:
                entry.under_way, entry.due = _Request.CHECK, None
                effects.append(Check(entry.port))
            else:
                effects += self._add(entry)
        return effects

    def close(self, now: float) -> list[Effect]:
        """The session ends: nothing is wanted any more, and nothing lingers."""
        self._closing = True
        self._holders.clear()
        effects: list[Effect] = []
        for entry in list(self._entries.values()):
            entry.asks = 0
            entry.claims.clear()
            effects += self._settle(entry, now, 0.0)
        return effects

    # --- steps ---

    def _add(self, entry: Entry) -> list[Effect]:
        entry.under_way, entry.due = _Request.ADD, None
        effects: list[Effect] = []
        if not entry.exists:
            if not entry.claims or not entry.noted:
                entry.state = State.PENDING
            effects.append(entry.note())
        return [*effects, Add(entry.port, self.policy.lease)]

    def _remove(self, entry: Entry) -> list[Effect]:
        entry.under_way, entry.due, entry.state = _Request.REMOVE, None, State.RELEASING
        return [entry.note(), Remove(entry.port)]

    def _settle(self, entry: Entry, now: float, linger: float) -> list[Effect]:
        """What follows when perhaps nobody wants the port any more."""
        if entry.wanted or entry.under_way:
            return []
        if not entry.exists:
            return self._drop(entry)
        if linger and not self._closing:
            entry.due = now + linger
            return [entry.note()]
        if not self._gateway:
            return []
        return self._remove(entry)

    def _drop(self, entry: Entry) -> list[Effect]:
        del self._entries[entry.port]
        if not entry.noted:
            return []
        entry.state, entry.exists = State.GONE, False
        return [entry.note()]

    def _left(self, entry: Entry, now: float) -> int:
        return 0 if entry.expires is None else max(1, int(entry.expires - now))

    def _next(self, entry: Entry, now: float) -> float:
        """When a mapping is to be checked or, half a lease before its end, renewed; either may be
        past for one that lingered."""
        half = self.policy.lease / 2
        renewal = now + half if entry.expires is None else max(now, entry.expires - half)
        return renewal if entry.check_at is None else min(renewal, entry.check_at)

    def _backoff(self, base: float, entry: Entry, *, count: bool = True) -> float:
        pause = min(base * 2.0 ** min(entry.failures, 16), self.policy.longest_retry)
        if count:
            entry.failures += 1
        return max(base, pause)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())
