"""Routers that do not do as they should: the program goes on, people are told why, and the router
is asked no more than it takes.

miniupnpd has no limit, and says few of the codes. So these are natsup's own small router, in the
place of miniupnpd.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from natsup.upnp import faults
from tests.lab.lab import OUTSIDE, ROUTER, Lab
from tests.lab.overheard import Overheard
from tests.lab.program import NATSUP, Program

SMALL_GATEWAY = [NATSUP, "gateway", "--internal", ROUTER, "--external", OUTSIDE, "--port", "5555"]

# It answers every AddPortMapping with an error, the code being the port less 10000, and what is
# worse from 20000 on.
_REFUSING = f"""
from ipaddress import IPv4Address
import trio
from natsup.upnp.router import server, soap, table

class Refusing(table.Table):
    def add(self, mapping, *, requester):
        raise table.Refused(mapping.port.number - 10000, "so there")

WORSE = {{
    10000: b"",
    10001: b"\\0\\xff" * 1000,
    10002: b"<html><body>Please log in</body></html>",
    10003: b"<s:Envelope><s:Body><s:Fault>",
    10004: b"<errorCode>none of your business</errorCode>",
}}
fault = soap.fault
soap.fault = lambda refused: WORSE.get(refused.code, fault(refused))
server.Table = Refusing

async def main():
    router = server.Router(IPv4Address("{ROUTER}"), IPv4Address("{OUTSIDE}"), print)
    async with trio.open_nursery() as nursery:
        print(await nursery.start(router.serve, 5555), flush=True)

trio.run(main)
"""


def replace_router(lab: Lab, command: Sequence[str]) -> None:
    """Another program in the place of miniupnpd, from when on it tells that it is ready."""
    lab.stop_router()
    router = lab.popen("router", command, stdout=subprocess.PIPE, text=True)
    assert router.stdout is not None
    assert "http://" in router.stdout.readline()


def mappings(program: Program) -> dict[int, dict[str, Any]]:
    """What `natsup status` shows of each port."""
    return {m["port"]: m for session in program.status() for m in session["mappings"]}


def states(program: Program) -> dict[int, str]:
    return {port: mapping["state"] for port, mapping in mappings(program).items()}


def test_a_full_router_gets_what_it_had_no_room_for_once_it_has(lab: Lab, tmp_path: Path) -> None:
    replace_router(lab, [*SMALL_GATEWAY, "--limit", "3"])
    program = Program(lab, tmp_path)
    for number in (7000, 7001, 7002, 7003, 7004):
        assert program.bind(f"s{number}", number) is None
    full = {7000: "mapped", 7001: "mapped", 7002: "mapped", 7003: "ignored", 7004: "ignored"}
    assert states(program) == full
    for number in (7003, 7004):
        assert mappings(program)[number]["reason"] == faults.meaning(728).reason
        program.serve(f"s{number}")
        assert lab.fetch("tcp", number) is None
    program.do("s7001.close()")
    # At once: the next of the ordinary tries would come after half a minute.
    lab.wait_for(lambda: "mapped" in (states(program)[7003], states(program)[7004]), 15)
    program.do("s7000.close()")
    lab.wait_for(
        lambda: set(states(program).items()) == {(n, "mapped") for n in (7002, 7003, 7004)}
    )
    for number in (7003, 7004):
        assert lab.fetch("tcp", number) == b"here"


# Code → how often the port is named to the router: in a look, in one or more tries to add it, with
# other leases where that may help, and in a second look where the code may hide a conflict.
CODES = {
    401: 2,
    402: 4,
    501: 3,
    606: 2,
    715: 2,
    716: 2,
    718: 3,
    724: 2,
    725: 3,
    726: 2,
    727: 2,
    728: 2,
    729: 3,
    731: 2,
    732: 2,
    733: 2,
    600: 3,
    899: 3,
    -911: 3,
}


@pytest.mark.timeout(300)
def test_every_code_lets_the_program_go_on(lab: Lab, tmp_path: Path) -> None:
    replace_router(lab, [sys.executable, "-c", _REFUSING])
    overheard = Overheard(lab, tmp_path)
    program = Program(lab, tmp_path)
    worse = range(20000, 20005)
    ports = [10000 + code for code in CODES] + list(worse)
    for number in ports:
        assert program.bind(f"s{number}", number) is None
    asked = overheard.ports()
    shown = mappings(program)
    for code in CODES:
        mapping = shown[10000 + code]
        assert (mapping["state"], mapping["reason"]) == ("ignored", faults.meaning(code).reason)
    for number in worse:
        assert (shown[number]["state"], shown[number]["reason"]) == (
            "ignored",
            "the router's answer cannot be understood",
        )
    assert {port: asked.count(f"tcp/{port}") for port in ports} == {
        **{10000 + code: count for code, count in CODES.items()},
        **dict.fromkeys(worse, 3),
    }
    for number in ports:
        assert program.do(f"s{number}.getsockname()") == ["0.0.0.0", number]
