"""What is made of a firewall's rules: of rulesets as ufw, firewalld, docker and people make them,
and of what a kernel then does."""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from natsup.supervisor import firewall_iptables, firewall_nft
from natsup.supervisor.doctor_facts import Firewall
from natsup.supervisor.doctor_findings import Level
from natsup.supervisor.doctor_way_in import of_way_in
from natsup.supervisor.firewall import look_at_firewall
from natsup.supervisor.firewall_rules import Chain, Drop, Fits, Packet, Rule, Verdict, judge

CAPTURED = Path(__file__).parent / "firewalls"
HERE, HERE_6 = "192.168.77.2", "2001:db8:1::2"


def packet(port: str, address: str = HERE) -> Packet:
    protocol, _, number = port.partition("/")
    return Packet("eth0", address, protocol, int(number))


def by_nft(name: str, of: Packet) -> Drop | None:
    document, listing = ((CAPTURED / f"{name}.{end}").read_text() for end in ("json", "nft"))
    return judge(firewall_nft.chains(document, listing, of))


def by_iptables(name: str, of: Packet) -> Drop | None:
    return judge(firewall_iptables.chains((CAPTURED / f"{name}.iptables").read_text(), of))


def sure(drop: Drop | None) -> bool | None:
    """Does it drop: certainly, possibly (None), or not?"""
    if drop is None:
        return False
    return True if drop.sure else None


# --- captured rulesets ---


@pytest.mark.parametrize(
    ("port", "dropped"),
    [
        ("tcp/22", False),
        ("tcp/2222", False),  # limited, by senders that come often
        ("tcp/6885", False),  # among a range
        ("udp/6885", True),
        ("tcp/50000", True),
        ("udp/137", True),  # by another chain than the policy
    ],
)
def test_ufw(port: str, dropped: bool) -> None:
    drop = by_iptables("ufw", packet(port))
    assert sure(drop) is dropped
    if drop is not None:
        chain = "ufw-skip-to-policy-input" if port == "udp/137" else "INPUT"
        assert (drop.table, drop.base, drop.chain) == ("iptables filter", "INPUT", chain)
    # nft shows these rules, and not all that they are made of: it cannot be sure
    assert sure(by_nft("ufw", packet(port))) is None


@pytest.mark.parametrize(
    ("port", "address", "dropped"),
    [
        ("tcp/22", HERE, False),
        ("tcp/6881", HERE, False),
        ("udp/6881", HERE, True),
        ("tcp/50000", HERE, True),
        ("tcp/6881", HERE_6, False),
        ("tcp/50000", HERE_6, True),
    ],
)
def test_firewalld(port: str, address: str, dropped: bool) -> None:
    drop = by_nft("firewalld", packet(port, address))
    assert sure(drop) is dropped
    if drop is not None:
        assert (drop.base, drop.chain) == ("filter_INPUT", "filter_IN_public")
        assert drop.rule == "reject with icmpx admin-prohibited"


def test_docker_is_no_obstacle() -> None:
    assert by_iptables("docker", packet("tcp/50000")) is None
    assert by_nft("docker", packet("tcp/50000")) is None


@pytest.mark.parametrize(
    ("port", "dropped"),
    [
        ("tcp/6881", False),  # by a set with ranges
        ("udp/27015", False),
        ("tcp/6890", True),
        ("tcp/8080", False),  # by a map
        ("tcp/8081", True),
        ("tcp/8082", None),  # by a mark, perhaps
        ("tcp/5000", False),  # by two things together
        ("tcp/5001", True),
        ("udp/5001", False),
        ("tcp/9000", True),  # at another interface
        ("udp/9001", False),
        ("udp/9002", True),  # before
        ("tcp/9100", None),
        ("tcp/9200", True),
        ("tcp/9300", True),
    ],
)
def test_rules_by_hand(port: str, dropped: bool | None) -> None:
    assert sure(by_nft("plain", packet(port))) is dropped


