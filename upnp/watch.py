"""Watching the router, to see soon that it was restarted: it is asked where it is, every 10 s.

UPnP Device Architecture 1.1, section 1.3.2: a search may go to one device alone, and its answer
tells the number of the device's start (BOOTID.UPNP.ORG) and where its description is. So what is
seen is another such number, another description, or answers after a silence, with routers of UPnP
1.0 too, which number nothing. Each is a hint to look, and proves nothing.

A restarted router also tells so unasked (section 1.2), to port 1900 of a multicast group. It is not
listened to: whoever is bound to that port keeps a program that binds *:1900 without SO_REUSEADDR
from it, and natsup must not make a program worse off. There is no way to listen without. In Linux's
udp_lib_lport_inuse() (net/ipv4/udp.c) the wildcard is in conflict with the group's own address,
with a socket of any device, and with an IPv6 socket that is bound to the mapped address; a member
of the group with another port gets nothing. And many a host's firewall drops what nobody here has
asked for, while answers come in.
"""

import logging

import trio

from natsup.upnp import ssdp
from natsup.upnp.discovery import search_from
from natsup.upnp.ssdp import Answer

log = logging.getLogger("natsup.upnp")

_EVERY = 10.0  # seconds
_EVERY_OF_ALL = 60.0  # where the question goes to every device on the LAN
_LONGEST_PAUSE = 300.0  # between questions to a router that has answered none of them
_PATIENCE = 1.5  # seconds for the first answer: it is asked for within one
_MORE = 0.25  # seconds after one answer for the next
_SILENT = 2  # questions in a row without an answer; a single one may have been lost
_LEARNED = 3  # answered questions, after which each way of answering has been heard
_APART, _FAR_APART = 10.0, 300.0  # seconds between signs: doubled by each that comes soon
_SOON = 600.0  # seconds
_MOST_VOICES = 16


class Watch:
    """When to ask whom, and which answers are signs that the router was restarted. Pure.

    A router may answer as several things, with a description for each, and each may be started on
    its own: every such *voice* is followed by itself. A router with a number for each answer must
    not cause work without end, so signs that follow each other become rare.

    Times are in seconds, by any clock that is always the same one.
    """

    def __init__(self, gateway: str, now: float) -> None:
        self._gateway = gateway
        self._host = gateway  # asked last, or what the router answers to
        self._target: str | None = None  # what it answers to
        self._asked = 0
        self._answered = 0
        self._silence = 0  # questions in a row without an answer, with the one that is open
        self.ask_at = now
        self._voices: dict[tuple[str, str, str], int | None] = {}
        self._reason: str | None = None
        self._told = float("-inf")
        self._apart = _APART

    def ask(self, now: float) -> tuple[str, tuple[str, ...]]:
        """It is time: the host to send searches to, and their targets."""
        if not self._answered or self._silence >= _SILENT:
            # Some routers hear only what goes to all.
            self._host = ssdp.MULTICAST if self._asked % 4 == 3 else self._gateway
            self._target = None
        self.ask_at = now + self._pause()
        self._asked += 1
        self._silence += 1
        return self._host, ssdp.TARGETS if self._target is None else (self._target,)

    def _pause(self) -> float:
        if not self._answered:
            return min(2.0 ** (self._asked + 1), _LONGEST_PAUSE)
        return _EVERY_OF_ALL if self._host == ssdp.MULTICAST and not self._silence else _EVERY

    def hear(self, said: Answer) -> None:
        """The router has answered this."""
        reason = self._compare(said)
        if self._silence:  # it is the first answer to this question
            if self._answered and self._silence > _SILENT:
                reason = reason or "the router is back"
            self._silence = 0
            self._answered += 1
        if self._target is None and said.target in ssdp.TARGETS:
            self._target = said.target
        self._reason = reason or self._reason

    def _compare(self, said: Answer) -> str | None:
        """What is new in it, if that is a sign."""
        voice = (said.target, said.name, said.location)
        if voice not in self._voices:
            if len(self._voices) >= _MOST_VOICES:
                return None
            self._voices[voice] = said.bootid
            return "the router has another description" if self._answered >= _LEARNED else None
        before = self._voices[voice]
        if said.bootid is None:
            return None
        self._voices[voice] = said.bootid
        return None if before in (None, said.bootid) else "the router was restarted"

    def next_deadline(self) -> float:
        """When to call `ask` or `sign`."""
        if self._reason is None:
            return self.ask_at
        return min(self.ask_at, self._told + self._apart)

    def sign(self, now: float) -> str | None:
        """The sign that is due by now, as a clause for people: the latest since the last one."""
        if self._reason is None or now < self._told + self._apart:
            return None
        reason, self._reason = self._reason, None
        self._apart = min(self._apart * 2, _FAR_APART) if now - self._told < _SOON else _APART
        self._told = now
        return reason


async def watch(address: str, gateway: str, signs: "trio.MemorySendChannel[str]") -> None:
    """Send a clause for people into ``signs`` for every sign that the router was restarted.

    ``address``: this host's, on the router's interface; ``gateway``: the router's. Goes on until
    cancelled, or until nobody receives from ``signs`` any more. Raises nothing for what a network
    does.
    """
    with signs:
        watching = Watch(gateway, trio.current_time())
        while True:
            await trio.sleep_until(watching.next_deadline())
            if watching.ask_at <= trio.current_time():
                await _ask(address, gateway, watching)
            reason = watching.sign(trio.current_time())
            if reason is not None:
                try:
                    await signs.send(reason)
                except trio.BrokenResourceError:
                    return


async def _ask(address: str, gateway: str, watching: Watch) -> None:
    """Ask once, and hear what is answered to it.

    By a new socket each time: one that stays keeps its port from programs, if from few.
    """
    host, targets = watching.ask(trio.current_time())
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as sock:
        try:
            await search_from(sock, address)
            for target in targets:
                await sock.sendto(ssdp.search(target, host=host), (host, ssdp.PORT))
        except OSError as error:  # the address or the way has gone, and may come back
            log.debug("the router cannot be asked: %s", error.strerror)
        with trio.move_on_after(_PATIENCE) as patience:
            while True:
                if await _hear(sock, gateway, watching):
                    patience.deadline = min(patience.deadline, trio.current_time() + _MORE)


async def _hear(sock: trio.socket.SocketType, gateway: str, watching: Watch) -> bool:
    """Receive one datagram. Was it an answer?"""
    try:
        data, (sender, _) = await sock.recvfrom(8192)
    except OSError as error:
        log.debug("nothing heard: %s", error.strerror)
        return False
    said = ssdp.answer(data) if sender == gateway else None
    if said is not None:
        watching.hear(said)
    return said is not None
