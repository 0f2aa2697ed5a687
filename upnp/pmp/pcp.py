"""PCP: RFC 6887. Requests to bytes, and answers out of them. Pure.

Bytes on the wire are in network order; an IPv4 address is written as an IPv6 one (section 5):

    request  version 2, opcode, 2 reserved, lifetime (4), client's address (16)
    answer   version 2, 128 + opcode, 1 reserved, result, lifetime (4), epoch (4), 12 reserved
    both, for the opcode MAP (section 11.1): nonce (12), protocol (IANA's number), 3 reserved,
             internal port, external port, external address (16), options
"""

import hashlib
import hmac
import struct
from dataclasses import dataclass
from ipaddress import IPv6Address

from natsup.state.model import Port, Protocol
from natsup.upnp.pmp.answers import Granted, Heard, Map, Query, Refusal, Refused, Step, Told

VERSION = 2
NATPMP = 0  # the version that a router answers with which speaks NAT-PMP alone (appendix A)
ANNOUNCE, MAP = 0, 1
_ANSWER = 128
_LONGEST = 1100  # section 7
_REQUEST = struct.Struct(">BBHI16s")
_RESPONSE = struct.Struct(">BBBBII12x")
_MAPPING = struct.Struct(">12sB3xHH16s")
_PREFER_FAILURE = struct.pack(">BBH", 2, 0, 0)  # section 13.2
_IANA = {Protocol.TCP: 6, Protocol.UDP: 17}
_ANY = IPv6Address("::ffff:0.0.0.0")

# Section 7.4
REFUSALS = {
    1: Refusal.VERSION,
    2: Refusal.NOT_AUTHORIZED,
    3: Refusal.MALFORMED,
    4: Refusal.OPCODE,
    5: Refusal.OPTION,
    6: Refusal.MALFORMED,
    7: Refusal.NETWORK,
    8: Refusal.RESOURCES,
    9: Refusal.TRANSPORT,
    10: Refusal.QUOTA,
    11: Refusal.CANNOT_PROVIDE,
    12: Refusal.MISMATCH,
    13: Refusal.PEERS,
}


@dataclass(frozen=True, slots=True)
class Mapping:
    """The part of a MAP that request and answer share."""

    nonce: bytes  # 12
    protocol: int
    internal_port: int
    external_port: int
    external: IPv6Address


@dataclass(frozen=True, slots=True)
class Response:
    """An answer as it is on the wire. ``mapping``: None where it is another opcode's, or a refusal
    that does not tell."""

    opcode: int
    result: int
    lifetime: int
    epoch: int
    mapping: Mapping | None = None


@dataclass(frozen=True, slots=True)
class Unsupported:
    """A router that speaks NAT-PMP alone, or another version, says so."""

    version: int


def nonce(secret: bytes, router: str, client: str, port: Port) -> bytes:
    """What proves a mapping ours (section 11.2): the same after a restart of natsup, and not to be
    guessed by others."""
    what = f"{router}|{client}|{port}".encode()
    return hmac.new(secret, what, hashlib.sha256).digest()[:12]


def encode(step: Step, *, client: str, proof: bytes) -> bytes:
    """A request: sections 14.1 (ANNOUNCE), 11.2 (MAP) and 15.1 (to remove: no lifetime, and no
    external port or address wanted). ``client``: this host's address; ``proof``: the nonce."""
    own, anywhere = _address(client).packed, _ANY.packed
    if ":" in client:
        anywhere = bytes(16)  # of the same family (section 11.1)
    if isinstance(step, Query):
        return _REQUEST.pack(VERSION, ANNOUNCE, 0, 0, own)
    number = step.port.number
    lifetime, wanted = (step.lifetime, number) if isinstance(step, Map) else (0, 0)
    data = _REQUEST.pack(VERSION, MAP, 0, lifetime, own)
    data += _MAPPING.pack(proof, _IANA[step.port.protocol], number, wanted, anywhere)
    return data + _PREFER_FAILURE if isinstance(step, Map) and step.insist else data


