"""The verdict: design by table, one row a rule."""

import socket
import struct
import sys
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natsup.state.model import Port, Protocol
from natsup.supervisor import sockaddr
from natsup.supervisor.clients import (
    A_RESOLVER,
    BURST,
    CROWD,
    NAMED,
    RESOLVERS,
    SHORT_LIVED,
    WINDOW,
    Clients,
    Once,
)
from natsup.supervisor.ports import Ports, read
from natsup.supervisor.verdict import (
    NEVER,
    Facts,
    Pass,
    Publish,
    Rules,
    judge_address,
    judge_socket,
    passes_at_sight,
    publishable,
)

INET, INET6, UNSPEC = socket.AF_INET, socket.AF_INET6, socket.AF_UNSPEC
TCP, UDP, MPTCP, SCTP, UDPLITE = 6, 17, 262, 132, 136
STREAM, DGRAM, RAW, SEQPACKET = 1, 2, 3, 5


def inet(host: str, port: int, family: int = INET, length: int = 16) -> bytes:
    raw = struct.pack("=H", family) + struct.pack("!H", port) + socket.inet_aton(host) + bytes(200)
    return raw[:length]


def inet6(host: str, port: int, length: int = 28) -> bytes:
    raw = struct.pack("=H", INET6) + struct.pack("!HI", port, 0)
    return (raw + socket.inet_pton(INET6, host) + bytes(200))[:length]


def facts(
    domain: int = INET,
    kind: int = STREAM,
    protocol: int = TCP,
    *,
    bound: bool = False,
    v6only: bool = False,
    foreign: bool = False,
    late: bool = False,
) -> Facts:
    return Facts(domain, kind, protocol, bound=bound, v6only=v6only, foreign=foreign, late=late)


def judge(raw: bytes, given_facts: Facts, rules: Rules | None = None) -> str:
    """Both halves, as the receiver puts them together."""
    address = sockaddr.read(raw)
    rules = rules or Rules()
    passed = judge_address(address, rules)
    if passed is not None:
        return repr(passed)
    assert address is not None
    return repr(judge_socket(address, given_facts, rules))


@pytest.mark.parametrize(
    ("raw", "given_facts", "expected"),
    [
        # what natsup is for
        (inet("0.0.0.0", 6881), facts(), "Publish(tcp/6881)"),
        (inet("0.0.0.0", 6881), facts(kind=DGRAM, protocol=UDP), "Publish(udp/6881)"),
        (inet("0.0.0.0", 6881), facts(protocol=MPTCP), "Publish(tcp/6881)"),
        (inet("0.0.0.0", 6881, length=128), facts(), "Publish(tcp/6881)"),
        (inet("0.0.0.0", 1024), facts(), "Publish(tcp/1024)"),
        (inet("0.0.0.0", 65535), facts(), "Publish(tcp/65535)"),
        # AF_UNSPEC with 0.0.0.0 counts as AF_INET
        (inet("0.0.0.0", 6881, UNSPEC), facts(), "Publish(tcp/6881)"),
        (inet("10.0.0.1", 6881, UNSPEC), facts(), "Pass('not an Internet address')"),
        # IPv6 sockets that also accept IPv4
        (inet6("::", 6881), facts(INET6), "Publish(tcp/6881)"),
        (inet6("::", 6881, 24), facts(INET6), "Publish(tcp/6881)"),
        (inet6("::ffff:0.0.0.0", 6881), facts(INET6), "Publish(tcp/6881)"),
        (inet6("::", 6881), facts(INET6, v6only=True), "Pass('IPv6 alone')"),
        # lengths that the kernel refuses
        (b"", facts(), "Pass('not an Internet address')"),
        (inet("0.0.0.0", 6881, length=15), facts(), "Pass('not an Internet address')"),
        (inet("0.0.0.0", 6881, length=129), facts(), "Pass('not an Internet address')"),
        (inet6("::", 6881, 23), facts(INET6), "Pass('not an Internet address')"),
        (inet6("::", 6881, 129), facts(INET6), "Pass('not an Internet address')"),
        # other families
        (b"\1\0/tmp/socket-of-mine", facts(1), "Pass('not an Internet address')"),
        (b"\x10\0" + bytes(14), facts(16, RAW, 0), "Pass('not an Internet address')"),
        (
            inet("0.0.0.0", 6881),
            facts(INET6),
            "Pass('address and socket are of different families')",
        ),
        (inet6("::", 6881), facts(INET), "Pass('address and socket are of different families')"),
        # specific addresses
        (inet("127.0.0.1", 6881), facts(), "Pass('a specific address')"),
        (inet("192.168.1.5", 6881), facts(), "Pass('a specific address')"),
        (inet("255.255.255.255", 6881), facts(), "Pass('a specific address')"),
        (inet("239.255.255.250", 6881), facts(), "Pass('a specific address')"),
        (inet6("::1", 6881), facts(INET6), "Pass('a specific address')"),
        (inet6("::ffff:127.0.0.1", 6881), facts(INET6), "Pass('a specific address')"),
        # ports
        (inet("0.0.0.0", 0), facts(), "Pass('port 0')"),
        (inet("0.0.0.0", 1023), facts(), "Pass('a privileged port')"),
        (inet("0.0.0.0", 80), facts(), "Pass('a privileged port')"),
        (
            inet("0.0.0.0", 5353),
            facts(kind=DGRAM, protocol=UDP),
            "Pass('a port that is never published')",
        ),
        (inet("0.0.0.0", 5353), facts(), "Publish(tcp/5353)"),
        # protocols: a type is compared, never masked
        (inet("0.0.0.0", 6881), facts(kind=RAW, protocol=255), "Pass('neither TCP nor UDP')"),
        (inet("0.0.0.0", 6881), facts(kind=RAW, protocol=TCP), "Pass('neither TCP nor UDP')"),
        (inet("0.0.0.0", 6881), facts(kind=STREAM, protocol=SCTP), "Pass('neither TCP nor UDP')"),
        (
            inet("0.0.0.0", 6881),
            facts(kind=SEQPACKET, protocol=SCTP),
            "Pass('neither TCP nor UDP')",
        ),
        (inet("0.0.0.0", 6881), facts(kind=DGRAM, protocol=UDPLITE), "Pass('neither TCP nor UDP')"),
        (inet("0.0.0.0", 6881), facts(kind=DGRAM, protocol=1), "Pass('neither TCP nor UDP')"),
        # sockets
        (inet("0.0.0.0", 6881), facts(bound=True), "Pass('already bound')"),
        (inet("0.0.0.0", 6881), facts(foreign=True), "Pass('of another network namespace')"),
    ],
)
def test_the_table(raw: bytes, given_facts: Facts, expected: str) -> None:
    assert judge(raw, given_facts) == expected


