"""`just manners`: makes docs/manners.md, by trying every behaviour in each of the four ways."""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests import apart
from tests.manners import given, lives, screens, shells
from tests.manners.ways import Way, ways

Group = Callable[[Way, Way], dict[str, str]]

# Each gives some of the table's rows, in this order.
GROUPS: list[Group] = [
    shells.keys,
    shells.interrupts,
    shells.foreground,
    shells.hang_up,
    shells.inner_shell,
    shells.pipelines,
    shells.times,
    screens.screens,
    screens.rtorrent,
    lives.statuses,
    lives.failures,
    lives.signals,
    lives.death_of_the_caller,
    lives.daemons,
    lives.orphans,
    lives.first_process,
    given.given,
    given.standard,
    given.end_of_output,
]

PAGE = Path(__file__).parents[2] / "docs" / "manners.md"
WAYS = ["bare", "in place", "as parent", "tini"]

_PID = (
    "The program is another process than the one that was started. What a service manager has set"
    " for that pid (LISTEN_PID, WATCHDOG_PID) is set for the program's."
)
_PID_1 = (
    "The kernel spares PID 1 all signals that it does not handle, and gives it every orphan."
    " natsup, which as PID 1 always is the parent, does there what tini is for."
)

# What natsup does otherwise than the program that runs bare, and why. There is to be no difference
# that is not here.
EXPLAINED: dict[tuple[str, str], str] = {
    ("a signal sent to its process group (kill -- -PGID)", "as parent"): (
        "The signal reaches the program by itself and through natsup, which cannot tell it from one"
        " that is meant for natsup alone. The terminal's signals, which the kernel marks, arrive"
        " once."
    ),
    ("time around it: the program's CPU time", "as parent"): (
        "The program is the child of natsup's supervisor, which lives on for a moment to clean up"
        " on the router, and is not waited for."
    ),
    ("pid", "as parent"): _PID,
    ("parent", "as parent"): _PID,
    ("as PID 1: zombies of orphans", "in place"): _PID_1,
    ("as PID 1: zombies of orphans", "as parent"): _PID_1,
    ("as PID 1: SIGTERM, which the program does not handle", "in place"): _PID_1,
    ("as PID 1: SIGTERM, which the program does not handle", "as parent"): _PID_1,
}

_HEAD = """\
# Manners

`natsup exec` stands between a person, a service manager or a container engine and a program. None
of them may notice. This is what they see when the program runs bare, under natsup *in place* (the
default: natsup becomes the program) and *as parent* (as PID 1, where Yama asks for it, and with
`--as-parent`), and under [tini](https://github.com/krallin/tini) (`tini -s`, as PID 1 `tini`).

`just manners` makes this page by trying all of it, and the tests fail where something else comes
out. "=": as bare. A number: explained below.

"""


def rows(group: Group, all_ways: list[Way]) -> dict[str, list[str]]:
    """What comes out of one group: for each behaviour what was seen in each way."""
    seen = [group(way, all_ways[0]) for way in all_ways]
    assert all(list(one) == list(seen[0]) for one in seen), seen
    return {name: [one[name] for one in seen] for name in seen[0]}


def differences(found: dict[str, list[str]]) -> set[tuple[str, str]]:
    """Where natsup is not as bare: behaviours and ways. Pure."""
    return {
        (name, way)
        for name, seen in found.items()
        for way, text in zip(WAYS[:3], seen[:3], strict=True)
        if text != seen[0]
    }


def line(name: str, seen: list[str]) -> str:
    """One row. Pure."""
    numbers = {text: number for number, text in enumerate(dict.fromkeys(EXPLAINED.values()), 1)}
    cells = []
    for way, text in zip(WAYS, seen, strict=True):
        cell = text if way == "bare" or text != seen[0] else "="
        why = EXPLAINED.get((name, way))
        cells.append(cell if why is None else f"{cell} ({numbers[why]})")
    return f"| {' | '.join([name, *cells])} |\n".replace("\\", "\\\\")


def page(found: dict[str, list[str]]) -> str:
    """The whole page. Pure."""
    head = f"| | {' | '.join(WAYS)} |\n|---|{'---|' * len(WAYS)}\n"
    table = "".join(line(name, seen) for name, seen in found.items())
    reasons = dict.fromkeys(EXPLAINED.values())
    notes = "".join(f"{number}. {text}\n" for number, text in enumerate(reasons, 1))
    return f"{_HEAD}{head}{table}\n{notes}"


def main(names: list[str]) -> int:
    """Make the page; with names of groups, print what comes out of these."""
    apart.own_network()
    found: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        all_ways = ways(Path(folder))
        for way in all_ways:
            way.thorough = not names
        for group in GROUPS:
            if not names or group.__name__ in names:
                some = rows(group, all_ways)
                found |= some
                print("".join(line(name, seen) for name, seen in some.items()), end="", flush=True)
    unexplained = differences(found) - set(EXPLAINED)
    print("".join(f"unexplained: {name}, {way}\n" for name, way in unexplained), end="")
    if not names:
        PAGE.write_text(page(found))
    return bool(unexplained)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
