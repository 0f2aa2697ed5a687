"""A program that does what it is told with sockets, and tells all that it can see of them.

Run as a script, plain and under natsup: what it prints must be the same. One line of JSON is one
sequence of steps, ``{"base": port, "low": port, "steps": [step, ...]}``; the answer is one line,
a list with what was seen after each step. `tests.kernel.sequences` says what steps there are.

Every sequence runs in a child of its own, so that nothing of it is left for the next one.
It uses the standard library alone. Ports are named, not numbered, in what it prints: ``p0`` for the
first of the sequence's own, ``low``, and ``some`` for one that the kernel has chosen.
"""

import array
import ctypes
import errno
import fcntl
import json
import mmap
import os
import select
import socket
import struct
import sys
import threading
from collections.abc import Callable
from typing import Any

Step = dict[str, Any]

NOBODY = 65534
_CLOSED = 999  # a descriptor that nobody has
_PAGE = mmap.PAGESIZE
_LONGEST = 200  # of an address, as bytes in memory
_ACCEPT_MS = 300  # from connect()'s return to the listener's being told: a softirq away
_CONNECT_SECONDS = 1.0  # a SYN that nobody answers

_libc = ctypes.CDLL(None, use_errno=True)
_libc.bind.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_libc.getsockopt.argtypes = (
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_void_p,
)

# --- what is looked at ---

# Not looked at, as (level, option), with the reason.
_LEFT_OUT = {
    (1, 49),  # SO_INCOMING_CPU: the processor's number
    (1, 55),  # SO_MEMINFO: the kernel's memory for it at this instant
    (1, 56),  # SO_INCOMING_NAPI_ID
    (1, 57),  # SO_COOKIE: never the same for two sockets
    (1, 71),  # SO_NETNS_COOKIE
    (1, 77),  # SO_PEERPIDFD: would open a descriptor
    (6, 11),  # TCP_INFO: times
    (6, 24),  # TCP_TIMESTAMP
    (6, 26),  # TCP_CC_INFO
    (41, 64),  # the tables of ip6tables: no matter of the socket, and a module may be loaded
    (41, 65),
    (41, 68),
    (41, 69),
}
# SOL_SOCKET, IP (to 63: then come the tables of iptables), IPV6, TCP, UDP.
_LOOKED_AT = [
    (level, option)
    for level, last in ((1, 90), (0, 63), (41, 80), (6, 45), (17, 110))
    for option in range(100 if level == 17 else 1, last)
    if (level, option) not in _LEFT_OUT
] + [(17, 1)]  # UDP_CORK
_NUMBER = "0/52"  # IP_PROTOCOL: of a socket that is not raw, the port in host order
_COOKIE = 57  # SO_COOKIE
_PORT_RANGE = (socket.IPPROTO_IP, 51)  # IP_LOCAL_PORT_RANGE
_FCNTL = (fcntl.F_GETFD, fcntl.F_GETFL, fcntl.F_GETOWN, fcntl.F_GETSIG)
_BUFFER = ctypes.create_string_buffer(256)
_SIZE = ctypes.c_uint32()
_NO_SUCH = (errno.ENOPROTOOPT, errno.EOPNOTSUPP)


def options(fd: int) -> dict[str, str | int]:
    """What every getsockopt says: the value in hexadecimal, or the errno if it is a special one."""
    found: dict[str, str | int] = {}
    get, buffer, size = _libc.getsockopt, ctypes.addressof(_BUFFER), ctypes.addressof(_SIZE)
    for level, option in _LOOKED_AT:
        ctypes.memset(buffer, 0, 256)
        _SIZE.value = 64
        if get(fd, level, option, buffer, size) == 0:
            found[f"{level}/{option}"] = _BUFFER.raw[: min(_SIZE.value, 256)].hex()
        elif (number := ctypes.get_errno()) not in _NO_SUCH:
            found[f"{level}/{option}"] = number
    return found


