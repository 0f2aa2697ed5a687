"""Orders to a session: who may give them, and what becomes of nonsense."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from natsup.state.journal import Header, SessionRecord
from natsup.state.ledger import State
from natsup.state.model import Port, Protocol
from natsup.supervisor import ordering, orders
from natsup.supervisor.orders import Order, Orders
from tests.nobody import as_nobody

TCP = Port(Protocol.TCP, 6881)


class Keeper:
    """Has one port, of which it does what the test says."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.fails = False
        self.answered = True

    def _hear(self, what: str, port: Port) -> bool:
        if self.fails:
            raise RuntimeError("a bug")
        self.heard.append(f"{what} {port}")
        return port == TCP

    def give_back(self, port: Port) -> bool:
        return self._hear("release", port)

    def retry(self, port: Port) -> bool:
        return self._hear("retry", port)

    async def decided(self, port: Port) -> None:
        if not self.answered:
            await trio.sleep_forever()

    def state(self, port: Port) -> tuple[State, str]:
        return State.RELEASED, "by hand"


@pytest.fixture
def keeper() -> Keeper:
    return Keeper()


@pytest.fixture
def name() -> str:
    return f"test-{os.urandom(6).hex()}"


@pytest.fixture
async def session(keeper: Keeper, name: str, nursery: trio.Nursery) -> str:
    nursery.start_soon(Orders(name, lambda port: keeper).run)  # type: ignore[arg-type,return-value]
    await trio.testing.wait_all_tasks_blocked()
    return name


def asked(name: str, data: bytes) -> bytes:
    """What a session says to so many bytes, and nothing more. It blocks."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(orders.name(name))
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        with sock.makefile("rb") as file:
            return file.read()


async def answers(name: str, data: bytes) -> list[dict[str, Any]]:
    said = await trio.to_thread.run_sync(asked, name, data)
    return [json.loads(line) for line in said.splitlines()]


@pytest.mark.parametrize(
    ("words", "order"),
    [
        ({"release": "tcp/6881"}, Order("release", TCP)),
        ({"retry": "udp6/7000"}, Order("retry", Port(Protocol.UDP, 7000, ipv6=True))),
        ({"retry": "sctp/7000"}, None),
        ({"retry": ["tcp/6881"]}, None),
        ({"retry": None}, None),
        ({"explode": "tcp/6881"}, None),
        ({}, None),
    ],
)
def test_orders(words: dict[str, Any], order: Order | None) -> None:
    assert orders.read(words) == order


async def test_an_order_is_carried_out(session: str, keeper: Keeper) -> None:
    done = {"state": "released", "reason": "by hand"}
    data = b'{"release": "tcp/6881"}\n{"retry": "tcp/6881"}\n{"retry": "tcp/1"}\n'
    first, second, third = await answers(session, data)
    assert (first, second) == (done, done)
    assert third == {"error": "no socket of this session has tcp/1"}
    assert keeper.heard == ["release tcp/6881", "retry tcp/6881", "retry tcp/1"]


@pytest.mark.parametrize(
    "data", [b"\xff\n", b"", b"[]\n", b"{}\n", b'{"retry": "x"}\n', b"[" * 99999 + b"\n"]
)
async def test_nonsense_does_no_harm(session: str, keeper: Keeper, data: bytes) -> None:
    for answer in await answers(session, data):
        assert answer == {"error": "that is no order of this version of natsup"}
    assert await answers(session, b'{"retry": "tcp/6881"}\n')
    assert keeper.heard == ["retry tcp/6881"]


async def test_a_bug_ends_one_line_only(session: str, keeper: Keeper) -> None:
    keeper.fails = True
    assert await answers(session, b'{"retry": "tcp/6881"}\n') == []
    keeper.fails = False
    assert await answers(session, b'{"retry": "tcp/6881"}\n')


async def test_those_who_say_nothing_keep_nobody_from_it(session: str, autojump_clock: Any) -> None:
    silent = []
    for _ in range(orders._AT_ONCE):
        sock = trio.socket.socket(trio.socket.AF_UNIX)
        await sock.connect(orders.name(session))
        silent.append(sock)
    with trio.socket.socket(trio.socket.AF_UNIX) as sock:
        await sock.connect(orders.name(session))
        await sock.send(b'{"retry": "tcp/6881"}\n')
        assert json.loads(await sock.recv(1000))["state"] == "released"
    for one in silent:
        one.close()


async def test_a_router_that_does_not_answer_is_not_waited_for(
    session: str, keeper: Keeper, autojump_clock: Any
) -> None:
    keeper.answered = False
    with trio.socket.socket(trio.socket.AF_UNIX) as sock:
        await sock.connect(orders.name(session))
        await sock.send(b'{"retry": "tcp/6881"}\n')
        assert json.loads(await sock.recv(1000))["state"] == "released"


async def test_other_users_are_not_heard(session: str, keeper: Keeper) -> None:
    script = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect('\\0' + sys.argv[1]);"
        's.send(b\'{"release": "tcp/6881"}\\n\'); print(s.recv(1))'
    )
    address = orders.name(session)[1:]
    done = await trio.run_process(
        [*as_nobody(), sys.executable, "-c", script, address],
        capture_stdout=True,
        check=False,
        stderr=subprocess.DEVNULL,
    )
    assert done.stdout in (b"b''\n", b"")  # the end, or that it was reset
    assert keeper.heard == []


# --- the other end ---


@pytest.fixture
def record(name: str, tmp_path: Path) -> SessionRecord:
    header = Header(name, pid=1, command=["/usr/bin/rtorrent"], started=0.0)
    return SessionRecord(header, alive=True, path=tmp_path)


@pytest.fixture
def impostor(name: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(orders.name(name))
        sock.listen()
        yield sock


async def test_what_came_of_it(session: str, record: SessionRecord) -> None:
    told = await trio.to_thread.run_sync(ordering.tell, record, orders.RELEASE, TCP)
    assert told == ("released", "by hand")
    with pytest.raises(ordering.Untold, match="no socket of this session has tcp/1"):
        await trio.to_thread.run_sync(ordering.tell, record, "retry", Port(Protocol.TCP, 1))


def test_nobody_listens(record: SessionRecord) -> None:
    with pytest.raises(ordering.Untold, match="it takes no orders"):
        ordering.tell(record, orders.RETRY, TCP)


def test_somebody_else_listens(
    record: SessionRecord, impostor: socket.socket, tmp_path: Path
) -> None:
    os.chown(tmp_path, 65534, 65534)
    with pytest.raises(ordering.Untold, match="somebody else answers in its place"):
        ordering.tell(record, orders.RETRY, TCP)


def test_no_answer(
    record: SessionRecord, impostor: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ordering, "_SECONDS", 0.1)
    with pytest.raises(ordering.Untold, match="no answer within 0 s"):
        ordering.tell(record, orders.RETRY, TCP)
