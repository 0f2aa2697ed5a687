"""Hearing from the router that it was restarted: SSDP's NOTIFY.

UPnP Device Architecture 1.1, section 1.2. A router that starts tells so at once, and one that is
switched off properly says goodbye; that comes minutes before anything else would show that its
mappings are gone. It is a hint to look, and proves nothing: anybody on the LAN can send it under
the router's address. So only what comes from that address counts, and a storm makes few signs.
"""

import logging
from dataclasses import replace

import trio

from natsup.upnp import ssdp
from natsup.upnp.ssdp import Kind, Notification

log = logging.getLogger("natsup.upnp")

_SETTLING = 1.0  # seconds: a router tells the same of each of its devices and services
_APART = 10.0  # seconds between two signs
_ROUTER = ":device:InternetGatewayDevice:"  # in the names of both versions and of the DSL Forum
_MOST_TARGETS = 8
_IP_MULTICAST_ALL = 49  # linux/in.h; Python has no name for it


class Signs:
    """Which notifications of a router, in a row, are signs that it was restarted. Pure.

    What it tells of other things that it is (a media server, say) is passed over: they start on
    their own. Each version of its description is followed by itself. Times are in seconds, by any
    clock that is always the same one.
    """

    def __init__(self) -> None:
        self._last: dict[str, Notification] = {}
        self._reason: str | None = None
        self._due = 0.0
        self._quiet_until = float("-inf")

    def hear(self, said: Notification, now: float) -> None:
        """The router has told this."""
        reason = self._compare(said)
        if reason is None:
            return
        if self._reason is None:
            self._due = max(now + _SETTLING, self._quiet_until)
        self._reason = reason

    def next_deadline(self) -> float | None:
        """When to call `tick`."""
        return None if self._reason is None else self._due

    def tick(self, now: float) -> str | None:
        """The sign that is due by now, as a clause for people: the latest of those since the last
        one."""
        if self._reason is None or now < self._due:
            return None
        reason, self._reason = self._reason, None
        self._quiet_until = now + _APART
        return reason

    def _compare(self, said: Notification) -> str | None:
        """What is new in it, if that is a sign."""
        if _ROUTER not in said.target:
            return None
        before = self._last.get(said.target)
        if before is None and len(self._last) >= _MOST_TARGETS:
            return None
        if before is not None:  # what it does not say is as it was
            bootid = before.bootid if said.bootid is None else said.bootid
            said = replace(said, bootid=bootid, location=said.location or before.location)
        self._last[said.target] = said
        if said.kind is Kind.BYEBYE:
            gone = before is not None and before.kind is Kind.BYEBYE
            return None if gone else "the router says goodbye"
        if before is None or said.kind is Kind.UPDATE:
            return None
        if before.kind is Kind.BYEBYE:
            return "the router is back"
        if before.bootid not in (None, said.bootid):
            return "the router was restarted"
        if before.location not in (None, said.location):
            return "the router's description has moved"
        return None


async def listen(
    address: str,
    gateway: str,
    signs: "trio.MemorySendChannel[str]",
    task_status: "trio.TaskStatus[None]" = trio.TASK_STATUS_IGNORED,
) -> None:
    """Send a clause for people into ``signs`` for every sign that the router was restarted.

    ``address``: this host's, on the router's interface; ``gateway``: the router's. Goes on until
    cancelled, or until nobody receives from ``signs`` any more. Where it cannot listen it says so
    in the log, closes ``signs`` and returns; it raises nothing for what a network does.
    """
    with signs, trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as sock:
        try:
            await _join(sock, address)
        except OSError as error:
            log.info("the router cannot be heard when it restarts: %s", error.strerror)
            task_status.started()
            return
        task_status.started()
        heard = Signs()
        while True:
            deadline = heard.next_deadline()
            with trio.CancelScope() as scope:
                if deadline is not None:
                    scope.deadline = deadline
                await _hear(sock, gateway, heard)
            reason = heard.tick(trio.current_time())
            if reason is not None:
                try:
                    await signs.send(reason)
                except trio.BrokenResourceError:
                    return


async def _join(sock: trio.socket.SocketType, address: str) -> None:
    """Bind to the group and join it. Raises OSError.

    The group's own address, because a socket that is bound to it gets nothing that is sent to this
    host alone, such as the searches that another program here answers. The port has to be shared
    with such programs. They set one of the two options, as SSDP wants it, and whoever set only one
    shares with nobody who has not set the same. (socket(7); a program that sets neither finds the
    port in use, as it would beside any other program that listens to SSDP.)
    """
    sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_REUSEADDR, 1)
    sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_REUSEPORT, 1)
    # Else what other programs joined by other interfaces comes here as well.
    sock.setsockopt(trio.socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
    await sock.bind((ssdp.MULTICAST, ssdp.PORT))
    group = trio.socket.inet_aton(ssdp.MULTICAST) + trio.socket.inet_aton(address)
    sock.setsockopt(trio.socket.IPPROTO_IP, trio.socket.IP_ADD_MEMBERSHIP, group)


async def _hear(sock: trio.socket.SocketType, gateway: str, signs: Signs) -> None:
    """Receive one datagram."""
    try:
        data, (sender, _) = await sock.recvfrom(8192)
    except OSError as error:
        log.debug("nothing heard: %s", error.strerror)
        return
    said = ssdp.notification(data) if sender == gateway else None
    if said is not None:
        signs.hear(said, trio.current_time())
