"""A torrent that exists nowhere else, and what one says to a program that has it."""

import hashlib
from pathlib import Path

_PIECE = hashlib.sha1(b"nobody has this piece").digest()
_INFO = b"d6:lengthi16384e4:name8:nowhere!12:piece lengthi16384e6:pieces20:" + _PIECE + b"e"

_PROTOCOL = b"\x13BitTorrent protocol"  # BEP 3: its length, and its name
HANDSHAKE = _PROTOCOL + bytes(8) + hashlib.sha1(_INFO).digest() + b"-XX0001-somebody-out"
HANDSHAKE_ANSWER = _PROTOCOL

PING = b"d1:ad2:id20:somebody-on-the-netze1:q4:ping1:t2:aa1:y1:qe"  # BEP 5
PING_ANSWER = b"1:t2:aa"

# BEP 29, uTP: a connection is asked for, and granted. For programs that answer a PING only once
# they have found others.
SYN = b"\x41\0\x12\x34" + bytes(8) + b"\0\x10\0\0" + b"\0\1\0\0"
SYN_ANSWER = b"\x21\0\x12\x34"


def write(path: Path) -> str:
    """Write the torrent to a file; returns its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"d4:info" + _INFO + b"e")
    return str(path)
