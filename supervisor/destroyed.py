"""When sockets end, told by the kernel: sock_diag(7)'s destroy events, and what is alive.

close() does not tell: a socket lives on in forks, in copies, in messages under way. The kernel
does, when the last copy has gone: it sends the dying socket's cookie to whoever joined the group
of its family and protocol. Some facts about that:

* It needs no privilege and covers the network namespace that the netlink socket was made in.
* While a group has a member, the end of *every* socket of that kind costs the namespace some
  microseconds. So a group is joined only while a socket of its kind is watched, and a classic BPF
  filter drops in the kernel what is not ours.
* The queue can overflow (ENOBUFS); then events are lost, and only a look tells what has ended.
* A multipath TCP socket has a cookie that no event carries: what ends there is its subflow. Its
  events are recognised by the port, and by having no peer, unlike the connections that it accepts.
  Each is a reason to look.
* A TCP socket that is bound and not listening is listed by inet_diag only since Linux 6.8
  (TCPF_BOUND_INACTIVE).
"""

import errno
import logging
import socket
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from functools import cache, lru_cache

import trio

from natsup.state import aside
from natsup.state.model import Protocol
from natsup.supervisor import diag
from natsup.supervisor.endings import Watched, port_is_free
from natsup.upnp import bpf

log = logging.getLogger("natsup.session")

_LOOK_AGAIN_SECONDS = 5.0

_SOL_NETLINK, _ADD_MEMBERSHIP, _DROP_MEMBERSHIP = 270, 1, 2

# enum sknetlink_groups, linux/sock_diag.h
_GROUPS: dict[tuple[int, Protocol], int] = {
    (socket.AF_INET, Protocol.TCP): 1,
    (socket.AF_INET, Protocol.UDP): 2,
    (socket.AF_INET6, Protocol.TCP): 3,
    (socket.AF_INET6, Protocol.UDP): 4,
}
KERNEL_PROTOCOLS = {Protocol.TCP: socket.IPPROTO_TCP, Protocol.UDP: socket.IPPROTO_UDP}

_LISTEN, _BOUND_INACTIVE = 10, 13
_STATES_OF_A_SERVER = 1 << _LISTEN | 1 << _BOUND_INACTIVE

# Beyond this many the filter lets everything through and Python sorts it out: a longer one would
# have to be rebuilt at every change.
_MOST_FILTERED = 400
_WHOLE_MESSAGE = 0xFFFFFFFF
_MOST_LISTINGS = 4  # of one port each, before everything is listed at once


class Overflow(Exception):
    """Events were lost."""


def filter_program(watched: Collection[Watched]) -> bytes:
    """The BPF program that lets the events of these sockets through, and no others.

    Words are loaded in network order, while a cookie lies in the machine's own. The low half of
    the cookie is enough: what else has it costs a look in a table.
    """
    if len(watched) > _MOST_FILTERED:
        return bpf.instruction(bpf.RET, _WHOLE_MESSAGE)
    singles = [w for w in watched if not w.multipath]
    ports = sorted({w.port.number for w in watched if w.multipath})
    lows = sorted({(w.cookie & 0xFFFFFFFF).to_bytes(4, sys.byteorder) for w in singles})
    program = bpf.instruction(bpf.LD_WORD, diag.COOKIE_AT)
    program += b"".join(map(_letting_through, lows))
    if ports:
        program += bpf.instruction(bpf.LD_HALF, diag.PEER_PORT_AT)
        program += bpf.instruction(bpf.JEQ, 0, 1, 0)
        program += bpf.instruction(bpf.RET, 0)
        program += bpf.instruction(bpf.LD_HALF, diag.PORT_AT)
    for port in ports:
        program += bpf.instruction(bpf.JEQ, port, 0, 1)
        program += bpf.instruction(bpf.RET, _WHOLE_MESSAGE)
    return program + bpf.instruction(bpf.RET, 0)


@lru_cache(_MOST_FILTERED)
def _letting_through(low: bytes) -> bytes:
    """Kept, because the program is made anew for each socket."""
    equal = bpf.instruction(bpf.JEQ, int.from_bytes(low, "big"), 0, 1)
    return equal + bpf.instruction(bpf.RET, _WHOLE_MESSAGE)


