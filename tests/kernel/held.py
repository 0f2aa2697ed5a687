"""A program for tests of what happens while its bind() is held.

Run as a script; a line of JSON, ``{"do": name, ...}``, is answered with one. It uses the standard
library alone.
"""

import ctypes
import json
import math
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

_BIND = {"x86_64": "49", "aarch64": "200"}[os.uname().machine]
_HELD_SECONDS = 0.1  # in the call for so long: it has been received
_BETWEEN_SIGNALS = 0.005
_libc = ctypes.CDLL(None, use_errno=True)
_libc.bind.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int)

_kept: list[socket.socket] = []
_children: dict[int, int] = {}  # pid: the descriptor that keeps it alive


def _address(port: int) -> "ctypes.Array[ctypes.c_char]":
    data = (socket.AF_INET).to_bytes(2, sys.byteorder) + port.to_bytes(2, "big") + bytes(12)
    return ctypes.create_string_buffer(data, 16)


def _bind(fd: int, address: "ctypes.Array[ctypes.c_char]") -> int:
    """bind(2). 0 or the errno; EINTR comes out as it is."""
    return 0 if _libc.bind(fd, address, 16) == 0 else ctypes.get_errno()


def _wait_until_held(pid: int, tid: int) -> None:
    """Until a thread has been in bind() for a while: proc(5), /proc/PID/syscall."""
    while True:
        with open(f"/proc/{pid}/task/{tid}/syscall") as file:
            if file.read().split()[0] == _BIND:
                break
        time.sleep(0.001)
    time.sleep(_HELD_SECONDS)


def _child(function: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            function()
        finally:
            os._exit(0)
    return pid


def timed(port: int) -> list[float]:
    """errno, and how many seconds bind() took."""
    sock = socket.socket()
    _kept.append(sock)
    start = time.monotonic()
    number = _bind(sock.fileno(), _address(port))
    return [number, time.monotonic() - start]


def interrupted(port: int) -> list[int]:
    """A stream of signals, whose handler lacks SA_RESTART, while bind() is held. errno, and how
    many signals came."""
    caught: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, _: caught.append(number))
    signal.siginterrupt(signal.SIGUSR1, True)
    parent = os.getpid()
    end, mine = os.pipe()

    def stream() -> None:
        os.close(mine)
        _wait_until_held(parent, parent)
        while not select.select([end], [], [], _BETWEEN_SIGNALS)[0]:
            os.kill(parent, signal.SIGUSR1)

    sock = socket.socket()
    _kept.append(sock)
    address = _address(port)
    pid = _child(stream)
    number = _bind(sock.fileno(), address)
    os.close(mine)
    os.close(end)
    while True:  # waitpid() is retried by Python
        if os.waitpid(pid, 0)[0] == pid:
            return [number, len(caught)]


def killed(port: int) -> int:
    """Somebody else is killed inside bind(); what the same port's next bind() says."""

    def bind() -> None:
        sock = socket.socket()
        _bind(sock.fileno(), _address(port))

    pid = _child(bind)
    _wait_until_held(pid, pid)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    sock = socket.socket()
    _kept.append(sock)
    return _bind(sock.fileno(), _address(port))


def rewritten(first: int, rounds: int) -> list[list[int]]:
    """Another thread changes the port in memory all the time, from an even one to the odd one
    after it. For each round: errno, and the port that the socket has."""
    found = []
    for number in range(rounds):
        address = _address(first + 2 * number)
        stop = threading.Event()

        def rewrite(
            address: "ctypes.Array[ctypes.c_char]" = address, stop: threading.Event = stop
        ) -> None:
            one, other = bytes([address.raw[3]]), bytes([address.raw[3] ^ 1])
            while not stop.is_set():
                for _ in range(100):
                    address[3] = other
                    address[3] = one

        thread = threading.Thread(target=rewrite)
        thread.start()
        sock = socket.socket()
        _kept.append(sock)
        error = _bind(sock.fileno(), address)
        stop.set()
        thread.join()
        found.append([error, sock.getsockname()[1]])
    return found


def replaced(port: int, how: str, copy: bool) -> dict[str, int]:
    """Another thread closes the descriptor, or puts another socket under its number, while bind()
    is held. errno, and the ports of: the other socket, a copy that was made before."""
    sock, other = socket.socket(), socket.socket()
    fd = sock.fileno()
    kept = sock.dup() if copy else None
    _kept.append(other)
    main = threading.get_native_id()

    def replace() -> None:
        _wait_until_held(os.getpid(), main)
        if how == "close":
            os.close(fd)
        else:
            os.dup2(other.fileno(), fd)

    thread = threading.Thread(target=replace)
    thread.start()
    error = _bind(fd, _address(port))
    thread.join()
    found = {"errno": error, "other": other.getsockname()[1]}
    if kept is not None:
        _kept.append(kept)
        found["copy"] = kept.getsockname()[1]
    if how == "close":
        sock.detach()
    return found


def raced(port: int) -> list[int]:
    """Two processes bind one port at the same time, and stay. Their errnos, sorted."""
    start, go = os.pipe()
    results, mine = os.pipe()
    for _ in range(2):
        life, end = os.pipe()

        def bind(life: int = life, end: int = end) -> None:
            os.close(end)
            os.close(go)
            sock = socket.socket()
            os.read(start, 1)
            os.write(mine, bytes([_bind(sock.fileno(), _address(port))]))
            os.read(life, 1)

        _children[_child(bind)] = end
        os.close(life)
    os.close(go)
    found = [os.read(results, 1)[0] for _ in range(2)]
    for fd in (start, results, mine):
        os.close(fd)
    return sorted(found)


def bound_twice(port: int, other: int) -> list[int]:
    """Two threads bind one socket, to a port each, the second while the first is held. errnos."""
    sock = socket.socket()
    _kept.append(sock)
    main = threading.get_native_id()
    found: list[int] = []

    def bind() -> None:
        _wait_until_held(os.getpid(), main)
        found.append(_bind(sock.fileno(), _address(other)))

    thread = threading.Thread(target=bind)
    thread.start()
    found.append(_bind(sock.fileno(), _address(port)))
    thread.join()
    return sorted(found)


def again(port: int, times: int, pause: float) -> dict[str, Any]:
    """Bind, listen, close, at once again; the last one stays. The errnos that came, and how often
    it took longer than ``pause`` seconds from a close() until the port was bound again."""
    found, late, closed = set(), 0, math.inf
    for number in range(times):
        sock = socket.socket()
        found.add(_bind(sock.fileno(), _address(port)))
        late += time.monotonic() - closed > pause
        sock.listen()
        if number < times - 1:
            closed = time.monotonic()
            sock.close()
    _kept.append(sock)
    return {"errnos": sorted(found), "late": late}


def let_go() -> None:
    """Close what the others have kept, and end their children."""
    while _kept:
        _kept.pop().close()
    for end in _children.values():  # all of them first: the younger child has the elder's end
        os.close(end)
    for pid in _children:
        os.waitpid(pid, 0)
    _children.clear()


_DEEDS: dict[str, Callable[..., Any]] = {
    deed.__name__: deed
    for deed in (timed, interrupted, killed, rewritten, replaced, raced, bound_twice, again, let_go)
}

if __name__ == "__main__":
    for line in sys.stdin:
        words = json.loads(line)
        print(json.dumps(_DEEDS[words.pop("do")](**words)), flush=True)
