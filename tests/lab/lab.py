"""A home network in namespaces: two hosts, a router with real NAT and real miniupnpd, the Internet.

    lan1 192.168.77.2 ┐
                      ├ 192.168.77.1 router 11.22.33.1 ── 11.22.33.9 wan
    lan2 192.168.77.3 ┘

With IPv6 it is 2001:db8:1::2 and ::3 on the LAN, whose router is fe80::1 and 2001:db8:1::1, and
2001:db8:2::9 outside. Nothing is translated there; the router lets nobody in who was not asked.

Nothing of it touches the machine's own network. The WAN side must look public, or miniupnpd refuses
to map anything.
"""

import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from ipaddress import IPv6Address
from pathlib import Path
from types import TracebackType
from typing import Any

LAN1, LAN2, ROUTER = "192.168.77.2", "192.168.77.3", "192.168.77.1"
OUTSIDE, WAN = "11.22.33.1", "11.22.33.9"
OUTSIDE_SECOND = "11.22.44.1"
LAN1_6, LAN2_6, WAN_6 = "2001:db8:1::2", "2001:db8:1::3", "2001:db8:2::9"
ROUTER_PORT = 5555  # of miniupnpd's HTTP
_count = itertools.count()

_LAYOUT = """
set -eu
for host in $1-router $1-lan1 $1-lan2 $1-wan; do
    ip netns add $host
    ip -n $host link set lo up
done
ip -n $1-router link add lan type bridge
for n in 1 2; do
    ip -n $1-lan$n link add eth0 type veth peer name lan$n netns $1-router
    ip -n $1-router link set lan$n master lan up
    ip -n $1-lan$n addr add 192.168.77.$((n + 1))/24 dev eth0
    ip -n $1-lan$n link set eth0 up
    ip -n $1-lan$n route add default via 192.168.77.1
done
ip -n $1-router addr add 192.168.77.1/24 dev lan
ip -n $1-router link set lan up
ip -n $1-wan link add eth0 type veth peer name wan netns $1-router
ip -n $1-wan addr add 11.22.33.9/24 dev eth0
ip -n $1-wan link set eth0 up
ip -n $1-router addr add 11.22.33.1/24 dev wan
ip -n $1-router link set wan up
ip netns exec $1-router sysctl -qw net.ipv4.ip_forward=1
ip netns exec $1-router nft -f - <<RULES
table inet filter {
    chain miniupnpd { }
    chain forward {
        type filter hook forward priority 0; policy drop;
        ct state established,related accept
        iifname lan accept
        jump miniupnpd
    }
}
table inet nat {
    chain prerouting_miniupnpd { }
    chain postrouting_miniupnpd { }
    chain prerouting { type nat hook prerouting priority -100; jump prerouting_miniupnpd; }
    chain postrouting {
        type nat hook postrouting priority 100;
        jump postrouting_miniupnpd
        oifname wan masquerade
    }
}
RULES
"""

_SECOND = (
    "set -eu",
    "ip -n $1-router link add wan type veth peer name internet",
    f"ip -n $1-router addr add {OUTSIDE_SECOND}/24 dev wan",
    "ip -n $1-router link set internet up",
    "ip -n $1-router link set wan up",
)
_IPV6 = """
set -eu
for n in 1 2; do
    ip -n $1-lan$n addr add 2001:db8:1::$((n + 1))/64 dev eth0 nodad
    ip -n $1-lan$n route add default via fe80::1 dev eth0
done
ip -n $1-router addr add 2001:db8:1::1/64 dev lan nodad
ip -n $1-router addr add fe80::1/64 dev lan nodad
ip -n $1-router addr add 2001:db8:2::1/64 dev wan nodad
ip -n $1-wan addr add 2001:db8:2::9/64 dev eth0 nodad
ip -n $1-wan route add default via 2001:db8:2::1
ip netns exec $1-router sysctl -qw net.ipv6.conf.all.forwarding=1
"""

_MINIUPNPD = """
ext_ifname=wan
ext_ip={outside}
listening_ip=lan
port={port}
enable_upnp={upnp}
enable_natpmp={pmp}
secure_mode={secure}
system_uptime={clock}
lease_file={folder}/leases
ipv6_disable={no_ipv6}
upnp_table_name=filter
upnp_nat_table_name=nat
upnp_forward_chain=miniupnpd
upnp_nat_chain=prerouting_miniupnpd
upnp_nat_postrouting_chain=postrouting_miniupnpd
uuid=00000000-0000-0000-0000-000000000077
allow 1024-65535 192.168.77.0/24 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
"""


