"""What `natsup doctor` makes of the last steps from the Internet to a program. Pure."""

from collections.abc import Sequence

from natsup.supervisor.doctor_facts import Firewall, Hairpin, Router
from natsup.supervisor.doctor_findings import Finding, Level

_FROM_OUTSIDE = (
    "test from outside: with a phone on mobile data, or have a friend connect to {0} while the"
    " program runs"
)


def of_way_in(router: Router | None, firewalls: Sequence[Firewall], wanted: str) -> list[Finding]:
    """The firewall of this host, and the trial of all of it. ``wanted``: the port that the user has
    named, "" if none."""
    found = [_firewall(one, wanted) for one in firewalls]
    mapping = router.mapping if router is not None else None
    if router is not None and mapping is not None and mapping.hairpin is not None:
        shut = bool(firewalls and firewalls[0].drop)
        found.append(_hairpin(mapping.hairpin, f"{router.external}", shut))
    return found


def _firewall(firewall: Firewall, wanted: str) -> Finding:
    """That a port nobody has named is shut is as firewalls are meant to be: a warning. And so is
    what concerns IPv6 alone: natsup is of use without."""
    packet, drop = firewall.packet, firewall.drop
    name = ("firewall-ipv6", "Firewall, IPv6") if packet.ipv6 else ("firewall", "Firewall here")
    kept_by = f" ({firewall.manager})" if firewall.manager else ""
    port = f"{packet.protocol}/{packet.port}"
    if firewall.reason:
        return Finding(
            *name,
            Level.NOTE,
            f"{firewall.reason}{kept_by}: it may keep out what the router lets in",
            firewall.remedy,
        )
    if drop is None:
        return Finding(*name, Level.OK, f"lets {port} in{kept_by}")
    what = "drops" if drop.sure else "may drop"
    about = f"{port}, which the router would let in" if wanted else f"{port}, as any unknown port"
    broken = wanted and drop.sure and not packet.ipv6
    level = Level.PROBLEM if broken else Level.WARNING
    where = f"chain {drop.chain} of {drop.table}"
    found = f"{what} {about}{kept_by}: {where}: {drop.rule}"
    return Finding(*name, level, found, _let_in(firewall, str(packet.port) if wanted else "PORT"))


def _let_in(firewall: Firewall, port: str) -> str:
    """The line that lets a port in."""
    packet, drop = firewall.packet, firewall.drop
    assert drop is not None
    protocol = packet.protocol
    if firewall.manager == "ufw":
        line = f"sudo ufw allow {port}/{protocol}"
    elif firewall.manager == "firewalld":
        line = (
            f"sudo firewall-cmd --add-port={port}/{protocol}, and once more with --permanent before"
            " it"
        )
    elif drop.table.startswith("ip") and "tables" in drop.table:
        program, table = drop.table.split()
        line = f"sudo {program} -t {table} -I {drop.base} -p {protocol} --dport {port} -j ACCEPT"
        line += ", and where rules are kept for the next start"
    else:
        line = (
            f"sudo nft insert rule {drop.table} {drop.base} {protocol} dport {port} accept, and the"
            " same in /etc/nftables.conf"
        )
    return line if port.isdecimal() else f"{line}; PORT is the program's"


def _hairpin(came: Hairpin, external: str, shut: bool) -> Finding:
    name = ("hairpin", "From outside")
    if came is Hairpin.CAME:
        return Finding(*name, Level.OK, f"a connection to {external} came back in here")
    if shut:
        found = f"not known: a connection to {external} did not come in past the firewall here"
        return Finding(*name, Level.NOTE, found, "see Firewall here, and run natsup doctor again")
    if came is Hairpin.ASTRAY:
        found = f"not known: something else answers this host at {external}, the router perhaps"
    else:
        found = (
            f"not known: the router does not lead this host's own connections to {external} back in"
            " (no hairpin), which is common and no harm"
        )
    return Finding(*name, Level.NOTE, found, _FROM_OUTSIDE.format(external))
