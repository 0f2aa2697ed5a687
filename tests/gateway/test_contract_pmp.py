"""What every gateway does that speaks NAT-PMP and PCP, be it the fake one or a real one.

See test_contract.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.gateway.remote import Remote, Speaker
from tests.lab.lab import LAN1, LAN2, OUTSIDE, ROUTER, ROUTER_PORT, Lab

_numbers = itertools.count(8000)
_PROTOCOLS = ("pcp", "natpmp", "upnp")

pytestmark = pytest.mark.parametrize("protocol", ["pcp", "natpmp"])


@dataclass
class Home:
    """``speakers``: by host and protocol."""

    lab: Lab
    remote: Remote | None
    speakers: dict[tuple[str, str], Speaker]

    def table(self) -> dict[str, str]:
        if self.remote is None:
            return self.lab.table()
        return {key.lower().replace(" ", "/"): host for key, host in self.remote.table.items()}

    def natpmpc(self, *words: str) -> str:
        done = self.lab.run("lan1", ["natpmpc", "-g", ROUTER, *words], check=True)
        return str(done.stdout)


@pytest.fixture(scope="module", params=["fake", "miniupnpd"])
def home(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Home]:
    with Lab(tmp_path_factory.mktemp("lab"), pmp=True) as lab:
        remote = None
        if request.param == "fake":
            remote = Remote(lab)
            remote.do(stop=True, quirks={"speaks": _PROTOCOLS})
            remote.do(start=ROUTER_PORT)
        found = itertools.product(("lan1", "lan2"), _PROTOCOLS)
        yield Home(lab, remote, {(host, by): Speaker(lab, host, by) for host, by in found})


@pytest.fixture
def one(home: Home, protocol: str) -> Speaker:
    return home.speakers["lan1", protocol]


@pytest.fixture
def other(home: Home, protocol: str) -> Speaker:
    return home.speakers["lan2", protocol]


@pytest.fixture(params=["tcp", "udp"])
def port(request: pytest.FixtureRequest) -> str:
    """A port of the test's own."""
    return f"{request.param}/{next(_numbers)}"


def test_74_and_89_map_renew_remove(home: Home, one: Speaker, port: str) -> None:
    assert one("add", port, 600) == "mapped"
    assert home.table()[port] == LAN1
    assert one("check", port) == "mapped"
    assert one("add", port, 600) == "mapped"
    assert one("remove", port) == "gone"
    assert port not in home.table()
    assert one("remove", port) == "gone"


def test_75_and_79_another_host_s_port(home: Home, one: Speaker, other: Speaker, port: str) -> None:
    before = home.table()
    assert one("add", port, 600) == "mapped"
    assert other("add", port, 600) == "held by another host"
    assert home.table() == before | {port: LAN1}  # no other port is left open
    other("remove", port)
    assert home.table()[port] == LAN1
    assert one("remove", port) == "gone"
    assert other("add", port, 600) == "mapped"
    assert other("remove", port) == "gone"
    assert home.table() == before


def test_17_the_same_number_of_the_other_protocol_is_another_port(
    home: Home, one: Speaker, other: Speaker
) -> None:
    number = next(_numbers)
    assert other("add", f"udp/{number}", 600) == "mapped"
    assert one("add", f"tcp/{number}", 600) == "mapped"
    assert other("remove", f"udp/{number}") == "gone"
    assert home.table()[f"tcp/{number}"] == LAN1
    assert one("remove", f"tcp/{number}") == "gone"


def test_92_the_table_is_that_of_upnp_and_what_that_has_made_is_left_to_it(
    home: Home, one: Speaker, protocol: str, port: str
) -> None:
    upnp, other = home.speakers["lan1", "upnp"], home.speakers["lan2", "upnp"]
    assert other("add", port, 600) == "mapped"
    assert one("add", port, 600) == "held by another host"
    assert home.table()[port] == LAN2
    assert other("remove", port) == "gone"
    assert one("add", port, 600) == "mapped"
    assert other("look", port) == "another host's"
    assert one("remove", port) == "gone"
    assert upnp("add", port, 600) == "mapped"
    one("remove", port)  # what is said to that differs
    assert home.table()[port] == LAN1
    assert upnp("remove", port) == "gone"


def test_the_external_address(one: Speaker) -> None:
    assert one("external_address") == OUTSIDE


def test_natpmpc_works_with_it(home: Home, protocol: str, port: str) -> None:
    """And either protocol learns of the port that another client has."""
    kind, number = port.split("/")
    assert f"Public IP address : {OUTSIDE}" in home.natpmpc()
    mapped = home.natpmpc("-a", number, number, kind, "600")
    assert f"Mapped public port {number} protocol {kind.upper()} to local port {number}" in mapped
    assert home.table()[port] == LAN1
    assert home.speakers["lan2", protocol]("add", port, 600) == "held by another host"
    home.natpmpc("-a", "0", number, kind, "0")
    assert port not in home.table()
