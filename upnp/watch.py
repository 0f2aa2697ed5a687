"""Watching the router, to see soon that it was restarted: it is heard, or else asked.

What a router says unasked comes at once, and costs nothing while it says nothing (`ears`). Where it
cannot be heard, or does not number its starts, it is asked where it is, every 10 s: a search may go
to one device alone, and its answer tells the number of the device's start (BOOTID.UPNP.ORG) and
where its description is (UPnP Device Architecture 1.1, section 1.3). It is asked in any case until
it has answered, so that the number is known from the beginning.

So what is seen is a goodbye, another number, another description, or answers after a silence, with
routers of UPnP 1.0 too, which number nothing. Each is a hint to look, and proves nothing.
"""

import logging
from dataclasses import replace

import trio

from natsup.upnp import ssdp
from natsup.upnp.discovery import search_from
from natsup.upnp.ears import Ears
from natsup.upnp.ssdp import Answer, Kind, Notification

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
_TRUSTED = 1800.0  # seconds after which what was heard is to be heard again (section 1.2.2)
_REOPEN = 60.0  # seconds until it is tried again to hear the router
_BREATH = 0.01  # between two things that are heard: of a flood the kernel drops the rest
_SETTLING = 1.0  # seconds: a router tells the same of each of its devices and services


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
        self._said: dict[str, Notification] = {}  # unasked, by target
        self._heard_until = float("-inf")
        self._reason: str | None = None
        self._due = float("-inf")
        self._told = float("-inf")
        self._apart = _APART

    def ask(self, now: float) -> tuple[str, tuple[str, ...]]:
        """It is time: the host to send searches to, and their targets."""
        if not self._answered or self._silence >= _SILENT:
            # Some routers hear only what goes to all.
            self._host = ssdp.MULTICAST if self._asked % 4 == 3 else self._gateway
            self._target = None
        self.ask_at = now + self._pause()
        if self._answered:
            self.ask_at = max(self.ask_at, self._heard_until)
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

    def hear_unasked(self, said: Notification, now: float) -> None:
        """The router has told this. If it numbers its starts it need not be asked any more."""
        if ssdp.ROUTER in said.target and said.bootid is not None:
            self._heard_until = now + _TRUSTED
            if self._answered:
                self.ask_at = max(self.ask_at, self._heard_until)
        reason = self._compare_unasked(said)
        if reason is not None:
            if self._reason is None:
                self._due = now + _SETTLING
            self._reason = reason

    def deaf(self, now: float) -> None:
        """It is not listened to any more."""
        self._heard_until = float("-inf")
        self.ask_at = min(self.ask_at, now)

    def _compare_unasked(self, said: Notification) -> str | None:
        """What is new in it, if that is a sign. What a router tells of other things that it is (a
        media server, say) is passed over: they start on their own."""
        if ssdp.ROUTER not in said.target:
            return None
        before = self._said.get(said.target) or self._answer_of(said)
        if said.target not in self._said and len(self._said) >= _MOST_VOICES:
            del self._said[next(iter(self._said))]
        if before is not None:  # what it does not say is as it was
            bootid = before.bootid if said.bootid is None else said.bootid
            said = replace(said, bootid=bootid, location=said.location or before.location)
        self._said[said.target] = said
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

    def _answer_of(self, said: Notification) -> Notification | None:
        """What it answered of the description that it now tells of for the first time."""
        for (_, _, location), bootid in self._voices.items():
            if location == said.location:
                return Notification(Kind.ALIVE, said.target, bootid, location)
        return None

    def next_deadline(self) -> float:
        """When to call `ask` or `sign`."""
        if self._reason is None:
            return self.ask_at
        return min(self.ask_at, max(self._due, self._told + self._apart))

    def sign(self, now: float) -> str | None:
        """The sign that is due by now, as a clause for people: the latest since the last one."""
        if self._reason is None or now < max(self._due, self._told + self._apart):
            return None
        reason, self._reason = self._reason, None
        self._apart = min(self._apart * 2, _FAR_APART) if now - self._told < _SOON else _APART
        self._told = now
        return reason


async def watch(
    interface: str, address: str, gateway: str, signs: "trio.MemorySendChannel[str]"
) -> None:
    """Send a clause for people into ``signs`` for every sign that the router was restarted.

    ``address``: this host's, on the router's ``interface``; ``gateway``: the router's. Goes on
    until cancelled, or until nobody receives from ``signs`` any more. Raises nothing for what a
    network does.
    """
    with signs:
        watcher = _Watcher(interface, address, gateway)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watcher.listen)
            await watcher.run(signs)
            nursery.cancel_scope.cancel()


class _Watcher:
    def __init__(self, interface: str, address: str, gateway: str) -> None:
        self._interface = interface
        self._address = address
        self._gateway = gateway
        self._watch = Watch(gateway, trio.current_time())
        self._heard = trio.Event()

    async def run(self, signs: "trio.MemorySendChannel[str]") -> None:
        while True:
            self._heard = trio.Event()
            with trio.move_on_at(self._watch.next_deadline()):
                await self._heard.wait()
            if self._watch.ask_at <= trio.current_time():
                await _ask(self._interface, self._address, self._gateway, self._watch)
            reason = self._watch.sign(trio.current_time())
            if reason is not None:
                try:
                    await signs.send(reason)
                except trio.BrokenResourceError:
                    return

    async def listen(self) -> None:
        """Hear what the router says, if that is allowed, and again after the interface was gone."""
        while True:
            try:
                async with Ears(self._interface, self._address, self._gateway) as ears:
                    while True:
                        said = ssdp.notification(await ears.hear())
                        if said is not None:
                            self._watch.hear_unasked(said, trio.current_time())
                            self._heard.set()
                        await trio.sleep(_BREATH)
            except PermissionError:
                log.debug("without CAP_NET_RAW the router is asked, and not heard")
                return
            except OSError as error:
                log.debug("the router cannot be heard: %s", error.strerror)
            self._watch.deaf(trio.current_time())
            self._heard.set()
            await trio.sleep(_REOPEN)


async def _ask(interface: str, address: str, gateway: str, watching: Watch) -> None:
    """Ask once, and hear what is answered to it.

    By a new socket each time: one that stays keeps its port from programs, if from few.
    """
    host, targets = watching.ask(trio.current_time())
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as sock:
        try:
            await search_from(sock, address, interface)
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