def test_the_drop_is_named() -> None:
    assert by_nft("plain", packet("tcp/9200")) == Drop(
        "inet filter", "input", "input", "tcp dport 9200 reject with tcp reset", True
    )
    assert by_nft("plain", packet("udp/9002")) == Drop(
        "inet filter", "early", "early", "udp dport 9002 drop", True
    )
    assert by_nft("plain", packet("tcp/9300")) == Drop(
        "netdev edge", "in", "in", "tcp dport 9300 drop", True
    )


# --- rules of iptables, one at a time ---


@pytest.mark.parametrize(
    ("rule", "dropped"),
    [
        ("-p tcp -m tcp --dport 50000 -j DROP", True),
        ("-p tcp -m tcp ! --dport 50000 -j DROP", False),
        ("-p udp -j DROP", False),
        ("! -p tcp -j DROP", False),
        ("-i eth+ -j DROP", True),
        ("! -i lo -j DROP", True),
        ("-i lo -j DROP", False),
        ("-s 64.0.0.0/2 -j DROP", None),  # not a list of senders, but a large part of all
        ("-s 11.22.33.9/32 -j DROP", False),
        ("! -s 192.168.0.0/16 -j DROP", True),
        ("-s 0.0.0.0/0 -j DROP", True),
        ("-d 192.168.77.0/24 -j REJECT --reject-with icmp-port-unreachable", True),
        ("-d 192.168.78.0/24 -j DROP", False),
        ("-p tcp -m multiport --dports 22,49000:51000 -j DROP", True),
        ("-p tcp -m tcp --sport 1:1023 -j DROP", False),
        ("-p tcp -m tcp --sport 1024:65535 -j DROP", True),
        ("-p tcp -m tcp --sport 1024:40000 -j DROP", None),
        ("-m conntrack --ctstate INVALID -j DROP", False),
        ("-m state --state NEW -j DROP", True),
        ("-m conntrack ! --ctstate RELATED,ESTABLISHED -j DROP", True),
        ("-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j DROP", True),
        ("-p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -j DROP", False),
        ("-p tcp -m tcp --tcp-flags ALL NONE -j DROP", False),
        ("-m addrtype --dst-type LOCAL -j DROP", True),
        ("-m addrtype --dst-type BROADCAST -j DROP", False),
        ("-m set --match-set banned src -j DROP", False),
        ("-m recent --update --seconds 60 --name DEFAULT --rsource -j DROP", False),
        ("-m hashlimit --hashlimit-above 5/sec --hashlimit-name x -j DROP", False),
        ("-f -j DROP", False),
        ("-m iprange --src-range 1.0.0.0-1.0.0.9 -j DROP", False),
        ("-m iprange --src-range 1.0.0.0-99.0.0.0 -j DROP", None),
        ("-m iprange ! --src-range 0.0.0.0-255.255.255.255 -j DROP", False),
        ("-m iprange --dst-range 192.168.77.1-192.168.77.9 -j DROP", True),
        ("-m mac --mac-source 00:11:22:33:44:55 -j DROP", False),
        ("-m length --length 0:20 -j DROP", False),
        ("-p tcp -m length --length 0:60 -j DROP", None),
        ("-m length --length 40:65535 -j DROP", True),
        ('-m comment --comment "it\'s -j ACCEPT" -j DROP', True),
        ("-m comment --comment 'no end -j DROP", None),
        ('-m bpf --bytecode "1,6 0 0 0" -j DROP', None),
        ("-j NFQUEUE --queue-num 1", None),
        ("-j SOMETHING", None),
        ('-j LOG --log-prefix "-j DROP"', False),
        ("-m tcp", False),
    ],
)
def test_matches_of_iptables(rule: str, dropped: bool | None) -> None:
    text = f"*filter\n:INPUT ACCEPT [0:0]\n-A INPUT {rule}\nCOMMIT\n"
    assert sure(judge(firewall_iptables.chains(text, packet("tcp/50000")))) is dropped


