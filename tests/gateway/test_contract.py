"""What every gateway does, be it the fake one, natsup's own small one, or a real one (miniupnpd).

So a scenario that the fake gateway plays begins where real ones stand.
"""

import itertools
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from natsup.upnp import ssdp
from tests.gateway.remote import Remote, Speaker
from tests.lab.lab import LAN1, LAN2, OUTSIDE, ROUTER, ROUTER_PORT, Lab
from tests.lab.test_refusals import SMALL_GATEWAY, replace_router

_numbers = itertools.count(7000)


@dataclass
class Home:
    lab: Lab
    one: Speaker
    other: Speaker
    url: str
    lists: bool  # is it of version 2?

    def upnpc(self, *words: str) -> str:
        done = self.lab.run("lan1", ["upnpc", "-m", "eth0", "-u", self.url, *words])
        return re.sub(" +", " ", str(done.stdout))


@pytest.fixture(scope="module", params=["fake", "natsup gateway", "miniupnpd"])
def home(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Home]:
    with Lab(tmp_path_factory.mktemp("lab")) as lab:
        url = f"http://{ROUTER}:{ROUTER_PORT}/rootDesc.xml"
        if request.param == "fake":
            url = Remote(lab).url
        elif request.param == "natsup gateway":
            replace_router(lab, SMALL_GATEWAY)
            url = url.replace("rootDesc", "description")
        yield Home(
            lab, Speaker(lab, "lan1"), Speaker(lab, "lan2"), url, request.param == "miniupnpd"
        )


@pytest.fixture(params=["tcp", "udp"])
def port(request: pytest.FixtureRequest) -> str:
    """A port of the test's own."""
    return f"{request.param}/{next(_numbers)}"


def test_it_is_found_by_a_search(home: Home) -> None:
    assert (home.one.address, home.other.address) == (LAN1, LAN2)


def test_it_answers_a_search_for_what_it_is(home: Home) -> None:
    """A router, that is, and not by silence."""
    target = ssdp.TARGETS[0]
    script = (
        "import socket\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "s.settimeout(10)\n"
        f"s.sendto({ssdp.search(target, host=ROUTER)!r}, ('{ROUTER}', 1900))\n"
        "print(s.recv(4096))\n"
    )
    said = str(home.lab.run("lan1", [sys.executable, "-c", script], check=True).stdout)
    assert target in said
    assert home.url in said


def test_map_renew_remove(home: Home, port: str) -> None:
    assert home.one("look", port) == "nobody's"
    assert home.one("add", port, 600) == "mapped"
    assert home.one("look", port) == "ours"
    assert home.one("check", port) == "mapped"
    assert home.one("add", port, 600) == "mapped"
    assert home.one("remove", port) == "gone"
    assert home.one("look", port) == "nobody's"
    assert home.one("check", port) == "the router did not keep the mapping"
    assert home.one("remove", port) == "gone"


def test_another_host_s_port(home: Home, port: str) -> None:
    assert home.one("add", port, 600) == "mapped"
    assert home.other("look", port) == "another host's"
    assert home.other("add", port, 600) == f"held by {LAN1}"
    assert home.other("check", port) == f"held by {LAN1}"
    assert home.other("remove", port) == "not ours"
    assert home.one("check", port) == "mapped"
    assert home.one("remove", port) == "gone"
    assert home.other("add", port, 600) == "mapped"
    assert home.other("remove", port) == "gone"


def test_17_the_same_number_of_the_other_protocol_is_another_port(home: Home) -> None:
    number = next(_numbers)
    assert home.other("add", f"udp/{number}", 600) == "mapped"
    assert home.one("add", f"tcp/{number}", 600) == "mapped"
    assert home.other("remove", f"udp/{number}") == "gone"
    assert home.one("check", f"tcp/{number}") == "mapped"
    assert home.one("remove", f"tcp/{number}") == "gone"


def test_it_refuses_what_another_host_holds_by_itself(home: Home) -> None:
    """A client that does not look first is told so, with an error that may be a conflict."""
    number = next(_numbers)
    assert home.other("add", f"tcp/{number}", 600) == "mapped"
    said = home.upnpc("-a", LAN1, str(number), str(number), "TCP")
    assert "failed with code 718" in said
    assert home.other("check", f"tcp/{number}") == "mapped"
    assert home.other("remove", f"tcp/{number}") == "gone"


def test_many_are_compared_by_its_lists_if_it_has_any(home: Home) -> None:
    """And what is not in there, or is another host's, is looked up."""
    ports = [f"tcp/{next(_numbers)}" for _ in range(10)]
    for port in ports:
        assert home.one("add", port, 600) == "mapped"
    by = "1 x GetListOfPortMappings" if home.lists else "10 x GetSpecificPortMappingEntry"
    assert home.one("compare", *ports) == f"mapped ({by})"
    assert home.one("remove", ports[0]) == "gone"
    assert home.one("remove", ports[1]) == "gone"
    assert home.other("add", ports[1], 600) == "mapped"
    said = home.one("compare", *ports)
    assert said.startswith(f"held by {LAN2}, mapped, the router did not keep the mapping")
    if home.lists:
        assert said.endswith("(3 x GetListOfPortMappings, GetSpecificPortMappingEntry)")
    assert home.other("remove", ports[1]) == "gone"
    for port in ports[2:]:
        assert home.one("remove", port) == "gone"


def test_the_external_address(home: Home) -> None:
    assert home.one("external_address") == OUTSIDE


def test_upnpc_works_with_it(home: Home) -> None:
    number = str(next(_numbers))
    added = home.upnpc("-e", "mine", "-a", LAN1, number, number, "TCP", "600")
    assert f"external {OUTSIDE}:{number} TCP is redirected to internal {LAN1}:{number}" in added
    listed = home.upnpc("-l")
    assert f"TCP {number}->{LAN1}:{number} 'mine'" in listed
    assert f"ExternalIPAddress = {OUTSIDE}" in listed
    assert home.one("check", f"tcp/{number}") == "mapped"
    assert "returned : 0" in home.upnpc("-d", number, "TCP")
    assert home.one("look", f"tcp/{number}") == "nobody's"
    assert f"->{LAN1}" not in home.upnpc("-l")
