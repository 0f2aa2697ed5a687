"""`natsup doctor` behind a real router: the firewall of its own host, and the way back in."""

import shlex
import subprocess
import sys
from pathlib import Path

from tests.lab.lab import LAN1, LAN2, OUTSIDE, ROUTER, Lab
from tests.lab.program import NATSUP
from tests.lab.test_doctor import bad, doctor, environ, report
from tests.nobody import as_nobody

__all__ = ["environ"]

_SHUT = """
table inet filter {
    chain input {
        type filter hook input priority 0; policy drop;
        ct state established,related accept
        iifname lo accept
        tcp dport 22 accept
    }
}
"""
_HAIRPIN = f"""
table ip hairpin {{
    chain prerouting {{
        type nat hook prerouting priority -90;
        iifname lan ip daddr {OUTSIDE} tcp dport 1024-65535 HOW
    }}
    chain postrouting {{
        type nat hook postrouting priority 90;
        iifname lan oifname lan masquerade
    }}
}}
"""


def load(lab: Lab, host: str, rules: str) -> None:
    lab.run(host, ["nft", "-f", "-"], input=rules, check=True)


def lead_back_in(lab: Lab, how: str) -> None:
    """Give the router rules for those on the LAN who connect to its external address."""
    # Where the kernel has it (br_netfilter), what a bridge passes on goes by these rules as well.
    lab.run("router", ["sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0"])
    load(lab, "router", _HAIRPIN.replace("HOW", how))


def test_a_firewall_that_drops_and_the_line_that_mends_it(
    lab: Lab, environ: dict[str, str]
) -> None:
    load(lab, "lan1", _SHUT)
    status, document = report(lab, environ, "--port", "6881")
    found = {check["id"]: check for check in document["checks"]}
    assert (status, document["next"]) == (1, ["firewall"])
    assert [one["reached"] for one in document["path"]] == [None, "ok", "problem", "ok"]
    assert "chain input of inet filter: policy drop" in found["firewall"]["found"]
    assert found["test-mapping"]["found"].startswith("tcp/6881 mapped")
    assert "past the firewall here" in found["hairpin"]["found"]

    line, _, _ = found["firewall"]["advice"].partition(", ")
    words = shlex.split(line)
    assert words.pop(0) == "sudo"
    lab.run("lan1", words, check=True)
    status, found = doctor(lab, environ, "--port", "6881")
    assert (status, found["firewall"]["found"]) == (0, "lets tcp/6881 in")
    assert lab.table() == {}

    # of a port that nobody has named it is told, and no more
    status, found = doctor(lab, environ)
    assert (status, found["firewall"]["level"]) == (0, "warning")
    assert "dport PORT accept" in found["firewall"]["advice"]


def test_rules_of_iptables(lab: Lab, environ: dict[str, str]) -> None:
    words = "iptables -A INPUT -p udp -m conntrack --ctstate NEW -m multiport --dports 5000:6000"
    lab.run("lan1", [*words.split(), "-j", "DROP"], check=True)
    status, found = doctor(lab, environ, "--port", "udp/5500")
    assert (status, bad(found)) == (1, {"firewall"})
    line, _, _ = found["firewall"]["advice"].partition(", ")
    lab.run("lan1", shlex.split(line)[1:], check=True)
    status, found = doctor(lab, environ, "--port", "udp/5500")
    assert (status, found["firewall"]["found"]) == (0, "lets udp/5500 in")
    assert "hairpin" not in found  # which is tried with TCP


def test_a_router_that_leads_back_in(lab: Lab, environ: dict[str, str]) -> None:
    """And the port is the program's again at once."""
    lead_back_in(lab, f"dnat to {LAN1}")
    status, found = doctor(lab, environ, "--port", "6881")
    bind = "import socket; socket.socket().bind(('', 6881))"
    lab.run("lan1", [sys.executable, "-c", bind], check=True)
    assert (status, found["hairpin"]["level"]) == (0, "ok")
    assert found["hairpin"]["found"] == f"a connection to {OUTSIDE} came back in here"


