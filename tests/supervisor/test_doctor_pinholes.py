"""What `natsup doctor` makes of a router that opens pinholes, or does not."""

from dataclasses import replace

import pytest

from natsup.state.model import Ignored, Mapped, Removal
from natsup.supervisor.doctor_facts import Network, Pinholes, Router, TrialMapping, Way
from natsup.supervisor.doctor_findings import works
from natsup.supervisor.doctor_router import of_network

LAN = Way("eth0", "192.168.1.1")
NETWORK = Network((LAN,), "", LAN, "192.168.1.2", LAN, "192.168.1.2")
MAPPING = TrialMapping("tcp/50000", Mapped(120), 0.01, Mapped(120), Removal.GONE)
TRIAL = replace(MAPPING, port="tcp6/50001")
HERE = "2001:db8::2"
OPEN = Pinholes(HERE, "", "http://[fe80::1%eth0]:5000/d.xml", TRIAL)


@pytest.mark.parametrize(
    ("pinholes", "level", "found"),
    [
        (OPEN, "ok", f"tcp6/50001 opened by UPnP to {HERE} in 10 ms, and closed"),
        (
            replace(OPEN, location="pcp://[fe80::1%eth0]:5351"),
            "ok",
            f"tcp6/50001 opened by PCP to {HERE} in 10 ms, and closed",
        ),
        (
            Pinholes(HERE, "the router opens no pinholes"),
            "note",
            "the router opens no pinholes: servers here may not be reached by IPv6",
        ),
        (
            replace(OPEN, trial=replace(TRIAL, outcome=Ignored("it says no"))),
            "warning",
            f"none was opened to {HERE}: it says no",
        ),
        (
            replace(OPEN, trial=replace(TRIAL, removal=Removal.FAILED)),
            "warning",
            f"tcp6/50001 opened by UPnP to {HERE} in 10 ms, and not closed; it leads to a port"
            " that nobody uses",
        ),
    ],
)
def test_pinholes(pinholes: Pinholes, level: str, found: str) -> None:
    router = Router("http://192.168.1.1:5000/d.xml", "", False, "9.9.9.9", MAPPING, pinholes)
    report = of_network(NETWORK, router)
    (finding,) = (one for one in report if one.id == "pinholes")
    assert (finding.level.value, finding.found) == (level, found)
    assert bool(finding.advice) == (level != "ok")
    assert works(report)


def test_without_ipv6_nothing_is_said_of_them() -> None:
    router = Router("http://192.168.1.1:5000/d.xml", "", False, "9.9.9.9", MAPPING)
    assert "pinholes" not in [one.id for one in of_network(NETWORK, router)]
