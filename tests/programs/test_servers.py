"""Servers of all kinds: reachable from the Internet while they live, and not after."""

from pathlib import Path

import pytest

from tests.lab.lab import LAN1, Lab
from tests.programs.running import Running
from tests.programs.servers import SERVERS, Question, Server


def answered(lab: Lab, question: Question) -> bool:
    protocol, number = question.port.split("/")
    return question.answer in (lab.fetch(protocol, int(number), question.text) or b"")


RUNS = [pytest.param(server, (), id=server.name) for server in SERVERS] + [
    pytest.param(server, ("--track-close", "seccomp"), id=f"{server.name}, closes")
    for server in SERVERS
    if server.name == "go"  # whose runtime makes its system calls without libc
]


@pytest.mark.parametrize(("server", "words"), RUNS)
def test_reachable_until_it_is_killed(
    lab: Lab, tmp_path: Path, server: Server, words: tuple[str, ...]
) -> None:
    folder = tmp_path / server.name
    folder.mkdir()
    program = Running(lab, folder, server.command(folder), *words)
    ports = {question.port: LAN1 for question in server.questions}
    lab.wait_for(lambda: lab.table() == ports)
    for question in server.questions:
        lab.wait_for(lambda asked=question: answered(lab, asked))  # type: ignore[misc]
    assert lab.table() == ports
    program.kill()
    lab.wait_for(lambda: lab.table() == {})
    for question in server.questions:
        assert not answered(lab, question)
