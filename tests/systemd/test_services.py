"""Services under a real systemd, run by natsup by the drop-ins that it makes, at a real router."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.lab import LAN1, Lab
from tests.systemd.box import NATSUP, SERVICE, Box


@pytest.fixture
def box(lab: Lab, tmp_path: Path) -> Iterator[Box]:
    folder = tmp_path / "box"
    folder.mkdir()
    with Box(lab, folder) as found:
        yield found


def start(box: Box, lab: Lab, name: str, port: int = 7000) -> None:
    box.run("systemctl", "start", name)
    lab.wait_for(lambda: lab.table() == {f"tcp/{port}": LAN1})


def stop(box: Box, lab: Lab, name: str) -> None:
    """The program gets one SIGTERM, systemd its status, and the router its port back."""
    before = len(box.said(name))
    box.run("systemctl", "stop", name)
    assert box.said(name)[before:] == ["SIGTERM 1", "over"]
    assert lab.table() == {}
    assert box.show(name, "ExecMainStatus") == "7"


def is_program(box: Box, pid: str) -> bool:
    return SERVICE in box.run("cat", f"/proc/{pid}/cmdline")


@pytest.mark.parametrize("kind", ["simple", "exec", "notify"])
def test_types(box: Box, lab: Lab, kind: str) -> None:
    program = "notify 7000" if kind == "notify" else "7000"
    settings = ["WatchdogSec=3"] if kind == "notify" else []
    reload = "ExecReload=/bin/kill -HUP $MAINPID"
    box.service("svc", f"Type={kind}", reload, *settings, program=program)
    start(box, lab, "svc")
    assert is_program(box, box.show("svc", "MainPID"))
    assert lab.fetch("tcp", 7000) == b"here"
    box.run("systemctl", "reload", "svc")
    lab.wait_for(lambda: "SIGHUP 1" in box.said("svc"))
    box.run("systemctl", "restart", "svc")
    assert box.said("svc")[-3:-1] == ["SIGTERM 1", "over"] or "over" in box.said("svc")
    lab.wait_for(lambda: lab.table() == {"tcp/7000": LAN1})
    if kind == "notify":
        assert box.show("svc", "StatusText") == "serving"
    stop(box, lab, "svc")
    assert "SIGHUP 2" not in box.said("svc")
    assert "NATSUP_SESSION=" in box.log("svc")
    box.run(NATSUP, "unit", "svc", "--remove")
    assert box.show("svc", "DropInPaths") == ""