# --- addresses ---

_HOSTS4 = {
    "any": "0.0.0.0",
    "loop": "127.0.0.1",
    "lan": "192.168.77.2",
    "strange": "198.51.100.1",
    "broadcast": "255.255.255.255",
    "group": "239.1.2.3",
}
_HOSTS6 = {
    "any": "::",
    "loop": "::1",
    "lan": "::ffff:192.168.77.2",
    "strange": "2001:db8::1",
    "broadcast": "::ffff:0.0.0.0",
    "group": "ff02::123",
}


class Memory:
    """Two pages, of which the second cannot be read, and one that can only be read."""

    def __init__(self) -> None:
        self._map = mmap.mmap(-1, 3 * _PAGE)
        self._start = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self._protect(1, mmap.PROT_READ)
        self._protect(2, 0)

    def _protect(self, page: int, rights: int) -> None:
        assert _libc.mprotect(self._start + page * _PAGE, _PAGE, rights) == 0

    def put(self, data: bytes, where: str, length: int) -> int:
        """Write an address where ``where`` says. Returns the pointer for bind(2)."""
        if where == "null":
            return 0
        if where == "kernel":
            return 0x7FFF_FFFF_FFFF_F000
        if where == "denied":
            return self._start + 2 * _PAGE
        page, at = 0, 64
        if where == "unaligned":
            at = 65
        elif where == "readonly":
            page = 1
        elif where in ("edge", "over") and 0 < length <= _LONGEST:
            page, at = 1, _PAGE - length + (where == "over")
        data = data[: _PAGE - at]
        self._protect(page, mmap.PROT_READ | mmap.PROT_WRITE)
        self._map[page * _PAGE + at : page * _PAGE + at + len(data)] = data
        if page:
            self._protect(page, mmap.PROT_READ)
        return self._start + page * _PAGE + at


# --- the sequence ---


