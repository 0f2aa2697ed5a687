"""The filter read as a program, and run on every architecture that may come along."""

import errno
import os
import struct

import pytest

from natsup.supervisor.abi import CLOSE, IO_URING_SETUP, LANDLOCK_RESTRICT_SELF
from natsup.supervisor.filter import Filter, build, cache_file, load

ALLOW, NOTIFY = 0x7FFF0000, 0x7FC00000
X86_64, I386, AARCH64, ARM, RISCV64 = 0xC000003E, 0x40000003, 0xC00000B7, 0x40000028, 0xC00000F3
X32 = 0x40000000  # a bit in the number of a call

LD_ABS, JEQ, JGE, JGT, JSET, JA, RET, AND = 0x20, 0x15, 0x35, 0x25, 0x45, 0x05, 0x06, 0x54


def run(program: bytes, arch: int, number: int, arguments: tuple[int, ...] = ()) -> int:
    """What classic BPF makes of one call (bpf(4) as far as libseccomp uses it)."""
    padded = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
    data = struct.pack("=iIQ6Q", number - (1 << 32 if number >> 31 else 0), arch, 0, *padded)
    accumulator = counter = 0
    while True:
        code, true, false, k = struct.unpack_from("=HBBI", program, counter * 8)
        counter += 1
        if code == LD_ABS:
            (accumulator,) = struct.unpack_from("=I", data, k)
        elif code == RET:
            return int(k)
        elif code == JA:
            counter += k
        elif code == AND:
            accumulator &= k
        else:
            holds = {
                JEQ: accumulator == k,
                JGE: accumulator >= k,
                JGT: accumulator > k,
                JSET: bool(accumulator & k),
            }[code]
            counter += true if holds else false


@pytest.mark.parametrize(
    ("arch", "number", "arguments", "expected"),
    [
        (X86_64, 49, (), NOTIFY),  # bind
        (X86_64, 50, (), ALLOW),  # listen
        (X86_64, 49 | X32, (), NOTIFY),
        (X86_64, 50 | X32, (), ALLOW),
        (I386, 361, (), NOTIFY),  # bind
        (I386, 102, (2,), NOTIFY),  # socketcall(SYS_BIND)
        (I386, 102, (4,), ALLOW),  # socketcall(SYS_LISTEN)
        (I386, 49, (), ALLOW),  # x86_64's bind is i386's geteuid
        (AARCH64, 200, (), ALLOW),  # a foreign architecture is let through, not killed
        (RISCV64, 200, (), ALLOW),
    ],
)
def test_x86_64(arch: int, number: int, arguments: tuple[int, ...], expected: int) -> None:
    assert run(build("x86_64").program, arch, number, arguments) == expected


@pytest.mark.parametrize(
    ("arch", "number", "expected"),
    [(AARCH64, 200, NOTIFY), (AARCH64, 201, ALLOW), (ARM, 282, NOTIFY), (X86_64, 49, ALLOW)],
)
def test_aarch64(arch: int, number: int, expected: int) -> None:
    assert run(build("aarch64").program, arch, number) == expected


@pytest.mark.parametrize("closes", [False, True])
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_close_is_trapped_where_asked_for(machine: str, closes: bool) -> None:
    """By the numbers that the receiver knows it by."""
    program = build(machine, closes=closes).program
    theirs = {"x86_64": (X86_64, I386), "aarch64": (AARCH64, ARM)}[machine]
    numbers = [(arch, number) for number, arch in CLOSE if arch in theirs]
    assert len(numbers) == (3 if machine == "x86_64" else 2)
    for arch, number in numbers:
        assert run(program, arch, number) == (NOTIFY if closes else ALLOW)
        assert run(program, arch, number + 1) == ALLOW


@pytest.mark.parametrize("machine", ["x86_64", "aarch64", os.uname().machine])
def test_it_stays_short(machine: str) -> None:
    assert len(build(machine).program) // 8 <= 20


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_io_uring_fails_where_asked_for(machine: str) -> None:
    theirs = {"x86_64": (X86_64, I386), "aarch64": (AARCH64, ARM)}[machine]
    for arch in theirs:
        assert run(build(machine).program, arch, IO_URING_SETUP) == NOTIFY
        refused = run(build(machine, io_uring=False).program, arch, IO_URING_SETUP)
        assert refused == 0x00050000 | errno.ENOSYS  # SECCOMP_RET_ERRNO
        assert run(build(machine).program, arch, LANDLOCK_RESTRICT_SELF) == NOTIFY
    if machine == "x86_64":
        assert run(build(machine).program, X86_64, IO_URING_SETUP | X32) == NOTIFY


def test_the_cache_gives_back_what_was_built(tmp_path: os.PathLike[str]) -> None:
    path = f"{tmp_path}/natsup/filter"
    first = load(path)
    with open(path, "rb") as file:
        assert Filter.from_bytes(file.read()) is not None
    again = load(path)
    assert (again.number, again.program) == (first.number, first.program)
    assert again.program == build().program


@pytest.mark.parametrize("damage", [0, 4, 8, 20, -1])
def test_a_damaged_cache_is_built_again(tmp_path: os.PathLike[str], damage: int) -> None:
    path = f"{tmp_path}/filter"
    data = bytearray(build().to_bytes())
    data[damage] ^= 1
    with open(path, "wb") as file:
        file.write(data)
    assert Filter.from_bytes(bytes(data)) is None
    assert load(path).program == build().program
    with open(path, "rb") as file:
        assert file.read() == build().to_bytes()


def test_a_cache_that_others_can_write_is_not_trusted(tmp_path: os.PathLike[str]) -> None:
    path = f"{tmp_path}/filter"
    forged = Filter(build().number, struct.pack("=HBBI", RET, 0, 0, ALLOW))
    with open(path, "wb") as file:
        file.write(forged.to_bytes())
    assert load(path).program == forged.program
    os.chmod(path, 0o666)
    assert load(path).program == build().program


@pytest.mark.parametrize(
    ("environ", "uid", "expected"),
    [
        ({"HOME": "/home/u"}, 1000, "/home/u/.cache/natsup/filter-2-m"),
        ({"HOME": "/home/u", "XDG_CACHE_HOME": "/c"}, 1000, "/c/natsup/filter-2-m"),
        ({"HOME": "/home/u", "XDG_CACHE_HOME": "c"}, 1000, "/home/u/.cache/natsup/filter-2-m"),
        ({"HOME": "/home/u"}, 0, "/var/cache/natsup/filter-2-m"),
        ({}, 1000, None),
    ],
)
def test_where_the_cache_is(environ: dict[str, str], uid: int, expected: str | None) -> None:
    assert cache_file(environ, uid, "m") == expected
    closes = cache_file(environ, uid, "m", closes=True)
    assert closes == (None if expected is None else f"{expected}-close")
    without = cache_file(environ, uid, "m", io_uring=False)
    assert without == (None if expected is None else f"{expected}-no-io-uring")
