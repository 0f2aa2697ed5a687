"""The fake gateway's NAT-PMP and PCP, over the same table as its UPnP. Pure; time is given."""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from natsup.upnp.pmp import natpmp, pcp
from tests.gateway.quirks import Quirks
from tests.gateway.table import Entry, Key, Table

PORT = 5351
ALL = ("224.0.0.1", 5350)  # where restarts are announced
NATPMP, PCP = "natpmp", "pcp"
_KINDS = {"natpmp": {1: "UDP", 2: "TCP"}, "pcp": {17: "UDP", 6: "TCP"}}
_LOWEST_OTHER = 41000  # of the ports that are given in place of others
# Results: NAT-PMP's (RFC 6886, section 3.5) and PCP's (RFC 6887, section 7.4)
_VERSION, _REFUSED, _CANNOT, _MISMATCH, _OPTION = 1, 2, 11, 12, 5
_NO_INTERNET = {NATPMP: 3, PCP: 7}
_NO_ROOM = {NATPMP: 4, PCP: 8}
_NO_OPCODE = {NATPMP: 5, PCP: 4}


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, whichever protocol it came by. ``key``: protocol and internal port, number 0 for
    all of them. ``wanted``: the external port."""

    by: str
    kind: str  # query, map, unmap
    key: Key = ("", 0)
    wanted: int = 0
    lifetime: int = 0
    nonce: bytes = b""
    insists: bool = False
    client: str = ""  # that it names, if it does


def read(data: bytes) -> Asked | None:
    """None for what is no request of either protocol."""
    if len(data) >= 2 and data[0] == natpmp.VERSION:
        return _read_natpmp(data)
    asked = pcp.decode_request(data) if data else None
    if asked is None:
        return None
    client = str(asked.client.ipv4_mapped or asked.client)
    one = asked.mapping
    if one is None:
        return Asked(PCP, "query" if asked.opcode == pcp.ANNOUNCE else "other", client=client)
    return Asked(
        PCP,
        "map" if asked.lifetime else "unmap",
        (_KINDS[PCP].get(one.protocol, ""), one.internal_port),
        one.external_port,
        asked.lifetime,
        one.nonce,
        asked.insist,
        client,
    )


def _read_natpmp(data: bytes) -> Asked | None:
    if data[1] == 0:
        return Asked(NATPMP, "query")
    if data[1] not in _KINDS[NATPMP]:
        return Asked(NATPMP, "other")
    if len(data) < 12:
        return None
    internal, wanted, lifetime = struct.unpack(">4xHHI", data[:12])
    kind = "map" if lifetime else "unmap"
    return Asked(NATPMP, kind, (_KINDS[NATPMP][data[1]], internal), wanted, lifetime)


class _No(Exception):
    def __init__(self, result: int) -> None:
        super().__init__(result)
        self.result = result


class Pmp:
    """What it answers, and with what it does to the table."""

    def __init__(self, table: Table, quirks: Quirks) -> None:
        self._table = table
        self._quirks = quirks
        self._began: float | None = None

    def start(self, now: float) -> None:
        """It was switched on."""
        if self._began is None or not self._quirks.pmp_keeps_clock:
            self._began = now

    def answer(self, data: bytes, peer: str, now: float) -> bytes | None:
        """What a request is answered with, but for the oddities of the wire."""
        self._table.expire(now)
        epoch = self._epoch(now)
        asked = read(data)
        if asked is None or asked.by not in self._quirks.speaks:
            return self._other_version(data, epoch)
        try:
            given, lifetime = self._do(asked, peer, now)
        except _No as no:
            return self._refusal(asked, data, epoch, no.result)
        external = IPv4Address(self._quirks.external)
        if asked.by == NATPMP:
            if asked.kind == "query":
                return natpmp.encode_response(natpmp.Response(0, 0, epoch, external))
            said = natpmp.Response(data[1], 0, epoch, None, asked.key[1], given, lifetime)
            return natpmp.encode_response(said)
        request = pcp.decode_request(data)
        assert request is not None
        one = request.mapping
        if one is not None:
            address = IPv6Address(f"::ffff:{external}")
            one = pcp.Mapping(one.nonce, one.protocol, one.internal_port, given, address)
        return pcp.encode_response(pcp.Response(request.opcode, 0, lifetime, epoch, one))

    def _epoch(self, now: float) -> int:
        began = now if self._began is None else self._began
        return self._quirks.pmp_epoch + int((now - began) * self._quirks.pmp_pace)

    def _other_version(self, data: bytes, epoch: int) -> bytes | None:
        speaks = self._quirks.speaks
        if len(data) < 2 or (data[0] == natpmp.VERSION and NATPMP in speaks):
            return None
        if NATPMP in speaks:
            said = natpmp.encode_response(natpmp.Response(data[1] & 127, _VERSION, epoch))
            return (said + bytes(12))[: self._quirks.pmp_downgrade]
        if PCP in speaks and data[0] != pcp.VERSION:
            return pcp.encode_response(pcp.Response(data[1] & 127, _VERSION, 0, epoch))
        return None

    def _refusal(self, asked: Asked, data: bytes, epoch: int, result: int) -> bytes:
        if asked.by == PCP:
            request = pcp.decode_request(data)
            assert request is not None
            lifetime = self._quirks.pcp_error_lifetime
            said = pcp.Response(request.opcode, result, lifetime, epoch, request.mapping)
            return pcp.encode_response(said)
        if asked.kind in ("query", "other"):
            nothing = IPv4Address(0) if asked.kind == "query" else None
            return natpmp.encode_response(natpmp.Response(data[1], result, epoch, nothing))
        return natpmp.encode_response(
            natpmp.Response(data[1], result, epoch, None, asked.key[1], 0, 0)
        )

    # --- the table ---

    def _do(self, asked: Asked, peer: str, now: float) -> tuple[int, int]:
        """Carry it out: the external port, and seconds. Raises `_No`."""
        quirks = self._quirks
        if quirks.pmp_off:
            raise _No(quirks.pmp_off)
        if asked.client and asked.client != peer:
            raise _No(_MISMATCH)
        if asked.kind == "query":
            return 0, 0
        if asked.kind == "other":
            raise _No(_NO_OPCODE[asked.by])
        if asked.kind == "unmap":
            self._unmap(asked, peer)
            return 0, 0
        return self._map(asked, peer, now)

    def _unmap(self, asked: Asked, peer: str) -> None:
        """NAT-PMP leaves alone what it has not made, and says that it is gone; PCP says why."""
        if self._quirks.pmp_refuses_removal:
            raise _No(self._quirks.pmp_refuses_removal)
        kind, number = asked.key
        own = {
            key: entry
            for key, entry in self._table.entries.items()
            if entry.client == peer and key[0] == kind
            if not number or entry.internal_port == str(number)
        }
        if asked.by == PCP:
            if not own and self._quirks.pcp_absent:
                raise _No(self._quirks.pcp_absent)
            if any(entry.by != PCP or entry.nonce != asked.nonce for entry in own.values()):
                raise _No(_REFUSED)
        for key, entry in own.items():
            if entry.by == asked.by:
                del self._table.entries[key]

    def _map(self, asked: Asked, peer: str, now: float) -> tuple[int, int]:
        quirks, entries = self._quirks, self._table.entries
        if asked.insists and not quirks.pcp_knows_option:
            raise _No(_OPTION)
        if quirks.pmp_refuses:
            raise _No(quirks.pmp_refuses)
        if quirks.wan_down:
            raise _No(_NO_INTERNET[asked.by])
        kind, number = asked.key
        given = self._free(asked, peer)
        if given != asked.wanted and asked.insists and quirks.pcp_heeds_option:
            raise _No(_CANNOT)
        there = entries.get((kind, given))
        if there is None and quirks.room is not None and len(entries) >= quirks.room:
            raise _No(_NO_ROOM[asked.by])
        foreign = there is not None and there.by == PCP and there.nonce != asked.nonce
        if asked.by == PCP and foreign and quirks.pcp_checks_nonce:
            raise _No(_REFUSED)
        lifetime = asked.lifetime if quirks.pmp_lifetime is None else quirks.pmp_lifetime
        name, ends = f"{asked.by} {number}", now + (lifetime or asked.lifetime)
        entries[kind, given] = Entry(peer, str(number), name, ends, asked.by, asked.nonce)
        return given, lifetime

    def _free(self, asked: Asked, peer: str) -> int:
        """The external port that is given."""
        kind, number = asked.key
        for key, entry in self._table.entries.items():  # it is renewed, wherever it is
            mine = (entry.client, entry.by, entry.internal_port) == (peer, asked.by, str(number))
            if mine and key[0] == kind:
                return key[1]
        given = max(asked.wanted or number, self._quirks.lowest_port)
        if self._quirks.pmp_other_port:
            given = _LOWEST_OTHER + (given == _LOWEST_OTHER)
        while (held := self._table.entries.get((kind, given))) is not None:
            same = held.client == peer and held.internal_port == str(number)
            if same and not self._quirks.pmp_other_port:
                break
            given += 1
        return given

    # --- the wire ---

    def datagrams(self, data: bytes, peer: str, now: float) -> list[tuple[str, bytes]]:
        """What is sent for a request, and from where: ``""`` its own port, ``"port"`` another one,
        ``"stranger"`` another host."""
        quirks = self._quirks
        if quirks.pmp_loses:
            quirks.pmp_loses -= 1
            return []
        said = self.answer(data, peer, now)
        asked = read(data)
        if said is None or (asked is not None and asked.kind in quirks.pmp_mute):
            return []
        forged = [one for name in quirks.pmp_before for one in FORGERIES[name](said)]
        return [*forged, *([("", said)] * quirks.pmp_times)]


def _refuse(said: bytes) -> bytes:
    """The same answer as a refusal: whoever takes it for one to the request shows it."""
    return said[:3] + bytes((_REFUSED,)) + said[4:]


def _otherwise(said: bytes, at: int) -> bytes:
    """With one byte changed."""
    return said[:at] + bytes((said[at] ^ 1,)) + said[at + 1 :]


def _is_pcp(said: bytes) -> bool:
    return said[0] == pcp.VERSION


# By name: what is sent before the true answer, and is none. Whatever can be taken for an answer is
# a refusal.
FORGERIES: dict[str, Callable[[bytes], list[tuple[str, bytes]]]] = {
    "another port's": lambda said: [("", _otherwise(_refuse(said), 41 if _is_pcp(said) else 9))],
    "another nonce": lambda said: [("", _otherwise(_refuse(said), 24 if _is_pcp(said) else 9))],
    "another opcode": lambda said: [("", _otherwise(_refuse(said), 1))],
    "from another port": lambda said: [("port", _refuse(said))],
    "from a stranger": lambda said: [("stranger", _refuse(said))],
    "short": lambda said: [("", said[:length]) for length in range(min(16, len(said)))],
    "long": lambda said: [("", (_refuse(said) if _is_pcp(said) else said).ljust(1200, b"\0"))],
    "looping options": lambda said: [("", said + bytes.fromhex("02 00 ffff") * 3)],
}
