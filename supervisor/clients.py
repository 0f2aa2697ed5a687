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
"""

from collections import deque

BRIEF = 3.0
WINDOW = 30.0
SHORT_LIVED = 4
BURST = 10.0
CROWD = 8

# These ask the name system for a living, and would otherwise be learned at every start.
RESOLVERS = frozenset({"unbound", "named", "dnsmasq", "pdns_recursor", "kresd", "systemd-resolve"})


class Clients:
    """Which processes are clients of UDP, learned from the sockets they had."""

    def __init__(self) -> None:
        self._brief: dict[int, list[float]] = {}  # process: when its short-lived sockets ended
        self._got: deque[tuple[float, int, int]] = deque()  # of late: when, which process and port

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
        return self.is_client(process, now)

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
