"""The paper's first test, with Debian's rTorrent, tmux for terminals and a real router.

Another host owns the odd ports of the range. Five instances find the even ones, each by its own
search; a sixth finds none. Closing a terminal takes its port off the router, and no other.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.lab import LAN1, LAN2, Lab
from tests.lab.program import NATSUP, PATIENT

RANGE = range(10000, 10010)


class Terminals:
    """Terminals on lan1, by tmux. A terminal stays readable after its program has ended."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self._lab = lab
        self._folder = folder
        self._config = folder / "tmux.conf"
        self._config.write_text("set-option -g remain-on-exit on\n")

    def _tmux(self, *words: str) -> str:
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "TMUX"))}
        environ |= {"NATSUP_STATE_DIR": str(self._folder / "state"), "TERM": "xterm"}
        socket = str(self._folder / "tmux")
        done = self._lab.run(
            "lan1", ["tmux", "-f", str(self._config), "-S", socket, *words], env=environ
        )
        return str(done.stdout)

    def open(self, name: str, output: Path | None = None) -> None:
        """Start rTorrent in a new terminal, its output in a file if one is given."""
        folder = self._folder / name
        folder.mkdir()
        rtorrent = ["rtorrent", "-n", "-d", str(folder), "-p", f"{RANGE[0]}-{RANGE[-1]}"]
        rtorrent += ["-o", "port_random=no,dht=disable"]
        command = [NATSUP, "exec", *PATIENT, "--", *rtorrent]
        if output is not None:
            script = '"$@" > "$0" 2>&1; echo $? > "$0.status"'
            command = ["sh", "-c", script, str(output), *command]
        size = ["-x", "100", "-y", "30"]
        self._tmux("new-session", "-d", *size, "-s", name, *command)

    def text(self, name: str) -> str:
        return self._tmux("capture-pane", "-p", "-t", name)

    def close(self, name: str) -> None:
        self._tmux("kill-session", "-t", name)

    def end(self) -> None:
        self._tmux("kill-server")


@pytest.fixture
def terminals(lab: Lab, tmp_path: Path) -> Iterator[Terminals]:
    found = Terminals(lab, tmp_path)
    yield found
    found.end()


def test_five_instances_share_a_range_with_another_host(
    lab: Lab, terminals: Terminals, tmp_path: Path
) -> None:
    odd = [number for number in RANGE if number % 2]
    even = [number for number in RANGE if not number % 2]
    for number in odd:
        lab.map("lan2", "tcp", number)
    theirs = {f"tcp/{number}": LAN2 for number in odd}
    assert lab.table() == theirs

    for count, number in enumerate(even):
        terminals.open(f"r{count}")
        expected = theirs | {f"tcp/{n}": LAN1 for n in even[: count + 1]}
        lab.wait_for(lambda wanted=expected: lab.table() == wanted)  # type: ignore[misc]
        lab.wait_for(lambda wanted=number: lab.reaches(wanted))  # type: ignore[misc]
        assert "rTorrent" in terminals.text(f"r{count}")

    # Its last words go to a file: tmux loses them now and then, also without natsup, when the
    # program leaves the alternate screen and ends.
    terminals.open("sixth", output=tmp_path / "output")
    lab.wait_for(lambda: (tmp_path / "output.status").exists())
    assert "Could not open/bind port for listening: Address already in use" in (
        tmp_path / "output"
    ).read_text(errors="replace")
    ours = {f"tcp/{number}": LAN1 for number in even}
    assert lab.table() == theirs | ours

    for count, number in enumerate(even):
        terminals.close(f"r{count}")
        del ours[f"tcp/{number}"]
        lab.wait_for(lambda: lab.table() == theirs | ours)
        assert not lab.reaches(number)