def test_other_tables_of_iptables() -> None:
    """What changes addresses is not asked; what comes first, is."""
    text = "*{}\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p tcp -j DROP\nCOMMIT\n"
    dropped = {
        table: sure(judge(firewall_iptables.chains(text.format(table), packet("tcp/1"))))
        for table in ("raw", "mangle", "nat")
    }
    assert dropped == {"raw": True, "mangle": True, "nat": False}


# --- the way through chains ---

ACCEPT, DROP = Verdict.ACCEPT, Verdict.DROP
JUMP, GOTO, RETURN = Verdict.JUMP, Verdict.GOTO, Verdict.RETURN
YES, MAYBE, NO = Fits.YES, Fits.MAYBE, Fits.NO


def rules(*found: tuple[Fits, Verdict] | tuple[Fits, Verdict, str]) -> list[Rule]:
    return [Rule(one[0], one[1], "".join(one[2:]), f"rule {n}") for n, one in enumerate(found)]


@pytest.mark.parametrize(
    ("base", "other", "accepts", "dropped"),
    [
        ([], [], True, False),
        ([], [], False, True),
        ([(MAYBE, ACCEPT)], [], False, None),
        ([(MAYBE, DROP)], [], True, None),
        ([(MAYBE, DROP)], [], False, True),
        ([(MAYBE, ACCEPT), (YES, DROP)], [], True, None),
        ([(NO, DROP), (YES, ACCEPT), (YES, DROP)], [], False, False),
        ([(YES, JUMP, "other"), (YES, ACCEPT)], [(YES, RETURN), (YES, DROP)], False, False),
        ([(YES, JUMP, "other"), (YES, ACCEPT)], [(MAYBE, RETURN), (YES, DROP)], False, None),
        ([(YES, JUMP, "other"), (YES, DROP)], [(YES, ACCEPT)], True, False),
        ([(YES, GOTO, "other"), (YES, ACCEPT)], [], False, True),
        ([(MAYBE, GOTO, "other"), (YES, ACCEPT)], [], False, None),
        ([(MAYBE, JUMP, "other"), (YES, ACCEPT)], [(YES, DROP)], True, None),
        ([(YES, JUMP, "other"), (YES, ACCEPT)], [(YES, DROP)], True, True),
        ([(YES, JUMP, "other")], [(YES, JUMP, "other")], True, None),  # endless: no kernel has it
    ],
)
def test_the_way_through(
    base: list[tuple[Fits, Verdict]],
    other: list[tuple[Fits, Verdict]],
    accepts: bool,
    dropped: bool | None,
) -> None:
    chains = [
        Chain("ip t", "base", (2, 0), accepts, rules(*base)),
        Chain("ip t", "other", None, True, rules(*other)),
    ]
    assert sure(judge(chains)) is dropped


def test_it_is_as_uncertain_as_it_has_to_be() -> None:
    """Every rule that may fit is taken to fit, and not to, and all outcomes are compared."""
    verdicts = [(RETURN, ""), (ACCEPT, ""), (DROP, ""), (JUMP, "b"), (GOTO, "b")]
    some = [(fits, *verdict) for fits in (MAYBE, YES) for verdict in verdicts]
    for first, second, third, fourth in itertools.product(some, some, some[:3] + some[5:8], some):
        base, inner = [first, second], [third, fourth]
        if fourth[1] in (JUMP, GOTO):
            continue
        unsure = [n for n, one in enumerate([*base, *inner]) if one[0] is MAYBE]
        outcomes = set()
        for choice in itertools.product((YES, NO), repeat=len(unsure)):
            known = [list(one) for one in (*base, *inner)]
            for n, fits in zip(unsure, choice, strict=True):
                known[n][0] = fits
            outcomes.add(_dropped(known[:2], known[2:]))
        judged = sure(judge(_chains(base, inner)))
        assert judged in {*outcomes, None}, (base, inner)
        if len(outcomes) == 2:
            assert judged is None, (base, inner)


