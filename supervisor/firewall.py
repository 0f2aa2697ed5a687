"""This host's own firewall, as the kernel has it: read, and never touched."""

import os
import shutil
import subprocess
from pathlib import Path

from natsup.state.model import Port, Protocol
from natsup.supervisor import firewall_iptables, firewall_nft
from natsup.supervisor.doctor_facts import Firewall, Network, Router
from natsup.supervisor.firewall_rules import Chain, Packet, judge

_SOME = Port(Protocol.TCP, 50000)  # for which no rule is likely to have been made
_SECONDS = 3.0  # for each of the programs that list rules
_MOST_BYTES = 16 << 20  # of what they print
_WHERE = "/usr/sbin:/sbin:/usr/bin:/bin"  # users often have the half of these on their PATH


def look_at_firewalls(
    network: Network, router: Router | None, wanted: Port | None
) -> tuple[Firewall, ...]:
    """What would become of what comes in for the port that is wanted, or else for the one that was
    mapped for a trial."""
    if network.used is None:
        return ()
    port = wanted or _SOME
    if wanted is None and router is not None and router.mapping is not None:
        port = Port.read(router.mapping.port) if router.mapping.port else port
    addresses = [network.address]
    if router is not None and router.pinholes is not None:
        addresses.append(router.pinholes.address)
    return tuple(
        look_at_firewall(Packet(network.used.interface, address, port.protocol.value, port.number))
        for address in addresses
    )


def look_at_firewall(packet: Packet) -> Firewall:
    """What would become of a packet. Raises nothing."""
    found = _chains(packet)
    if isinstance(found, tuple):
        return Firewall(packet, _manager([]), *found)
    return Firewall(packet, _manager(found), drop=judge(found))


def _chains(packet: Packet) -> list[Chain] | tuple[str, str]:
    """The chains; or why they are not known, and what can be done."""
    nft, iptables = shutil.which("nft", path=_WHERE), "ip6tables" if packet.ipv6 else "iptables"
    saved = shutil.which(f"{iptables}-save", path=_WHERE)
    if nft is None and saved is None:
        return "the rules cannot be read without nft or iptables", "install nftables"
    found: list[Chain] = []
    covered: frozenset[str] = frozenset()  # tables of nftables that iptables understands better
    done = []
    if saved is not None:
        text = _run(saved)
        if text is not None:
            done.append(saved)
            found += firewall_iptables.chains(text, packet, iptables)
            if firewall_iptables.by_nftables(text):
                covered = firewall_iptables.tables(text)
                found += _legacy(iptables, packet)
    if nft is not None:
        document, listing = _run(nft, "-j", "list", "ruleset"), _run(nft, "-a", "list", "ruleset")
        if document is not None:
            try:
                mine = firewall_nft.chains(document, listing or "", packet)
            except ValueError as error:
                return str(error), "look at the rules: nft list ruleset"
            family = "ip6" if packet.ipv6 else "ip"
            found += [one for one in mine if one.table not in {f"{family} {c}" for c in covered}]
            done.append(nft)
    if not done:
        if os.geteuid():
            return "only root can read its rules", "sudo natsup doctor looks at them, too"
        return "its rules cannot be read", "in a container --cap-add NET_ADMIN lets them be read"
    return found


def _legacy(iptables: str, packet: Packet) -> list[Chain]:
    """What iptables of old has beside that of nftables, if it has ever been used. To ask it would
    make the kernel load it."""
    names = Path(f"/proc/self/net/{'ip6' if packet.ipv6 else 'ip'}_tables_names")
    program = shutil.which(f"{iptables}-legacy-save", path=_WHERE)
    try:
        if program is None or not names.read_text().strip():
            return []
    except OSError:
        return []
    kind = f"{iptables}-legacy"
    return firewall_iptables.chains(_run(program) or "", packet, kind)


def _run(*command: str) -> str | None:
    """What a program prints; None if it fails."""
    environ = {"LC_ALL": "C", "PATH": _WHERE}
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
            env=environ,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    if done.returncode or len(done.stdout) > _MOST_BYTES:
        return None
    return done.stdout.decode("utf-8", "replace")


def _manager(chains: list[Chain]) -> str:
    """Who makes the rules: ``"ufw"``, ``"firewalld"``, or "" for nobody that is known."""
    if any(chain.name in ("ufw-user-input", "ufw6-user-input") for chain in chains):
        return "ufw"
    if any(chain.table.endswith(" firewalld") for chain in chains):
        return "firewalld"
    if chains:
        return ""
    try:
        if "ENABLED=yes" in Path("/etc/ufw/ufw.conf").read_text().splitlines():
            return "ufw"
    except OSError:
        pass
    return "firewalld" if os.path.exists("/run/firewalld.pid") else ""
