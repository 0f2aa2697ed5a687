"""Who is shown as a client of UDP, and for how long; a real router, real processes."""

from pathlib import Path

from natsup.supervisor.clients import ALL_BRIEF, NAMED, SHORT_LIVED, WINDOW
from tests.lab.lab import LAN1, Lab
from tests.lab.program import Program

_CHILDREN = 10


def clients(program: Program) -> list[str]:
    """Why each is one, by `natsup status`."""
    return [one["reason"] for session in program.status() for one in session["clients"]]


def told(program: Program) -> int:
    return sum(entry["what"] == "client" for entry in program.history())


def short_lived(program: Program) -> None:
    for number in range(SHORT_LIVED):
        assert program.bind("s", 20000 + number, "DGRAM") is None
        program.do("s.close()")


def test_a_client_that_is_quiet_is_one_no_more(lab: Lab, tmp_path: Path) -> None:
    """And then is one again."""
    program = Program(lab, tmp_path)
    short_lived(program)
    lab.wait_for(lambda: clients(program) == [ALL_BRIEF])
    assert program.bind("passed", 21000, "DGRAM") is None
    lab.wait_for(lambda: clients(program) == [], WINDOW + 20)
    assert program.bind("mapped", 21001, "DGRAM") is None
    lab.wait_for(lambda: lab.table() == {"udp/21001": LAN1})
    short_lived(program)
    lab.wait_for(lambda: clients(program) == [ALL_BRIEF])
    assert told(program) == 1  # within the hour it is no news


def test_of_many_short_processes_one_is_told(lab: Lab, tmp_path: Path) -> None:
    program = Program(lab, tmp_path, "--clients", "all")
    child = "[s := socket.socket(type=socket.SOCK_DGRAM), s.bind(('', 7000)), os._exit(0)]"
    for _ in range(_CHILDREN):
        assert program.do(f"(pid := os.fork()) or {child}; os.waitpid(pid, 0)[1]") is None
    assert program.bind("s", 7000, "DGRAM") is None
    lab.wait_for(lambda: clients(program) == [NAMED])  # those that have ended are none
    lab.wait_for(lambda: told(program) == 1)
    assert program.log().count("a client (") == 1
    assert lab.table() == {}
