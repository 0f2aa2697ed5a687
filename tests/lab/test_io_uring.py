"""io_uring binds past every filter: it is noted, or kept from the program."""

import json
from pathlib import Path

import pytest

from tests.lab.lab import Lab
from tests.lab.program import NATSUP, Program

# io_uring_setup(2) with one entry: the descriptor, or the errno's name
_SETUP = "ctypes.CDLL(None, use_errno=True).syscall(425, 1, ctypes.create_string_buffer(120))"


@pytest.fixture(params=[[], ["--as-parent"]], ids=["in place", "as parent"])
def layout(request: pytest.FixtureRequest) -> list[str]:
    return list(request.param)


def test_the_log_says_who_uses_it(lab: Lab, tmp_path: Path, layout: list[str]) -> None:
    program = Program(lab, tmp_path, *layout)
    program.do("import ctypes")
    for _ in range(2):
        assert program.do(_SETUP) > 2
    lab.wait_for(lambda: "uses io_uring" in program.log())
    assert program.log().count("uses io_uring") == 1
    pid = program.do("os.getpid()")
    assert f"(pid {pid}) uses io_uring" in program.log()
    assert [user["pid"] for user in program.status()[0]["io_uring"]] == [pid]
    done = lab.run("lan1", [NATSUP, "doctor", "--json"], env=program.environ)
    [check] = [one for one in json.loads(done.stdout)["checks"] if one["id"] == "io-uring"]
    assert f"(pid {pid}) may be one" in check["found"]


def test_it_fails_as_if_the_kernel_had_none(lab: Lab, tmp_path: Path, layout: list[str]) -> None:
    program = Program(lab, tmp_path, "--no-io-uring", *layout)
    program.do("import ctypes")
    assert program.do(_SETUP) == -1
    assert program.do("errno.errorcode[ctypes.get_errno()]") == "ENOSYS"
    assert program.bind("s", 7000) is None
    assert "tcp/7000" in lab.table()
    assert "uses io_uring" not in program.log()
