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
    def nested() -> tuple[int, str, str]:
        command = [NATSUP, "exec", *layout, "--", "echo", "never"]
        done = run(command)
        return done.returncode, done.stdout, done.stderr

    with supervised(nested) as child, passing(child):
        status, output, error = child.result()
    assert (status, output) == (125, "")
    assert error == (
        "natsup: another program already supervises this one by seccomp notification and the"
        " kernel allows only one: run natsup outside of it, not inside\n"
    )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("action", "message"),
    [
        ("ERRNO(1)", "natsup: this sandbox forbids seccomp(): under systemd add 'seccomp'"),
        ("KILL_PROCESS", "natsup: this sandbox forbids seccomp(): under systemd add 'seccomp'"),
        ("KILL", "natsup: this sandbox forbids seccomp(): under systemd add 'seccomp'"),
        ("ERRNO(38)", "natsup: this kernel has no seccomp filters"),
        ("ERRNO(22)", "natsup: this kernel has no seccomp user notification"),
    ],
)
@pytest.mark.parametrize("cached", [True, False], ids=["filter cached", "no filter cached"])
def test_in_a_sandbox_that_forbids_it(
    layout: list[str], action: str, message: str, cached: bool
) -> None:
    if cached:
        assert run([NATSUP, "exec", "--", "true"]).returncode == 0
    done = in_a_sandbox(action, "seccomp", *layout, "--", "echo", "never", cached=cached)
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_in_a_sandbox_without_close_range(layout: list[str]) -> None:
    """Guard and supervisor do not try every number there is instead."""
    done = in_a_sandbox("ERRNO(38)", "close_range", *layout, "--", "echo", "started")
    assert (done.returncode, done.stdout, done.stderr) == (0, "started\n", "")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_without_proc(layout: list[str]) -> None:
    command = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh"]
    done = run([*command, NATSUP, "exec", *layout, "--", "echo", "started"])
    assert (done.returncode, done.stdout, done.stderr) == (0, "started\n", "")


@pytest.mark.parametrize("closed", ["", "<&-"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_without_dev_null(layout: list[str], closed: str) -> None:
    script = f'mount -t tmpfs none /dev && exec "$@" {closed}'
    command = ["unshare", "--mount", "sh", "-c", script, "sh"]
    done = run([*command, NATSUP, "exec", *layout, "--", "echo", "never"])
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith("natsup: cannot start the supervisor: ")
    assert done.stderr.count("\n") == 1


def in_a_sandbox(
    action: str, call: str, *words: str, cached: bool = True
) -> "subprocess.CompletedProcess[str]":
    """`natsup exec` under a filter that does ``action`` (libseccomp's) for one system call."""
    sandbox = (
        "import os, sys, pyseccomp as s\n"
        "f = s.SyscallFilter(s.ALLOW)\n"
        f"f.add_rule(s.{action}, '{call}')\n"
        "f.load()\n"
        "os.execv(sys.argv[1], sys.argv[1:])\n"
    )
    script = 'mkdir -p /var/cache && mount -t tmpfs none /var/cache && exec "$@"'
    prefix = [] if cached else ["unshare", "--mount", "sh", "-c", script, "sh"]
    return run([*prefix, sys.executable, "-c", sandbox, NATSUP, "exec", *words])


def run(command: list[str]) -> "subprocess.CompletedProcess[str]":
    """Run a command, and take what it printed."""
    return subprocess.run(command, capture_output=True, text=True, timeout=30)