def _chains(
    base: list[tuple[Fits, Verdict, str]], inner: list[tuple[Fits, Verdict, str]]
) -> list[Chain]:
    return [
        Chain("ip t", "a", (2, 0), False, rules(*base)),
        Chain("ip t", "b", None, True, rules(*inner)),
    ]


def _dropped(base: list[list[object]], inner: list[list[object]]) -> bool:
    """What a kernel does, where every rule is known to fit or not."""

    def through(chain: list[list[object]]) -> str:
        for fits, verdict, _ in chain:
            if fits is NO:
                continue
            if verdict in (ACCEPT, DROP):
                return "accept" if verdict is ACCEPT else "drop"
            if verdict is RETURN:
                return ""
            ended = through(inner)
            if ended or verdict is GOTO:
                return ended
        return ""

    return (through(base) or "drop") == "drop"


@pytest.mark.parametrize("document", ["", "[]", "{}", '{"nftables": [{"chain": 1}]}', "[" * 99999])
def test_what_nft_does_not_print(document: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        firewall_nft.chains(document, "", packet("tcp/1"))


@pytest.mark.parametrize(
    "expression", [[{"match": 7}], [{"future": {}}, {"drop": None}], [7], [{"vmap": {}}]]
)
def test_rules_of_the_future_may_do_anything(expression: list[Any]) -> None:
    table = {"family": "inet", "table": "t"}
    chain = {**table, "name": "c", "type": "filter", "hook": "input", "prio": 0}
    rule = {**table, "chain": "c", "handle": 3, "expr": expression}
    document = json.dumps({"nftables": [{"chain": chain}, {"rule": rule}]})
    assert sure(judge(firewall_nft.chains(document, "", packet("tcp/1")))) is None


# --- a real kernel ---

# Rules that its nft(8) understands, and whether they drop the first packet of a connection
_SINGLE = [
    ("tcp flags & (fin|syn) == (fin|syn) drop", False),
    ("tcp flags & (fin|syn) != (fin|syn) drop", True),
    ("tcp flags & (fin|syn) == syn drop", True),
    ("tcp flags & (fin|syn) != { fin, syn } drop", False),
    ("tcp flags { fin, syn } drop", True),
    ("tcp flags fin,syn drop", True),
    ("tcp flags == fin|syn drop", False),
    ("tcp flags vmap { fin|syn : drop }", False),
    ("tcp flags vmap { syn : drop }", True),
    ("tcp flags ! fin,rst drop", True),
    ("tcp flags ! fin,syn drop", False),
    ("update @m { ip saddr limit rate over 100/minute } drop", False),
    ("update @m { ip saddr limit rate 100/minute } drop", True),
    ("add @k { ip saddr ct count over 20 } reject", False),
    ("add @m { ip saddr } drop", True),
    ("meter mm { ip saddr limit rate over 10/second } drop", False),
    ("quota over 100 mbytes drop", False),
    ("quota 100 mbytes drop", True),
    ("ether saddr 00:11:22:33:44:55 drop", False),
    ("ether saddr != 00:11:22:33:44:55 drop", True),
    ("ip frag-off & 0x1fff != 0 drop", False),
    ("ip frag-off & 0x3fff == 0 drop", True),
    ("ip frag-off & 0x5fff != 0 drop", None),
    ("fib saddr . iif oif 0 drop", False),
    ("meta length 0-20 drop", False),
    ("ip length < 20 drop", False),
    ("ip length < 60 drop", None),
    ("ip saddr 1.0.0.0-1.0.0.9 drop", False),
    ("ip saddr 1.0.0.0-99.0.0.0 drop", None),
]
_SETS = [
    "set m { type ipv4_addr; flags dynamic; timeout 1m; }",
    "set k { type ipv4_addr; flags dynamic; }",
]
_INPUT = "type filter hook input priority 0"

_LETS_IN = ("drop", "ct state established,related accept", "iifname lo accept")
_REAL: list[tuple[str, ...]] = [
    ("accept",),
    ("accept", "tcp dport 7000 drop"),
    ("accept", "tcp dport != 7000 drop"),
    ("accept", "iif eth0 tcp dport 7000 reject with tcp reset"),
    ("accept", "meta nfproto ipv6 drop"),
    ("accept", "ct direction original tcp dport 7000 counter drop"),
    ("accept", "meta pkttype host tcp dport 7000 drop"),
    ("accept", "fib saddr . iif oif missing drop"),
    _LETS_IN,
    (*_LETS_IN, "tcp dport 6000-7999 accept"),
    (*_LETS_IN, "tcp dport { 22, 7000 } ct state new accept"),
    (*_LETS_IN, "meta l4proto vmap { tcp : accept, udp : drop }"),
    (*_LETS_IN, "ip protocol udp accept"),
    (*_LETS_IN, "tcp flags & (fin|syn|rst|ack) == syn accept"),
    (*_LETS_IN, "tcp flags syn tcp dport 7000 limit rate 50/second accept"),
    (*_LETS_IN, "ip daddr 10.9.8.0/30 iifname eth0 accept"),
    (*_LETS_IN, "ip saddr 10.9.8.4/30 accept"),
    (*_LETS_IN, "fib daddr type local accept"),
    (*_LETS_IN, "tcp dport >= 7001 accept"),
    (*_LETS_IN, "tcp dport > 6999 accept"),
]


def listed(host: list[str], *lines: str) -> tuple[str, str]:
    """What nft prints of a ruleset, as JSON and as text, once it is loaded."""
    load = [*host, "nft", "-f", "-"]
    text = "\n".join(["flush ruleset", *lines, ""])
    subprocess.run(load, input=text, text=True, check=True)
    document, listing = (
        subprocess.check_output([*host, "nft", option, "list", "ruleset"], text=True)
        for option in ("-j", "-a")
    )
    return document, listing


def test_one_rule_at_a_time(two_hosts: tuple[list[str], list[str]]) -> None:
    """As nft prints them: how it does is not always what one would expect."""
    chains = [
        line
        for n, (rule, _) in enumerate(_SINGLE)
        for line in (f"chain c{n} {{", f"{_INPUT}; policy accept;", rule, "}")
    ]
    printed = listed(two_hosts[0], "table inet t {", *_SETS, *chains, "}")
    found = {chain.name: chain for chain in firewall_nft.chains(*printed, packet("tcp/7000"))}
    judged = [(rule, sure(judge([found[f"c{n}"]]))) for n, (rule, _) in enumerate(_SINGLE)]
    assert judged == _SINGLE


def test_a_table_that_is_switched_off(two_hosts: tuple[list[str], list[str]]) -> None:
    chain = ["chain c {", f"{_INPUT}; policy drop;", "tcp dport 7000 drop", "}", "}"]
    document, listing = listed(two_hosts[0], "table inet off {", "flags dormant", *chain)
    assert not firewall_nft.chains(document, listing, packet("tcp/7000"))
    newer = json.loads(document)
    for one in newer["nftables"]:
        one.get("table", {})["flags"] = ["dormant"]
    assert not firewall_nft.chains(json.dumps(newer), "", packet("tcp/7000"))
    assert firewall_nft.chains(*listed(two_hosts[0], "table inet on {", *chain), packet("tcp/1"))


@pytest.fixture(scope="module")
def two_hosts() -> Iterator[tuple[list[str], list[str]]]:
    """Two network namespaces with a wire between them: command lines that run there."""
    here, there = (f"nfw{os.getpid()}-{n}" for n in "ab")
    script = (
        f"ip netns add {here} && ip netns add {there} && ip -n {here} link set lo up &&"
        f" ip -n {here} link add eth0 type veth peer name eth0 netns {there} &&"
        f" ip -n {here} addr add 10.9.8.1/29 dev eth0 && ip -n {here} link set eth0 up &&"
        f" ip -n {there} addr add 10.9.8.2/29 dev eth0 && ip -n {there} link set eth0 up"
    )
    try:
        subprocess.run(["sh", "-c", script], check=True)
        yield (["ip", "netns", "exec", here], ["ip", "netns", "exec", there])
    finally:
        for name in (here, there):
            subprocess.run(["ip", "netns", "del", name], check=False)


def test_the_kernel_agrees(two_hosts: tuple[list[str], list[str]]) -> None:
    here, there = two_hosts
    serve = (
        "import socket, sys\n"
        "s = socket.create_server(('', 7000)); print(flush=True)\n"
        "while True: s.accept()[0].close()\n"
    )
    call = (
        "import socket, sys\n"
        "try: socket.create_connection(('10.9.8.1', 7000), 0.25)\n"
        "except OSError: sys.exit(1)\n"
    )
    of = Packet("eth0", "10.9.8.1", "tcp", 7000)
    with subprocess.Popen([*here, sys.executable, "-c", serve], stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            server.stdout.readline()
            for policy, *lines in _REAL:
                chain = ["type filter hook input priority 0; policy " + policy, *lines]
                document, listing = listed(here, "table inet t {", "chain c {", *chain, "}", "}")
                judged = judge(firewall_nft.chains(document, listing, of))
                came = subprocess.run([*there, sys.executable, "-S", "-c", call]).returncode == 0
                assert sure(judged) is (not came), lines
        finally:
            server.kill()


# --- what is said ---


def finding(
    drop: Drop | None, wanted: str = "", manager: str = "", reason: str = ""
) -> tuple[str, ...]:
    remedy = "look there" if reason else ""
    firewall = Firewall(packet("tcp/6881"), manager, reason, remedy, drop)
    (found,) = of_way_in(None, (firewall,), wanted)
    assert found.id == "firewall"
    assert bool(found.advice) is (found.level is not Level.OK)
    return found.level.value, found.found, found.advice


def test_what_is_said_of_a_firewall() -> None:
    nft = Drop("inet filter", "input", "strict", "tcp dport 6881 drop", True)
    old = Drop("iptables filter", "INPUT", "INPUT", "policy drop", False)
    assert finding(None)[:2] == ("ok", "lets tcp/6881 in")
    level, found, advice = finding(nft, "tcp/6881")
    assert level == "problem"
    assert "chain strict of inet filter: tcp dport 6881 drop" in found
    assert advice.startswith("sudo nft insert rule inet filter input tcp dport 6881 accept, and")
    level, found, advice = finding(nft)
    assert (level, "dport PORT accept" in advice) == ("warning", True)
    level, found, advice = finding(old, "tcp/6881")
    assert (level, found.startswith("may drop tcp/6881")) == ("warning", True)
    assert "sudo iptables -t filter -I INPUT -p tcp --dport 6881 -j ACCEPT" in advice
    assert finding(old, "tcp/6881", "ufw")[2] == "sudo ufw allow 6881/tcp"
    assert "firewall-cmd --add-port=6881/tcp" in finding(nft, "tcp/6881", "firewalld")[2]
    level, found, advice = finding(None, manager="ufw", reason="only root can read its rules")
    assert (level, "(ufw)" in found, advice == "look there") == ("note", True, True)


def test_ipv6_alone_is_never_a_problem() -> None:
    drop = Drop("inet filter", "input", "input", "policy drop", True)
    (found,) = of_way_in(None, (Firewall(packet("tcp/6881", HERE_6), "", drop=drop),), "tcp/6881")
    assert (found.id, found.level) == ("firewall-ipv6", Level.WARNING)


def test_without_any_rules() -> None:
    """In a network of the test's own there are none."""
    if subprocess.run(["nft", "list", "ruleset"], capture_output=True).stdout:
        pytest.fail("there are rules")
    assert look_at_firewall(packet("tcp/6881")) == Firewall(packet("tcp/6881"), "")
