"""A router that speaks NAT-PMP or PCP: the `Gateway` of natsup.state.

Neither protocol can be asked what is mapped. What was granted stays until its time is over or the
router is restarted, and every answer of the router's tells when that was; so a look at its clock is
a look at all mappings.
"""

import logging
import random
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from functools import partial
from itertools import repeat
from typing import TypeVar

import trio

from natsup.state.model import Conflict, Ignored, Mapped, Outcome, Port, Removal, Unknown
from natsup.upnp.ears import Ears
from natsup.upnp.endpoint import endpoint, family
from natsup.upnp.network import tie
from natsup.upnp.pmp import mapping
from natsup.upnp.pmp.answers import (
    ANNOUNCED_PORT,
    ANNOUNCED_TO,
    OFF,
    PORT,
    Answer,
    Heard,
    Map,
    Query,
    Refusal,
    Refused,
    Silent,
    Step,
    Told,
)
from natsup.upnp.pmp.languages import Language, NatPmp, Pcp
from natsup.upnp.pmp.mapping import Device
from natsup.upnp.pmp.timing import Pace, Reading
from natsup.upnp.turns import Turns

log = logging.getLogger("natsup.upnp")

PROTOCOLS = (Pcp.name, NatPmp.name)
_LATE = "the router did not answer in time"
_ASIDE = 2.0  # seconds for what is good to know and nothing waits for
_EVERY = 10.0  # seconds between looks at the clock of a router that has something mapped
_SPREAD = 5.0  # seconds over which hosts spread their questions after an announcement
_APART = 10.0  # seconds between announcements that count
_DYNAMIC = (49152, 65535)  # RFC 6335, section 6: ports that nobody is assigned
_QUIET = 1800.0  # seconds: a refusal may hold for longer, says the router (RFC 6887, section 7.4)
_T = TypeVar("_T")
Operation = Generator[Step, Answer, tuple[_T, Device]]


@dataclass(frozen=True, slots=True)
class _Kept:
    """What the router has granted: ``until`` when, and in which of its lives."""

    until: float
    life: int


