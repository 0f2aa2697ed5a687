"""What the kernel knows of addresses, routes and neighbours, where netlink is forbidden.

systemd's RestrictAddressFamilies=, as many services have it, leaves AF_INET and AF_INET6. What
netdevice(7) and the files below /proc/net tell is enough for a network without policy routing; and
where there are no such files either (ProcSubset=pid), the kernel still says from which of our
addresses it would send to a router that is known.
"""

import errno
import fcntl
import os
import socket
import struct
import sys
from ipaddress import IPv4Address
from pathlib import Path as File

from natsup.upnp.rtnetlink import EVERYTHING, HALVES, Address, Path

_NET = File("/proc/self/net")  # of which /proc/net, the usual name, is a link that may be missing
_UP, _REJECT = 0x1, 0x200  # RTF_UP, RTF_REJECT: linux/route.h
_COMPLETE = 0x2  # ATF_COM: linux/if_arp.h
_LIST, _PEER, _MASK = 0x8912, 0x8917, 0x891B  # SIOCGIFCONF, SIOCGIFDSTADDR, SIOCGIFNETMASK
_ENTRY = struct.Struct("16s16s8x")  # struct ifreq: the interface's name, struct sockaddr
_LIST_HEAD = struct.Struct("iP")  # struct ifconf: bytes, where
_MOST = 1024  # addresses
_DISCARD = 9  # a port; nothing is sent to it


class Files:
    """Answers what `natsup.upnp.rtnetlink.Kernel` does. Every method may raise OSError."""

    def wide_routes(self) -> list[Path]:
        return [path for path in _routes() if path.destination in (EVERYTHING, *HALVES)]

    def way_to(self, host: str, interface: str | None = None) -> Path:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            if interface:
                name = os.fsencode(interface)
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name)
            probe.connect((host, _DISCARD))  # of UDP: nothing is sent
            source: str = probe.getsockname()[0]
        try:
            routes = _routes()
        except OSError:
            routes = []
        fitting = [
            path
            for path in routes
            if interface in (None, path.interface) and _covers(path.destination, host)
        ]
        best = min(fitting, key=lambda path: (-_bits(path.destination), path.metric), default=None)
        if best is not None:
            return Path(best.interface, best.gateway, source, best.metric)
        return Path(interface or _interface_of(source), "", source)

    def addresses(self) -> list[Address]:
        return [address for _, address in by_interface()]

    def mac_of(self, host: str, interface: str) -> str:
        try:
            lines = (_NET / "arp").read_text().splitlines()[1:]
        except OSError:
            return ""
        for line in lines:
            address, _, flags, mac, _, name = line.split()
            if (address, name) == (host, interface) and int(flags, 16) & _COMPLETE:
                return mac
        return ""


def _routes() -> list[Path]:
    """The main table, but for what goes nowhere."""
    found = []
    for line in (_NET / "route").read_text().splitlines()[1:]:
        interface, to, gateway, flags, _, _, metric, mask, *_ = line.split()
        if int(flags, 16) & (_UP | _REJECT) == _UP:
            destination = f"{_text(to)}/{int(mask, 16).bit_count()}"
            via = "" if int(gateway, 16) == 0 else _text(gateway)
            found.append(Path(interface, via, "", int(metric), destination))
    return found


def _text(number: str) -> str:
    """An address as those files have it: network order, printed as a number of this machine."""
    return socket.inet_ntoa(int(number, 16).to_bytes(4, sys.byteorder))


def _bits(destination: str) -> int:
    return int(destination.partition("/")[2])


def _covers(destination: str, host: str) -> bool:
    start, left = IPv4Address(destination.partition("/")[0]), 32 - _bits(destination)
    return int(start) >> left == int(IPv4Address(host)) >> left


def _interface_of(address: str) -> str:
    return next((name for name, found in by_interface() if found.own == address), "")


def by_interface() -> list[tuple[str, Address]]:
    """This host's addresses, each with its interface. Raises OSError."""
    import array  # which the supervisor needs nowhere else

    room = array.array("B", bytes(_MOST * _ENTRY.size))
    where, _ = room.buffer_info()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        head = fcntl.ioctl(sock, _LIST, _LIST_HEAD.pack(len(room), where))
        length = _LIST_HEAD.unpack(head)[0]
        found = []
        for name, own in _ENTRY.iter_unpack(room.tobytes()[:length]):
            try:
                # Of an interface's addresses, that one: net/ipv4/devinet.c, devinet_ioctl().
                peer, mask = (
                    fcntl.ioctl(sock, request, _ENTRY.pack(name, own))[20:24]
                    for request in (_PEER, _MASK)
                )
            except OSError as error:
                if error.errno in (errno.EADDRNOTAVAIL, errno.ENODEV):  # it has just gone
                    continue
                raise
            prefix = int.from_bytes(mask, "big").bit_count()
            label = os.fsdecode(name.partition(b"\0")[0])
            address = Address(socket.inet_ntoa(own[4:8]), socket.inet_ntoa(peer), prefix)
            found.append((label.partition(":")[0], address))  # eth0:1 is a label, on eth0
    return found
