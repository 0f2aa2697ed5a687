"""What is worth telling of a session's ports: the ledger's notes and the gateway's answers go in,
events come out. Pure; ``now`` is in seconds of any monotonic clock.

An event is a change that a person would ask about: not a renewal, nor a mapping that was looked for
and found, nor the same refusal by the same router again and again.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from natsup.state.ledger import RELEASED, Note, State
from natsup.state.model import Conflict, Ignored, Mapped, Outcome, Port, Removal, Unknown

AGAIN = 3600.0  # seconds after which a program that is refused as before is told of anew
_MOST = 256  # ports and refusals that are remembered after they are over
_MOST_REASONS = 8  # for the same thing, that are told one after the other
_RENEWED = "renewed after all"
_RELEASED = "by hand; not published until natsup retry, or another start"


class What(StrEnum):
    """What happened. The values stand in files: a new one is added, none is changed."""

    MAPPED = "mapped"
    PUT_BACK = "put back"  # mapped again, after it was lost
    REFUSED = "refused"  # bind() failed: another host has the port
    CONFLICT = "conflict"  # the program has the port here, but another host has it on the router
    IGNORED = "ignored"  # the router would not, or there was none; bind() went on without it
    NOT_RENEWED = "not renewed"  # the router may forward it still, until its lease ends
    LOST = "lost"  # the router does not forward it any more
    REMOVED = "removed"
    RELEASED = "released"  # by the user, whatever sockets have it
    NOT_OURS = "not ours"  # not removed: it belongs to another host by now
    HANDED_OVER = "handed over"  # not removed: another session on this host has it
    NOT_REMOVED = "not removed"  # the router did not answer; it is tried again
    CLIENT = "client"  # a program was taken for a client: its UDP ports are passed
    ROUTER = "router"  # the address that the Internet knows the router by
    LEFT_OUT = "left out"  # there were too many events of this session


@dataclass(frozen=True, slots=True)
class Caller:
    """The program that bound a port."""

    name: str
    pid: int


@dataclass(frozen=True, slots=True)
class Event:
    what: What
    port: Port | None = None
    caller: Caller | None = None
    reason: str = ""  # for people: one clause, no full stop
    external_address: str | None = None
    lease: int | None = None  # seconds; None: without end, or nothing is mapped
    holder: str | None = None  # the other host's address, "" where the router would not say


_REMOVALS = {
    Removal.NOT_OURS: (What.NOT_OURS, "it belongs to another host by now"),
    Removal.HANDED_OVER: (What.HANDED_OVER, "another session on this host has the port"),
    Removal.FAILED: (What.NOT_REMOVED, "the router did not answer"),
}


def removal(
    port: Port, caller: Caller | None, result: Removal, why: str, external: str | None = None
) -> Event:
    """The event of a removal; ``why`` it was asked for."""
    what, reason = _REMOVALS.get(result, (What.REMOVED, why))
    return Event(what, port, caller, reason, external)


@dataclass(slots=True)
class _Record:
    """What was told of a port."""

    caller: Caller | None = None
    claimed: bool = False
    mapped: bool = False
    released: bool = False  # by the user
    unrenewed: bool = False  # mapped, but the last renewal came to nothing
    lost: bool = False
    holder: str | None = None  # by the last answer
    said: Event | None = None
    said_at: float = 0.0
    reasons: tuple[str, ...] = ()  # that were given for what was said last
    over: bool = False  # it has been given up since


class Teller:
    """Tells what happened to the ports of one session."""

    def __init__(self) -> None:
        self._records: dict[Port, _Record] = {}
        self._over: dict[Port, _Record] = {}  # what was said of ports that are not wanted now
        self._refused: dict[tuple[Port, str, str], float] = {}  # port, program, why
        self._external: str | None = None
        self._presumed = False  # the gateway has not said that this is its address
        self._closing = False

    def asked(self, port: Port, caller: Caller | None) -> None:
        """A call of this program wants the port."""
        record = self._records.get(port)
        if record is None:
            record = self._records[port] = self._over.pop(port, _Record())
        if not record.claimed:
            record.caller = caller

    def mapped_before(self, port: Port) -> None:
        """Another supervisor of this session has told that the port is mapped. Comes before the
        ledger's note."""
        self._records[port] = _Record(mapped=True)

    def refused(
        self, port: Port, caller: Caller | None, outcome: Conflict, now: float
    ) -> list[Event]:
        """The call failed with EADDRINUSE."""
        event = Event(What.REFUSED, port, caller, str(outcome), holder=outcome.holder)
        # By name: who is started anew each time that it fails has another pid each time.
        key = port, "" if caller is None else caller.name, event.reason
        before = self._refused.pop(key, None)
        new = before is None or now - before >= AGAIN
        self._refused[key] = now if before is None or new else before
        _shorten(self._refused)
        return [event] if new else []

    def noted(self, note: Note, now: float) -> list[Event]:
        """The ledger wrote this down."""
        record = self._records.setdefault(note.port, _Record())
        if note.state is State.GONE:
            events = self._lose(record, note, now) if record.mapped else []
            record.over, record.claimed = True, False
            record.mapped = record.unrenewed = record.lost = False
            self._over[note.port] = self._records.pop(note.port)
            _shorten(self._over)
            return events
        record.claimed = record.claimed or note.claims > 0
        if note.released:
            return self._release(record, note, now)
        again, record.released = record.released, False
        if note.state is State.MAPPED:
            if record.mapped and not (record.unrenewed or again):
                return []
            what = What.PUT_BACK if record.lost else What.MAPPED
            why = _RENEWED if record.unrenewed else ""
            record.mapped, record.unrenewed, record.lost = True, False, False
            lease = None if note.expires is None else max(0, round(note.expires - now))
            event = Event(what, note.port, record.caller, why, self._external, lease)
            return self._say(record, event, now)
        if not note.reason or note.state is State.RELEASING:
            return []
        if note.state is State.PENDING and not note.claims:
            return []  # the call waits, and will hear of it
        if record.mapped and note.exists:
            if record.unrenewed or not note.claims:
                return []
            record.unrenewed = True
            event = Event(What.NOT_RENEWED, note.port, record.caller, note.reason)
            return self._say(record, event, now)
        if record.mapped:
            return self._lose(record, note, now)
        said = record.said
        if said is not None and said.what is What.LOST and said.reason == note.reason:
            return []
        conflict = note.state is State.CONFLICT
        what, holder = (What.CONFLICT, record.holder) if conflict else (What.IGNORED, None)
        event = Event(what, note.port, record.caller, note.reason, holder=holder)
        return self._say(record, event, now)

    def _release(self, record: _Record, note: Note, now: float) -> list[Event]:
        """Told once, with what has come of it by the removal."""
        new, record.released = not record.released, True
        if note.state is State.RELEASED:
            record.mapped = record.unrenewed = record.lost = False
        event = Event(What.RELEASED, note.port, record.caller, _RELEASED)
        return self._say(record, event, now) if new else []

    def _lose(self, record: _Record, note: Note, now: float) -> list[Event]:
        """What was mapped is not, and nobody asked for that."""
        record.mapped, record.unrenewed, record.lost = False, False, True
        event = Event(What.LOST, note.port, record.caller, note.reason, holder=record.holder)
        return self._say(record, event, now)

    def added(self, port: Port, outcome: Outcome) -> None:
        """The answer to a request for the port. Comes before the ledger's note, which tells."""
        if port in self._records:
            self._records[port].holder = _holder(outcome)

    def checked(self, port: Port, outcome: Outcome, now: float) -> list[Event]:
        """The mapping was looked for. Comes before the ledger's note."""
        record = self._records.get(port)
        if record is None or not record.mapped or isinstance(outcome, (Mapped, Unknown)):
            return []
        if isinstance(outcome, Ignored) and outcome.silent:
            return []
        record.mapped, record.unrenewed, record.lost = False, False, True
        record.holder = _holder(outcome)
        lost = Event(What.LOST, port, record.caller, str(outcome), holder=record.holder)
        return self._say(record, lost, now)

    def removed(self, port: Port, result: Removal, now: float) -> list[Event]:
        """The answer to a removal. Comes before the ledger's note."""
        record = self._records.setdefault(port, _Record())
        if result is not Removal.FAILED:
            record.mapped = record.unrenewed = record.lost = False
        if self._closing:
            why = "the session ended"
        elif record.released:
            why = RELEASED
        else:
            why = "its last socket is gone" if record.claimed else "no socket came to have it"
        event = removal(port, record.caller, result, why, self._external)
        if result is not Removal.FAILED:
            record.claimed = False
        return self._say(record, event, now)

    def another_gateway(self, now: float, reason: str) -> list[Event]:
        """This host has another router by now, or another address: what is mapped leads to the old
        one. ``reason``: which of the two."""
        self._external = None
        events = []
        for port, record in self._records.items():
            if record.mapped:
                event = Event(What.LOST, port, record.caller, reason)
                events += self._say(record, event, now)
            record.mapped = record.unrenewed = record.lost = False
        return events

    def presume_address(self, address: str) -> None:
        """Under which address the Internet found the gateway at another time. It counts until the
        gateway says which: the first ports are mapped before that."""
        if self._external is None:
            self._external, self._presumed = address, True

    def external_address(self, address: str) -> list[Event]:
        """Under which address the Internet finds the gateway."""
        if address == self._external and not self._presumed:
            return []
        self._external, self._presumed = address, False
        return [Event(What.ROUTER, reason="its external address", external_address=address)]

    def close(self) -> None:
        """The session ends."""
        self._closing = True

    def _say(self, record: _Record, event: Event, now: float) -> list[Event]:
        """The event, unless it repeats what was said last, of the same program. Another reason is
        told as well, once: two that alternate would be told for ever."""
        new = record.over and now - record.said_at >= AGAIN
        said, before = record.said, record.reasons
        if said is None or new or (said.what, said.caller) != (event.what, event.caller):
            before = ()
        if event.what in _REPEATED and (event.reason in before or len(before) >= _MOST_REASONS):
            return []
        record.said, record.said_at, record.over = event, now, False
        record.reasons = (*before, event.reason)[-_MOST_REASONS:]
        return [event]


def repeats(event: Event, last: Event, seconds: float) -> bool:
    """Is it no news after what was told last of the same, by whichever session, so many seconds
    before? A service that is refused, and started anew again and again, is one session a start."""
    if event.what is What.ROUTER:
        return event.external_address == last.external_address
    names = [None if one.caller is None else one.caller.name for one in (event, last)]
    same = (event.what, event.port, event.reason) == (last.what, last.port, last.reason)
    return event.what in FAILURES and same and names[0] == names[1] and abs(seconds) < AGAIN


FAILURES = (What.REFUSED, What.IGNORED, What.CONFLICT)  # of which none undoes another
_REPEATED = (What.IGNORED, What.CONFLICT, What.NOT_REMOVED)


def _holder(outcome: Outcome) -> str | None:
    return outcome.holder if isinstance(outcome, Conflict) else None


def _shorten(memory: dict[Any, Any]) -> None:
    """Forget the oldest."""
    while len(memory) > _MOST:
        del memory[next(iter(memory))]
