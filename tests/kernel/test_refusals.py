"""Where the kernel or a sandbox refuses a listener: one line that says what to do, status 125."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernel.harness import passing, supervised

NATSUP = str(Path(sys.executable).with_name("natsup"))
LAYOUTS = [pytest.param([], id="in place"), pytest.param(["--as-parent"], id="as parent")]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_inside_another_supervisor(layout: list[str]) -> None:
    def run() -> tuple[int, str, str]:
        command = [NATSUP, "exec", *layout, "--", "echo", "never"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        return done.returncode, done.stdout, done.stderr

    with supervised(run) as child, passing(child):
        status, output, error = child.result()
    assert (status, output) == (125, "")
    assert error == (
        "natsup: another program already supervises this one by seccomp notification and the"
        " kernel allows only one: run natsup outside of it, not inside\n"
    )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("number", "message"),
    [
        (1, "natsup: this sandbox forbids seccomp(): under systemd add 'seccomp'"),
        (38, "natsup: this kernel has no seccomp filters"),
        (22, "natsup: this kernel has no seccomp user notification"),
    ],
)
def test_in_a_sandbox_that_forbids_it(layout: list[str], number: int, message: str) -> None:
    sandbox = (
        "import os, sys, pyseccomp as s\n"
        "f = s.SyscallFilter(s.ALLOW)\n"
        f"f.add_rule(s.ERRNO({number}), 'seccomp')\n"
        "f.load()\n"
        "os.execv(sys.argv[1], sys.argv[1:])\n"
    )
    command = [sys.executable, "-c", sandbox, NATSUP, "exec", *layout, "--", "echo", "never"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1
