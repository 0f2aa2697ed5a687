"""Clients of UDP, whose ports no router is to be told of, and servers that look like them.

A resolver binds a random port for every question that it asks.
"""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from natsup.supervisor.clients import A_RESOLVER, ALL_BRIEF, CROWD, MANY_AT_ONCE, NAMED
from tests.lab.lab import LAN1, LAN2, WAN, Lab
from tests.lab.overheard import Overheard
from tests.programs import torrent, transmission
from tests.programs.running import Running, unconfined
from tests.programs.servers import aria2

NAMES = 100
PORT = 5300
PATIENCE = 5.0  # seconds for all names; they take a fraction of one

# The name server of all names, on the Internet.
_SERVER = """
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("", 53))
while True:
    asked, client = server.recvfrom(4096)
    end = 12
    while asked[end]:
        end += asked[end] + 1
    question = asked[12 : end + 5]
    found = question[-4:-2] == b"\\0\\1"
    answer = b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\x3c\\0\\4\\x0b\\x16\\x21\\x09" if found else b""
    head = asked[:2] + b"\\x81\\x80\\0\\1" + (b"\\0\\1" if found else b"\\0\\0") + bytes(4)
    server.sendto(head + question + answer, client)
"""

# Asks for each name once, one after the other or all at once; prints how long it took, null if an
# answer did not come.
_CLIENT = f"""
import json, socket, sys, time
word, count, together = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "together"
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.settimeout(5)
client.connect(("127.0.0.1", {PORT}))
missing = set(range(count))
def ask(number):
    name = f"{{word}}{{number}}".encode()
    head = number.to_bytes(2) + b"\\1\\0\\0\\1" + bytes(6)
    client.send(head + bytes([len(name)]) + name + b"\\7invalid\\0" + b"\\0\\1\\0\\1")
def hear():
    answer = client.recv(4096)
    if answer.endswith(b"\\x0b\\x16\\x21\\x09"):
        missing.discard(int.from_bytes(answer[:2]))
begin = time.monotonic()
try:
    for number in range(count):
        ask(number)
        if not together:
            hear()
    while missing:
        hear()
except OSError:
    pass
print(json.dumps(None if missing else time.monotonic() - begin))
"""

_UNBOUND = f"""
server:
    directory: "{{folder}}"
    chroot: ""
    username: ""
    pidfile: ""
    use-syslog: no
    interface: 127.0.0.1@{PORT}
    do-ip6: no
    module-config: "iterator"
    domain-insecure: "invalid"
    local-zone: "invalid" nodefault
forward-zone:
    name: "."
    forward-addr: {WAN}
"""

_NAMED = f"""
options {{{{
    directory "{{folder}}";
    pid-file none;
    session-keyfile none;
    listen-on port {PORT} {{{{ 127.0.0.1; }}}};
    listen-on-v6 {{{{ none; }}}};
    forward only;
    forwarders {{{{ {WAN}; }}}};
    dnssec-validation no;
    empty-zones-enable no;
}}}};
controls {{{{ }}}};
"""


def unbound(folder: Path, name: str) -> list[str]:
    program = unconfined("/usr/sbin/unbound", folder, name)
    (folder / "unbound.conf").write_text(_UNBOUND.format(folder=folder))
    return [program, "-d", "-c", str(folder / "unbound.conf")]


def named(folder: Path, name: str) -> list[str]:
    program = unconfined("/usr/sbin/named", folder, name)
    (folder / "named.conf").write_text(_NAMED.format(folder=folder))
    return [program, "-g", "-c", str(folder / "named.conf")]


def ask(lab: Lab, word: str, count: int = 1, how: str = "in turn") -> float | None:
    """Ask for names. How many seconds it took; None if not all were answered."""
    done = lab.run("lan1", [sys.executable, "-c", _CLIENT, word, str(count), how])
    took: float | None = json.loads(done.stdout)
    return took


def serve_names(lab: Lab) -> None:
    """Start the name server of all names."""
    lab.popen("wan", [sys.executable, "-c", _SERVER], stdin=subprocess.DEVNULL)


def shown(lab: Lab, running: Running) -> list[tuple[str, str]]:
    """The clients that `natsup status` shows, with why they are; `natsup log` tells the same."""
    (session,) = running.sessions()
    clients: list[dict[str, Any]] = session["clients"]

    def told() -> list[dict[str, Any]]:
        return [entry for entry in running.history() if entry["what"] == "client"]

    lab.wait_for(lambda: len(told()) == len(clients))
    for one, entry in zip(clients, told(), strict=True):
        assert all(one[key] == entry[key] for key in ("program", "pid", "reason"))
    return [(one["program"], one["reason"]) for one in clients]


RESOLVERS = pytest.mark.parametrize("resolver", [unbound, named])
HOW = pytest.mark.parametrize("how", ["in turn", "together"])
Resolver = Callable[[Path, str], list[str]]


