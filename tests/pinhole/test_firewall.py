"""Pinholes by UPnP and the mappings of the same router: whose turn it is."""

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from natsup.state.model import Ignored, Mapped, Outcome, Port, Protocol
from natsup.upnp.pinhole.firewall import Firewall
from natsup.upnp.pinhole.opening import Answer, Device, Opened, Status, Step
from natsup.upnp.trust import Url
from natsup.upnp.turns import Turns

PORTS = [Port(Protocol.TCP, number, ipv6=True) for number in range(7000, 7020)]
_SECONDS = 3.0


def opener(turns: Turns) -> Firewall:
    where = Url("fe80::1%eth0", 5000, "/")
    return Firewall(where, where, "2001:db8::2", turn=turns.turn, seconds=_SECONDS)


async def add_all(firewall: Firewall) -> list[Outcome]:
    outcomes = []

    async def add(port: Port) -> None:
        outcomes.append(await firewall.add(port, lease=3600))

    async with trio.open_nursery() as nursery:
        for port in PORTS:
            nursery.start_soon(add, port)
    return outcomes


async def test_a_mute_side_holds_the_other_up_for_one_silence(
    autojump_clock: MockClock, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = Turns()
    firewall = opener(turns)

    async def ask(step: Step) -> Answer:
        await trio.sleep_forever()
        raise AssertionError

    monkeypatch.setattr(firewall, "_ask", ask)
    silent: list[Outcome] = []

    async def add() -> None:
        silent.extend(await add_all(firewall))

    nursery.start_soon(add)
    await trio.testing.wait_all_tasks_blocked()
    async with turns.turn() as come:  # a mapping's
        assert come
        assert trio.current_time() <= _SECONDS + 0.1
    await trio.testing.wait_all_tasks_blocked()
    assert len(silent) == len(PORTS)
    assert all(isinstance(one, Ignored) and one.silent for one in silent)


async def test_a_mapping_does_not_wait_for_many_pinholes(
    autojump_clock: MockClock, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = Turns()
    firewall = opener(turns)
    opened: list[Outcome] = []

    async def ask(step: Step) -> Answer:
        await trio.sleep(0.5)
        return Opened("7")

    monkeypatch.setattr(firewall, "_ask", ask)
    firewall._device = Device(Status(enabled=True, allowed=True))

    async def add() -> None:
        opened.extend(await add_all(firewall))

    nursery.start_soon(add)
    await trio.testing.wait_all_tasks_blocked()
    async with turns.turn() as come:
        assert come
        assert trio.current_time() <= 0.6
    with trio.fail_after(60):
        while len(opened) < len(PORTS):  # noqa: ASYNC110 - by as many events
            await trio.sleep(0.5)
    assert opened == [Mapped(3600, "7")] * len(PORTS)