class Sequence:
    """The sockets of one sequence, by slot."""

    def __init__(self, base: int, low: int) -> None:
        self._base = base
        self._low = low
        self._slots: dict[int, socket.socket] = {}
        self._memory = Memory()
        self._waiting: dict[int, int] = {}  # connections by port that nobody has accepted

    def run(self, step: Step) -> list[Any]:
        """Do a step. What came of it, and what is to be seen of all sockets afterwards."""
        try:
            outcome = getattr(self, "_" + step["do"])(step)
        except OSError as error:
            outcome = error.errno
        touched = {step["slot"], step.get("to")}
        return [outcome, {n: self._look(s, n in touched) for n, s in self._slots.items()}]

    def all(self) -> list[Any]:
        """Everything that is to be seen at the end."""
        return ["end", {n: self._look(s, True) for n, s in self._slots.items()}]

    # --- looking ---

    def _look(self, sock: socket.socket, closely: bool) -> dict[str, Any]:
        fd = sock.fileno()
        seen: dict[str, Any] = {
            "name": self._name(sock, sock.getsockname),
            "peer": self._name(sock, sock.getpeername),
        }
        if closely:
            status = os.fstat(fd)
            seen["stat"] = [status.st_mode, status.st_uid, status.st_gid]
            seen["fcntl"] = [fcntl.fcntl(fd, number) for number in _FCNTL]
            seen["options"] = options(fd)
            if _NUMBER in seen["options"] and sock.type != socket.SOCK_RAW:
                raw = bytes.fromhex(seen["options"][_NUMBER])
                seen["options"][_NUMBER] = self._port_name(sock, int.from_bytes(raw, sys.byteorder))
        return seen

    def _name(self, sock: socket.socket, ask: Callable[[], Any]) -> Any:
        try:
            address = ask()
        except OSError as error:
            return error.errno
        if not isinstance(address, tuple) or not isinstance(address[0], str):
            return len(address)  # what a kernel chooses for other families is its own affair
        return [address[0], self._port_name(sock, address[1]), *address[2:]]

    def _port_name(self, sock: socket.socket, number: int) -> str:
        if 0 <= number - self._base < 4:
            return f"p{number - self._base}"
        if number in (0, self._low):
            return "low" if number else "0"
        try:
            wanted = sock.getsockopt(*_PORT_RANGE) & 0xFFFFFFFF
        except OSError:  # before Linux 6.3
            wanted = 0
        if not wanted:
            return "some"
        return "in range" if wanted & 0xFFFF <= number <= wanted >> 16 else "out of range"

    # --- steps ---

    def _socket(self, step: Step) -> int:
        made = socket.socket(step["family"], step["type"] | step["flags"], step["protocol"])
        self._replace(step["slot"], made)
        return 0

    def _replace(self, slot: int, sock: socket.socket) -> None:
        old = self._slots.pop(slot, None)
        self._slots[slot] = sock
        if old is not None:
            old.close()

    def _fd(self, step: Step) -> int:
        sock = self._slots.get(step["slot"])
        return _CLOSED if sock is None else sock.fileno()

    def _of(self, step: Step) -> socket.socket:
        if step["slot"] not in self._slots:
            raise OSError(errno.EBADF, "closed")
        return self._slots[step["slot"]]

    def _set(self, step: Step) -> int:
        level, option, value = step["option"]
        value = value.encode() if isinstance(value, str) else value
        self._of(step).setsockopt(level, option, value)
        return 0

    def _chown(self, step: Step) -> int:
        os.fchown(self._of(step).fileno(), NOBODY, -1)
        return 0

    def _port(self, name: str) -> int:
        if name.startswith("p"):
            return self._base + int(name[1:])
        return self._low if name == "low" else 0

    def _address(self, family: int, host: str, port: str) -> bytes:
        head = struct.pack("=H", family)
        number = self._port(port).to_bytes(2, "big")
        if family == socket.AF_INET6:
            return head + number + bytes(4) + socket.inet_pton(family, _HOSTS6[host]) + bytes(4)
        if family == socket.AF_UNIX:
            return head + b"\0twin" + number
        return head + number + socket.inet_aton(_HOSTS4[host]) + bytes(8)

    def _bind(self, step: Step) -> int:
        data = self._address(step["family"], step["host"], step["port"])
        length = len(data) if step["length"] is None else step["length"]
        data = data.ljust(_LONGEST, bytes([step["padding"]]))
        pointer = self._memory.put(data, step["pointer"], length)

        def bind(fd: int) -> int:
            return 0 if _libc.bind(fd, pointer, length) == 0 else ctypes.get_errno()

        return int(getattr(self, "_by_" + step["by"])(bind, self._fd(step)))

    def _by_self(self, bind: Callable[[int], int], fd: int) -> int:
        return bind(fd)

    def _by_thread(self, bind: Callable[[int], int], fd: int) -> int:
        found: list[int] = []
        thread = threading.Thread(target=lambda: found.append(bind(fd)))
        thread.start()
        thread.join()
        return found[0]

    def _by_fork(self, bind: Callable[[int], int], fd: int) -> int:
        return in_a_child(lambda: bind(fd))

    def _by_nobody(self, bind: Callable[[int], int], fd: int) -> int:
        """In a child that has given up its rights, and by that may not be looked into."""

        def run() -> int:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            return bind(fd)

        return in_a_child(run)

    def _by_rights(self, bind: Callable[[int], int], fd: int) -> int:
        """In a process that got the descriptor in a message (unix(7), SCM_RIGHTS)."""
        here, there = socket.socketpair()

        def run() -> int:
            for sock in self._slots.values():
                sock.close()
            _, ancillary, _, _ = there.recvmsg(1, socket.CMSG_SPACE(4))
            return bind(array.array("i", ancillary[0][2])[0])

        with here, there:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
            here.sendmsg([b"x"], rights)
            return in_a_child(run)

    def _listen(self, step: Step) -> int:
        self._of(step).listen(16)
        return 0

    def _connect(self, step: Step) -> int | str:
        sock = self._of(step)
        if sock.family not in (socket.AF_INET, socket.AF_INET6):
            return "not tried"
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16).strip(b"\0"):
            return "nobody would answer"
        number = self._port(step["port"])
        before = sock.gettimeout()
        sock.settimeout(_CONNECT_SECONDS)
        try:
            sock.connect(
                (_HOSTS4["loop"] if sock.family == socket.AF_INET else _HOSTS6["loop"], number)
            )
        except TimeoutError:
            return "timed out"
        finally:
            sock.settimeout(before)
        if sock.type == socket.SOCK_STREAM:
            self._waiting[number] = self._waiting.get(number, 0) + 1
        return 0

    def _disconnect(self, step: Step) -> int:
        address = ctypes.create_string_buffer(16)
        failed = _libc.connect(self._of(step).fileno(), address, 16)
        return ctypes.get_errno() if failed else 0

    def _accept(self, step: Step) -> int | str:
        sock = self._of(step)
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            number = sock.getsockname()[1]
            listening = {
                other.getsockopt(socket.SOL_SOCKET, _COOKIE, 8)
                for other in self._slots.values()
                if other.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                and other.getsockname()[1] == number
            }
            if len(listening) > 1:
                return "whose it is the kernel decides by a hash"
            poll = select.poll()
            poll.register(sock.fileno(), select.POLLIN)
            if not poll.poll(_ACCEPT_MS if self._waiting.get(number) else 0):
                return "nobody"
            self._waiting[number] -= 1
        accepted, _ = sock.accept()
        self._replace(step["to"], accepted)
        return 0

    def _send(self, step: Step) -> list[int] | str:
        """A stranger's datagram: in which slots does it arrive?"""
        number = self._port(step["port"])
        servers = {
            sock.getsockopt(socket.SOL_SOCKET, _COOKIE, 8): (slot, sock)
            for slot, sock in sorted(self._slots.items())
            if sock.type == socket.SOCK_DGRAM and sock.family in (socket.AF_INET, socket.AF_INET6)
        }
        here = [sock for _, sock in servers.values() if sock.getsockname()[1] == number]
        if sum(sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) for sock in here) > 1:
            return "whose it is the kernel decides by a hash"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(b"x", (_HOSTS4["loop"], number))
        found = []
        for slot, sock in servers.values():
            try:
                sock.recv(1, socket.MSG_DONTWAIT)
                found.append(slot)
            except OSError:
                pass
        return found

    def _dup(self, step: Step) -> int:
        self._replace(step["to"], self._of(step).dup())
        return 0

    def _shutdown(self, step: Step) -> int:
        self._of(step).shutdown(socket.SHUT_RDWR)
        return 0

    def _close(self, step: Step) -> int:
        self._of(step).close()
        del self._slots[step["slot"]]
        return 0


def in_a_child(function: Callable[[], int]) -> int:
    """Run a function in a forked child. What it returns, from 0 to 254; 255 if it failed."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(function())
        finally:
            os._exit(255)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def run(line: str) -> str:
    """One sequence, in a child. Its answer, without a line's end."""
    results, mine = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            request = json.loads(line)
            sequence = Sequence(request["base"], request["low"])
            seen = [sequence.run(step) for step in request["steps"]]
            answer = json.dumps([*seen, sequence.all()])
        except BaseException as error:
            answer = json.dumps(f"the program of the test failed: {error!r}")
        with open(mine, "w") as file:
            file.write(answer)
        os._exit(0)
    os.close(mine)
    with open(results) as file:
        answer = file.read()
    _, status = os.waitpid(pid, 0)
    return answer or json.dumps(f"the program of the test ended with wait status {status}")


if __name__ == "__main__":
    for line in sys.stdin:
        print(run(line), flush=True)
