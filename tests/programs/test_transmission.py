"""Transmission, killed: whoever asked the router for its ports, nothing stays there."""

from pathlib import Path

import pytest

from tests.lab.lab import LAN1, Lab
from tests.programs import transmission
from tests.programs.running import Running

PORTS = {"tcp/51413": LAN1, "udp/51413": LAN1}


@pytest.mark.parametrize("forwarding", [False, True])
def test_nothing_stays_when_it_is_killed(lab: Lab, tmp_path: Path, forwarding: bool) -> None:
    folder = tmp_path / "transmission"
    folder.mkdir()
    settings = {"port-forwarding-enabled": forwarding}
    program = Running(lab, folder, transmission.command(folder, **settings))
    lab.wait_for(lambda: lab.table() == PORTS)
    if forwarding:
        asked = lab.folder / "miniupnpd.log"
        lab.wait_for(lambda: asked.read_text().count("for: Transmission at 51413") >= 2, 40)
    assert lab.table() == PORTS
    program.kill()
    lab.wait_for(lambda: lab.table() == {})
