"""The two protocols as `natsup.upnp.pmp.gateway` speaks them: what differs between them. Pure."""

from collections.abc import Callable
from typing import Protocol

from natsup.upnp.pmp import natpmp, pcp, timing
from natsup.upnp.pmp.answers import Heard, Query, Refusal, Step
from natsup.upnp.pmp.mapping import Device


class Language(Protocol):
    """``name``: as in --protocols. ``title``: as people call it."""

    name: str
    title: str
    retransmission: timing.Retransmission

    def device(self, trial: int) -> Device:
        """What is known of a router that nothing is known of."""

    def lost(self, before: timing.Reading, now: timing.Reading) -> bool:
        """Has the router lost its mappings between two looks at its clock?"""

    def encode(self, step: Step) -> bytes:
        """What to send."""

    def read(self, data: bytes, step: Step) -> Heard | None:
        """The answer to a step, out of a datagram; None if it is none."""


class NatPmp:
    name = "natpmp"
    title = "NAT-PMP"
    retransmission = timing.NATPMP

    def device(self, trial: int) -> Device:
        return Device(trial)

    def lost(self, before: timing.Reading, now: timing.Reading) -> bool:
        return timing.natpmp_lost(before, now)

    def encode(self, step: Step) -> bytes:
        return natpmp.encode(step)

    def read(self, data: bytes, step: Step) -> Heard | None:
        return natpmp.read(data, step)


class Pcp:
    """``secret``: gives what the nonces are derived from."""

    name = "pcp"
    title = "PCP"
    retransmission = timing.PCP

    def __init__(self, secret: Callable[[], bytes], router: str, client: str) -> None:
        self._secret = secret
        self._router = router
        self._client = client

    def device(self, trial: int) -> Device:
        # RFC 6887, section 15.1 wants success for what is not there; miniupnpd says "no resources".
        return Device(trial, insists=True, absent=frozenset({Refusal.RESOURCES}))

    def lost(self, before: timing.Reading, now: timing.Reading) -> bool:
        return timing.pcp_lost(before, now)

    def encode(self, step: Step) -> bytes:
        return pcp.encode(step, client=self._client, proof=self._proof(step))

    def read(self, data: bytes, step: Step) -> Heard | None:
        return pcp.read(data, step, proof=self._proof(step))

    def _proof(self, step: Step) -> bytes:
        if isinstance(step, Query):
            return bytes(12)
        return pcp.nonce(self._secret(), self._router, self._client, step.port)
