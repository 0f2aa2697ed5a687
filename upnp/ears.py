"""Hearing what a router says unasked, on SSDP's own port, for as long as nobody else wants it.

A router that starts, or is switched off properly, tells so at once, to port 1900 of a multicast
group (UPnP Device Architecture 1.1, section 1.2). Who wants to hear that has to be bound to the
port: in Linux's udp_lib_lport_inuse() (net/ipv4/udp.c) the group's own address is in conflict with
the wildcard, whatever the device, and a member of the group with another port gets nothing.

So the port is shared as far as that goes: SSDP has its users set SO_REUSEADDR or SO_REUSEPORT, and
this sets both. It is bound to the group's address, because then it gets nothing that is sent to
this host alone, such as the searches that another program here answers. Whoever sets neither option
finds the port in use, as beside any other program that hears SSDP; but a program under natsup must
not be worse off, and before its bind() the port is given up, for good.
"""

import trio

from natsup.upnp import ssdp

_IP_MULTICAST_ALL = 49  # linux/in.h; Python has no name for it


class Ears:
    """``holding``: is the port held, or about to be? Read by another thread."""

    def __init__(self) -> None:
        self.holding = False
        self._given_up = False
        self._sock: trio.socket.SocketType | None = None

    async def open(self, address: str) -> bool:
        """Listen on the interface with this address. False where the port was given up.

        Raises OSError.
        """
        if self._given_up:
            return False
        self.holding = True  # first, so that no bind() slips in between
        sock = self._sock = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
        try:
            sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_REUSEADDR, 1)
            sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_REUSEPORT, 1)
            # Else what other programs joined by other interfaces comes here as well.
            sock.setsockopt(trio.socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
            await sock.bind((ssdp.MULTICAST, ssdp.PORT))
            group = trio.socket.inet_aton(ssdp.MULTICAST) + trio.socket.inet_aton(address)
            sock.setsockopt(trio.socket.IPPROTO_IP, trio.socket.IP_ADD_MEMBERSHIP, group)
        except BaseException:
            self.close()
            raise
        return True

    async def hear(self) -> tuple[bytes, str]:
        """Wait for a datagram. Returns it, and whose address it came from.

        Raises trio.ClosedResourceError once the port has been given up, and OSError.
        """
        if self._sock is None:
            raise trio.ClosedResourceError
        data, (sender, _) = await self._sock.recvfrom(8192)
        return data, sender

    def give_up(self) -> None:
        """Let go of the port, and never hold it again."""
        self._given_up = True
        self.close()

    def close(self) -> None:
        """Let go of the port."""
        if self._sock is not None:
            self._sock.close()
        self._sock, self.holding = None, False
