"""What can befall natsup's processes, and at which of their steps: the cases that are played."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from natsup.state import points


class Event(StrEnum):
    SUPERVISOR = "supervisor killed"
    GUARD = "guard killed"
    PROGRAM = "program killed"
    BOTH = "supervisor and guard killed"
    ROUTER = "router gone, and back"
    FULL = "no space for the journal"
    FORWARD = "clock a day ahead"
    BACK = "clock a day back"


class Layout(StrEnum):
    IN_PLACE = "in place"
    AS_PARENT = "as parent"


@dataclass(frozen=True)
class Shape:
    """What the program binds, and with which options of natsup's."""

    name: str
    make: str = "socket.socket()"
    host: str = ""
    words: tuple[str, ...] = ()
    udp: bool = False
    chosen: bool = False  # the kernel chooses the port
    before: str = ""  # what is done to the socket before bind()
    after: str = ""  # and after it
    signals: bool = False


SHAPES = (
    Shape("tcp"),
    Shape("udp", "socket.socket(type=socket.SOCK_DGRAM)", udp=True, words=("--servers", "all")),
    Shape("tcp, listening", after="{0}.listen()"),
    Shape("tcp, port 0", words=("--ephemeral",), chosen=True),
    Shape("tcp, close() trapped", words=("--track-close", "seccomp")),
    Shape("tcp6", "socket.socket(socket.AF_INET6)", host="::"),
    Shape("tcp, SO_REUSEADDR", before="{0}.setsockopt(1, 2, 1)", after="{0}.listen()"),
    Shape("tcp, signals", signals=True),
)


@dataclass(frozen=True)
class Case:
    step: str
    event: Event
    layout: Layout

    @property
    def shape(self) -> Shape:
        """Not all of them with everything, but all of them with every step, event and layout."""
        number = points.ALL.index(self.step) + 3 * list(Event).index(self.event)
        shapes: tuple[Shape, ...] = SHAPES
        if self.step in points.PASSING:  # natsup neither chooses a port there nor sees it at once
            shapes = tuple(s for s in shapes if not s.chosen and "seccomp" not in s.words)
        elif self.step in points.START:  # where close() is trapped, no program gets as far
            shapes = tuple(s for s in shapes if "seccomp" not in s.words)
        return shapes[(number + 5 * list(Layout).index(self.layout)) % len(shapes)]

    def __str__(self) -> str:
        return f"{self.step}, {self.event}, {self.layout} ({self.shape.name})"


def everything() -> Iterator[Case]:
    """Every step with all that can befall it. At the end of a session there is no program."""
    for step, event, layout in itertools.product(points.ALL, Event, Layout):
        if not (step in points.END and event is Event.PROGRAM):
            yield Case(step, event, layout)


def selection() -> list[Case]:
    """Every step once, and with them every event in every layout."""
    found = []
    pairs = itertools.cycle(itertools.product(Event, Layout))
    for step in points.ALL:
        event, layout = next(pairs)
        if step in points.END and event is Event.PROGRAM:
            event, layout = Event.SUPERVISOR, layout
        found.append(Case(step, event, layout))
    return found
