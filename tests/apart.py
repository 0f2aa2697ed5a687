"""A network of the tests' own: several runs at the same time do not take each other's ports.

Two runners share the work of a run (pytest-xdist), and many tests want a port that the whole
machine has once: 1900, or the 6881 of torrents.
"""

import ctypes
import errno
import os
import subprocess

_CLONE_NEWNET = 0x40000000  # unshare(2)


def own_network() -> None:
    """Leave the machine's network for a new one, which has nothing but the loopback device.

    Of this thread, and of all threads and processes that it starts from now on. Who may not do that
    (without root) stays in the machine's.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) == -1:
        code = ctypes.get_errno()
        if code == errno.EPERM:
            return
        raise OSError(code, os.strerror(code))
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
