"""A router that opens pinholes by UPnP: the `Pinholes` of natsup.state.

Routers open pinholes only to the address that asks, so it is spoken to by IPv6, from that one.
"""

import logging
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import TypeVar

from natsup.state.model import Outcome, Port, Protocol, Removal
from natsup.upnp.adding import Done, Fault, NoAnswer, no_answers
from natsup.upnp.pinhole import soap
from natsup.upnp.pinhole.opening import (
    LONGEST,
    Answer,
    Ask,
    Close,
    Device,
    Look,
    Open,
    Opened,
    Renew,
    Status,
    Step,
    checking,
    opening,
    removing,
)
from natsup.upnp.requester import Requester, RequestFailed
from natsup.upnp.trust import Url
from natsup.upnp.turns import Turns

log = logging.getLogger("natsup.upnp")

_LATE = "the router did not answer in time"
_IANA = {Protocol.TCP: "6", Protocol.UDP: "17"}  # it wants numbers
_T = TypeVar("_T")
Operation = Generator[Step, Answer, tuple[_T, Device]]


class Firewall:
    """See `natsup.state.gateway.Pinholes`."""

    protocol = "upnp"

    def __init__(
        self,
        location: Url,
        control: Url,
        internal_address: str,
        *,
        turn: Callable[[], AbstractAsyncContextManager[bool]] | None = None,
        seconds: float = 3.0,
    ) -> None:
        """``turn``: that of whoever else asks the router, see `Turns`; there are routers that get
        IPv4 and IPv6 mixed up when both are asked for at once. ``seconds``: how long an operation
        may take from then on.
        """
        self.location = str(location)
        self.internal_address = internal_address
        self._control = control
        self._requester = Requester(internal_address, timeout=seconds)
        self._turn = turn or Turns().turn
        self._one_at_a_time = Turns()
        self._seconds = seconds
        self._device = Device()

    async def add(self, port: Port, *, lease: int) -> Outcome:
        """See `Gateway.add`."""
        return await self._run(partial(opening, port, lease))

    async def check(self, port: Port) -> Outcome:
        """See `Gateway.check`. Where the router does not say, the lease is made new."""
        return await self._run(partial(checking, port))

    async def remove(self, port: Port) -> Removal:
        """See `Gateway.remove`."""
        return await self._run(partial(removing, port))

    async def external_address(self) -> str | None:
        """See `Gateway.external_address`: the same as inside."""
        return self.internal_address

    def recall(self, port: Port, handle: str) -> None:
        """See `Pinholes.recall`."""
        self._device = self._device.having(port, handle, LONGEST)

    async def _run(self, begin: Callable[[Device], Operation[_T]]) -> _T:
        """Carry an operation of natsup.upnp.pinhole.opening out: see `Turns.carry_out`.

        It begins with its turn, and so with what was learned before that.
        """
        async with self._next() as come:
            try:
                result, self._device = await self._one_at_a_time.carry_out(
                    begin(self._device),
                    self._ask,
                    come=come,
                    seconds=self._seconds,
                    late=no_answers(_LATE, sent=come),
                )
                return result
            finally:
                self._requester.close()  # there are routers that take a single connection

    @asynccontextmanager
    async def _next(self) -> AsyncIterator[bool]:
        """Wait for a turn. One operation alone waits for that among those who ask the router for
        something else: they are held up by one silence at most."""
        async with self._one_at_a_time.turn() as first:
            if not first:
                yield False
                return
            async with self._turn() as come:
                yield come

    async def _ask(self, step: Step) -> Answer:
        if isinstance(step, Ask):
            answer = await self._call("GetFirewallStatus", {})
            if isinstance(answer, dict):
                return Status(
                    _true(answer["FirewallEnabled"]), _true(answer["InboundPinholeAllowed"])
                )
            return answer
        if isinstance(step, Open):
            values = {
                "RemoteHost": "",
                "RemotePort": "0",
                "InternalClient": self.internal_address,
                "InternalPort": str(step.port.number),
                "Protocol": _IANA[step.port.protocol],
                "LeaseTime": str(step.lease),
            }
            answer = await self._call("AddPinhole", values)
            if isinstance(answer, dict):
                handle = answer["UniqueID"]
                return Opened(handle if handle.isascii() and handle.isdigit() else "")
            return answer
        number = {"UniqueID": step.handle}
        if isinstance(step, Renew):
            answer = await self._call("UpdatePinhole", {**number, "NewLeaseTime": str(step.lease)})
        elif isinstance(step, Look):
            answer = await self._call("GetPinholePackets", number)
        else:
            assert isinstance(step, Close)
            answer = await self._call("DeletePinhole", number)
        return Done() if isinstance(answer, dict) else answer

    async def _call(self, action: str, values: dict[str, str]) -> dict[str, str] | Fault | NoAnswer:
        headers, body = soap.request(action, values)
        try:
            status, said = await self._requester.request(
                "POST", self._control, headers, body, seconds=None
            )
        except RequestFailed as error:
            log.debug("%s: %s", action, error)
            return NoAnswer(str(error), error.sent) if error.silent else Fault(None)
        answer = soap.read(action, status, said.decode("utf-8", "replace"))
        if isinstance(answer, Fault):
            log.debug("%s: error %s", action, answer.code)
        return answer


def _true(text: str) -> bool:
    """A boolean. What is none counts as true: then the router says no when it is asked for one."""
    return text.lower() not in ("0", "false", "no")
