"""The fake gateway in the place of the lab's router, and hosts of the lab that speak to routers."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.lab.lab import ROUTER, ROUTER_PORT, Lab

_ROOT = Path(__file__).parents[2]


class Remote:
    """The fake gateway as a process on the lab's router, which forwards nothing."""

    def __init__(self, lab: Lab) -> None:
        lab.stop_router()
        self._process = lab.popen(
            "router",
            [sys.executable, "-m", "tests.gateway", ROUTER, str(ROUTER_PORT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=_ROOT,
        )
        self.url = self._line().strip()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line: str = self._process.stdout.readline()
        assert line, "the fake gateway has ended"
        return line

    def do(self, **command: Any) -> dict[str, Any]:
        """See tests.gateway.__main__."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        said: dict[str, Any] = json.loads(self._line())
        return said

    def set(self, **quirks: Any) -> None:
        self.do(quirks=quirks)

    @property
    def asked(self) -> list[str]:
        """Requests so far: ``look TCP 6881``, ``add 3600 TCP 6881``, ``delete TCP 6881``."""
        return [str(one) for one in self.do()["ports"]]

    @property
    def table(self) -> dict[str, str]:
        """``TCP 6881`` to the address that it leads to."""
        return dict(self.do()["table"])


_SPEAKER = """
import json, sys
import trio
from natsup.state.model import Port, Protocol
from natsup.upnp.choosing import Speakers, find
from natsup.upnp.discovery import network_of

async def main():
    network = await network_of(interface=None, url=None)
    secret = network.address.encode()
    igd = await find(network, Speakers(lambda: secret), protocols=sys.argv[1:], seconds=5)
    print(json.dumps(igd.internal_address), flush=True)
    while line := await trio.to_thread.run_sync(sys.stdin.readline):
        verb, *words = json.loads(line)
        port = [Port(Protocol(word), int(number)) for word, number in
                (part.split("/") for part in words[:1])]
        if verb == "add":
            said = await igd.add(*port, lease=int(words[1]))
        elif verb == "compare":
            asked, said = [], set()
            genuine = igd._call
            async def call(name, arguments):
                asked.append(name)
                return await genuine(name, arguments)
            igd._call = call
            async def check(word):
                protocol, number = word.split("/")
                said.add(str(await igd.check(Port(Protocol(protocol), int(number)))))
            async with trio.open_nursery() as nursery:
                for word in words:
                    nursery.start_soon(check, word)
            igd._call = genuine
            said = f"{', '.join(sorted(said))} ({len(asked)} x {', '.join(sorted(set(asked)))})"
        elif verb == "look":
            said = (await igd.look(*port)).kind.value
        else:
            said = await getattr(igd, verb)(*port)
        print(json.dumps(str(said)), flush=True)

trio.run(main)
"""


class Speaker:
    """natsup's client on a host of the lab, which has found the router by itself."""

    def __init__(self, lab: Lab, host: str, protocol: str = "upnp") -> None:
        self._process = lab.popen(
            host,
            [sys.executable, "-c", _SPEAKER, protocol],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.address = self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return str(json.loads(self._process.stdout.readline()))

    def __call__(self, verb: str, *words: object) -> str:
        """``add tcp/7000 600``, ``look``, ``check``, ``remove``, ``external_address``; ``compare``
        checks many ports at once, and tells by what."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([verb, *words]) + "\n")
        self._process.stdin.flush()
        return self._answer()
