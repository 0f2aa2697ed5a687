"""Which events have commands, and what a slow reader of events misses."""

import json
import os
from typing import Any

import pytest
import trio

from natsup.state.happenings import Event, What
from natsup.state.history import Entry
from natsup.state.model import Port, Protocol
from natsup.supervisor.events import MOST, Events
from natsup.supervisor.occasions import occasion, variables
from natsup.supervisor.options import BadOption, parse
from natsup.supervisor.options_check import check

TCP = Port(Protocol.TCP, 6881)


def entry(what: What, port: Port | None = TCP, **more: Any) -> Entry:
    return Entry(1.0, "5-abc", ("a",), Event(what, port, **more))


def test_every_kind_of_event_is_of_an_occasion_or_of_none() -> None:
    found = {what.value: occasion(entry(what)) for what in What}
    assert {what: name for what, name in found.items() if name} == {
        "mapped": "on_mapped",
        "put back": "on_mapped",
        "refused": "on_conflict",
        "conflict": "on_conflict",
        "lost": "on_released",
        "removed": "on_released",
        "not ours": "on_released",
    }
    assert occasion(entry(What.MAPPED, None)) is None


def test_what_a_command_is_told() -> None:
    told = variables(entry(What.MAPPED, TCP.pinhole, external_address="2001:db8::1", reason="x y"))
    assert told == {
        "NATSUP_EVENT": "mapped",
        "NATSUP_PROTOCOL": "tcp6",
        "NATSUP_PORT": "6881",
        "NATSUP_EXTERNAL_ADDRESS": "2001:db8::1",
        "NATSUP_EXTERNAL_PORT": "6881",
        "NATSUP_SESSION": "5-abc",
        "NATSUP_REASON": "x y",
    }


def test_a_slow_reader_is_told_how_much_it_missed() -> None:
    read, write = os.pipe()
    file = open(read, "rb")  # noqa: SIM115 - closed below

    async def run() -> list[dict[str, Any]]:
        events = Events(write)
        async with trio.open_nursery() as nursery:
            for number in range(MOST + 5):
                events.tell(entry(What.MAPPED, Port(Protocol.TCP, 1024 + number)))
            nursery.start_soon(events.run)
            lines = [await trio.to_thread.run_sync(file.readline) for _ in range(MOST + 1)]
            await events.close(10)
            nursery.cancel_scope.cancel()
        return [json.loads(line) for line in lines]

    found = trio.run(run)
    file.close()
    os.close(write)
    assert [one["port"] for one in found[:-1]] == list(range(1024, 1024 + MOST))
    assert found[-1]["what"] == "left out"
    assert found[-1]["reason"] == "5 events for which the reader was too slow"


def test_without_a_thread_events_are_lost_and_nobody_waits(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A user has too many processes at times; a write in the supervisor's own thread may block."""
    read, write = os.pipe()

    async def refused(*words: object, **more: object) -> None:
        raise RuntimeError("can't start new thread")

    async def run() -> None:
        events = Events(write)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(events.run)
            with monkeypatch.context() as short:
                short.setattr(trio.to_thread, "run_sync", refused)
                events.tell(entry(What.MAPPED))
                await events.close(10)
            events.tell(entry(What.REMOVED))
            await events.close(10)
            nursery.cancel_scope.cancel()

    trio.run(run)
    os.close(write)
    with open(read) as file:
        assert [json.loads(line)["what"] for line in file] == ["removed"]
    assert "there are too many processes" in caplog.text


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("999", "Bad file descriptor"),
        ("/nonexistent/x", "No such file"),
        ("unix:/" + "x" * 120, "it is longer than 107 bytes"),
    ],
)
def test_where_no_events_can_be_told(where: str, why: str) -> None:
    settings, _ = parse(["--events", where, "ls"], {}, "/")
    with pytest.raises(BadOption, match=why):
        check(settings, {})


def test_a_descriptor_for_reading_is_none_for_events() -> None:
    read, write = os.pipe()
    settings, _ = parse(["--events", str(read), "ls"], {}, "/")
    with pytest.raises(BadOption, match="it is open for reading"):
        check(settings, {})
    os.close(read)
    os.close(write)
