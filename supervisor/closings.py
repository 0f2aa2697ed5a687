"""When sockets end, seen by the program's own calls of close(): where sock_diag(7) is missing.

A close() does not say whether it was the last one: the socket may live on in forks, in copies, in
messages under way. And not every end is a close(): there are exit, exec, dup2, kill. So each that
is trapped is only a reason to look at what is alive, and so are the end of a process that has
bound a socket, and, for the rest, time. Some facts about looking:

* /proc/net lists sockets by inode: UDP from their bind on, TCP while it listens or is connected.
* It is read page by page and may change in between, so that a socket can be passed over. What is
  missing is looked for twice; where much changes even that is not enough.
* A TCP socket that is bound and not listening is not there, nor one after shutdown(2).
* So what is missing has ended only if its process does not have it open any more, and then if its
  port can be bound, or, for TCP, if it was listed before: connections can outlive their server, and
  keep the port. Where several sockets have one port, no process at all may have it open.
* The trapped close() is carried out only after natsup has let it pass, some microseconds later.
"""

import contextlib
import logging
import os
import select
import socket
import sys
from collections import Counter
from collections.abc import Iterable, Sequence, Set

import trio

from natsup.state import aside
from natsup.state.model import Port, Protocol
from natsup.supervisor.bell import Bell
from natsup.supervisor.endings import Watched, port_is_free

log = logging.getLogger("natsup.session")

_SETTLE = 0.02  # seconds from the reason to look until the look: more may come
_SHARE = 10.0  # a look that takes long is made more rarely: at most a tenth of the time
_EVERY = 1.0  # seconds between looks without a reason

_FILES: dict[tuple[int, Protocol], str] = {
    (socket.AF_INET, Protocol.TCP): "/proc/self/net/tcp",
    (socket.AF_INET, Protocol.UDP): "/proc/self/net/udp",
    (socket.AF_INET6, Protocol.TCP): "/proc/self/net/tcp6",
    (socket.AF_INET6, Protocol.UDP): "/proc/self/net/udp6",
}
_LOCAL, _INODE = 1, 9  # columns, proc_pid_net(5)


class Closings:
    """Watches sockets of this network namespace; ``bell`` is rung after each trapped close()."""

    def __init__(self, bell: Bell, *, pidfds: bool = True) -> None:
        """``pidfds``: whether a sandbox lets natsup open them."""
        self._bell = bell
        self._watched: dict[int, Watched] = {}
        self._something = trio.Event()  # is watched
        self._listed: set[int] = set()  # cookies of sockets that /proc/net has shown
        self._epoll = select.epoll()  # readable if the bell is, or one of the processes
        self._epoll.register(bell.fd, select.EPOLLIN)
        self._processes: dict[int, int] = {}  # pid: its pidfd
        self._pidfds = pidfds
        self._complained = False

    def close(self) -> None:
        """Nothing is watched any more."""
        for process in list(self._processes):
            self._forget(process)
        self._epoll.close()

    def watch(self, watched: Watched) -> None:
        """From now on the end of this socket is reported."""
        self._watched[watched.cookie] = watched
        self._something.set()
        if self._pidfds and watched.process not in self._processes:
            with contextlib.suppress(OSError):  # then time will tell
                pidfd = os.pidfd_open(watched.process)
                try:
                    self._epoll.register(pidfd, select.EPOLLIN)
                except OSError:
                    os.close(pidfd)
                    raise
                self._processes[watched.process] = pidfd

    def unwatch(self, cookie: int) -> None:
        """Its end is of no interest any more."""
        one = self._watched.pop(cookie, None)
        if one is None:
            return
        self._listed.discard(cookie)
        if not any(other.process == one.process for other in self._watched.values()):
            self._forget(one.process)
        if not self._watched:
            self._something = trio.Event()

    def _forget(self, process: int) -> None:
        pidfd = self._processes.pop(process, None)
        if pidfd is not None:
            self._epoll.unregister(pidfd)
            os.close(pidfd)

    def watches(self, cookie: int) -> bool:
        """Has the end of this socket not been reported yet?"""
        return cookie in self._watched

    async def next(self) -> list[Watched]:
        """Wait for ends. Returns the sockets that have ended, which are watched no more."""
        pause = _SETTLE
        while True:
            await self._something.wait()  # and leave the bell rung: nobody has to ring it then
            with trio.move_on_after(max(_EVERY, pause)):
                await trio.lowlevel.wait_readable(self._epoll)
                await trio.sleep(pause)
            self._bell.hear()
            for process in [pid for pid, pidfd in self._processes.items() if _ended(pidfd)]:
                self._forget(process)
            before, watched = trio.current_time(), list(self._watched.values())
            counts = Counter(one.port for one in watched)
            shared = {port for port, count in counts.items() if count > 1}
            try:
                listed, still = await aside.run(_look_round, watched, shared)
            except OSError as error:
                if not self._complained:
                    log.warning("what has ended cannot be seen: %s", error.strerror)
                self._complained = True
                await trio.sleep(_EVERY)
                continue
            pause = max(_SETTLE, (trio.current_time() - before) * _SHARE)
            alive = listed | still
            gone = [
                one
                for one in watched
                if one.cookie in self._watched
                and one.cookie not in alive
                and (one.port in shared or self._is_gone(one))
            ]
            self._listed |= listed & self._watched.keys()
            if gone:
                for one in gone:
                    self.unwatch(one.cookie)
                return gone

    def _is_gone(self, one: Watched) -> bool:
        """Has a socket ended that /proc/net does not show, and its process has no more?"""
        if one.port.protocol is Protocol.TCP and one.cookie in self._listed:
            return True
        return port_is_free(one)


