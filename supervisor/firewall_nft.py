"""The rules that ``nft -j list ruleset`` prints, as far as they are understood. Pure.

The form is that of libnftables-json(5). Rules are quoted from ``nft -a list ruleset``, in which
each stands with its handle.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

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

_Test = Callable[[Any], Fits]
_VERDICTS = {
    "accept": Verdict.ACCEPT,
    "drop": Verdict.DROP,
    "reject": Verdict.DROP,
    "return": Verdict.RETURN,
    "jump": Verdict.JUMP,
    "goto": Verdict.GOTO,
}
# Statements that narrow nothing down, and let the packet go on
_ASIDE = {
    *("counter", "log", "mangle", "notrack", "comment", "dup", "flow", "secmark", "last"),
    "continue",
    *("ct helper", "ct timeout", "ct expectation"),
}
_KEEPERS = ("set", "map", "meter")  # statements that keep something of each sender
_FLAGS = {"payload": {"protocol": "tcp", "field": "flags"}}
_FRAGMENT = {"payload": {"protocol": "ip", "field": "frag-off"}}
_DONT_FRAGMENT = 0x4000  # RFC 791, section 3.1: it may be set in any packet
_OTHERS = ("tcp", "udp", "udplite", "sctp", "dccp", "icmp", "icmpv6", "igmp", "arp")
_UNDECIDED = ("queue", "tproxy", "synproxy")  # somebody else decides
_NUMBERS = {"6": "tcp", "17": "udp"}  # of protocols, should nft print those


def chains(document: str, listing: str, packet: Packet) -> list[Chain]:
    """The chains that a packet may come through. ``listing``: the rules as text. Raises
    ValueError."""
    try:
        objects = json.loads(document)["nftables"]
        return _Ruleset(objects, listing, packet).chains
    except (KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise ValueError("nft prints what is not understood") from error


class _Ruleset:
    def __init__(self, objects: list[dict[str, Any]], listing: str, packet: Packet) -> None:
        self._packet = packet
        self._texts = _by_handle(listing)
        self._sets: dict[tuple[str, str], list[Any]] = {}
        families = ("inet", "netdev", "ip6" if packet.ipv6 else "ip")
        dormant = _dormant(objects, listing)
        found: dict[tuple[str, str], Chain] = {}
        mine = [
            (kind, one)
            for each in objects
            for kind, one in each.items()
            if kind in ("chain", "set", "map", "rule")
            and one["family"] in families
            and f"{one['family']} {one['table']}" not in dormant
        ]
        for kind, one in mine:
            table = f"{one['family']} {one['table']}"
            if kind == "chain":
                accepts = one.get("policy") != "drop"
                found[table, one["name"]] = Chain(table, one["name"], self._at(one), accepts)
            elif kind in ("set", "map"):
                self._sets[table, one["name"]] = one.get("elem", [])
        for kind, one in mine:
            if kind == "rule":
                table = f"{one['family']} {one['table']}"
                chain = found.get((table, one["chain"]))
                if chain is not None:
                    chain.rules += self._understood(table, one)
        self.chains = list(found.values())

    def _at(self, chain: Mapping[str, Any]) -> tuple[int, int] | None:
        if chain.get("hook") not in HOOKS or chain.get("type") != "filter":
            return None
        devices = chain.get("dev", self._packet.interface)
        if self._packet.interface not in (devices if isinstance(devices, list) else [devices]):
            return None
        return HOOKS.index(chain["hook"]), int(chain["prio"])

    def _understood(self, table: str, rule: Mapping[str, Any]) -> list[Rule]:
        text = self._texts.get((table, rule["handle"]), "a rule")
        try:
            return list(self._rules(table, rule, text))
        except (KeyError, TypeError, AttributeError, ValueError):
            return [
                Rule(Fits.MAYBE, Verdict.DROP, "", text),
                Rule(Fits.MAYBE, Verdict.ACCEPT, "", text),
            ]

    def _rules(self, table: str, rule: Mapping[str, Any], text: str) -> Iterator[Rule]:
        fits = Fits.YES
        for statement in rule["expr"]:
            ((kind, value),) = statement.items()
            if kind in _VERDICTS:
                yield self._verdict(fits, statement, text)
                return
            if kind == "vmap":
                elements = self._elements(table, value["data"])
                for key, verdict in elements if self._concerns(value["key"]) else ():
                    one = both(fits, self._is(table, value["key"], _whole(value["key"], key)))
                    if next(iter(verdict)) in _VERDICTS:
                        yield self._verdict(one, verdict, text)
                return
            if kind in _UNDECIDED:
                yield Rule(both(fits, Fits.MAYBE), Verdict.DROP, "", text)
                yield Rule(both(fits, Fits.MAYBE), Verdict.ACCEPT, "", text)
                return
            if kind == "xt" and value.get("type") == "target":
                if value.get("name") == "REJECT":
                    yield Rule(fits, Verdict.DROP, "", text)
                return
            fits = both(fits, self._statement(table, kind, value))

    def _verdict(self, fits: Fits, statement: Mapping[str, Any], text: str) -> Rule:
        ((kind, value),) = statement.items()
        to = value["target"] if kind in ("jump", "goto") else ""
        return Rule(fits, _VERDICTS[kind], to, text)

    def _statement(self, table: str, kind: str, value: Any) -> Fits:
        if kind == "match":
            return self._match(table, value)
        if kind in _KEEPERS:
            inner = value.get("stmt", [])
            every = inner if isinstance(inner, list) else [inner]
            parts = (self._statement(table, *part) for one in every for part in one.items())
            return both(*parts)
        if kind in ("limit", "ct count", "quota"):  # not reached, so not over it either
            return certain(not (isinstance(value, dict) and value.get("inv")))
        return Fits.YES if kind in _ASIDE else Fits.MAYBE

    # --- matches ---

    def _match(self, table: str, match: Mapping[str, Any]) -> Fits:
        left, op, right = match["left"], match["op"], match["right"]
        if not self._concerns(left):
            return Fits.NO
        if op in ("<", ">", "<=", ">="):
            ends = {"<": (0, right - 1), "<=": (0, right), ">": (right + 1, 65535)}
            right = {"range": list(ends.get(op, (right, 65535)))}
        if op not in ("in", "!"):
            right = _whole(left, right)
        found = self._is(table, left, right)
        return opposite(found) if op in ("!=", "!") else found

    def _concerns(self, left: Any) -> bool:
        """Does a packet like this one have what is looked at? Else the rule does not fit, whatever
        is asked of it."""
        if isinstance(left, dict) and "&" in left:
            left = left["&"][0]
        of = left.get("payload", {}).get("protocol", "") if isinstance(left, dict) else ""
        if of in ("ip", "ip6"):
            return bool(of == ("ip6" if self._packet.ipv6 else "ip"))
        return of not in _OTHERS or of == self._packet.protocol

    def _is(self, table: str, left: Any, right: Any) -> Fits:
        """Is what ``left`` looks at among what ``right`` says?"""
        test = self._test(left)
        if isinstance(left, dict) and "concat" in left:
            parts = left["concat"]
            if not all(map(self._concerns, parts)):
                return Fits.NO
            test = partial(self._each, table, parts)
        found = [Fits.NO]
        for value in self._elements(table, right):
            found.append(test(value))
        return max(found)

    def _each(self, table: str, parts: list[Any], value: Any) -> Fits:
        values = value.get("concat", []) if isinstance(value, dict) else []
        if len(values) != len(parts):
            return Fits.MAYBE
        pairs = zip(parts, values, strict=True)
        return both(*(self._is(table, part, one) for part, one in pairs))

    def _elements(self, table: str, right: Any) -> Iterator[Any]:
        """The values in a set, named or not, in a list, or the single one that it is."""
        if isinstance(right, str) and right.startswith("@"):
            right = self._sets.get((table, right[1:]), [])
        if isinstance(right, dict) and "set" in right:
            right = right["set"]
        for value in right if isinstance(right, list) else [right]:
            yield value["elem"]["val"] if isinstance(value, dict) and "elem" in value else value

    def _test(self, left: Any) -> _Test:
        """What tells of a single value whether it is so of the packet."""
        if not isinstance(left, dict) or len(left) != 1:
            return lambda value: Fits.MAYBE
        ((kind, what),) = left.items()
        packet = self._packet
        if kind == "&" and what[0] == _FLAGS:
            return lambda value: of_flags(packet, _flags(what[1]), _flags(value))
        if kind == "&" and what[0] == _FRAGMENT and not what[1] & _DONT_FRAGMENT:
            return lambda value: _number(value, 0)
        if not isinstance(what, dict):
            return lambda value: Fits.MAYBE
        found: dict[str, _Test] = {}
        if kind == "meta":
            protocols = (packet.protocol, "ip6" if packet.ipv6 else "ip")
            found = {
                "iifname": self._interface,
                "iif": self._interface,
                "oifname": lambda value: Fits.NO,
                "oif": lambda value: Fits.NO,
                "l4proto": lambda value: certain(_protocol(value) == packet.protocol),
                "protocol": lambda value: certain(value in protocols),
                "nfproto": lambda value: certain(value == ("ipv6" if packet.ipv6 else "ipv4")),
                "length": self._length,
                "pkttype": lambda value: certain(value in ("host", "unicast")),
            }
        elif kind == "ct":
            found = {
                "state": lambda value: certain(value == "new"),
                "status": lambda value: certain(False),
                "direction": lambda value: certain(value == "original"),
            }
        elif kind == "payload":
            found = {
                "saddr": _sender,
                "daddr": self._address,
                "protocol": lambda value: certain(_protocol(value) == packet.protocol),
                "nexthdr": lambda value: certain(_protocol(value) == packet.protocol),
                "dport": lambda value: _number(value, packet.port),
                "sport": lambda value: _between(value, of_sender_port),
                "flags": lambda value: of_flags(packet, ("syn",), _flags(value)),
            }
            if what.get("protocol") == "ip":
                found["length"] = self._length
            elif what.get("protocol") == "ether":
                found = {"saddr": lambda value: Fits.NO}  # of somebody on the LAN
            elif what.get("protocol") not in ("ip6", "tcp", "udp", "th"):
                found = {}
        elif kind == "fib":
            about = what.get("flags", [])
            if what.get("result") == "type":
                kin = "local" if "daddr" in about else "unicast"
                return lambda value: certain(value == kin)
            # An interface 0 is none
            return lambda value: certain(value is True) if value in (True, 0, "0") else Fits.MAYBE
        return found.get(what.get("key") or what.get("field") or "", lambda value: Fits.MAYBE)

    def _interface(self, value: Any) -> Fits:
        return of_interface(self._packet, str(value), "*")

    def _length(self, value: Any) -> Fits:
        return _between(value, partial(of_length, self._packet))

    def _address(self, value: Any) -> Fits:
        if isinstance(value, dict) and "range" in value:
            return of_address(self._packet, *value["range"])
        return of_address(self._packet, _network(value))


def _network(value: Any) -> str:
    if isinstance(value, dict) and "prefix" in value:
        return f"{value['prefix']['addr']}/{value['prefix']['len']}"
    return str(value)


def _sender(value: Any) -> Fits:
    if isinstance(value, dict) and "range" in value:
        return of_sender(*value["range"])
    return of_sender(_network(value))


def _number(value: Any, known: int) -> Fits:
    return _between(value, lambda low, high: certain(low <= known <= high))


def _between(value: Any, test: Callable[[int, int], Fits]) -> Fits:
    low, high = value["range"] if isinstance(value, dict) and "range" in value else (value, value)
    return test(low, high) if isinstance(low, int) and isinstance(high, int) else Fits.MAYBE


def _protocol(value: Any) -> str:
    return _NUMBERS.get(str(value), str(value))


def _whole(left: Any, right: Any) -> Any:
    """The same, with a list of flags as the single value that it is: they are set together."""
    many = left == _FLAGS or (isinstance(left, dict) and left.get("&", [None])[0] == _FLAGS)
    return {"set": [right]} if many and isinstance(right, list) else right


def _flags(value: Any) -> set[str]:
    """One flag, a list, or flags that are joined by "|"."""
    if isinstance(value, dict) and "|" in value:
        return set[str]().union(*map(_flags, value["|"]))
    if isinstance(value, list):
        return set(map(str, value))
    return {str(value)} - {"0"}


_TABLE = re.compile(r"table (\w+ \S+) \{")
_HANDLE = re.compile(r"\s*(.*\S)\s+# handle (\d+)\s*")


def _dormant(objects: list[dict[str, Any]], listing: str) -> set[str]:
    """The tables that are switched off. Of their flags nft 1.0.6 prints one letter in JSON."""
    found, table = set(), ""
    for one in (each["table"] for each in objects if "table" in each):
        if "dormant" in one.get("flags", ()):
            found.add(f"{one['family']} {one['name']}")
    for line in listing.splitlines():
        start = _TABLE.match(line)
        if start is not None:
            table = start[1]
        elif line.startswith("\tflags ") and "dormant" in line:
            found.add(table)
    return found


def _by_handle(listing: str) -> dict[tuple[str, int], str]:
    """The text of each rule, by its table and handle."""
    found, table = {}, ""
    for line in listing.splitlines():
        start = _TABLE.match(line)
        if start is not None:
            table = start[1]
        else:
            rule = _HANDLE.fullmatch(line)
            if rule is not None and not rule[1].endswith("{"):
                found[table, int(rule[2])] = rule[1]
    return found