def _kill(pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


class Lab:
    """The network, for as long as the `with` block lasts. ``folder`` is where its files go.

    ``pmp``: the router speaks NAT-PMP and PCP, and its clock for them begins with it. ``upnp``: it
    speaks UPnP. ``secure``: a host may map and remove for itself alone. ``ipv6``: there is IPv6,
    too.
    """

    def __init__(
        self,
        folder: Path,
        *,
        upnp: bool = True,
        pmp: bool = False,
        secure: bool = True,
        ipv6: bool = False,
    ) -> None:
        self.folder = folder
        self.ipv6 = ipv6
        self.upnp = upnp
        self.pmp = pmp
        self.secure = secure
        self._prefix = f"nsl{os.getpid()}-{next(_count)}"
        self._processes: list[subprocess.Popen[Any]] = []
        self._on_lan: list[subprocess.Popen[Any]] = []
        self._router: subprocess.Popen[Any] | None = None

    def __enter__(self) -> "Lab":
        try:
            for script in (_LAYOUT, _IPV6)[: 1 + self.ipv6]:
                subprocess.run(["sh", "-c", script, "lab", self._prefix], check=True)
            self.start_router()
        except BaseException:
            self._tear_down()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._tear_down()

    def _tear_down(self) -> None:
        for process in reversed(self._processes):
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
        for host in ("router", "lan1", "lan2", "wan"):
            # Namespaces of the test alone: whatever still runs there was started by it.
            _kill(self.pids(host))
            command = ["ip", "netns", "del", self.name(host)]
            subprocess.run(command, check=False, stderr=subprocess.DEVNULL)

    def end_programs(self, spared: Collection[int] = ()) -> None:
        """Kill what runs on the hosts of the LAN, but for some, with the router answering."""
        if self._router is not None and self._router.poll() is None:
            self.resume_router()
        for process in self._on_lan:  # they may be in other namespaces by now
            process.kill()
            process.wait()
        for host in ("lan1", "lan2"):
            _kill(set(self.pids(host)) - set(spared))

    # --- hosts ---

    def name(self, host: str) -> str:
        """The name of a host's network namespace, for ip(8)."""
        return f"{self._prefix}-{host}"

    def pids(self, host: str) -> list[int]:
        """The processes on a host."""
        command = ["ip", "netns", "pids", self.name(host)]
        found = subprocess.run(command, capture_output=True, text=True)
        return [int(word) for word in found.stdout.split()]

    def on(self, host: str, command: Sequence[str]) -> list[str]:
        """A command line that runs ``command`` on a host."""
        return ["ip", "netns", "exec", self.name(host), *command]

    def run(self, host: str, command: Sequence[str], **options: Any) -> Any:
        """subprocess.run on a host."""
        given = {"capture_output": True, "text": True, "timeout": 60, **options}
        return subprocess.run(self.on(host, command), **given)

    def popen(self, host: str, command: Sequence[str], **options: Any) -> "subprocess.Popen[Any]":
        """subprocess.Popen on a host; what still runs at the end is killed."""
        process = subprocess.Popen(self.on(host, command), **options)
        self._processes.append(process)
        if host in ("lan1", "lan2"):
            self._on_lan.append(process)
        return process

    # --- the router ---

    def start_router(self) -> None:
        """Start miniupnpd and wait until it answers."""
        config = self.folder / "miniupnpd.conf"
        text = _MINIUPNPD.format(
            outside=OUTSIDE,
            port=ROUTER_PORT,
            folder=self.folder,
            upnp="yes" if self.upnp else "no",
            pmp="yes" if self.pmp else "no",
            clock="no" if self.pmp else "yes",
            secure="yes" if self.secure else "no",
            no_ipv6="no" if self.ipv6 else "yes",
        )
        config.write_text(text)
        pid_file = self.folder / "miniupnpd.pid"
        command = ["miniupnpd", "-d", "-f", str(config), "-P", str(pid_file)]
        with (self.folder / "miniupnpd.log").open("ab") as log:
            self._router = self.popen("router", command, stdout=log, stderr=log)
        self.wait_for(self._answers)

    def _answers(self) -> bool:
        assert self._router is not None
        assert self._router.poll() is None, (self.folder / "miniupnpd.log").read_text()
        return bool(self._description() if self.upnp else self.epoch())

    def start_second_router(self) -> None:
        """Make the host lan2 a router as well, with miniupnpd and an Internet of its own."""
        layout = "\n".join((*_SECOND, _LAYOUT[_LAYOUT.index("ip netns exec $1-router nft") :]))
        script = layout.replace("$1-router", "$1-lan2")
        subprocess.run(["sh", "-c", script, "lab", self._prefix], check=True)
        folder = self.folder / "second"
        folder.mkdir()
        config = folder / "miniupnpd.conf"
        text = (self.folder / "miniupnpd.conf").read_text()
        text = text.replace("listening_ip=lan", "listening_ip=eth0").replace(
            str(self.folder), str(folder)
        )
        config.write_text(text.replace(OUTSIDE, OUTSIDE_SECOND))
        command = ["miniupnpd", "-d", "-f", str(config), "-P", str(folder / "pid")]
        with (folder / "log").open("ab") as log:
            self.popen("lan2", command, stdout=log, stderr=log)
        self.wait_for(lambda: bool(self._description(LAN2)))

    def stop_router(self) -> None:
        """End miniupnpd as a power cut would; its forwardings in the kernel stay."""
        assert self._router is not None
        self._router.kill()
        self._router.wait()

    def pause_router(self) -> None:
        """Have miniupnpd answer nothing, while its connections and forwardings stay."""
        assert self._router is not None
        self._router.send_signal(signal.SIGSTOP)

    def resume_router(self) -> None:
        assert self._router is not None
        self._router.send_signal(signal.SIGCONT)

    def announce_router(self) -> None:
        """Have the router say that it is there, as it does by itself now and then (SSDP)."""
        target = "urn:schemas-upnp-org:device:InternetGatewayDevice:1"
        search = (
            f'M-SEARCH * HTTP/1.1\r\nHOST: {ROUTER}:1900\r\nMAN: "ssdp:discover"\r\n'
            f"MX: 1\r\nST: {target}\r\n\r\n"
        )
        ask = (
            "import socket, sys\n"
            "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
            "s.settimeout(10)\n"
            f"s.sendto({search.encode()!r}, ('{ROUTER}', 1900))\n"
            "sys.stdout.buffer.write(s.recv(4096))\n"
        )
        answer = self.run("lan1", [sys.executable, "-c", ask], check=True).stdout
        bootid = re.search(r"BOOTID\.UPNP\.ORG: *(\d+)", answer, re.IGNORECASE)
        assert bootid is not None, answer
        notify = (
            "NOTIFY * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\n"
            f"LOCATION: http://{ROUTER}:{ROUTER_PORT}/rootDesc.xml\r\n"
            f"NT: {target}\r\nNTS: ssdp:alive\r\nBOOTID.UPNP.ORG: {bootid[1]}\r\n\r\n"
        )
        say = (
            "import socket\n"
            "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
            f"s.bind(('{ROUTER}', 0))\n"
            f"own = socket.inet_aton('{ROUTER}')\n"
            "s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, own)\n"
            f"s.sendto({notify.encode()!r}, ('239.255.255.250', 1900))\n"
        )
        self.run("router", [sys.executable, "-c", say], check=True)

    def epoch(self) -> str:
        """The answer to NAT-PMP's first question, in hexadecimal; "" if there is none."""
        script = (
            "import socket, sys\n"
            "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
            "s.settimeout(1)\n"
            f"s.connect(('{ROUTER}', 5351))\n"
            "s.send(bytes(2))\n"
            "sys.stdout.write(s.recv(16).hex())\n"
        )
        return str(self.run("lan1", [sys.executable, "-c", script]).stdout)

    def _description(self, router: str = ROUTER) -> str:
        address = f"{router}:{ROUTER_PORT}"
        script = (
            "import socket, sys\n"
            f"s = socket.create_connection(('{router}', {ROUTER_PORT}), 1)\n"
            f"s.sendall(b'GET /rootDesc.xml HTTP/1.0\\r\\nHost: {address}\\r\\n\\r\\n')\n"
            "sys.stdout.buffer.write(s.makefile('rb').read())\n"
        )
        return str(self.run("lan1", [sys.executable, "-c", script]).stdout)

    def table(self, host: str = "router") -> dict[str, str]:
        """What the router forwards: ``tcp/6881`` to the address it leads to."""
        done = self.run(host, ["nft", "list", "chain", "inet", "nat", "prerouting_miniupnpd"])
        # nft shows miniupnpd's match of the IP protocol as the bytes that it compares.
        rules = re.findall(r"0x(6|11) th dport (\d+) dnat ip to ([\d.]+)", done.stdout)
        names = {"6": "tcp", "11": "udp"}
        return {f"{names[protocol]}/{number}": address for protocol, number, address in rules}

    def pinholes(self) -> dict[str, str]:
        """Whom the router lets in by IPv6: ``tcp/6881`` to the address it leads to."""
        done = self.run("router", ["nft", "list", "chain", "inet", "filter", "miniupnpd"])
        rules = re.findall(r"dport (\d+) @nh,192,128 0x(\w{32}) @nh,48,8 0x(6|11)", done.stdout)
        names = {"6": "tcp", "11": "udp"}
        return {
            f"{names[protocol]}/{number}": str(IPv6Address(bytes.fromhex(address)))
            for number, address, protocol in rules
        }

    def leases(self, word: str) -> list[str]:
        """What an answering router has noted of mappings whose descriptions have this word."""
        if self._router is None or self._router.poll() is not None:
            return []
        try:
            lines = (self.folder / "leases").read_text().splitlines()
        except FileNotFoundError:  # there has never been one
            return []
        return [line for line in lines if word in line]

    def map(self, host: str, protocol: str, number: int) -> str:
        """Have a host map a port by upnpc; returns what upnpc says."""
        address = {"lan1": LAN1, "lan2": LAN2}[host]
        url = f"http://{ROUTER}:{ROUTER_PORT}/rootDesc.xml"
        words = [
            "upnpc",
            "-u",
            url,
            "-m",
            "eth0",
            "-a",
            address,
            str(number),
            str(number),
            protocol,
        ]
        return str(self.run(host, words).stdout)

    def map_many(self, host: str, ports: Sequence[str]) -> None:
        """Have a host map many ports at once, each like ``tcp/6881``."""
        url = f"http://{ROUTER}:{ROUTER_PORT}/rootDesc.xml"
        words = ["upnpc", "-u", url, "-m", "eth0", "-r"]
        for port in ports:
            protocol, number = port.split("/")
            words += [number, protocol]
        self.run(host, words, check=True)

    def unmap(self, host: str, protocol: str, number: int) -> str:
        """Have a host remove a port of its own by upnpc."""
        url = f"http://{ROUTER}:{ROUTER_PORT}/rootDesc.xml"
        words = ["upnpc", "-u", url, "-m", "eth0", "-d", str(number), protocol]
        return str(self.run(host, words).stdout)

    # --- the Internet ---

    def fetch(
        self, protocol: str, number: int, data: bytes = b"hello\n", *, to: str = OUTSIDE
    ) -> bytes | None:
        """Send something from the Internet to a port, the router's or of a host that has an address
        there; what comes back, or None."""
        kind = "SOCK_STREAM" if protocol == "tcp" else "SOCK_DGRAM"
        script = (
            "import socket, sys\n"
            f"s = socket.socket(socket.AF_INET{'6' * (':' in to)}, socket.{kind})\n"
            "s.settimeout(2)\n"
            "try:\n"
            f"    s.connect(('{to}', {number}))\n"
            f"    s.send({data!r})\n"
            "    sys.stdout.buffer.write(b'+' + s.recv(4096))\n"
            "except OSError: pass\n"
        )
        done = self.run("wan", [sys.executable, "-c", script], text=False)
        return done.stdout[1:] if done.stdout else None

    def reaches(self, number: int) -> bool:
        """Does a TCP connection from the Internet to this port come about?"""
        script = (
            "import socket, sys\n"
            f"try: socket.create_connection(('{OUTSIDE}', {number}), 2)\n"
            "except OSError: sys.exit(1)\n"
        )
        return bool(self.run("wan", [sys.executable, "-c", script]).returncode == 0)

    def wait_for(self, condition: Callable[[], bool], seconds: float = 20) -> None:
        """Until a condition holds; fails when it does not within ``seconds``."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it did not come about in time"
            time.sleep(0.02)
