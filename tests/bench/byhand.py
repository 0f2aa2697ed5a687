"""Sends a router requests word for word over connections that are there already, and times them.

    python byhand.py HOST PORT

Reads lines, each a JSON list of requests, and prints seconds for each line: from the first byte of
the first request to the last byte of the last answer.

miniupnpd closes every connection after one answer. So that each request finds a connection which
is there already, as on one that is kept, there is one for each, made before the clock starts.
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
        connections = [socket.create_connection(address) for _ in requests]
        start = time.perf_counter()
        for sock, request in zip(connections, requests, strict=True):
            exchange(sock, request)
        print(time.perf_counter() - start, flush=True)
        for sock in connections:
            sock.close()


if __name__ == "__main__":
    main()
