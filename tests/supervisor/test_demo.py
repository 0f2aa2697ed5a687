"""`natsup demo`, the README's first command: as root, as nobody in particular, and refused."""

import subprocess

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
