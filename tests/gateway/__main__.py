"""The fake gateway as a program: ``python -m tests.gateway ADDRESS PORT``.

It tells its URL, and then takes a line of JSON at a time from the standard input, each of which is
answered with one: what it was asked so far, and its table. See tests.gateway.remote.
"""

import json
import sys
from typing import Any

import trio

from tests.gateway.gateway import Gateway
from tests.gateway.quirks import NAMES, Quirks


async def do(gateway: Gateway, nursery: trio.Nursery, command: dict[str, Any]) -> None:
    if command.get("reset"):
        vars(gateway.quirks).update(vars(Quirks()))
    for name, value in command.get("quirks", {}).items():
        assert name in NAMES, name
        setattr(gateway.quirks, name, tuple(value) if isinstance(value, list) else value)
    for kind, number, client in command.get("give", ()):
        gateway.table.give((kind, number), client)
    if command.get("clear"):
        gateway.table.entries.clear()
    if command.get("forget"):
        gateway.log.clear()
        gateway.searches.clear()
    if command.get("stop"):
        gateway.stop()
    if "start" in command:
        await nursery.start(gateway.serve, command["start"])
    if "tell" in command:
        await gateway.tell(command["tell"])


async def main(address: str, port: int) -> None:
    gateway = Gateway(address)
    async with trio.open_nursery() as nursery:
        await nursery.start(gateway.serve, port)
        print(gateway.url, flush=True)
        rest = b""
        async with trio.lowlevel.FdStream(sys.stdin.fileno()) as commands:
            async for data in commands:
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    await do(gateway, nursery, json.loads(line))
                    said: dict[str, Any] = {"asked": gateway.asked, "ports": ports(gateway)}
                    said |= {"table": gateway.holders, "searches": gateway.searches}
                    print(json.dumps(said), flush=True)
        nursery.cancel_scope.cancel()


def ports(gateway: Gateway) -> list[str]:
    """Of the requests that name a port, which one."""
    return [
        f"{request} {request.values['NewProtocol']} {request.values['NewExternalPort']}"
        for request in gateway.log
        if "NewExternalPort" in request.values
    ]


trio.run(main, sys.argv[1], int(sys.argv[2]))
