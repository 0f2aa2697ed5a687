"""Hearing that a router is there which has not answered yet: it announces itself when it starts."""

import logging

import trio

from natsup.upnp import ssdp
from natsup.upnp.ears import Ears
from natsup.upnp.network import Network
from natsup.upnp.pmp.answers import ANNOUNCED_PORT, ANNOUNCED_TO

log = logging.getLogger("natsup.upnp")


async def arrival(network: Network) -> None:
    """Wait until the gateway of a network says that it is there, by whichever protocol; for ever
    where it cannot be heard, which wants CAP_NET_RAW. Raises nothing for what a network does."""
    async with trio.open_nursery() as nursery:

        async def hear(group: str, port: int) -> None:
            try:
                async with Ears(
                    network.interface, network.address, network.gateway, group=group, port=port
                ) as ears:
                    while not _here(await ears.hear(), port):
                        pass
            except OSError as error:
                log.debug("the router cannot be heard: %s", error.strerror)
                await trio.sleep_forever()
            nursery.cancel_scope.cancel()

        nursery.start_soon(hear, ssdp.MULTICAST, ssdp.PORT)
        nursery.start_soon(hear, ANNOUNCED_TO, ANNOUNCED_PORT)


def _here(data: bytes, port: int) -> bool:
    """Does it say so? NAT-PMP and PCP have nothing else to say to all."""
    if port == ANNOUNCED_PORT:
        return True
    said = ssdp.notification(data)
    return said is not None and said.kind is not ssdp.Kind.BYEBYE and ssdp.ROUTER in said.target
