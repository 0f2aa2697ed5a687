"""The ledger: what ports this session wants, and what the gateway was made to forward. Pure.

Events go in, effects come out: what to write down, and what to ask the gateway. Whoever carries
the effects out reports back with another event. ``now`` is in seconds of any monotonic clock.

What a lease on a router means:

* A mapping is made for a time and forgotten by the router after it, or, with some routers, never.
  It is renewed at half time, by our own clock: what routers report of it cannot be relied on.
* A request without an answer may have been carried out. Until the gateway has been seen to hold
  nothing, the mapping *exists* as far as the ledger goes, and is removed in the end. While a
  request is under way, and when it was not answered, nobody knows when the lease ends.
* Without a gateway a lease ends all the same, and what it was for is lost.
* One request at a time is under way for a port. What happens meanwhile is noted, and follows.
* A mapping whose last socket has gone lingers: programs probe a port, close it, and bind it again
  some milliseconds later. A socket that comes back in time takes the mapping over.
* Routers lose mappings: they restart, their users switch them off, their tables are full. So every
  mapping is looked for now and then, and what is missing is put back (`losses`). What another host
  has is never taken from it, but is asked for whenever there may be news of it.
* A table that is full has room again for one when one of ours is removed. One is offered it: the
  one whose last refusal is the longest ago, so that none is refused in place of all others.
* A gateway that did not answer once is not waited for again until it has answered something. One
  request at a time finds out whether it does.
* A port that the user has released is not the program's any more as far as the gateway goes, until
  he takes that back, or the session ends: sockets come and go meanwhile, and are not published.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum, StrEnum

from natsup.state.losses import FORGIVEN, Comparison, pause, reason
from natsup.state.model import Conflict, Ignored, Mapped, Outcome, Port, Removal, Unknown
from natsup.state.schedule import Schedule


class State(StrEnum):
    """What people are told of a port."""

    PENDING = "pending"  # asked for, or about to be
    MAPPED = "mapped"
    CONFLICT = "conflict"  # the program has it here, but another host has it on the gateway
    IGNORED = "ignored"  # the gateway will not; it is asked again
    RELEASING = "releasing"
    RELEASED = "released"  # by the user, whatever sockets have it
    GONE = "gone"  # nothing is left: the entry is dropped


LEASE_ENDED = "its lease ended while there was no router"
RELEASED = "released by hand"


@dataclass(frozen=True, slots=True)
class Policy:
    """All in seconds."""

    lease: int = 3600
    linger: float = 0.25
    check: float | None = 3.0  # after a port was mapped, to see that it is; None: never
    compare: float | None = 300.0  # how often all mappings are looked for; None: never
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
    expires: float | None  # on the ledger's clock; None: no lease, not known, or no mapping
    claims: int
    exists: bool  # the gateway forwards it, or may
    handle: str = ""  # see `Mapped`
    released: bool = False  # by the user


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


@dataclass(frozen=True, slots=True)
class Leave:
    """Nobody wants the port any more, which a `Check` is under way for: it needs no answer."""

    port: Port


Request = Add | Remove | Check
Effect = Note | Request | Leave


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
    handle: str = ""  # see `Mapped`
    under_way: _Request | None = None
    due: float | None = None  # when to renew, look, retry or remove
    renew_at: float = 0.0  # where it exists
    check_at: float | None = None  # when the mapping is to be looked for
    confirmed: bool = False  # it has been seen
    failures: int = 0  # in a row
    losses: int = 0  # how often it was found missing
    since: float = 0.0  # when it was mapped
    held_by: str = ""  # the other host that has it, where the gateway says which
    full: bool = False  # it was refused, perhaps for want of room
    refused_at: float = 0.0  # when it was refused last
    offered: bool = False  # there may be room since then, and it is tried again
    given_up: bool = False  # its removal failed too often: it is left to another session
    released: bool = False  # the user does not want it
    was_mapped: bool = False  # when its removal was asked for, for the first time
    noted: bool = False

    @property
    def held(self) -> bool:
        return bool(self.asks or self.claims)

    @property
    def wanted(self) -> bool:
        """Of the gateway."""
        return self.held and not self.released

    def note(self) -> Note:
        self.noted = self.state is not State.GONE
        # From the moment a request leaves, what it asks for may be there, for as long as it asks.
        adding = self.under_way is _Request.ADD
        expires = None if adding else self.expires
        exists = self.exists or adding
        handle = self.handle if exists else ""
        return Note(
            self.port,
            self.state,
            self.reason,
            expires,
            len(self.claims),
            exists,
            handle,
            self.released,
        )

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
    """The session's ports. Every method that returns effects returns them in order.

    What concerns one port, and what is due next, takes as long with ten ports as with thousands:
    whatever is asked of all of them is kept beside them, and brought up to date for those that have
    been touched since.
    """

    def __init__(self, policy: Policy | None = None) -> None:
        self.policy = policy or Policy()
        self._entries: dict[Port, Entry] = {}
        self._holders: dict[int, Port] = {}
        self._gateway = False
        self._missing = ""  # why there is no gateway; "" while the search goes on
        self._silent = ""  # why the gateway is not waited for; "" while it answers
        self._compare_at: float | None = None
        self._verify_at: float | None = None  # the same, of a gateway that may have been restarted
        self._closing = False
        self._touched: dict[Port, None] = {}  # since what follows was brought up to date
        self._ready = Schedule[Port]()  # those that wait for their time
        self._leases = Schedule[Port]()  # when they end, if nothing is done
        self._refused_for_room = Schedule[Port]()  # since when
        self._busy: set[Port] = set()  # a request is under way
        self._existing: set[Port] = set()
        self._held_elsewhere: set[Port] = set()  # by another host, which may give it back
        self._given_up: set[Port] = set()  # of those that exist
        self._comparison = Comparison()

    def __str__(self) -> str:
        return "; ".join(str(self._entries[port]) for port in sorted(self._entries)) or "empty"

    @property
    def claims(self) -> dict[int, Port]:
        """The sockets that hold ports, by their cookies."""
        return dict(self._holders)

    @property
    def empty(self) -> bool:
        """Is there nothing left that the gateway may forward?"""
        self._catch_up()
        return not (self._existing or self._busy)

    @property
    def settled(self) -> bool:
        """At the end of a session: is there nothing more to be done?"""
        self._catch_up()
        left = len(self._existing) - len(self._given_up)
        return not (self._busy or (self._gateway and left))

    def holds(self, holder: int) -> bool:
        """Does the socket with this cookie hold a port?"""
        return holder in self._holders

    def existing(self) -> dict[Port, float | None]:
        """What the gateway may forward, and when the lease of each port ends, if it is known."""
        return {port: entry.expires for port, entry in self._entries.items() if entry.exists}

    def entry(self, port: Port) -> Entry | None:
        return self._entries.get(port)

    # --- what went before ---

    def restore(
        self,
        port: Port,
        holders: Collection[int],
        *,
        exists: bool,
        expires: float | None,
        reason: str,
        now: float,
        handle: str = "",
        released: bool = False,
    ) -> list[Effect]:
        """A port of a session that goes on: another ledger had it, which is lost. ``holders``: the
        sockets that have it now, by their cookies. What follows, follows once a gateway is found.
        """
        if expires is not None:  # it was written down by the wall clock, which may have been set
            expires = min(expires, now + self.policy.lease)
        self._entries[port] = Entry(port, reason=reason, exists=exists, expires=expires)
        entry = self._touch(port)
        entry.handle, entry.noted, entry.released = handle, True, released
        entry.claims.update(holders)
        self._holders.update(dict.fromkeys(holders, port))
        if exists:
            entry.state = State.MAPPED
            left = self.policy.lease if expires is None else expires - now
            entry.renew_at = now + max(0.0, left / 2)
            entry.due = self._next(entry)
        elif not entry.wanted:
            return self._rest(entry)
        return [entry.note()]

    # --- what the user does ---

    def give_back(self, port: Port, now: float) -> list[Effect] | None:
        """The user wants it off the gateway, whatever sockets have it. None: nobody has it."""
        entry = self._entries.get(port)
        if entry is None or not (entry.held or entry.released):
            return None
        entry = self._touch(port)
        entry.released = True
        effects = self._settle(entry, now)
        return (
            effects if any(isinstance(one, Note) for one in effects) else [entry.note(), *effects]
        )

    def retry(self, port: Port, now: float) -> list[Effect] | None:
        """The user wants it to be tried now, or back if he has released it. None: nobody has it."""
        entry = self._entries.get(port)
        if entry is None or not (entry.held or entry.released):
            return None
        entry = self._touch(port)
        before, entry.released = entry.released, False
        if not entry.held:
            return self._settle(entry, now)
        if entry.under_way or (entry.state is State.MAPPED and not before):
            return [entry.note()]
        entry.failures, entry.losses = 0, 0
        if not self._gateway:
            if entry.state is not State.MAPPED:
                entry.state = State.IGNORED if self._missing else State.PENDING
                entry.reason = self._missing
            return [entry.note()]
        if before:
            entry.state, entry.reason = State.PENDING, ""
        return self._ask_in_vain(entry, now) if self._silent else self._add(entry)

    # --- what programs do ---

    def ask(self, port: Port, now: float) -> tuple[Outcome | None, list[Effect]]:
        """A call wants the port. None: the answer comes with `added` or `gateway_missing`.

        Each ask ends with `claim` or `withdraw`.
        """
        self._entries.setdefault(port, Entry(port))
        entry = self._touch(port)
        entry.asks += 1
        if entry.released:
            return Ignored(RELEASED), []
        entry.given_up = False
        if entry.state is State.MAPPED and not self._over(entry, now):
            if not entry.under_way:  # it may have lingered: from now on it is to be renewed again
                entry.due = self._next(entry)
            return Mapped(self._left(entry, now)), []
        if entry.claims and entry.state in (State.IGNORED, State.CONFLICT):
            return Ignored(entry.reason), []  # known, and asked again in the background
        if not self._gateway:
            if not self._missing:
                return None, [entry.note()]
            entry.state, entry.reason = State.IGNORED, self._missing
            return Ignored(self._missing), [entry.note()]
        if self._silent:
            return Ignored(self._silent, silent=True), self._ask_in_vain(entry, now)
        return None, [] if entry.under_way else self._add(entry)

    def late(self, reason: str) -> None:
        """A call has waited as long as it may, and the gateway was not heard at all meanwhile."""
        if self._gateway:
            self._silent = reason

    def claim(self, port: Port, holder: int, now: float) -> list[Effect]:
        """The ask came to a bound socket, which holds the port from now on."""
        entry = self._touch(port)
        entry.asks -= 1
        entry.claims.add(holder)
        self._holders[holder] = port
        if entry.due is None and not entry.under_way and self._gateway and entry.wanted:
            entry.due = now + self._backoff(self.policy.retry, entry)
        return [entry.note()]

    def withdraw(self, port: Port, now: float) -> list[Effect]:
        """The ask came to nothing."""
        entry = self._touch(port)
        entry.asks -= 1
        return self._settle(entry, now)

    def release(self, holder: int, now: float) -> list[Effect]:
        """A socket is no more. One that is not known is passed over."""
        port = self._holders.pop(holder, None)
        if port is None:
            return []
        entry = self._touch(port)
        entry.claims.discard(holder)
        if entry.held:
            return [entry.note()]
        return self._settle(entry, now)

    # --- what the gateway says ---

    def added(self, port: Port, outcome: Outcome, now: float) -> list[Effect]:
        """The answer to `Add`."""
        entry = self._touch(port)
        entry.under_way = None
        self._heard(outcome, now)
        if isinstance(outcome, Mapped):
            if not entry.confirmed:
                entry.since = now
                if self.policy.check is not None:
                    entry.check_at = now + self.policy.check
            entry.state, entry.exists, entry.reason = State.MAPPED, True, ""
            entry.held_by = ""
            entry.handle = outcome.handle
            entry.expires = now + outcome.lease if outcome.lease else None
            entry.renew_at = now + self._half(outcome.lease or self.policy.lease)
            entry.due = self._next(entry)
            if self._compare_at is not None and self._compare_at < now:  # there was nothing to see
                self._compare_at = now + (self.policy.compare or 0)
        else:
            self._refused(entry, outcome, now)
        if entry.wanted and (entry.claims or entry.exists):
            return [entry.note()]
        return self._settle(entry, now)

    def needless(self, port: Port, now: float) -> tuple[Outcome | None, list[Effect]]:
        """A request was not carried out: an `Add` or a `Check` because by its turn nobody wanted
        the port any more, a `Remove` because somebody wanted it again. For those who wait for an
        answer the outcome is theirs, if there is one already."""
        entry = self._touch(port)
        request, entry.under_way = entry.under_way, None
        if request is _Request.CHECK:
            self._comparison.drop(port)
            entry.due = self._next(entry)
        elif request is _Request.REMOVE and entry.wanted:
            if not entry.was_mapped or self._over(entry, now):
                return None, self._add(entry)
            entry.state, entry.due = State.MAPPED, self._next(entry)
            return Mapped(self._left(entry, now)), [entry.note()]
        return None, self._settle(entry, now)

    def void(self, port: Port, now: float) -> list[Effect]:
        """A request for it came to another gateway than the one that is used by now, which knows
        nothing of it."""
        entry = self._touch(port)
        entry.under_way, entry.due = None, None
        entry.exists, entry.expires, entry.handle = False, None, ""
        entry.confirmed, entry.check_at = False, None
        entry.failures, entry.held_by, entry.full = 0, "", False
        if not entry.wanted:
            return self._rest(entry)
        if not self._gateway:
            entry.state, entry.reason = State.IGNORED, self._missing
            return [entry.note()]
        if self._silent:
            return self._ask_in_vain(entry, now)
        return self._add(entry)

    def _refused(self, entry: Entry, outcome: Conflict | Ignored | Unknown, now: float) -> None:
        entry.reason = str(outcome)
        entry.confirmed, entry.check_at = False, None
        entry.full = isinstance(outcome, Ignored) and outcome.full
        entry.held_by = outcome.holder if isinstance(outcome, Conflict) else ""
        entry.refused_at, entry.offered = now, False
        if isinstance(outcome, Conflict):
            entry.state, entry.exists, entry.expires = State.CONFLICT, False, None
            pause = self.policy.slow_retry
        elif isinstance(outcome, Ignored):
            entry.state = State.IGNORED
            if entry.expires is not None and entry.expires <= now:
                entry.exists, entry.expires = False, None
            pause = self.policy.slow_retry if outcome.slow else self.policy.retry
        else:
            entry.state, entry.exists, entry.expires = State.PENDING, True, None
            pause = self.policy.recheck
        entry.due = now + self._backoff(self.policy.recheck if self._silent else pause, entry)

    def checked(self, port: Port, outcome: Outcome, now: float) -> list[Effect]:
        """The answer to `Check`: `Mapped` if it is there, `Unknown` if the gateway will not say."""
        entry = self._touch(port)
        entry.under_way, entry.check_at = None, None
        self._heard(outcome, now)
        if isinstance(outcome, Unknown) or (isinstance(outcome, Ignored) and outcome.silent):
            self._comparison.drop(port)
            if not entry.confirmed:
                entry.check_at = now + self._backoff(self.policy.recheck, entry)
            entry.due = self._next(entry)
            return self._settle(entry, now)
        if isinstance(outcome, Mapped):
            self._comparison.seen(port, now, missing=False)
            entry.confirmed, entry.failures = True, 0
            if outcome.lease and (entry.expires is None or now + outcome.lease < entry.expires):
                entry.expires = now + outcome.lease  # the router granted less than it was asked for
                entry.renew_at = min(entry.renew_at, now + self._half(outcome.lease))
            entry.due = self._next(entry)
            return self._settle(entry, now)
        kept = entry.confirmed  # until now; else it was never there
        entry.exists, entry.expires = False, None
        self._refused(entry, outcome, now)
        missing = isinstance(outcome, Ignored)
        lost = self._comparison.seen(port, now, missing=missing)
        if not entry.wanted:
            return self._rest(entry)
        if not missing:
            return [entry.note()]
        entry.losses = 1 if now - entry.since > FORGIVEN else entry.losses + 1
        for other in lost - {port}:
            self._put_back_soon(other, now)
        if entry.losses == 1 or lost:
            entry.state = State.PENDING
            return self._add(entry)
        if kept:
            entry.reason = reason(entry.losses, entry.reason)
            entry.due = now + pause(entry.losses)
        else:
            entry.due = now + self._doubled(self.policy.retry, entry.losses - 2)
        return [entry.note()]

    def _put_back_soon(self, port: Port, now: float) -> None:
        """It was lost in a restart, like everything."""
        entry = self._entries.get(port)
        waits = entry is not None and entry.wanted and entry.state is not State.MAPPED
        if entry is not None and waits and entry.due is not None and not entry.under_way:
            self._touch(port).due = now

    def removed(self, port: Port, removal: Removal, now: float) -> list[Effect]:
        """The answer to `Remove`."""
        entry = self._touch(port)
        entry.under_way = None
        if removal is Removal.FAILED:
            entry.failures += 1
            entry.reason = "the gateway did not answer the removal"
        else:
            entry.exists, entry.expires, entry.failures = False, None, 0
            entry.confirmed, entry.check_at = False, None
        if entry.wanted:
            return self._add(entry)
        if removal is Removal.GONE:
            self._offer_room(now)
            self._touch(port)
        if not entry.exists:
            return self._rest(entry)
        # What is written down stays so: another session, or natsup clean, tries again.
        entry.given_up = self._closing or entry.failures >= self.policy.removals
        pause = self._doubled(self.policy.recheck, entry.failures)
        entry.due = None if entry.given_up else now + pause
        return [entry.note()]

    def _offer_room(self, now: float) -> None:
        """One that was refused for want of room is tried again at once."""
        self._catch_up()
        refused = self._refused_for_room.head()
        if refused is not None:
            entry = self._touch(refused[1])
            entry.due, entry.offered = now, True
            entry.failures = max(0, entry.failures - 1)  # this try is no mere retry

    def _heard(self, outcome: Outcome, now: float) -> None:
        """What an answer says of the gateway as such."""
        if isinstance(outcome, (Ignored, Unknown)) and outcome.silent:
            self._silent = str(outcome)
        elif self._silent:
            self._silent = ""
            self._compare_at = now  # it may have been restarted
            for entry in self._touch_all():
                entry.losses = 0
                if entry.wanted and entry.state is not State.MAPPED and not entry.under_way:
                    entry.due = now

    def gateway_found(
        self, now: float, *, another: bool = False, delay: float = 0.0
    ) -> list[Effect]:
        """There is a gateway, or it is there again, perhaps with an empty table. ``another``: not
        the one that the existing mappings were made on, where they are left to their leases.
        ``delay``: seconds until the mappings are looked for."""
        self._gateway, self._missing = True, ""
        if another:
            self._silent = ""
        effects: list[Effect] = []
        for entry in self._touch_all():
            entry.given_up, entry.losses = False, 0
            if another and not entry.under_way:
                entry.exists, entry.expires, entry.confirmed = False, None, False
            if entry.under_way:
                continue
            if not entry.wanted:
                effects += self._settle(entry, now)
            elif another or entry.state is not State.MAPPED:
                entry.failures = 0
                effects += self._add(entry)
        if delay > 0:
            self._verify_at = now + delay
        else:
            effects += self.compare(now)
        return effects

    def gateway_missing(self, reason: str) -> tuple[list[Port], list[Effect]]:
        """There is none, and ``reason`` says why. Returns the ports that somebody waits for."""
        self._gateway, self._missing = False, reason
        waited_for, effects = [], list[Effect]()
        for entry in self._touch_all():
            if entry.asks:
                waited_for.append(entry.port)
            if entry.under_way or entry.state is State.MAPPED:
                continue
            told = entry.state is State.IGNORED and entry.reason in (reason, LEASE_ENDED)
            if entry.wanted and not told:
                entry.state, entry.reason, entry.due = State.IGNORED, reason, None
                effects.append(entry.note())
        return waited_for, effects

    def compare(self, now: float) -> list[Effect]:
        """Look for every mapping, and try again to remove what could not be removed."""
        self._compare_at = None if self.policy.compare is None else now + self.policy.compare
        self._verify_at = None
        effects: list[Effect] = []
        for entry in self._touch_all():
            if entry.under_way:
                continue
            if entry.wanted and entry.state is State.MAPPED and entry.check_at is None:
                effects.append(self._check(entry))
        self._comparison.begin(one.port for one in effects if isinstance(one, Check))
        return effects + self._try_again()

    def _try_again(self) -> list[Effect]:
        """Ask for what another host had, and remove what could not be removed."""
        self._catch_up()
        effects: list[Effect] = []
        for port in sorted(self._held_elsewhere | self._given_up):
            entry = self._touch(port)
            if entry.under_way:
                continue
            if entry.wanted and entry.held_by:
                effects += self._add(entry)  # which looks first
            elif not entry.wanted and entry.given_up:
                effects += self._remove(entry)
        return effects

    def compared(self, missing: Iterable[Port], now: float) -> list[Effect]:
        """Another session has looked for the mappings, and missed these: they are looked for again,
        and the others need not be as long as that goes on."""
        if self.policy.compare is not None:
            self._compare_at = now + 2 * self.policy.compare
        effects: list[Effect] = []
        for port in missing if self._gateway else ():
            entry = self._entries.get(port)
            if entry and entry.wanted and entry.state is State.MAPPED and not entry.under_way:
                effects.append(self._check(self._touch(port)))
        if self._gateway and not self._silent:
            effects += self._try_again()
        if any(isinstance(one, Check) for one in effects):
            looked_for = {one.port for one in effects if isinstance(one, Check)}
            mapped = (one.port for one in self if one.state is State.MAPPED)
            self._comparison.begin(looked_for, kept=any(one not in looked_for for one in mapped))
        return effects

    def forgive(self) -> None:
        """The gateway was restarted: whatever was lost before, nobody has taken it away."""
        for entry in self._touch_all():
            entry.losses = 0

    def compare_by(self, when: float) -> None:
        """Nobody else looks for the mappings any more: they are to be looked for by then."""
        if self._compare_at is not None:
            self._compare_at = min(self._compare_at, when)

    # --- time ---

    def next_deadline(self) -> float | None:
        """When to call `tick` next; None: not before another event."""
        self._catch_up()
        if not self._gateway:
            return self._leases.first()
        due = [None if self._waits else self._ready.first()]
        if self._existing or self._held_elsewhere:
            due.append(self._verify_at)
            if not self._silent:
                due.append(self._compare_at)
        return min((when for when in due if when is not None), default=None)

    def tick(self, now: float) -> list[Effect]:
        """Do what is due."""
        self._catch_up()
        if not self._gateway:
            return self._end_leases(now)
        effects: list[Effect] = []
        for port in [] if self._waits else self._ready.due(now):
            if self._silent and effects:
                break
            entry = self._touch(port)
            if not entry.wanted:
                effects += self._remove(entry) if entry.exists else self._rest(entry)
            elif entry.check_at is not None and entry.check_at <= now:
                effects.append(self._check(entry))
            else:
                effects += self._add(entry)
        compare = None if self._silent else self._compare_at
        if any(when is not None and when <= now for when in (compare, self._verify_at)):
            effects += self.compare(now)
        return effects

    def _end_leases(self, now: float) -> list[Effect]:
        """Without a gateway nothing is renewed."""
        effects: list[Effect] = []
        for port in self._leases.due(now):
            entry = self._touch(port)
            entry.exists, entry.expires = False, None
            entry.confirmed, entry.check_at, entry.due = False, None, None
            entry.reason = LEASE_ENDED
            if entry.wanted:
                entry.state = State.IGNORED
                effects.append(entry.note())
            else:
                effects += self._rest(entry)
        return effects

    @property
    def _waits(self) -> bool:
        """Of a silent gateway, nothing is asked while something is."""
        return bool(self._silent and self._busy)

    def close(self, now: float) -> list[Effect]:
        """The session ends: nothing is wanted any more, and nothing lingers."""
        self._closing = True
        self._holders.clear()
        effects: list[Effect] = []
        for entry in self._touch_all():
            entry.asks, entry.released = 0, False
            entry.claims.clear()
            effects += self._settle(entry, now)
        return effects

    # --- what is kept beside the entries ---

    def _touch(self, port: Port) -> Entry:
        """The entry of a port that is about to change."""
        self._touched[port] = None
        return self._entries[port]

    def _touch_all(self) -> list[Entry]:
        return [self._touch(port) for port in list(self._entries)]

    def _catch_up(self) -> None:
        for port in self._touched:
            entry = self._entries.get(port) or Entry(port)  # one that was dropped is as none
            idle = not entry.under_way
            self._ready.set(port, entry.due if idle else None)
            self._leases.set(port, entry.expires if idle and entry.exists else None)
            full = entry.full and not entry.offered and entry.due is not None
            full = full and idle and entry.wanted and entry.state is State.IGNORED
            self._refused_for_room.set(port, entry.refused_at if full else None)
            _put(self._busy, port, not idle)
            _put(self._existing, port, entry.exists)
            _put(self._held_elsewhere, port, bool(entry.held_by))
            _put(self._given_up, port, entry.exists and entry.given_up)
        self._touched.clear()

    # --- steps ---

    def _add(self, entry: Entry) -> list[Effect]:
        entry.under_way, entry.due = _Request.ADD, None
        if entry.state is State.RELEASING:
            entry.state, entry.reason = State.PENDING, ""
        elif not entry.exists and (not entry.claims or not entry.noted):
            entry.state = State.PENDING
        return [entry.note(), Add(entry.port, self.policy.lease)]

    def _ask_in_vain(self, entry: Entry, now: float) -> list[Effect]:
        """A call wants a port of a gateway that does not answer: it is not waited for."""
        if entry.under_way:
            return []
        self._catch_up()
        self._touch(entry.port)
        if self._busy:
            entry.state, entry.reason = State.IGNORED, self._silent
            entry.due = now + self.policy.recheck
            return [entry.note()]
        return self._add(entry)

    def _check(self, entry: Entry) -> Check:
        entry.under_way, entry.due = _Request.CHECK, None
        return Check(entry.port)

    def _remove(self, entry: Entry) -> list[Effect]:
        entry.was_mapped = entry.state is State.MAPPED
        entry.under_way, entry.due, entry.state = _Request.REMOVE, None, State.RELEASING
        return [entry.note(), Remove(entry.port)]

    def _settle(self, entry: Entry, now: float) -> list[Effect]:
        """What follows when perhaps nobody wants the port any more."""
        if entry.wanted:
            return []
        if entry.under_way:
            return [Leave(entry.port)] if entry.under_way is _Request.CHECK else []
        if not entry.exists:
            return self._rest(entry)
        if not self._gateway:
            return [entry.note()] if entry.released else []
        if self._closing or entry.released:
            return self._remove(entry)
        entry.due = now + self.policy.linger
        return [entry.note()]

    def _rest(self, entry: Entry) -> list[Effect]:
        """Nothing is on the gateway, and nothing is wanted of it."""
        if not entry.released:
            return self._drop(entry)
        if entry.state is State.RELEASED:
            return []
        entry.state, entry.reason, entry.due = State.RELEASED, RELEASED, None
        entry.check_at, entry.held_by, entry.full, entry.given_up = None, "", False, False
        return [entry.note()]

    def _drop(self, entry: Entry) -> list[Effect]:
        del self._entries[entry.port]
        if not entry.noted:
            return []
        entry.state, entry.exists = State.GONE, False
        return [entry.note()]

    def _over(self, entry: Entry, now: float) -> bool:
        return entry.expires is not None and entry.expires <= now

    def _left(self, entry: Entry, now: float) -> int:
        return 0 if entry.expires is None else max(1, int(entry.expires - now))

    def _half(self, lease: float) -> float:
        """After how long a lease is renewed: half of it, but not all the time."""
        return max(lease / 2, self.policy.recheck)

    def _next(self, entry: Entry) -> float:
        """When a mapping is to be looked for or renewed; past, perhaps, for one that lingered."""
        return entry.renew_at if entry.check_at is None else min(entry.renew_at, entry.check_at)

    def _backoff(self, base: float, entry: Entry) -> float:
        entry.failures += 1
        return self._doubled(base, entry.failures - 1)

    def _doubled(self, base: float, times: int) -> float:
        return max(base, min(base * 2.0 ** min(times, 16), self.policy.longest_retry))

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())


def _put(ports: set[Port], port: Port, belongs: bool) -> None:
    if belongs:
        ports.add(port)
    else:
        ports.discard(port)
