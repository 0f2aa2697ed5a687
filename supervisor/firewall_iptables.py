"""The rules that iptables-save(8) prints, as far as they are understood. Pure."""

import shlex
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from natsup.supervisor.firewall_rules import (
    HOOKS,
    Chain,
    Fits,
    Packet,
    Rule,
    Verdict,
    both,
    certain,
    of_address,
    of_flags,
    of_interface,
    of_length,
    of_sender,
    of_sender_port,
    opposite,
)

# linux/netfilter_ipv4.h, enum nf_ip_hook_priorities. What nat does is not to let in or drop.
_PRIORITIES = {"raw": -300, "mangle": -150, "filter": 0, "security": 50}
_CHAINS = {"PREROUTING": HOOKS.index("prerouting"), "INPUT": HOOKS.index("input")}
_VERDICTS = {
    "ACCEPT": Verdict.ACCEPT,
    "DROP": Verdict.DROP,
    "REJECT": Verdict.DROP,
    "TARPIT": Verdict.DROP,
    "RETURN": Verdict.RETURN,
}
_GOES_ON = {
    *("AUDIT", "CHECKSUM", "CLASSIFY", "CONNMARK", "CONNSECMARK", "CT", "DSCP", "HL", "IDLETIMER"),
    *("LED", "LOG", "MARK", "NFLOG", "NOTRACK", "RATEEST", "SECMARK", "SET", "TCPMSS", "TEE"),
    *("TOS", "TRACE", "TTL", "ULOG"),
}

# Options of matches that narrow nothing down by themselves, and how many words follow each
_ASIDE = {
    "-m": 1,
    "--comment": 1,
    "--limit": 1,  # it is not reached
    "--limit-burst": 1,
    "--hashlimit-upto": 1,
    "--hashlimit-burst": 1,
    "--hashlimit-mode": 1,
    "--hashlimit-name": 1,
    "--hashlimit-srcmask": 1,
    "--hashlimit-htable-expire": 1,
    "--connlimit-upto": 1,
    "--connlimit-mask": 1,
    "--connlimit-saddr": 0,
    "--set": 0,
    "--name": 1,
    "--mask": 1,
    "--rsource": 0,
    "--seconds": 1,
    "--hitcount": 1,
    "--reap": 0,
    "--rttl": 0,
}
# What is not so of a stranger's first packet
_NOT_YET = {
    "-f": 0,  # it is whole
    "--mac-source": 1,  # of somebody on the LAN
    "--hashlimit-above": 1,
    "--connlimit-above": 1,
    "--update": 0,
    "--rcheck": 0,
    "--icmp-type": 1,
    "--icmpv6-type": 1,
}


def chains(text: str, packet: Packet, kind: str = "iptables") -> list[Chain]:
    """The chains in what iptables-save printed, with what their rules are to a packet. ``kind``:
    what their tables are called, with the name of each behind it."""
    found: dict[tuple[str, str], Chain] = {}
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:].strip()
        elif line.startswith(":") and table in _PRIORITIES:
            name, policy, *_ = f"{line[1:]} -".split()
            hook = _CHAINS.get(name)
            at = None if hook is None or policy == "-" else (hook, _PRIORITIES[table])
            found[table, name] = Chain(f"{kind} {table}", name, at, policy != "DROP")
        elif line.startswith("-A ") and table in _PRIORITIES:
            name = line.split()[1]
            if (table, name) in found:
                found[table, name].rules += _rules(line, packet)
    return list(found.values())


def tables(text: str) -> frozenset[str]:
    """The names of the tables that were printed."""
    return frozenset(line[1:].strip() for line in text.splitlines() if line.startswith("*"))


def by_nftables(text: str) -> bool:
    """Are these rules among those that nft(8) lists?"""
    return "(nf_tables)" in text or "xtables-save" in text


def _rules(line: str, packet: Packet) -> Iterator[Rule]:
    try:
        words = shlex.split(line)[2:]
    except ValueError:
        words = ["?", "-j", "NFQUEUE"]  # it may do anything
    ends = [n for n, word in enumerate(words) if word in ("-j", "-g")]
    if not ends:
        return  # it counts, and no more
    at = ends[0]
    fits, target = _all(words[:at], packet), "".join(words[at + 1 : at + 2])
    if words[at] == "-g":
        yield Rule(fits, Verdict.GOTO, target, line)
    elif target in _VERDICTS:
        yield Rule(fits, _VERDICTS[target], "", line)
    elif target in ("NFQUEUE", "QUEUE", "SYNPROXY"):  # another program decides
        yield Rule(both(fits, Fits.MAYBE), Verdict.DROP, "", line)
        yield Rule(both(fits, Fits.MAYBE), Verdict.ACCEPT, "", line)
    elif target not in _GOES_ON:
        yield Rule(fits, Verdict.JUMP, target, line)


def _all(words: Sequence[str], packet: Packet) -> Fits:
    """Do all the matches of a rule fit?"""
    fits, left = [Fits.YES], list(words)
    while left:
        option = left.pop(0)
        negated = option == "!"
        if negated:
            option = left.pop(0) if left else ""
        values = []
        while left and not (left[0] == "!" or left[0].startswith("-")):
            values.append(left.pop(0))
        one = _one(option, [*values, "", ""], packet)
        fits.append(opposite(one) if negated else one)
    return both(*fits)


def _one(option: str, values: Sequence[str], packet: Packet) -> Fits:
    if option in _ASIDE:
        return Fits.YES
    if option in _NOT_YET:
        return Fits.NO
    value = values[0]
    match option:
        case "-p":
            return certain(value in (packet.protocol, "all"))
        case "-i":
            return of_interface(packet, value, "+")
        case "-s":
            return of_sender(value)
        case "-d":
            return of_address(packet, value)
        case "--src-range":
            return of_sender(*value.split("-", 1))
        case "--dst-range":
            return of_address(packet, *value.split("-", 1))
        case "--length":
            return _any_range(value, partial(of_length, packet))
        case "--dport" | "--dports" | "--ports":
            return _any_range(value, lambda low, high: certain(low <= packet.port <= high))
        case "--sport" | "--sports":
            return _any_range(value, of_sender_port)
        case "--ctstate" | "--state":
            return certain("NEW" in value.split(","))
        case "--syn":
            return certain(packet.protocol == "tcp")
        case "--tcp-flags":
            mask, wanted = (part.lower().split(",") for part in values[:2])
            every = ["fin", "syn", "rst", "psh", "ack", "urg"]
            empty: list[str] = []
            return of_flags(
                packet,
                every if mask == ["all"] else mask,
                empty if wanted == ["none"] else every if wanted == ["all"] else wanted,
            )
        case "--dst-type":
            return certain("LOCAL" in value.split(","))
        case "--src-type":
            return certain("UNICAST" in value.split(","))
        case "--match-set":
            return certain(False) if values[1] == "src" else Fits.MAYBE
    return Fits.MAYBE


def _any_range(text: str, test: Callable[[int, int], Fits]) -> Fits:
    """Of a list of numbers and ranges, does any fit?"""
    found = [Fits.NO]
    for part in text.split(","):
        low, _, high = part.partition(":")
        if not low.isdecimal() or not (high or low).isdecimal():
            return Fits.MAYBE
        found.append(test(int(low), int(high or low)))
    return max(found)
