"""A service: what its words say, and it prints each signal that it gets, and how often.

service.py [notify] [fork FILE] [activated] [PORT]
"""

import os
import signal
import socket
import sys
import time


def say(text: str) -> None:
    print(text, flush=True)


def tell(text: str) -> None:
    """sd_notify(3)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(text.encode(), os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1))


def main(words: list[str]) -> None:
    end = float("inf")
    counts = dict.fromkeys((signal.SIGTERM, signal.SIGHUP), 0)

    def count(number: int, frame: object) -> None:
        counts[signal.Signals(number)] += 1
        say(f"{signal.Signals(number).name} {counts[signal.Signals(number)]}")
        if number == signal.SIGTERM:
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
    say(f"serving {sock.getsockname()[1]}, {os.environ.get('STATE_DIRECTORY')}")
    sock.settimeout(0.05)
    while time.monotonic() < end:
        if "notify" in words:
            tell("WATCHDOG=1")
        try:
            client, _ = sock.accept()
            client.sendall(b"here")
            client.close()
        except TimeoutError:
            pass
    say("over")
    sys.exit(7)


main(sys.argv[1:])
