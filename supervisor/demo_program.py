"""The program that `natsup demo` runs under `natsup exec`. It knows nothing of natsup.

It looks for a free port like many servers do: it tries one after the other, on one socket. Then it
answers everybody who connects. It prints a line for every bind().
"""

import errno
import os
import socket
import sys
import time


def main(ports: str, greeting: str) -> int:
    """Serve on the first free port of a range such as 6881-6890."""
    first, last = map(int, ports.split("-"))
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for port in range(first, last + 1):
            start = time.monotonic()
            try:
                server.bind(("", port))
                result = "ok"
            except OSError as error:
                result = errno.errorcode[error.errno or 0]
            took = (time.monotonic() - start) * 1000
            print(f"bind {port} {result} {took:.0f}", flush=True)
            if result == "ok":
                break
        else:
            return 1
        server.listen()
        print("listening", flush=True)
        while True:
            client, _ = server.accept()
            with client:
                client.sendall(f"{greeting}\n".encode())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], os.environ["GREETING"]))
