"""A table of servers: how to start one, its ports, and what somebody out there may ask it."""

import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.programs import torrent, transmission


class Question(NamedTuple):
    """``port`` as in the lab's table; ``answer`` is a part of what must come back."""

    port: str
    text: bytes
    answer: bytes


class Server(NamedTuple):
    """``command`` makes a command line, and what it needs, in a folder that exists."""

    name: str
    command: Callable[[Path], list[str]]
    questions: tuple[Question, ...]


def _client_hello() -> bytes:
    said = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), said, server_hostname="x")
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        return said.read()
    raise AssertionError("a handshake without a server")


_SERVER_HELLO = b"\x16\x03\x03"  # RFC 8446, 5.1: a handshake record

# RFC 9000, 17.2 and 6.1: to a version that does not exist a server answers with those it has. The
# version is of the kind that is reserved for this.
_QUIC = (b"\xc0\x1a\x2a\x3a\x4a" + b"\x08natsup!!" + b"\x08natsup??").ljust(1200, b"\0")
_QUIC_ANSWER = b"\0\0\0\0" + b"\x08natsup??" + b"\x08natsup!!"


def aria2(folder: Path, tcp: str = "6881", udp: str = "6882") -> list[str]:
    """aria2's command line, with a torrent of the test's."""
    return [
        "aria2c",
        f"--listen-port={tcp}",
        f"--dht-listen-port={udp}",
        f"--dht-file-path={folder}/dht",
        f"--dir={folder}",
        torrent.write(folder / "nowhere.torrent"),
    ]


_SYNCTHING = """
<configuration version="36">
    <gui enabled="false"></gui>
    <options>
        <globalAnnounceEnabled>false</globalAnnounceEnabled>
        <localAnnounceEnabled>false</localAnnounceEnabled>
        <relaysEnabled>false</relaysEnabled>
        <natEnabled>false</natEnabled>
        <crashReportingEnabled>false</crashReportingEnabled>
        <urAccepted>-1</urAccepted>
    </options>
</configuration>
"""


def _syncthing(folder: Path) -> list[str]:
    (folder / "config.xml").write_text(_SYNCTHING)
    return ["syncthing", "serve", "--no-browser", "--no-upgrade", f"--home={folder}"]


_MUMBLE = """
database={folder}/mumble.sqlite
logfile=
bonjour=false
uname=root
"""


def _mumble(folder: Path) -> list[str]:
    (folder / "mumble.ini").write_text(_MUMBLE.format(folder=folder))
    return ["murmurd", "-fg", "-ini", str(folder / "mumble.ini")]


_GO = """
package main

import (
    "net"
    "os"
    "syscall"
)

func must(err error) {
    if err != nil {
        panic(err)
    }
}

func greet(listener net.Listener, word string) {
    for {
        client, err := listener.Accept()
        must(err)
        client.Write([]byte(word))
        client.Close()
    }
}

// What net.Listen does since Go 1.24 by itself.
func multipath(port int) net.Listener {
    fd, err := syscall.Socket(syscall.AF_INET6, syscall.SOCK_STREAM, 262)
    must(err)
    must(syscall.SetsockoptInt(fd, syscall.IPPROTO_IPV6, syscall.IPV6_V6ONLY, 0))
    must(syscall.Bind(fd, &syscall.SockaddrInet6{Port: port}))
    must(syscall.Listen(fd, 16))
    listener, err := net.FileListener(os.NewFile(uintptr(fd), "multipath"))
    must(err)
    return listener
}

func main() {
    plain, err := net.Listen("tcp", ":7000")
    must(err)
    go greet(plain, "plain")
    go greet(multipath(7001), "multipath")
    packets, err := net.ListenPacket("udp", ":7002")
    must(err)
    for {
        var buffer [100]byte
        _, from, err := packets.ReadFrom(buffer[:])
        must(err)
        packets.WriteTo([]byte("packet"), from)
    }
}
"""


def _go(folder: Path) -> list[str]:
    source, program = folder / "server.go", folder / "server"
    source.write_text(_GO)
    environ = {"HOME": str(folder), "GO111MODULE": "off", "PATH": "/usr/bin:/bin"}
    command = ["go", "build", "-o", str(program), str(source)]
    subprocess.run(command, check=True, env=environ)
    return [str(program)]


# Java's source, run by BeanShell: a compiler would be another seventy megabytes.
_JAVA = """
import java.net.*;
ServerSocket server = new ServerSocket(7000);
DatagramSocket packets = new DatagramSocket(7001);
new Thread(new Runnable() {
    public void run() {
        while (true) {
            DatagramPacket packet = new DatagramPacket(new byte[100], 100);
            packets.receive(packet);
            packet.setData("packet".getBytes());
            packets.send(packet);
        }
    }
}).start();
while (true) {
    Socket client = server.accept();
    client.getOutputStream().write("here".getBytes());
    client.close();
}
"""


def _java(folder: Path) -> list[str]:
    source = folder / "server.bsh"
    source.write_text(_JAVA)
    return ["java", "-cp", "/usr/share/java/bsh.jar", "bsh.Interpreter", str(source)]


_NODE = """
require("net").createServer((client) => client.end("here")).listen(7000);
const packets = require("dgram").createSocket("udp4");
packets.on("message", (_, from) => packets.send("packet", from.port, from.address));
packets.bind(7001);
"""


def _node(folder: Path) -> list[str]:
    return ["node", "-e", _NODE]


_C = r"""
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

int main(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(7000)};
    int server = socket(AF_INET, SOCK_STREAM, 0);

    if (bind(server, (struct sockaddr *)&address, sizeof(address)) || listen(server, 16))
        return 1;
    for (;;) {
        int client = accept(server, 0, 0);
        if (client < 0 || write(client, "here", 4) != 4)
            return 1;
        close(client);
    }
}
"""


def _static(folder: Path) -> list[str]:
    source, program = folder / "server.c", folder / "server"
    source.write_text(_C)
    subprocess.run(["gcc", "-static", "-o", str(program), str(source)], check=True)
    return [str(program)]


SERVERS = (
    Server(
        "transmission",
        transmission.command,
        (
            Question("tcp/51413", torrent.HANDSHAKE, torrent.HANDSHAKE_ANSWER),
            Question("udp/51413", torrent.PING, torrent.PING_ANSWER),
        ),
    ),
    Server(
        "aria2",
        aria2,
        (
            Question("tcp/6881", torrent.HANDSHAKE, torrent.HANDSHAKE_ANSWER),
            Question("udp/6882", torrent.PING, torrent.PING_ANSWER),
        ),
    ),
    Server(
        "syncthing",
        _syncthing,
        (
            Question("tcp/22000", _client_hello(), _SERVER_HELLO),
            Question("udp/22000", _QUIC, _QUIC_ANSWER),
        ),
    ),
    Server(
        "mumble",
        _mumble,
        (
            Question("tcp/64738", _client_hello(), _SERVER_HELLO),
            Question("udp/64738", b"\0\0\0\0natsup77", b"natsup77"),
        ),
    ),
    Server(
        "go",
        _go,
        (
            Question("tcp/7000", b"?", b"plain"),
            Question("tcp/7001", b"?", b"multipath"),
            Question("udp/7002", b"?", b"packet"),
        ),
    ),
    Server(
        "java",
        _java,
        (Question("tcp/7000", b"?", b"here"), Question("udp/7001", b"?", b"packet")),
    ),
    Server(
        "node",
        _node,
        (Question("tcp/7000", b"?", b"here"), Question("udp/7001", b"?", b"packet")),
    ),
    Server("static", _static, (Question("tcp/7000", b"?", b"here"),)),
)