@pytest.mark.parametrize(
    ("rules", "raw", "expected"),
    [
        (Rules(ports=Ports(read("7000-7010"))), inet("0.0.0.0", 7010), "Publish(tcp/7010)"),
        (
            Rules(ports=Ports(read("7000-7010"))),
            inet("0.0.0.0", 7011),
            "Pass('port not among those to publish')",
        ),
        (Rules(ports=Ports(read("1-65535"))), inet("0.0.0.0", 1023), "Pass('a privileged port')"),
        (
            Rules(denied=Ports(read("tcp/6881"))),
            inet("0.0.0.0", 6881),
            "Pass('a port that is never published')",
        ),
        (
            Rules(denied=Ports(read("udp/6881"))),
            inet("0.0.0.0", 6881),
            "Publish(tcp/6881)",
        ),
        (Rules(ports=Ports(read("tcp/7000"))), inet("0.0.0.0", 7000), "Publish(tcp/7000)"),
        (
            Rules(ports=Ports(read("udp/7000,tcp/7001"))),
            inet("0.0.0.0", 7000),
            "Pass('port not among those to publish')",
        ),
        (Rules(ephemeral=True), inet("0.0.0.0", 0), "Publish(tcp)"),
        (Rules(ephemeral=True), inet("127.0.0.1", 0), "Pass('a specific address')"),
    ],
)
def test_what_the_user_asked_for(rules: Rules, raw: bytes, expected: str) -> None:
    assert judge(raw, facts(), rules) == expected


def test_a_port_for_connect_to_choose_is_not_chosen_by_natsup() -> None:
    """IP_BIND_ADDRESS_NO_PORT: bind() leaves such a socket without a port."""
    rules = Rules(ephemeral=True)
    passed = "Pass('a port for connect() to choose')"
    assert judge(inet("0.0.0.0", 0), facts(late=True), rules) == passed
    assert judge(inet("0.0.0.0", 6881), facts(late=True), rules) == "Publish(tcp/6881)"


