"""Which address a pinhole leads to, and which router is asked."""

from pathlib import Path

import pytest

from natsup.upnp.network import NoGateway
from natsup.upnp.pinhole.address import (
    DAD_FAILED,
    DEPRECATED,
    PERMANENT,
    TEMPORARY,
    TENTATIVE,
    Address,
    Network,
    Route,
    choose,
)
from natsup.upnp.pinhole.kernel import listed_addresses, listed_routes

ROUTE = Route("eth0", "fe80::1", 1024)
STABLE, OTHER = "2001:db8::2", "2001:db8::9"


def chosen(*addresses: Address, current: str | None = None) -> str | None:
    found = choose([ROUTE], addresses, current=current)
    return None if isinstance(found, NoGateway) else found.address


@pytest.mark.parametrize("flags", [TEMPORARY, DEPRECATED, TENTATIVE, DAD_FAILED])
def test_what_does_not_last_is_not_taken(flags: int) -> None:
    assert chosen(Address(STABLE, "eth0", flags)) is None
    assert chosen(Address(STABLE, "eth0", flags), Address(OTHER, "eth0", 0)) == OTHER


@pytest.mark.parametrize(
    "address", ["fe80::2", "fd00::2", "::1", "ff02::1", "2002:102:304::1", "2001:0:1::2", "::2"]
)
def test_what_strangers_cannot_route_to_is_not_taken(address: str) -> None:
    assert chosen(Address(address, "eth0", PERMANENT)) is None


def test_another_interfaces_address_is_not_taken() -> None:
    assert chosen(Address(STABLE, "eth1", PERMANENT)) is None


def test_one_that_was_given_comes_before_one_that_was_made() -> None:
    assert chosen(Address(STABLE, "eth0", 0), Address(OTHER, "eth0", PERMANENT)) == OTHER


def test_the_one_in_use_is_kept_as_long_as_it_will_do() -> None:
    better = Address(STABLE, "eth0", PERMANENT)
    assert chosen(better, Address(OTHER, "eth0", 0), current=OTHER) == OTHER
    assert chosen(better, Address(OTHER, "eth0", DEPRECATED), current=OTHER) == STABLE


def test_the_kernels_choice_of_a_route_and_the_users() -> None:
    here = [Address(STABLE, "eth0", 0), Address(OTHER, "tun0", 0)]
    routes = [ROUTE, Route("tun0", "2001:db8::1", 50)]
    assert choose(routes, here) == Network("tun0", "2001:db8::1", OTHER)
    assert choose(routes, here, interface="eth0") == Network("eth0", "fe80::1%eth0", STABLE)


@pytest.mark.parametrize(
    ("routes", "why"),
    [
        ([], "the default route for IPv6 is missing"),
        ([Route("ppp0", "", 0)], "the default route for IPv6 leads to no router"),
        ([ROUTE], "eth0 has no lasting global IPv6 address"),
    ],
)
def test_why_there_is_none(routes: list[Route], why: str) -> None:
    assert choose(routes, []) == NoGateway(why)


def test_the_kernels_files(tmp_path: Path) -> None:
    (tmp_path / "if_inet6").write_text(
        "20010db8000100000000000000000002 02 40 00 80     eth0\n"
        "fe800000000000000c11b1fffe0000aa 02 40 20 80     eth0\n"
        "00000000000000000000000000000001 01 80 10 80       lo\n"
    )
    none = "0" * 32
    (tmp_path / "ipv6_route").write_text(
        f"20010db8000100000000000000000000 40 {none} 00 {none} 00000100 00000001 00000000"
        " 00000001     eth0\n"
        f"{none} 00 {none} 00 fe800000000000000000000000000001 00000400 00000001 00000000"
        " 00000003     eth0\n"
        f"{none} 00 {none} 00 {none} ffffffff 00000001 00000000 00200200       lo\n"
    )
    assert listed_routes(tmp_path) == [ROUTE]
    assert listed_addresses(tmp_path)[0] == Address("2001:db8:1::2", "eth0", PERMANENT)
    assert choose(listed_routes(tmp_path), listed_addresses(tmp_path)) == Network(
        "eth0", "fe80::1%eth0", "2001:db8:1::2"
    )
