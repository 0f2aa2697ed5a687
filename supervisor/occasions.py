"""Which of a session's events have a command of the user's run, and what it is told. Pure."""

from natsup.state.happenings import What
from natsup.state.history import Entry

MAPPED, CONFLICT, RELEASED = "on_mapped", "on_conflict", "on_released"  # the options' keys
_OCCASIONS = {
    What.MAPPED: MAPPED,
    What.PUT_BACK: MAPPED,
    What.REFUSED: CONFLICT,
    What.CONFLICT: CONFLICT,
    What.LOST: RELEASED,
    What.REMOVED: RELEASED,
    What.NOT_OURS: RELEASED,
    # Not HANDED_OVER: the router forwards it still, for another session, which tells of its end.
}


def occasion(entry: Entry) -> str | None:
    """The key of the option whose command an event has run; None for none."""
    return None if entry.event.port is None else _OCCASIONS.get(entry.event.what)


def variables(entry: Entry) -> dict[str, str]:
    """What the command finds in its environment. What is not known is empty."""
    event, port = entry.event, entry.event.port
    assert port is not None
    return {
        "NATSUP_EVENT": event.what.value,
        "NATSUP_PROTOCOL": port.kind,
        "NATSUP_PORT": str(port.number),
        "NATSUP_EXTERNAL_ADDRESS": event.external_address or "",
        "NATSUP_EXTERNAL_PORT": str(port.number),  # the same: see natsup.state.model
        "NATSUP_SESSION": entry.session,
        "NATSUP_REASON": event.reason,
    }
