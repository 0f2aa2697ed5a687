"""`natsup demo`, the README's first command: as root, as nobody in particular, and refused."""

import signal
import subprocess
from pathlib import Path

import pytest

from tests.nobody import as_nobody
from tests.supervisor.conftest import NATSUP

STORY = [
    "Internet → 11.22.33.1:6881   connection refused",
    "router: tcp/6881 → 192.168.77.2",
    'Internet → 11.22.33.1:6881   "hello from this host"',
    "bind(6881) failed with EADDRINUSE",
    "bind(6882) went well",
    'Internet → 11.22.33.1:6882   "hello from the other host"',
    "tcp 6881  → 192.168.77.2:6881  mapped",
    "tcp 6882  → 192.168.77.3:6882  mapped",
    "router: tcp/6881 → 192.168.77.2 removed",
    "Internet → 11.22.33.1:6881   connection refused",
    'Internet → 11.22.33.1:6882   "hello from the other host"',
    "That was all.",
]


@pytest.mark.parametrize("prefix", [[], as_nobody()], ids=["as root", "as nobody"])
def test_the_story_comes_about(prefix: list[str]) -> None:
    done = subprocess.run(
        [*prefix, NATSUP, "demo"], capture_output=True, text=True, cwd="/", timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    rest = done.stdout
    for line in STORY:
        assert line in rest, f"{line!r} is missing or out of order in:\n{done.stdout}"
        rest = rest[rest.index(line) + len(line) :]


def test_where_namespaces_are_refused_it_says_what_to_type() -> None:
    """A user namespace in which no more namespaces may be made."""
    script = (
        'for kind in user net; do echo 0 > /proc/sys/user/max_${kind}_namespaces; done; exec "$@"'
    )
    command = ["unshare", "--user", "--map-root-user", "--", "sh", "-c", script, "sh"]
    done = subprocess.run(
        [*command, NATSUP, "demo"], capture_output=True, text=True, cwd="/", timeout=60
    )
    assert done.returncode == 125
    assert done.stdout == ""
    assert "does not permit network namespaces" in done.stderr
    assert "sudo natsup demo" in done.stderr


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_interrupted_it_leaves_nothing_behind(
    tmp_path: Path, environ: dict[str, str], number: signal.Signals, status: int
) -> None:
    with subprocess.Popen(
        [NATSUP, "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**environ, "TMPDIR": str(tmp_path)},
        preexec_fn=lambda: (
            signal.signal(number, signal.default_int_handler) if number == signal.SIGINT else None
        ),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            if "bind(6881)" in line:
                break
        process.send_signal(number)
        process.stdout.read()
        assert process.stderr.read() == ""
        assert process.wait(20) == status
    assert [path.name for path in tmp_path.iterdir() if path.name != "state"] == []


def test_a_reader_that_has_seen_enough_is_no_error(environ: dict[str, str]) -> None:
    done = subprocess.run(
        ["sh", "-c", f"{{ {NATSUP} demo; echo $? >&2; }} | head -n 1"],
        capture_output=True,
        text=True,
        env=environ,
        timeout=60,
    )
    assert done.stdout.startswith("natsup demo: a home network")
    assert done.stderr == "141\n"
