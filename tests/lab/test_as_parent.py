"""The end of a program whose parent natsup is, with a real router to clean up on."""

import os
from pathlib import Path

from tests.lab.lab import Lab
from tests.lab.program import Program


def test_the_caller_does_not_wait_for_the_router(lab: Lab, tmp_path: Path) -> None:
    """natsup ends with the program, and the supervisor cleans up after that."""
    program = Program(lab, tmp_path, "--as-parent")
    assert program.bind("s", 7000) is None
    supervisor = program.do("os.getppid()")
    # Much memory: the filter has lost its last user long before the end of the program can be seen.
    program.do("much = b'x' * 500_000_000")
    lab.pause_router()
    program.tell("os._exit(0)")
    assert program.process.wait(20) == 0
    os.kill(supervisor, 0)  # it is there, and waits
    lab.resume_router()
    lab.wait_for(lambda: lab.table() == {})
