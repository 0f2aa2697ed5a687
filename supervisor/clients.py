"""Telling clients from servers. Pure; the clock is an argument.

A resolver binds a random UDP port for every question it asks: 280 for a hundred questions. Such a
port is no offer to the Internet, and the router must not be flooded with it. The rule: a process
of which `SHORT_LIVED` UDP sockets in `WINDOW` seconds ended within `BRIEF` seconds of their bind
is a client, and its UDP binds pass until it has been quiet for `WINDOW` seconds. So is one that
got `CROWD` UDP ports within `BURST` seconds: a resolver that is asked many things at once has not
closed a socket by then, and would wait for the router at each. Sockets that never got a port
(another host owned it, so the program tried the next) do not count: a BitTorrent program that
looks for a free port is a server. Nor do several sockets of one port, like those of a server's
workers.

Some programs are known by their names, and the user may name more, of either kind.
"""

from collections import deque
from collections.abc import Iterable

BRIEF = 3.0
WINDOW = 30.0
SHORT_LIVED = 4
BURST = 10.0
CROWD = 8
_MOST = 1024  # processes that are remembered without a look at which of them count still

# These ask the name system for a living, and would otherwise be learned at every start.
RESOLVERS = frozenset({"unbound", "named", "dnsmasq", "pdns_recursor", "kresd", "systemd-resolve"})

LONGEST_NAME = 15  # bytes of a process's name that the kernel keeps: TASK_COMM_LEN
EVERY = "all"  # among the names: all that are not named as the other kind

# Why a process is a client, for people.
A_RESOLVER = "a known resolver"
NAMED = "named by --clients"
MANY_AT_ONCE = f"{CROWD} UDP ports within {BURST:g} s"
ALL_BRIEF = f"{SHORT_LIVED} UDP sockets within {WINDOW:g} s lived less than {BRIEF:g} s each"


def kept(name: str) -> str:
    """A name as the kernel keeps it."""
    return name.encode(errors="replace")[:LONGEST_NAME].decode(errors="replace")


class Clients:
    """Which processes are clients of UDP, by their names, or learned from the sockets they had.

    ``clients``: the names of programs that are always clients; ``servers``: of those that never
    are. Either may be `EVERY`.
    """

    def __init__(self, clients: Iterable[str] = (), servers: Iterable[str] = ()) -> None:
        self._clients = frozenset(map(kept, clients))
        self._servers = frozenset(map(kept, servers))
        self._brief: dict[int, list[float]] = {}  # process: when its short-lived sockets ended
        self._got: deque[tuple[float, int, int]] = deque()  # of late: when, which process and port

    def by_name(self, name: str) -> str | None:
        """Why a program of this name is a client whatever it does; None if it may be a server."""
        if name in self._clients or (EVERY in self._clients and name not in self._servers):
            return NAMED
        return A_RESOLVER if name in RESOLVERS and not self.serves(name) else None

    def serves(self, name: str) -> bool:
        """Is a program of this name that is no client by its name a server whatever it does?"""
        return EVERY in self._servers or name in self._servers

    def got(self, process: int, number: int, now: float) -> bool:
        """A UDP socket of this process was bound to this port.

        Returns whether the process has become a client by that.
        """
        while self._got and now - self._got[0][0] >= BURST:
            self._got.popleft()
        self._got.append((now, process, number))
        if len({port for _, other, port in self._got if other == process}) < CROWD:
            return False
        self._got = deque(entry for entry in self._got if entry[1] != process)
        self._brief[process] = [now] * SHORT_LIVED
        return True

    def ended(self, process: int, *, lived: float, now: float) -> bool:
        """A UDP socket that had been bound for ``lived`` seconds is no more.

        Returns whether its process is a client. Times in seconds.
        """
        if lived < BRIEF:
            self._brief.setdefault(process, []).append(now)
            if len(self._brief) > _MOST:
                self._forget(now)
        return self.is_client(process, now)

    def _forget(self, now: float) -> None:
        """Forget processes that have been quiet; most of them are no more."""
        for process, times in list(self._brief.items()):
            if now - times[-1] >= WINDOW:
                self._brief.pop(process, None)

    def is_client(self, process: int, now: float) -> bool:
        """Is this process a client at this time?"""
        times = [t for t in self._brief.get(process, ()) if now - t < WINDOW]
        if times:
            self._brief[process] = times[-SHORT_LIVED:]
        else:
            self._brief.pop(process, None)
        return len(times) >= SHORT_LIVED

    def passed(self, process: int, now: float) -> None:
        """A client's bind was passed: it goes on being one."""
        if process in self._brief:
            self._brief[process] = [now] * SHORT_LIVED


class Once:
    """Tells what is new among things that come again and again. Of many it forgets the oldest."""

    def __init__(self, most: int = 1024) -> None:
        self._most = most
        self._seen: dict[tuple[int, str], None] = {}

    def first(self, process: int, name: str) -> bool:
        """Is it new? By its name, too: the numbers of processes are used again."""
        if (process, name) in self._seen:
            return False
        self._seen[process, name] = None
        if len(self._seen) > self._most:
            del self._seen[next(iter(self._seen))]
        return True