class DestroyEvents:
    """Watches sockets of this network namespace. Raises OSError where sock_diag is missing."""

    def __init__(self) -> None:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, diag.NETLINK_SOCK_DIAG)
        sock.bind((0, 0))  # without an address of its own it would get no multicasts
        self._socket = trio.socket.from_stdlib_socket(sock)
        self._watched: dict[int, Watched] = {}
        self._multipath: dict[int, Watched] = {}  # of these: no event has their cookies
        self._wanted = Counter[int]()  # groups, by how many of the watched sockets are of each
        self._joined: set[int] = set()
        self._attached = b""

    def close(self) -> None:
        self._socket.close()

    def watch(self, watched: Watched) -> None:
        """From now on the end of this socket is reported. Raises OSError."""
        self._forget(watched.cookie)
        self._watched[watched.cookie] = watched
        if watched.multipath:
            self._multipath[watched.cookie] = watched
        self._wanted[_GROUPS[watched.domain, watched.port.protocol]] += 1
        self._adjust()

    def unwatch(self, cookie: int) -> None:
        if self._forget(cookie):
            self._adjust()

    def _forget(self, cookie: int) -> bool:
        """Was it watched?"""
        one = self._watched.pop(cookie, None)
        self._multipath.pop(cookie, None)
        if one is not None:
            self._wanted[_GROUPS[one.domain, one.port.protocol]] -= 1
        return one is not None

    def _adjust(self) -> None:
        """Make filter and groups what the watched sockets need, the filter first."""
        program = filter_program(self._watched.values())
        if program != self._attached:
            bpf.attach(self._socket, program)
            self._attached = program
        wanted = {group for group, count in self._wanted.items() if count}
        for group in wanted - self._joined:
            self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
            self._joined.add(group)
        for group in self._joined - wanted:
            self._socket.setsockopt(_SOL_NETLINK, _DROP_MEMBERSHIP, group)
        self._joined = wanted

    def watches(self, cookie: int) -> bool:
        """Has the end of this socket not been reported yet?"""
        return cookie in self._watched

    async def next(self) -> list[Watched]:
        """Wait for ends. Returns the sockets that have ended, which are watched no more."""
        while True:
            try:
                found = await self._receive()
                unsure = [one for one in found if one.multipath]
            except Overflow:
                log.info("the kernel dropped events: looking at what is alive")
                found = unsure = list(self._watched.values())
            if unsure:
                dead = set(await self._look(unsure))
                alive = {one for one in unsure if one not in dead}
                found = [one for one in found if one not in alive]
            if found:
                for one in found:
                    self._forget(one.cookie)
                self._adjust()
                return found

    async def _receive(self) -> list[Watched]:
        """The sockets that one batch of events is about; multipath ones perhaps live on.

        Raises `Overflow`.
        """
        while True:
            try:
                data = await self._socket.recv(1 << 16)
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    raise Overflow from error
                raise
            found = self._concerned(data)
            if found:
                return found

    def _concerned(self, data: bytes) -> list[Watched]:
        found = []
        for _, message in diag.messages(data):
            event = diag.read_diag(message)
            if event is None:
                continue
            if event.cookie in self._watched:
                found.append(self._watched[event.cookie])
            elif event.peer_port == 0:
                multipath = self._multipath.values()
                found += [one for one in multipath if one.port.number == event.port]
        return found

    async def _look(self, unsure: list[Watched]) -> list[Watched]:
        while True:
            try:
                missing = await aside.run(unlisted, unsure)
            except OSError as error:
                log.warning("what has ended cannot be seen: %s", error.strerror)
                await trio.sleep(_LOOK_AGAIN_SECONDS)
            else:
                return [
                    one
                    for one, listable in missing
                    if listable or port_is_free(one, reuse=one.multipath)
                ]


def unlisted(watched: Sequence[Watched]) -> list[tuple[Watched, bool]]:
    """Which of these sockets the kernel does not list, each with whether it would if it were alive.
    Blocks for some milliseconds; OSError."""
    kinds: dict[tuple[int, Protocol], list[Watched]] = {}
    for one in watched:
        kinds.setdefault((one.domain, one.port.protocol), []).append(one)
    listed = {one for kind, some in kinds.items() for one in _listed(*kind, some)}
    missing = [one for one in watched if one not in listed]
    bound_too = not any(one.port.protocol is Protocol.TCP for one in missing) or lists_bound()
    return [(one, bound_too or one.port.protocol is Protocol.UDP) for one in missing]


def _listed(domain: int, protocol: Protocol, watched: Sequence[Watched]) -> Iterator[Watched]:
    """Those that the kernel lists, of sockets of one kind. Of many ports all is read once: a
    listing of one port has all sockets that are bound and do not listen, whatever their ports."""
    ports = {one.port.number for one in watched}
    found = diag.find(
        domain,
        KERNEL_PROTOCOLS[protocol],
        {_key(one) for one in watched},
        _keys,
        ports=ports if len(ports) <= _MOST_LISTINGS else (0,),
    )
    for one in watched:
        if _key(one) in found:
            yield one


# A multipath socket is listed by its subflow's cookie, which is not known: any server of its port.
_Key = tuple[int | None, int]  # cookie, port


def _key(one: Watched) -> _Key:
    return None if one.multipath else one.cookie, one.port.number


def _keys(found: diag.Diag) -> Iterator[_Key]:
    yield found.cookie, found.port
    if 1 << found.state & _STATES_OF_A_SERVER:
        yield None, found.port


@cache
def lists_bound() -> bool:
    """Does this kernel list TCP sockets that are bound and do not listen (Linux 6.8)?"""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        listing = diag.dump(socket.AF_INET, socket.IPPROTO_TCP, port=port)
        return any(found.port == port for found in listing)
