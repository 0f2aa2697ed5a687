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

import math
from collections.abc import Hashable, Iterable

BRIEF = 3.0
WINDOW = 30.0
SHORT_LIVED = 4
BURST = 10.0
CROWD = 8
_MOST = 1024  # processes that are remembered

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
        # Process: the ports that it got of late, and when. Who got one last comes last.
        self._got: dict[int, dict[int, float]] = {}

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
        before = self._got.pop(process, {})
        ports = {port: when for port, when in before.items() if now - when < BURST}
        ports[number] = now
        if len(ports) < CROWD:
            self._got[process] = ports
            if len(self._got) > _MOST:
                del self._got[next(iter(self._got))]
            return False
        self._brief[process] = [now] * SHORT_LIVED
        return True

    def ended(self, process: int, *, lived: float, now: float) -> bool:
        """A UDP socket that had been bound for ``lived`` seconds is no more.

        Returns whether its process is a client. Times in seconds.
        """
        if lived < BRIEF:
            self._brief.setdefault(process, []).append(now)
            if len(self._brief) > _MOST:
                self._forget()
        return self.is_client(process, now)

    def _forget(self) -> None:
        """Forget processes that have been quiet the longest; most of them are no more. A quarter at
        once, so that it need not be done for each."""
        by_age = sorted(self._brief.items(), key=lambda entry: entry[1][-1])
        for process, _ in by_age[: _MOST // 4]:
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
    """Tells what is new among things that come again and again, or come ``again`` after so many
    seconds. Of many it forgets the oldest. Two threads may use it."""

    def __init__(self, most: int = 1024, again: float = math.inf) -> None:
        self._most = most
        self._again = again
        self._seen: dict[Hashable, float] = {}

    def first(self, thing: Hashable, now: float = 0.0) -> bool:
        """Is it new?"""
        before = self._seen.get(thing)
        if before is not None and now - before < self._again:
            return False
        self._seen[thing] = now
        if len(self._seen) > self._most:
            for old in list(self._seen)[: self._most // 4 + 1]:
                self._seen.pop(old, None)
        return True

    def forget(self, thing: Hashable) -> None:
        """It has ceased: should it come again, it is new."""
        self._seen.pop(thing, None)