@HOW
@RESOLVERS
def test_a_known_resolver_is_a_client_from_the_start(
    lab: Lab, tmp_path: Path, resolver: Resolver, how: str
) -> None:
    serve_names(lab)
    overheard = Overheard(lab, tmp_path)
    running = Running(lab, tmp_path / "home", resolver(tmp_path / "home", ""))
    lab.wait_for(lambda: ask(lab, "ready") is not None)
    took = ask(lab, "name", NAMES, how)
    assert took is not None
    assert took < PATIENCE
    lab.map("lan1", "udp", 7000)  # what is heard is heard in its order
    lab.wait_for(lambda: "udp/7000" in overheard.ports())
    assert set(overheard.ports()) == {"udp/7000"}
    assert shown(lab, running) == [(resolver.__name__, A_RESOLVER)]


@HOW
@RESOLVERS
def test_an_unknown_resolver_is_learned(
    lab: Lab, tmp_path: Path, resolver: Resolver, how: str
) -> None:
    serve_names(lab)
    overheard = Overheard(lab, tmp_path)
    running = Running(lab, tmp_path / "home", resolver(tmp_path / "home", "answerer"))
    lab.wait_for(lambda: ask(lab, "ready") is not None)
    took = ask(lab, "name", NAMES, how)
    assert took is not None
    assert took < PATIENCE
    lab.wait_for(lambda: lab.table() == {})
    told = set(overheard.ports())
    assert 0 < len(told) <= 2 * CROWD
    assert ask(lab, "more", NAMES, how) is not None
    lab.wait_for(lambda: lab.table() == {})
    assert set(overheard.ports()) == told
    ((name, reason),) = shown(lab, running)
    assert name == "answerer"
    assert reason in (MANY_AT_ONCE, ALL_BRIEF)


def test_a_client_by_the_users_word(lab: Lab, tmp_path: Path) -> None:
    serve_names(lab)
    overheard = Overheard(lab, tmp_path)
    command = unbound(tmp_path / "home", "answerer")
    running = Running(lab, tmp_path / "home", command, "--clients", "answerer")
    lab.wait_for(lambda: ask(lab, "ready") is not None)
    assert ask(lab, "name", NAMES) is not None
    lab.map("lan1", "udp", 7000)
    lab.wait_for(lambda: "udp/7000" in overheard.ports())
    assert set(overheard.ports()) == {"udp/7000"}
    assert shown(lab, running) == [("answerer", NAMED)]


def test_a_server_by_the_users_word(lab: Lab, tmp_path: Path) -> None:
    """Even a resolver: each of its ports is published, and it waits for the router each time."""
    serve_names(lab)
    overheard = Overheard(lab, tmp_path)
    command = unbound(tmp_path / "home", "")
    running = Running(lab, tmp_path / "home", command, "--servers", "all")
    lab.wait_for(lambda: ask(lab, "ready") is not None)
    asked = 2 * CROWD
    assert ask(lab, "name", asked) is not None
    assert len(set(overheard.ports())) >= asked
    assert shown(lab, running) == []


def test_a_client_does_not_make_clients_of_the_others(lab: Lab, tmp_path: Path) -> None:
    """One session with a resolver and a BitTorrent program, which starts after it was learned."""
    home = tmp_path / "home"
    resolver, program = unbound(home, "answerer"), transmission.command(home)
    os.mkfifo(home / "go")
    script = f"{shlex.join(resolver)} & read word < go; exec {shlex.join(program)}"
    serve_names(lab)
    both = Running(lab, home, ["sh", "-c", script])
    lab.wait_for(lambda: ask(lab, "ready") is not None)
    assert ask(lab, "name", NAMES) is not None
    lab.wait_for(lambda: lab.table() == {})
    (home / "go").write_text("now\n")
    lab.wait_for(lambda: lab.table() == {"tcp/51413": LAN1, "udp/51413": LAN1})
    assert ask(lab, "more", NAMES) is not None
    assert torrent.PING_ANSWER in (lab.fetch("udp", 51413, torrent.PING) or b"")
    both.kill()
    lab.wait_for(lambda: lab.table() == {})


def test_a_server_that_looks_for_a_free_port_is_no_client(lab: Lab, tmp_path: Path) -> None:
    """aria2 tries the ports of its range in no order, and gets one of each protocol."""
    theirs = {f"{p}/{n}": LAN2 for p in ("tcp", "udp") for n in range(6881, 6889)}
    for port in theirs:
        protocol, number = port.split("/")
        lab.map("lan2", protocol, int(number))
    assert lab.table() == theirs
    folder = tmp_path / "home"
    folder.mkdir()
    Running(lab, folder, aria2(folder, tcp="6881-6889", udp="6881-6889"))
    lab.wait_for(lambda: lab.table() == {**theirs, "tcp/6889": LAN1, "udp/6889": LAN1})
    lab.wait_for(lambda: torrent.PING_ANSWER in (lab.fetch("udp", 6889, torrent.PING) or b""))
