"""NAT-PMP: RFC 6886. Requests to bytes, and answers out of them. Pure.

Bytes on the wire are in network order:

    request  version 0, opcode (0 address, 1 UDP, 2 TCP)[, 2 reserved, internal port, external port,
             lifetime (4)]
    answer   version 0, 128 + opcode, result (2), epoch (4)[, address (4)][, internal port, external
             port, lifetime (4)]
"""

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address

from natsup.state.model import Protocol
from natsup.upnp.pmp.answers import Granted, Heard, Map, Query, Refusal, Refused, Step, Told

VERSION = 0
_ADDRESS, _UDP, _TCP = 0, 1, 2
_ANSWER = 128
_MAP = struct.Struct(">BBHHHI")
_HEAD = struct.Struct(">BBHI")
_MAPPED = struct.Struct(">HHI")

# Section 3.5
REFUSALS = {
    1: Refusal.VERSION,
    2: Refusal.NOT_AUTHORIZED,
    3: Refusal.NETWORK,
    4: Refusal.RESOURCES,
    5: Refusal.OPCODE,
}


@dataclass(frozen=True, slots=True)
class Response:
    """An answer as it is on the wire. What a short one, which is a refusal, does not have is None.

    ``opcode``: of the request.
    """

    opcode: int
    result: int
    epoch: int | None = None
    address: IPv4Address | None = None
    internal_port: int | None = None
    external_port: int | None = None
    lifetime: int | None = None


def opcode(step: Step) -> int:
    if isinstance(step, Query):
        return _ADDRESS
    return _UDP if step.port.protocol is Protocol.UDP else _TCP


def encode(step: Step) -> bytes:
    """A request: sections 3.2 (address), 3.3 (map) and 3.4 (remove: no lifetime, and external port
    0)."""
    if isinstance(step, Query):
        return bytes((VERSION, _ADDRESS))
    number, code = step.port.number, opcode(step)
    if isinstance(step, Map):
        return _MAP.pack(VERSION, code, 0, number, number, step.lifetime)
    return _MAP.pack(VERSION, code, 0, number, 0, 0)


def decode(data: bytes) -> Response | None:
    """An answer; None if it is none of this protocol.

    What is longer than it should be is cut: section 3.5 has clients do so by what they know. A
    refusal may end anywhere after the result, as some routers' do.
    """
    if len(data) < 4 or data[0] != VERSION or data[1] < _ANSWER:
        return None
    code, result = data[1] - _ANSWER, int.from_bytes(data[2:4], "big")
    epoch = int.from_bytes(data[4:8], "big") if len(data) >= 8 else None
    if code == _ADDRESS and len(data) >= 12:
        return Response(code, result, epoch, address=IPv4Address(data[8:12]))
    if code in (_UDP, _TCP) and len(data) >= 16:
        internal, external, lifetime = _MAPPED.unpack_from(data, 8)
        return Response(code, result, epoch, None, internal, external, lifetime)
    return Response(code, result, epoch) if result else None


def encode_response(said: Response) -> bytes:
    """What a router sends: `decode` backwards."""
    data = bytes((VERSION, _ANSWER + said.opcode)) + said.result.to_bytes(2, "big")
    if said.epoch is None:
        return data
    data += said.epoch.to_bytes(4, "big")
    if said.address is not None:
        return data + said.address.packed
    if said.internal_port is None or said.external_port is None or said.lifetime is None:
        return data
    return data + _MAPPED.pack(said.internal_port, said.external_port, said.lifetime)


def read(data: bytes, step: Step) -> Heard | None:
    """The answer to a step; None if it is another's: late, doubled, or of another protocol."""
    said = decode(data)
    if said is None or said.opcode != opcode(step):
        return None
    if not isinstance(step, Query) and said.internal_port not in (None, step.port.number):
        return None
    if said.result:
        return Heard(Refused(REFUSALS.get(said.result, Refusal.OTHER)), said.epoch)
    if isinstance(step, Query):
        address = said.address
        known = address is not None and not address.is_unspecified
        return Heard(Told(str(address) if known else None), said.epoch)
    if said.external_port is None or said.lifetime is None:
        return None
    return Heard(Granted(said.external_port, said.lifetime), said.epoch)