@given(
    raw=st.one_of(
        st.binary(min_size=16, max_size=28),
        st.builds(
            inet,
            st.sampled_from(["0.0.0.0", "127.0.0.1", "10.0.0.1"]),
            st.sampled_from([0, 80, 6881]),
            st.sampled_from([socket.AF_INET, UNSPEC]),
        ),
        st.builds(inet6, st.sampled_from(["::", "::1", "::ffff:0.0.0.0"]), st.just(0)),
    ),
    ephemeral=st.booleans(),
    may_own=st.booleans(),
)
def test_what_passes_at_sight_passes(raw: bytes, ephemeral: bool, may_own: bool) -> None:
    rules = Rules(ephemeral=ephemeral, may_own=may_own)
    rules.own_addresses = frozenset({socket.inet_aton("10.0.0.1")}) if may_own else frozenset()
    verdict = judge_address(sockaddr.read(raw), rules)
    if passes_at_sight(raw, rules):
        assert verdict is not None


@pytest.mark.parametrize(
    ("raw", "rules", "passes"),
    [
        (inet("127.0.0.1", 6881), Rules(), True),
        (inet("127.0.0.1", 6881), Rules(may_own=True), False),
        (inet("0.0.0.0", 0), Rules(), True),
        (inet("0.0.0.0", 0), Rules(ephemeral=True), False),
        (inet("0.0.0.0", 6881), Rules(), False),
        (inet6("::1", 0), Rules(), False),
    ],
)
def test_what_is_plain_at_sight(raw: bytes, rules: Rules, passes: bool) -> None:
    assert passes_at_sight(raw, rules) is passes


def test_the_own_address_counts_where_asked_for() -> None:
    rules = Rules(may_own=True)
    ours, loopback = inet("192.168.1.5", 6881), inet("127.0.0.1", 6881)
    assert judge(ours, facts(), rules) == "Pass('a specific address')"  # not known yet
    rules.own_addresses = frozenset({socket.inet_aton("192.168.1.5")})
    assert judge(ours, facts(), rules) == "Publish(tcp/6881)"
    assert judge(inet6("::ffff:192.168.1.5", 6881), facts(INET6), rules) == "Publish(tcp/6881)"
    assert judge(loopback, facts(), rules) == "Pass('a specific address')"
    assert judge(ours, facts(), Rules()) == "Pass('a specific address')"


@given(st.binary(max_size=140))
def test_no_bytes_confuse_it(raw: bytes) -> None:
    address = sockaddr.read(raw)
    if address is not None:
        assert 0 <= address.port <= 65535
        assert address.raw == raw


@given(st.integers(1, 65535), st.sampled_from(list(Protocol)))
def test_what_is_published_may_face_the_internet(number: int, protocol: Protocol) -> None:
    port = Port(protocol, number)
    assert publishable(port, Rules()) == (number >= 1024 and port not in NEVER)


def test_a_higher_limit_of_the_kernels_holds() -> None:
    """ip_unprivileged_port_start: natsup, as root, is no way round it."""
    rules = Rules(first_unprivileged=6000)
    assert judge(inet("0.0.0.0", 5999), facts(), rules) == "Pass('a privileged port')"
    assert judge(inet("0.0.0.0", 6000), facts(), rules) == "Publish(tcp/6000)"
    assert not publishable(Port(Protocol.TCP, 5999), rules)
    # A lower one is no reason to publish them.
    low = Rules(first_unprivileged=0)
    assert judge(inet("0.0.0.0", 80), facts(), low) == "Pass('a privileged port')"


def test_verdicts_are_values() -> None:
    assert Pass("x").reason == "x"
    assert Publish(Protocol.TCP, None).port is None


# --- clients ---


def test_a_resolver_is_a_client_after_some_questions() -> None:
    clients = Clients()
    found = [clients.ended(7, lived=0.1, now=n * 0.2) for n in range(SHORT_LIVED)]
    assert found == [False] * (SHORT_LIVED - 1) + [True]
    assert not clients.is_client(8, 1.0)


def test_a_server_of_many_ports_is_no_client() -> None:
    clients = Clients()
    assert not any(clients.ended(7, lived=60.0, now=60.0 + n) for n in range(50))


def test_a_resolver_is_a_client_before_its_first_answer() -> None:
    clients = Clients()
    found = [clients.got(7, 20000 + n, now=n * 0.5) for n in range(CROWD)]
    assert found == [False] * (CROWD - 1) + [True]
    assert clients.is_client(7, CROWD * 0.5)
    assert not clients.is_client(8, CROWD * 0.5)
    assert not clients.is_client(7, CROWD * 0.5 + WINDOW)


def test_ports_one_by_one_or_of_several_processes_make_no_client() -> None:
    clients = Clients()
    assert not any(clients.got(7, n, now=n * BURST / (CROWD - 2)) for n in range(50))
    assert not any(clients.got(n, 20000 + n, now=1e3) for n in range(50))


