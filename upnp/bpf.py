"""Classic BPF: filters by which the kernel drops what a socket does not want: socket(7), bpf(4)."""

import ctypes
import struct
from typing import Protocol

_SOL_SOCKET, _SO_ATTACH_FILTER = 1, 26  # asm-generic/socket.h

# linux/bpf_common.h: load a byte, a half word, a word, at a fixed place or after an IP header
LD_BYTE, LD_HALF, LD_WORD, LD_HALF_AFTER, LDX_HEADER = 0x30, 0x28, 0x20, 0x48, 0xB1
JEQ, JGT, JSET, RET = 0x15, 0x25, 0x45, 0x06


class _Socket(Protocol):
    def setsockopt(self, level: int, option: int, value: bytes, /) -> None: ...


def instruction(code: int, k: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """A struct sock_filter. The jumps count the instructions to be passed over."""
    return struct.pack("=HBBI", code, if_true, if_false, k)


def attach(sock: _Socket, program: bytes) -> None:
    """Have a socket of the standard library's or of trio's filtered. Raises OSError."""
    buffer = ctypes.create_string_buffer(program, len(program))
    fprog = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    sock.setsockopt(_SOL_SOCKET, _SO_ATTACH_FILTER, fprog)
