"""A network of the tests' own: several runs at the same time do not take each other's ports.

Two runners share the work of a run (pytest-xdist), and many tests want a port that the whole
machine has once: 1900, or the 6881 of torrents.
"""

import contextlib
import ctypes
import errno
import os
import subprocess
from collections.abc import Iterator

_CLONE_NEWNET = 0x40000000  # unshare(2)
_MACHINES = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)  # from before any is left
_libc = ctypes.CDLL(None, use_errno=True)


def own_network() -> None:
    """Leave the machine's network for a new one, which has nothing but the loopback device.

    Of this thread, and of all threads and processes that it starts from now on. Who may not do that
    (without root) stays in the machine's.
    """
    if _libc.unshare(_CLONE_NEWNET) == -1:
        code = ctypes.get_errno()
        if code == errno.EPERM:
            return
        raise OSError(code, os.strerror(code))
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


@contextlib.contextmanager
def machines_network() -> Iterator[None]:
    """This thread is in the machine's network again, for what has to be fetched from elsewhere."""
    own = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter(_MACHINES)
        yield
    finally:
        _enter(own)
        os.close(own)


def _enter(network: int) -> None:
    if os.path.samestat(os.fstat(network), os.stat("/proc/self/ns/net")):
        return  # without root, which setns(2) wants, there is only one
    if _libc.setns(network, _CLONE_NEWNET) == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