def test_somebody_else_at_the_external_address(lab: Lab, environ: dict[str, str]) -> None:
    """The router takes such connections itself, as many do for their own pages."""
    lead_back_in(lab, "redirect to :5555")
    status, found = doctor(lab, environ)
    assert (status, found["hairpin"]["level"]) == (0, "note")
    assert "something else answers" in found["hairpin"]["found"]
    assert "from outside" in found["hairpin"]["advice"]


def test_ports_that_are_taken(lab: Lab, environ: dict[str, str]) -> None:
    """By another host: told. By a program here: it keeps its own, and another one is mapped."""
    lab.map("lan2", "tcp", 7000)
    lab.map("lan1", "tcp", 7001)
    table = {"tcp/7000": LAN2, "tcp/7001": LAN1}
    status, found = doctor(lab, environ, "--port", "7000")
    assert (status, bad(found)) == (1, {"test-mapping"})
    assert f"held by {LAN2}" in found["test-mapping"]["found"]
    assert lab.table() == table
    status, found = doctor(lab, environ, "--port", "7001")
    assert (status, found["test-mapping"]["level"]) == (0, "ok")
    assert found["firewall"]["found"] == "lets tcp/7001 in"
    assert lab.table() == table


def test_every_interface_and_which_router_it_is(lab: Lab, environ: dict[str, str]) -> None:
    """One that has no default route, and a router on its LAN; one that has nobody."""
    for host, line in (
        ("lan1", "ip link add quiet type veth peer name unheard"),
        ("lan1", "ip addr add 10.98.0.2/24 dev quiet"),
        ("lan1", "ip link set quiet up"),
        ("lan1", f"ip link add eth1 type veth peer name other netns {lab.name('lan2')}"),
        ("lan1", "ip addr add 10.99.0.2/24 dev eth1"),
        ("lan1", "ip link set eth1 up"),
        ("lan2", "ip addr add 10.99.0.1/24 dev other"),
        ("lan2", "ip link set other up"),
    ):
        lab.run(host, line.split(), check=True)
    command = [NATSUP, "gateway", "--internal", "10.99.0.1", "--external", LAN2]
    router = lab.popen("lan2", command, stdout=subprocess.PIPE, text=True)
    assert router.stdout is not None
    assert router.stdout.readline().startswith("router: ready")
    status, document = report(lab, environ)
    found = {one["interface"]: one for one in document["interfaces"]}
    assert (status, list(found)) == (0, ["eth0", "quiet", "eth1"])
    assert (found["eth0"]["used"], found["eth0"]["gateway"]) == (True, ROUTER)
    assert found["eth0"]["answers"]["upnp"]["location"] is not None
    assert "does not answer to PCP" in found["eth0"]["answers"]["pcp"]["reason"]
    assert (found["quiet"]["gateway"], found["quiet"]["answers"]) == (None, {})
    assert found["eth1"]["gateway"] == "10.99.0.1"
    assert found["eth1"]["answers"]["upnp"]["location"].startswith("http://10.99.0.1:")
    said = document["router"]
    assert (said["vendor"], said["model"]) == ("Debian", "Debian router")
    assert (said["address"], said["external"]) == (ROUTER, OUTSIDE)
    assert "miniupnpd-rules" in said["quirks"]
    assert {f"quirk-{one}" for one in said["quirks"]} <= {c["id"] for c in document["checks"]}
    (check,) = [one for one in document["checks"] if one["id"] == "answers-eth1"]
    assert (check["level"], "--interface eth1" in check["advice"]) == ("note", True)


def test_who_may_not_see_the_rules_says_so(
    lab: Lab, environ: dict[str, str], tmp_path: Path
) -> None:
    load(lab, "lan1", _SHUT)
    tmp_path.chmod(0o777)
    folder = {**environ, "NATSUP_STATE_DIR": str(tmp_path / "nobodys")}
    status, found = doctor(lab, folder, prefix=tuple(as_nobody()))
    assert (status, found["firewall"]["level"]) == (0, "note")
    assert found["firewall"]["found"].startswith("only root can read its rules")