def _look_round(watched: Sequence[Watched], shared: Set[Port]) -> tuple[set[int], set[int]]:
    """What `look` finds, and of the others what `open_somewhere` does."""
    shown = look(watched)
    return shown, open_somewhere([one for one in watched if one.cookie not in shown], shared)


def look(watched: Sequence[Watched]) -> set[int]:
    """The cookies of those sockets that /proc/net shows. Blocks for some milliseconds; OSError."""
    found: set[int] = set()
    for _ in range(2):
        missing = [one for one in watched if one.cookie not in found]
        for key in {(one.domain, one.port.protocol) for one in missing}:
            inodes = listed(*key)
            found |= {one.cookie for one in missing if one.inode in inodes}
    return found


def listed(domain: int, protocol: Protocol) -> dict[int, tuple[bytes, int]]:
    """A table of /proc/net, as `read_table` has it. Blocks for some milliseconds; OSError."""
    with open(_FILES[domain, protocol], "rb") as file:
        return read_table(file)


def read_table(lines: Iterable[bytes]) -> dict[int, tuple[bytes, int]]:
    """A table of /proc/net, its heading first: address (4 or 16 bytes) and port (host order) of
    each socket, by inode. Pure.

    An address is written as words of 32 bits, each in this machine's order.
    """
    found = {}
    for line in lines:
        row = line.split()
        if len(row) > _INODE and row[_INODE].isdigit():
            host, _, port = row[_LOCAL].partition(b":")
            words = (int(host[at : at + 8], 16) for at in range(0, len(host), 8))
            address = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
            found[int(row[_INODE])] = (address, int(port, 16))
    return found


def open_somewhere(missing: Sequence[Watched], shared: Set[Port]) -> set[int]:
    """The cookies of those sockets that their processes have open; where a port is ``shared``, that
    any process has. Blocks for some milliseconds."""
    # Each process is read once: of sockets that were bound and closed quickly there are thousands.
    there = {process: _open_in(process) for process in {one.process for one in missing}}
    found = {one.cookie for one in missing if one.inode in there[one.process]}
    rest = [one for one in missing if one.cookie not in found and one.port in shared]
    if rest:
        processes = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        anywhere = {inode for process in processes for inode in _open_in(process)}
        found |= {one.cookie for one in rest if one.inode in anywhere}
    return found


def _open_in(process: int) -> set[int]:
    """The inodes of the sockets that a process has open, as far as that can be seen."""
    found = set()
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{process}/fd"):
            with contextlib.suppress(OSError):  # closed meanwhile
                kind, _, inode = os.readlink(f"/proc/{process}/fd/{name}").partition(":[")
                if kind == "socket":
                    found.add(int(inode.rstrip("]")))
    return found


def _ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))
