"""Netlink in a sandbox that kills whoever opens a netlink socket, instead of refusing it."""

import _socket as socket

from natsup.supervisor import sandbox


def heed() -> None:
    """If such a sandbox is around this process, have it do without netlink.

    To be called before there are threads: it is tried in a child. Outside of sandboxes it costs a
    look at /proc/self/status.
    """
    if sandbox.filtered() and sandbox.attempt(_open) == sandbox.KILLED:
        from natsup.upnp import rtnetlink

        rtnetlink.avoid()


def _open() -> int:
    try:
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE).close()
    except OSError:  # to be refused is no harm
        return 1
    return 0
