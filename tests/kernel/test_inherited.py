"""Which of the descriptors that a program is started with are sockets to publish."""

import os
import socket

import pytest

from natsup.supervisor.abi import IPPROTO_MPTCP
from natsup.supervisor.inherited import activated, every, look
from natsup.supervisor.target import cookie


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, []),
        ({"LISTEN_PID": "7", "LISTEN_FDS": "2"}, [3, 4]),
        ({"LISTEN_PID": "7", "LISTEN_FDS": "0"}, []),
        ({"LISTEN_PID": "8", "LISTEN_FDS": "2"}, []),
        ({"LISTEN_PID": "7"}, []),
        ({"LISTEN_PID": "7", "LISTEN_FDS": "-1"}, []),
        ({"LISTEN_PID": "7", "LISTEN_FDS": "two"}, []),
        ({"LISTEN_FDS": "2"}, []),
    ],
)
def test_what_a_process_was_activated_with(environ: dict[str, str], expected: list[int]) -> None:
    assert list(activated(environ, 7)) == expected


def test_only_what_survives_exec_is_inherited() -> None:
    with socket.socket() as kept, socket.socket() as closed:
        os.set_inheritable(kept.fileno(), True)
        assert kept.fileno() in every()
        assert closed.fileno() not in every()


@pytest.mark.parametrize(
    ("family", "kind", "protocol"),
    [
        (socket.AF_INET, socket.SOCK_STREAM, 0),
        (socket.AF_INET, socket.SOCK_DGRAM, 0),
        (socket.AF_INET6, socket.SOCK_STREAM, 0),
        (socket.AF_INET6, socket.SOCK_DGRAM, 0),
        (socket.AF_INET6, socket.SOCK_STREAM, IPPROTO_MPTCP),
    ],
)
def test_a_server_is_found_once(family: int, kind: int, protocol: int) -> None:
    with socket.socket(family, kind, protocol) as sock:
        sock.bind(("", 0))
        copy = os.dup(sock.fileno())
        [found] = look([sock.fileno(), copy])
        os.close(copy)
        assert (found.cookie, found.domain) == (cookie(sock), family)
        assert (found.protocol == IPPROTO_MPTCP) == (protocol == IPPROTO_MPTCP)
        assert (found.number, found.udp) == (sock.getsockname()[1], kind == socket.SOCK_DGRAM)
        assert found.inode == os.fstat(sock.fileno()).st_ino
        assert sock.getsockname()[1] == found.number  # and left open


def test_what_is_no_server() -> None:
    read, write = os.pipe()
    with (
        socket.socket() as unbound,
        socket.socket() as local,
        socket.socket(socket.AF_INET6) as alone,
        socket.socket(type=socket.SOCK_DGRAM) as client,
        socket.socket(socket.AF_UNIX) as unix,
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as connected,
    ):
        local.bind(("127.0.0.1", 0))
        alone.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        alone.bind(("::", 0))
        client.bind(("", 0))
        client.connect(("127.0.0.1", 9))
        socks = (unbound, local, alone, client, unix, server, connected)
        descriptors = [sock.fileno() for sock in socks]
        assert look([*descriptors, read, write, -1, 99_999]) == []
    os.close(read)
    os.close(write)