class PmpGateway:
    """``protocol``: ``"natpmp"`` or ``"pcp"``."""

    def __init__(
        self,
        language: Language,
        router: str,
        internal_address: str,
        *,
        port: int = PORT,
        seconds: float = 10.0,
        interface: str = "",
    ) -> None:
        """``seconds``: how long an operation may take. ``interface``: by which the router is heard,
        "": by any."""
        self.protocol = language.name
        self.location = location(language.name, router, port)
        self.internal_address = internal_address
        self.title = language.title
        self._language = language
        self._router = (router, port)
        self._interface = interface
        self._seconds = seconds
        self._one_at_a_time = Turns()
        self._device = language.device(random.randint(*_DYNAMIC))
        self._clock: Reading | None = None  # the router's
        self._readings = 0  # how often it was asked for
        self._silence: Silent | None = None  # in place of the last one
        self._pace = Pace()
        self._life = 0  # how often it was seen to have been restarted
        self._restarted = False  # and nobody has been told
        self._announced = False
        self._news = trio.Event()  # set, and another one made, for either of the two
        self._kept: dict[Port, _Kept] = {}
        self._refused: dict[Port, tuple[float, Ignored]] = {}  # until when it would be in vain

    # --- Gateway ---

    async def add(self, port: Port, *, lease: int) -> Outcome:
        """See `Gateway.add`. Whose a port is that is not given, neither protocol says."""
        until, refusal = self._refused.get(port, (0.0, None))
        if refusal is not None and _now() < until:
            return refusal
        outcome = await self._run(partial(mapping.adding, port, lease))
        if isinstance(outcome, Mapped):
            self._kept[port] = _Kept(_now() + outcome.lease, self._life)
        elif isinstance(outcome, Conflict):
            self._kept.pop(port, None)
        return outcome

    async def check(self, port: Port) -> Outcome:
        """See `Gateway.check`. Was the router restarted since it granted the port?"""
        silence = await self.look()
        if silence is not None:
            return Unknown(silence.reason, silent=True)
        kept = self._kept.get(port)
        if kept is not None and kept.life == self._life and kept.until > _now():
            return Mapped(max(1, int(kept.until - _now())))
        self._kept.pop(port, None)
        if kept is None or kept.life == self._life:
            return Ignored("it is not known whether the router has the mapping")
        return Ignored("the router was restarted, and may have lost the mapping")

    async def remove(self, port: Port) -> Removal:
        """See `Gateway.remove`."""
        removal = await self._run(partial(mapping.removing, port))
        if removal is not Removal.FAILED:
            self._kept.pop(port, None)
            # There may be room now, whatever it said before.
            self._refused = {p: r for p, r in self._refused.items() if not r[1].full}
        return removal

    async def external_address(self) -> str | None:
        """See `Gateway.external_address`. PCP tells it of a mapping alone: if there has been none
        yet, one is made for a moment, of a port at random that leads to nobody."""
        if isinstance(self._language, NatPmp):
            with trio.move_on_after(_ASIDE):
                async with self._one_at_a_time.turn() as come:
                    told = await self._exchange(Query()) if come else None
                    return told.external_address if isinstance(told, Told) else None
            return None
        if self._device.external_address is None:
            await self._run(mapping.trying)
        return self._device.external_address

    # --- more than that ---

    async def probe(self, seconds: float) -> str | None:
        """Is it there? None, or a clause that says why not."""
        answer: Answer = Silent(_LATE, sent=True)
        with trio.move_on_after(seconds):
            async with self._one_at_a_time.turn() as come:
                if come:
                    answer = await self._exchange(Query())
        if isinstance(answer, Silent):
            return f"the router does not answer to {self.title}"
        if isinstance(answer, Refused):
            if answer.refusal is Refusal.VERSION:
                return f"the router does not speak {self.title}"
            # It speaks it; whether it maps ports is to be seen. NAT-PMP's first question is one
            # that it has to answer, though, and it says so where it is switched off.
            if isinstance(self._language, NatPmp) and answer.refusal in _OFF:
                return f"{OFF} {self.title} ({answer.refusal.value})"
        return None

    async def look(self) -> Silent | None:
        """Read the router's clock. Its silence, if that is all there is. All who wait for that at
        the same time share one reading."""
        before = self._readings
        async with self._one_at_a_time.turn() as come:
            if not come:
                return Silent(_LATE, sent=True)
            if self._readings == before:
                answer: Answer = Silent(_LATE, sent=True)
                with trio.move_on_after(_ASIDE):
                    answer = await self._exchange(Query())
                self._silence = answer if isinstance(answer, Silent) else None
                self._readings += 1
            return self._silence

    async def watch(
        self,
        signs: "trio.MemorySendChannel[str]",
        *,
        interface: str = "",
        others: Callable[[], bool] = lambda: False,
    ) -> None:
        """Send a clause for people into ``signs`` whenever the router's clock says that it was
        restarted. It is looked at now and then while something is mapped, and when the router
        announces itself on ``interface``, where that can be heard. Until cancelled, or nobody
        receives any more. ``others``: may other sessions have something mapped?
        """
        with signs:
            async with trio.open_nursery() as nursery:
                if interface:
                    nursery.start_soon(self._listen, interface)
                await self._watch(signs, others)
                nursery.cancel_scope.cancel()

    async def _watch(
        self, signs: "trio.MemorySendChannel[str]", others: Callable[[], bool]
    ) -> None:
        while True:
            with trio.move_on_after(_EVERY):
                await self._news.wait()
            self._news = trio.Event()
            if (self._kept or others()) and not self._restarted:
                if self._announced:
                    # All hosts of the LAN have heard it (RFC 6886, section 3.2.1; RFC 6887, section
                    # 14.1.3).
                    await trio.sleep(random.uniform(0, _SPREAD))
                await self.look()
            self._announced = False
            if self._restarted:
                self._restarted = False
                try:
                    await signs.send("the router was restarted, by its clock")
                except trio.BrokenResourceError:
                    return

    async def _listen(self, interface: str) -> None:
        """Hear what the router announces to all. Anybody could have said so, and in what words does
        not matter: it is asked itself."""
        told = float("-inf")
        try:
            async with Ears(
                interface,
                self.internal_address,
                self._router[0],
                group=ANNOUNCED_TO,
                port=ANNOUNCED_PORT,
            ) as ears:
                while True:
                    await ears.hear()
                    if trio.current_time() >= told + _APART:
                        told = trio.current_time()
                        self._announced = True
                        self._news.set()
        except OSError as error:
            log.debug("the router cannot be heard: %s", error.strerror)

    # --- requests ---

    async def _run(self, begin: Callable[[Device], Operation[_T]]) -> _T:
        """Carry an operation of natsup.upnp.pmp.mapping out: see `Turns.carry_out`.

        It begins with its turn, and so with what was learned before that.
        """
        async with self._one_at_a_time.turn() as come:
            result, self._device = await self._one_at_a_time.carry_out(
                begin(self._device),
                self._exchange,
                come=come,
                seconds=self._seconds,
                late=repeat(Silent(_LATE, sent=come)),
            )
            return result

    async def _exchange(self, step: Step) -> Answer:
        """Ask, again and again, until there is an answer.

        From a socket that is connected, so that the kernel lets through what the router says from
        that port, and nothing else (RFC 6886, section 3.1; RFC 6887, section 8.3); and of its own,
        because one that stays keeps its port from programs.
        """
        request, sent = self._language.encode(step), 0
        own = self.internal_address
        with trio.socket.socket(family(own), trio.socket.SOCK_DGRAM) as sock:
            try:
                tie(sock, self._interface)
                await sock.bind(endpoint(own, 0))
                await sock.connect(endpoint(*self._router))
                for wait in self._language.retransmission.waits(lambda: random.uniform(-1, 1)):
                    await sock.send(request)
                    sent += 1
                    with trio.move_on_after(wait):
                        heard = await self._hear(sock, step)
                        self._heard(heard)
                        if isinstance(heard.answer, Refused) and isinstance(step, Map):
                            self._note(step.port, heard.answer)
                        return heard.answer
            except ConnectionRefusedError:
                return Silent(f"the router does not listen to {self.title}", sent=sent > 1)
            except OSError as error:
                return Silent(f"the router cannot be reached: {error.strerror}", sent=sent > 0)
        return Silent(_LATE, sent=True)

    async def _hear(self, sock: trio.socket.SocketType, step: Step) -> Heard:
        while True:
            heard = self._language.read(await sock.recv(2048), step)
            if heard is not None:
                return heard

    def _heard(self, heard: Heard) -> None:
        """Compare the router's clock."""
        if heard.epoch is None:
            return
        before, self._clock = self._clock, Reading(heard.epoch, _now())
        if before is None or not self._language.lost(before, self._clock):
            return
        if self._pace.believed(before, self._clock):
            log.debug("the router's clock: %s, and then %s", before, self._clock)
            self._life += 1
            self._refused.clear()
            self._device = replace(self._device, external_address=None)
            self._restarted = True
            self._news.set()

    def _note(self, port: Port, refused: Refused) -> None:
        """For how long it would be in vain to ask again. That the port cannot be given is not
        noted: the host that has it may give it back at any time."""
        outcome = refused.refusal.outcome()
        if refused.lifetime and refused.refusal not in (Refusal.CANNOT_PROVIDE, Refusal.OPTION):
            until = _now() + min(refused.lifetime, _QUIET)
            self._refused = {p: r for p, r in self._refused.items() if r[0] > _now()}
            self._refused[port] = (until, outcome)


_OFF = frozenset({Refusal.NOT_AUTHORIZED, Refusal.OPCODE})


def location(protocol: str, router: str, port: int = PORT) -> str:
    """Which gateway this is, as a URL."""
    return f"{protocol}://[{router}]:{port}" if ":" in router else f"{protocol}://{router}:{port}"


def speak(
    protocol: str,
    router: str,
    internal_address: str,
    *,
    secret: Callable[[], bytes],
    port: int = PORT,
    interface: str = "",
) -> PmpGateway:
    """A gateway by a protocol of `PROTOCOLS`; sends nothing. ``secret``: see `Pcp`."""
    language = Pcp(secret, router, internal_address) if protocol == Pcp.name else NatPmp()
    return PmpGateway(language, router, internal_address, port=port, interface=interface)


def _now() -> float:
    """Leases and routers' clocks go on while this host sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