def decode(data: bytes) -> Response | Unsupported | None:
    """An answer; None if it is none of this protocol.

    Section 8.3: what is longer than 1100 bytes or no multiple of 4 is dropped. What says that the
    router speaks another version alone may be of any length: NAT-PMP's are 8 bytes, and some
    routers' 4 or 12.
    """
    if not 4 <= len(data) <= _LONGEST or data[1] < _ANSWER:
        return None
    if data[0] != VERSION:
        # NAT-PMP has two bytes for the result, PCP one in the same place: both end there.
        return Unsupported(data[0]) if data[3] == 1 else None
    if len(data) % 4 or len(data) < _RESPONSE.size:
        return None
    _, code, _, result, lifetime, epoch = _RESPONSE.unpack_from(data)
    mapping = None
    if code - _ANSWER == MAP:
        if len(data) >= _RESPONSE.size + _MAPPING.size:
            proof, protocol, internal, external, address = _MAPPING.unpack_from(
                data, _RESPONSE.size
            )
            mapping = Mapping(proof, protocol, internal, external, IPv6Address(address))
        elif not result:
            return None
    return Response(code - _ANSWER, result, lifetime, epoch, mapping)


def encode_response(said: Response) -> bytes:
    """What a router sends: `decode` backwards."""
    data = _RESPONSE.pack(VERSION, _ANSWER + said.opcode, 0, said.result, said.lifetime, said.epoch)
    one = said.mapping
    if one is None:
        return data
    return data + _MAPPING.pack(
        one.nonce, one.protocol, one.internal_port, one.external_port, one.external.packed
    )


@dataclass(frozen=True, slots=True)
class Request:
    """What a router is asked. ``mapping``: of a MAP."""

    opcode: int
    lifetime: int
    client: IPv6Address
    mapping: Mapping | None = None
    insist: bool = False


def decode_request(data: bytes) -> Request | None:
    """None for what is no request of this version."""
    if len(data) < _REQUEST.size or len(data) % 4 or data[0] != VERSION or data[1] >= _ANSWER:
        return None
    _, code, _, lifetime, client = _REQUEST.unpack_from(data)
    if code != MAP:
        return Request(code, lifetime, IPv6Address(client))
    begin = _REQUEST.size
    if len(data) < begin + _MAPPING.size:
        return None
    proof, protocol, internal, external, address = _MAPPING.unpack_from(data, begin)
    insist = data[begin + _MAPPING.size :].startswith(_PREFER_FAILURE)
    mapping = Mapping(proof, protocol, internal, external, IPv6Address(address))
    return Request(code, lifetime, IPv6Address(client), mapping, insist)


def read(data: bytes, step: Step, *, proof: bytes) -> Heard | None:
    """The answer to a step; None if it is another's: late, doubled, of another nonce."""
    said = decode(data)
    if isinstance(said, Unsupported):
        return Heard(Refused(Refusal.VERSION), None)
    if said is None or said.opcode != (ANNOUNCE if isinstance(step, Query) else MAP):
        return None
    one = said.mapping
    if one is not None and not isinstance(step, Query):
        ours = (proof, _IANA[step.port.protocol], step.port.number)
        if (one.nonce, one.protocol, one.internal_port) != ours:
            return None  # section 11.4
    if said.result:
        refusal = REFUSALS.get(said.result, Refusal.OTHER)
        # Of a version that is not ours, the clock need not be one either.
        epoch = None if refusal is Refusal.VERSION else said.epoch
        return Heard(Refused(refusal, said.lifetime), epoch)
    if one is None:
        return Heard(Told(), said.epoch)
    address = one.external.ipv4_mapped
    known = address is not None and not address.is_unspecified
    granted = Granted(one.external_port, said.lifetime, str(address) if known else None)
    return Heard(granted, said.epoch)


def _address(text: str) -> IPv6Address:
    """An address as it is on the wire."""
    return IPv6Address(text if ":" in text else f"::ffff:{text}")
