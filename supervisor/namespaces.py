"""A home network inside this computer: network namespaces and what connects them.

    here  192.168.77.2 ┐
                       ├ 192.168.77.1 router 11.22.33.1 ── 11.22.33.9 internet
    other 192.168.77.3 ┘

As root they are network namespaces alone; else they belong to a user namespace in which this
process counts as root. They have no names and are held by descriptors and processes, so that the
kernel removes them when the last of those has gone, however it ended.
"""

import ctypes
import os
import signal
import subprocess
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from natsup.supervisor import abi, libc

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000  # unshare(2)

HERE, OTHER, ROUTER = "192.168.77.2", "192.168.77.3", "192.168.77.1"
OUTSIDE, INTERNET = "11.22.33.1", "11.22.33.9"

_libc = ctypes.CDLL(None, use_errno=True)


class NamespacesRefused(Exception):
    """This system does not permit them; the message is a clause that says what was refused."""


def _unshare(flags: int) -> None:
    if _libc.unshare(flags) == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _enter(fd: int) -> None:
    if _libc.setns(fd, CLONE_NEWNET) == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class Network:
    """The network, made for the `with` block. This process is moved into it, for good.

    Raises `NamespacesRefused`.
    """

    HOSTS = ("here", "other", "internet", "router")

    def __init__(self) -> None:
        self._fds: dict[str, int] = {}
        self._processes: list[subprocess.Popen[Any]] = []

    def __enter__(self) -> "Network":
        if os.geteuid() != 0:
            _become_root()
        try:
            for host in self.HOSTS:
                _unshare(CLONE_NEWNET)
                self._fds[host] = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise NamespacesRefused(f"network namespaces: {error.strerror}") from error
        self._connect()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in reversed(self._processes):
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        for fd in self._fds.values():
            os.close(fd)

    def popen(self, host: str, command: Sequence[str], **options: Any) -> "subprocess.Popen[str]":
        """Start a command on a host, its output in a pipe. It ends with this process at the
        latest."""
        fd = self._fds[host]
        # An interruption in between would leave a process that nobody knows, and whose output
        # nobody reads.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())

        def move() -> None:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            _enter(fd)
            libc.prctl(abi.PR_SET_PDEATHSIG, 9)

        try:
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, text=True, preexec_fn=move, **options
            )
            self._processes.append(process)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return process

    def _connect(self) -> None:
        from pyroute2 import IPRoute
        from pyroute2.netlink.exceptions import NetlinkError

        try:
            with IPRoute() as router:  # this process is in the last namespace, the router's
                _up(router, "lo")
                router.link("add", ifname="lan", kind="bridge")
                bridge = _up(router, "lan")
                router.addr("add", index=bridge, address=ROUTER, prefixlen=24)
                for name in ("here", "other", "internet"):
                    peer = {"ifname": "eth0", "net_ns_fd": self._fds[name]}
                    router.link("add", ifname=name, kind="veth", peer=peer)
                    index = _up(router, name)
                    if name == "internet":
                        router.addr("add", index=index, address=OUTSIDE, prefixlen=24)
                    else:
                        router.link("set", index=index, master=bridge)
            for name, address in (("here", HERE), ("other", OTHER), ("internet", INTERNET)):
                _enter(self._fds[name])
                with IPRoute() as host:
                    _up(host, "lo")
                    index = _up(host, "eth0")
                    host.addr("add", index=index, address=address, prefixlen=24)
                    if name != "internet":
                        host.route("add", dst="default", gateway=ROUTER)
            _enter(self._fds["router"])
        except (NetlinkError, OSError) as error:
            raise NamespacesRefused(f"connecting network namespaces: {error}") from error


def _up(kernel: Any, name: str) -> int:
    """Switch an interface on; returns its index."""
    (index,) = kernel.link_lookup(ifname=name)
    kernel.link("set", index=index, state="up")
    return int(index)


def _become_root() -> None:
    """Be root in a user namespace of our own (user_namespaces(7))."""
    uid, gid = os.geteuid(), os.getegid()
    try:
        _unshare(CLONE_NEWUSER)
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"0 {uid} 1"),
            ("gid_map", f"0 {gid} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    except OSError as error:
        raise NamespacesRefused(f"user namespaces: {error.strerror}") from error
