"""A service: what its words say, and it prints each signal that it gets, and how often.

service.py [notify [lax]] [fork FILE] [on-bus NAME] [stubborn] [activated] [PORT]

lax: it does not tell the watchdog that it is alive; stubborn: SIGTERM does not end it.
"""

import os
import signal
import socket
import struct
import sys
import time


def say(text: str) -> None:
    print(text, flush=True)


def tell(text: str) -> None:
    """sd_notify(3)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(text.encode(), os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1))


def own(name: str) -> socket.socket:
    """Have a name on the system's bus, which goes with the socket: D-Bus Specification, "Message
    Protocol" and "org.freedesktop.DBus.RequestName"."""

    def text(value: str) -> bytes:
        return struct.pack("<I", len(value)) + value.encode() + b"\0"

    def aligned(data: bytes) -> bytes:
        return data + bytes(-len(data) % 8)

    def call(serial: int, member: str, signature: str = "", body: bytes = b"") -> bytes:
        bus = "org.freedesktop.DBus"
        named = [(1, "o", "/org/freedesktop/DBus"), (2, "s", bus), (3, "s", member), (6, "s", bus)]
        fields = b"".join(aligned(bytes([n, 1, ord(kind), 0]) + text(it)) for n, kind, it in named)
        kinds = signature.encode()
        fields += bytes([8, 1, ord("g"), 0, len(kinds)]) + kinds + b"\0"
        start = b"l\1\0\1" + struct.pack("<III", len(body), serial, len(fields))
        return aligned(start + fields) + body

    sock = socket.socket(socket.AF_UNIX)
    sock.connect("/run/dbus/system_bus_socket")
    sock.sendall(b"\0AUTH EXTERNAL " + str(os.getuid()).encode().hex().encode() + b"\r\n")
    answer = sock.recv(999)
    assert answer.startswith(b"OK "), answer
    flags = bytes(-len(text(name)) % 4) + struct.pack("<I", 4)  # DBUS_NAME_FLAG_DO_NOT_QUEUE
    sock.sendall(b"BEGIN\r\n" + call(1, "Hello") + call(2, "RequestName", "su", text(name) + flags))
    return sock


def main(words: list[str]) -> None:
    end = float("inf")
    counts = dict.fromkeys((signal.SIGTERM, signal.SIGHUP), 0)

    def count(number: int, frame: object) -> None:
        counts[signal.Signals(number)] += 1
        say(f"{signal.Signals(number).name} {counts[signal.Signals(number)]}")
        if number == signal.SIGHUP and "notify" in words:
            now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            tell(f"RELOADING=1\nMONOTONIC_USEC={now}")
            tell("READY=1")
        if number == signal.SIGTERM and "stubborn" not in words:
            nonlocal end
            end = time.monotonic() + 0.3  # a second one would come by then

    for number in counts:
        signal.signal(number, count)
    if "activated" in words:
        assert os.environ["LISTEN_PID"] == str(os.getpid())
        sock = socket.socket(fileno=3)
    else:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("", int(words[-1])))
        except OSError as error:
            say(f"bind: {error}")
            sys.exit(3)
        sock.listen()
    if "fork" in words:
        if os.fork():
            # The daemon's, once it is there
            path = words[words.index("fork") + 1]
            while not os.path.exists(path):
                time.sleep(0.01)
            os._exit(0)
        os.setsid()
        path = words[words.index("fork") + 1]
        with open(path + ".new", "w") as file:
            file.write(f"{os.getpid()}\n")
        os.rename(path + ".new", path)
    if "notify" in words:
        tell("READY=1\nSTATUS=serving")
    bus = own(words[words.index("on-bus") + 1]) if "on-bus" in words else None
    say(f"serving {sock.getsockname()[1]}, {os.environ.get('STATE_DIRECTORY')}")
    sock.settimeout(0.05)
    while time.monotonic() < end:
        if "notify" in words and "lax" not in words:
            tell("WATCHDOG=1")
        try:
            client, _ = sock.accept()
            client.sendall(b"here")
            client.close()
        except TimeoutError:
            pass
    say("over")
    if bus is not None:
        bus.close()
    sys.exit(7)


main(sys.argv[1:])
