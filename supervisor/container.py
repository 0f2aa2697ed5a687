"""Is this a container, and in which kind of network? For what people are told; nothing hangs on it.

A container has process numbers of its own, as sandboxes have. Engines leave marks besides: podman
and docker a file, systemd-nspawn and LXC a variable (systemd, "Container Interface"),
Kubernetes those of its own service. Runtimes alone leave none. By itself a mark tells nothing:
machines are made from the images of containers.
"""

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Mapping

from natsup.supervisor.surroundings import first_processes

_FILES = {"/run/.containerenv": "podman", "/.dockerenv": "docker"}
# Devices whose other end is on the same machine: a bridge of the engine's (docker, podman, CNI), or
# a program that plays the network (slirp4netns, pasta)
_LEADS_TO_HOST = ("veth", "tun")
_SIOCETHTOOL, _ETHTOOL_GDRVINFO = 0x8946, 0x00000003  # linux/sockios.h, linux/ethtool.h
_DRIVER_INFO = 196  # bytes of struct ethtool_drvinfo; its number, and then 32 bytes of a name
_REQUEST = struct.Struct("16sP16x")  # struct ifreq: the interface's name, a pointer


def engine(environ: Mapping[str, str]) -> str:
    """What made the container that this process is in; "" outside of any, as far as can be seen."""
    if first_processes():
        return ""
    for path, name in _FILES.items():
        if os.path.exists(path):
            return name
    if environ.get("container"):
        return environ["container"]
    if environ.get("KUBERNETES_SERVICE_HOST"):
        return "Kubernetes"
    return "a runtime or sandbox"


def driver(interface: str) -> str:
    """The kind of a network interface, by its driver's name (netdevice(7)); "" if that is not
    known."""
    info = ctypes.create_string_buffer(struct.pack("=I", _ETHTOOL_GDRVINFO), _DRIVER_INFO)
    request = _REQUEST.pack(interface.encode()[:15], ctypes.addressof(info))
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            fcntl.ioctl(sock, _SIOCETHTOOL, request)
    except OSError:
        return ""
    return info.raw[4:36].split(b"\0")[0].decode("ascii", "replace")


def behind_host(environ: Mapping[str, str], interface: str) -> bool:
    """Is this a container whose next hop is its own host, which is no router to be asked?"""
    return bool(engine(environ)) and driver(interface) in _LEADS_TO_HOST