def test_many_sockets_of_one_port_make_no_client() -> None:
    clients = Clients()
    assert not any(clients.got(7, 4433, now=0.0) for _ in range(50))


def test_a_client_that_is_quiet_may_become_a_server() -> None:
    clients = Clients()
    for n in range(SHORT_LIVED):
        clients.ended(7, lived=0.1, now=float(n))
    assert clients.is_client(7, 10.0)
    clients.passed(7, 20.0)
    assert clients.is_client(7, 20.0 + WINDOW - 1)
    assert not clients.is_client(7, 20.0 + WINDOW + 1)


def test_known_resolvers_are_named() -> None:
    assert {"unbound", "named", "dnsmasq"} <= RESOLVERS


@pytest.mark.parametrize(
    ("clients", "servers", "name", "why", "serves"),
    [
        ([], [], "srcds", None, False),
        ([], [], "unbound", A_RESOLVER, False),
        (["srcds"], [], "srcds", NAMED, False),
        (["srcds"], [], "unbound", A_RESOLVER, False),
        ([], ["unbound"], "unbound", None, True),
        ([], ["all"], "unbound", None, True),
        ([], ["all"], "srcds", None, True),
        (["dig"], ["all"], "dig", NAMED, True),
        (["all"], [], "srcds", NAMED, False),
        (["all"], ["srcds"], "srcds", None, True),
        (["all"], ["srcds"], "unbound", NAMED, False),
        ([], ["a-very-long-name-of-a-program"], "a-very-long-nam", None, True),
        (["\u00e9" * 10], [], "\u00e9" * 7 + "\ufffd", NAMED, False),
    ],
)
def test_names(
    clients: list[str], servers: list[str], name: str, why: str | None, serves: bool
) -> None:
    found = Clients(clients, servers)
    assert found.by_name(name) == why
    assert found.serves(name) == serves


def test_what_is_remembered_of_clients_is_bounded() -> None:
    clients, once = Clients(), Once(100)
    for process in range(5000):
        clients.ended(process, lived=0.1, now=process * 0.001)
        clients.got(process, 7000, now=process * 0.001)
        once.first((process, "x"))
    assert len(clients._brief) <= 1024
    assert len(clients._got) <= 1024
    assert len(once._seen) <= 100


def test_among_many_processes_a_resolver_is_found_as_soon() -> None:
    clients, found = Clients(), []
    for process in range(1000):
        clients.got(process, 7000, now=1.0)
        if process % 100 == 0:
            found.append(clients.got(5000, process, now=1.0))
    assert found.index(True) == CROWD - 1


def test_a_bind_costs_the_same_however_many_others_there_are() -> None:
    """Counted in lines of Python, which need no quiet machine."""
    clients, lines = Clients(), 0

    def count(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal lines
        lines += event == "line"
        return count

    def cost(process: int) -> int:
        nonlocal lines
        lines = 0
        sys.settrace(count)
        clients.got(process, 5000, now=process / 2000)
        clients.ended(process, lived=0.1, now=process / 2000)
        sys.settrace(None)
        return lines

    costs = [cost(process) for process in range(4000)]
    assert sum(costs[2000:]) < 3 * sum(costs[:1000]) + 2000


def test_each_client_is_told_of_once() -> None:
    once = Once()
    found = [once.first(one) for one in ((7, "a"), (7, "a"), (8, "a"), (7, "b"), (7, "a"))]
    assert found == [True, False, True, True, False]
    once.forget((7, "a"))
    assert once.first((7, "a"))


def test_what_is_told_again_after_a_time() -> None:
    once = Once(again=60.0)
    assert [once.first("a", now) for now in (0.0, 59.0, 61.0, 120.0, 121.0)] == [
        True,
        False,
        True,
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("address", "v6only", "what"),
    [
        ("::", False, "Publish(tcp/6881, ipv6)"),
        ("::", True, "Publish(tcp/6881, ipv6, no ipv4)"),
        ("::ffff:0.0.0.0", False, "Publish(tcp/6881)"),
        ("2001:db8::2", False, "Pass('a specific address')"),
    ],
)
def test_what_is_published_of_ipv6(address: str, v6only: bool, what: str) -> None:
    rules = Rules(pinholes=True, ephemeral=True)
    assert judge(inet6(address, 6881), facts(INET6, v6only=v6only), rules) == what
    never = judge(inet6("::", 5353), facts(INET6, DGRAM, UDP, v6only=True), rules)
    assert never == "Pass('a port that is never published')"
    none = judge(inet6("::", 0), facts(INET6, v6only=True), rules)
    assert none == "Publish(tcp, ipv6, no ipv4)"
