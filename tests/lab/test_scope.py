"""What natsup never tells the router of, by listening to what the router is told."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from natsup.state.model import Protocol
from natsup.supervisor.verdict import NEVER
from tests.lab.lab import LAN1, Lab
from tests.lab.overheard import Overheard
from tests.lab.program import Program

FIRST, LAST = 7000, 7999  # mapped before and after whatever is not to be
# For sockets of both families on one port, and of other programs of the host.
SHARED = "s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)"


class Scope:
    """A program under natsup, and an ear at the router."""

    def __init__(self, lab: Lab, folder: Path, *words: str) -> None:
        self._lab = lab
        self._overheard = Overheard(lab, folder)
        self.program = Program(lab, folder, *words)

    @contextlib.contextmanager
    def asks_nothing(self) -> Iterator[None]:
        """The router is asked for nothing while the block lasts."""
        assert self.program.bind("first", FIRST) is None
        yield
        assert self.program.bind("last", LAST) is None
        # What is heard is heard in its order, and a bind that is published asks before it returns.
        self._lab.wait_for(lambda: f"tcp/{LAST}" in self._overheard.ports())
        assert set(self._overheard.ports()) == {f"tcp/{FIRST}", f"tcp/{LAST}"}
        assert self._lab.table() == {f"tcp/{FIRST}": LAN1, f"tcp/{LAST}": LAN1}

    def bind(self, kind: str, family: str, address: str, port: int, before: str = "") -> None:
        """A socket that is bound, to stay."""
        do = self.program.do
        do(f"s = socket.socket(socket.AF_{family}, socket.SOCK_{kind})")
        if before:
            assert do(before) is None
        assert do(f"s.bind(({address!r}, {port}))") is None, (kind, family, address, port)
        do("kept = globals().setdefault('kept', []); kept.append(s)")


def test_ports_below_1024(lab: Lab, tmp_path: Path) -> None:
    scope = Scope(lab, tmp_path)
    with scope.asks_nothing():
        for number in (1, 53, 80, 443, 1023):
            for kind in ("STREAM", "DGRAM"):
                for family in ("INET", "INET6"):
                    scope.bind(kind, family, "", number, before=SHARED)
    assert scope.program.do("len(kept)") == 20


@pytest.mark.parametrize("kind", ["STREAM", "DGRAM"])
def test_specific_addresses(lab: Lab, tmp_path: Path, kind: str) -> None:
    scope = Scope(lab, tmp_path)
    lab.run("lan1", ["ip", "addr", "add", "2001:db8::7/64", "dev", "eth0", "nodad"], check=True)
    to_device = "s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'eth0')"
    with scope.asks_nothing():
        scope.bind(kind, "INET", "127.0.0.1", 7001)
        scope.bind(kind, "INET", LAN1, 7002)  # the one that leads to the router
        scope.bind(kind, "INET", LAN1, 7003, before=to_device)
        scope.bind(kind, "INET6", "::1", 7004)
        scope.bind(kind, "INET6", f"::ffff:{LAN1}", 7005)
        scope.bind(kind, "INET6", "::ffff:127.0.0.1", 7006)
        scope.bind(kind, "INET6", "2001:db8::7", 7007)
    assert scope.program.do("len(kept)") == 7


def test_other_addresses_and_families(lab: Lab, tmp_path: Path) -> None:
    only = "s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)"
    scope = Scope(lab, tmp_path)
    with scope.asks_nothing():
        scope.bind("DGRAM", "INET", "239.192.152.143", 7001)  # multicast
        scope.bind("DGRAM", "INET", "192.168.77.255", 7002)  # broadcast
        scope.bind("STREAM", "INET6", "::", 7003, before=only)
        scope.bind("DGRAM", "INET6", "::", 7004, before=only)
        for kind in ("STREAM", "DGRAM"):
            for family in ("INET", "INET6"):
                scope.bind(kind, family, "", 0)


def test_the_ports_that_are_never_published(lab: Lab, tmp_path: Path) -> None:
    assert {port.protocol for port in NEVER} == {Protocol.UDP}
    scope = Scope(lab, tmp_path)
    with scope.asks_nothing():
        for port in NEVER:
            for family in ("INET", "INET6"):
                scope.bind("DGRAM", family, "", port.number, before=SHARED)
    assert scope.program.do("len(kept)") == 2 * len(NEVER) > 0


def test_ports_that_the_user_does_not_name(lab: Lab, tmp_path: Path) -> None:
    scope = Scope(lab, tmp_path, "--ports", "7000-7010,7999")
    with scope.asks_nothing():
        for number in (1024, 6999, 7011, 7998, 8000, 65535):
            for kind in ("STREAM", "DGRAM"):
                for family in ("INET", "INET6"):
                    scope.bind(kind, family, "", number, before=SHARED)


def test_ports_that_the_user_denies(lab: Lab, tmp_path: Path) -> None:
    scope = Scope(lab, tmp_path, "--deny", "7001,7002/udp,7003/tcp")
    with scope.asks_nothing():
        scope.bind("STREAM", "INET", "", 7001)
        scope.bind("DGRAM", "INET", "", 7001)
        scope.bind("DGRAM", "INET6", "", 7002)
        scope.bind("STREAM", "INET6", "", 7003)


def test_what_is_next_to_it_is_published(lab: Lab, tmp_path: Path) -> None:
    """The same calls, one number or one word away: or nothing above would mean anything."""
    scope = Scope(lab, tmp_path, "--deny", "7002/udp,7003/tcp", "--own-address")
    assert scope.program.bind("first", FIRST) is None  # by now the router is known
    scope.bind("STREAM", "INET", "", 1024)
    scope.bind("STREAM", "INET", "", 1900)
    scope.bind("STREAM", "INET", "", 7002)
    scope.bind("DGRAM", "INET6", "", 7003)
    scope.bind("STREAM", "INET", LAN1, 7004)
    scope.bind("DGRAM", "INET6", f"::ffff:{LAN1}", 7005)
    wanted = {"tcp/7000", "tcp/1024", "tcp/1900", "tcp/7002", "udp/7003", "tcp/7004", "udp/7005"}
    assert lab.table() == dict.fromkeys(wanted, LAN1)


@pytest.mark.parametrize("words", [(), ("--ports", "7000-65535")])
def test_ssdp_is_everybodys(lab: Lab, tmp_path: Path, words: tuple[str, ...]) -> None:
    """Its port can be bound by a program that shares it with nobody, under natsup or beside it."""
    scope = Scope(lab, tmp_path, *words)
    with scope.asks_nothing():
        scope.bind("DGRAM", "INET6", "", 1900)
        assert scope.program.do("kept.pop().close()") is None
        beside = "import socket; socket.socket(type=socket.SOCK_DGRAM).bind(('', 1900))"
        lab.run("lan1", [sys.executable, "-c", beside], check=True)
