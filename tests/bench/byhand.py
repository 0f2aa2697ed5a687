"""Sends a router requests word for word and times them.

    python byhand.py HOST PORT ready|fresh|kept

Reads lines, each a JSON list of requests, and prints seconds for each line, up to the last byte of
the last answer.

miniupnpd closes every connection after one answer. So that each request finds a connection which
is there already, as on one that is kept, there is one for each, made before the clock starts:
that is "ready". "fresh" makes one for each as it goes, like everybody who speaks to this router.
"kept" sends all of them over one, where the router keeps it.
"""

import json
import socket
import sys
import time


def exchange(sock: socket.socket, request: bytes) -> None:
    sock.sendall(request)
    data = b""
    while b"\r\n\r\n" not in data:
        data += _more(sock)
    head, _, body = data.partition(b"\r\n\r\n")
    fields = [line.partition(b":") for line in head.lower().split(b"\r\n")]
    length = next(int(value) for name, _, value in fields if name == b"content-length")
    while len(body) < length:
        body += _more(sock)


def _more(sock: socket.socket) -> bytes:
    data = sock.recv(65536)
    assert data, "the router has closed the connection"
    return data


def main() -> None:
    address = (sys.argv[1], int(sys.argv[2]))
    for line in sys.stdin:
        requests = [request.encode() for request in json.loads(line)]
        ready = {"ready": len(requests), "fresh": 0, "kept": 1}[sys.argv[3]]
        made = [socket.create_connection(address) for _ in range(ready)]
        start = time.perf_counter()
        if sys.argv[3] == "kept":
            with made.pop() as sock:
                for request in requests:
                    exchange(sock, request)
            requests = []
        for request in requests:
            with made.pop() if made else socket.create_connection(address) as sock:
                exchange(sock, request)
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
