"""Services under a real systemd, run by natsup by the drop-ins that it makes, at a real router."""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from natsup.supervisor.unit_dropin import drop_in
from natsup.supervisor.unit_file import read
from natsup.supervisor.unit_sandbox import Here
from tests.lab.lab import LAN1, Lab
from tests.systemd.box import NATSUP, SERVICE, Box

_UNDER = f"{NATSUP} exec -- /usr/bin/python3 {SERVICE}"


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
    assert box.said(name)[before:] == ["SIGTERM 1", "over"], box.log(name)
    assert lab.table() == {}, box.log(name)
    assert box.show(name, "ExecMainStatus") == "7"


def is_program(box: Box, pid: str) -> bool:
    return SERVICE in box.run("cat", f"/proc/{pid}/cmdline")


@pytest.mark.parametrize("kind", ["exec", "notify"])
def test_types(box: Box, lab: Lab, kind: str) -> None:
    program = "notify 7000" if kind == "notify" else "7000"
    settings = [f"Type={kind}", "ExecReload=/bin/kill -HUP $MAINPID"]
    if kind == "notify":
        version = int(box.run("systemctl", "--version").split()[1])
        settings = settings if version < 253 else ["Type=notify-reload"]
        settings.append("WatchdogSec=3")
    box.service("svc", *settings, program=program)
    start(box, lab, "svc")
    assert is_program(box, box.show("svc", "MainPID"))
    assert lab.fetch("tcp", 7000) == b"here"
    box.run("systemctl", "reload", "svc")
    lab.wait_for(lambda: "SIGHUP 1" in box.said("svc"))
    box.run("systemctl", "restart", "svc")
    assert box.said("svc").count("SIGTERM 1") == 1
    lab.wait_for(lambda: lab.table() == {"tcp/7000": LAN1})
    if kind == "notify":
        assert box.show("svc", "StatusText") == "serving"
    stop(box, lab, "svc")
    assert not {"SIGHUP 2", "SIGTERM 2"} & set(box.said("svc"))
    assert "NATSUP_SESSION=" in box.log("svc")
    box.run(NATSUP, "unit", "svc", "--remove")
    assert box.show("svc", "DropInPaths") == ""


_BUS = "<busconfig><policy user='root'><allow own='test.natsup'/></policy></busconfig>\n"


def test_a_service_on_the_bus_and_an_idle_one(box: Box, lab: Lab) -> None:
    box.write("/etc/dbus-1/system.d/natsup.conf", _BUS)
    box.run("systemctl", "start", "dbus")
    settings = ["Type=dbus", "BusName=test.natsup", "TimeoutStartSec=20"]
    box.service("svc", *settings, program="on-bus test.natsup 7000")
    start(box, lab, "svc")
    assert is_program(box, box.show("svc", "MainPID"))
    stop(box, lab, "svc")
    box.service("idle", "Type=idle", program="7001")
    start(box, lab, "idle", 7001)
    assert is_program(box, box.show("idle", "MainPID"))
    stop(box, lab, "idle")


def test_a_service_that_hangs(box: Box, lab: Lab) -> None:
    """The watchdog's SIGABRT, which goes to the whole control group, ends the program alone."""
    box.service("svc", "Type=notify", "WatchdogSec=2", program="notify lax 7000")
    start(box, lab, "svc")
    lab.wait_for(lambda: box.show("svc", "ActiveState") == "failed")
    assert box.show("svc", "Result") == "watchdog"
    assert box.show("svc", "ExecMainStatus") == str(int(signal.SIGABRT))
    assert lab.table() == {}
    assert "cleaning up" in box.log("svc")


def test_a_service_that_does_not_stop(box: Box, lab: Lab) -> None:
    """All of it is killed at once, natsup as well."""
    box.service("svc", "TimeoutStopSec=4", program="stubborn 7000")
    start(box, lab, "svc")
    box.run("systemctl", "stop", "svc")
    assert box.show("svc", "Result") == "timeout"
    assert "cleaning up" not in box.log("svc")
    assert lab.table() == {}, box.log("svc")


def test_a_service_without_a_network(box: Box) -> None:
    unit = "[Service]\nPrivateNetwork=yes\nExecStart=/bin/true\n"
    box.write("/etc/systemd/system/svc.service", unit)
    said = box.run("sh", "-c", f"{NATSUP} unit svc --install 2>&1")
    assert "svc.service: nothing to do: PrivateNetwork=yes" in said
    assert box.show("svc", "DropInPaths") == ""


def test_a_service_that_forks(box: Box, lab: Lab) -> None:
    settings = ["Type=forking", "PIDFile=/run/svc.pid", "Restart=on-failure", "RestartSec=0"]
    box.service("svc", *settings, program="fork /run/svc.pid 7000")
    start(box, lab, "svc")
    main = box.show("svc", "MainPID")
    assert main == box.run("cat", "/run/svc.pid").strip()
    box.run("kill", "-KILL", main)
    lab.wait_for(lambda: box.show("svc", "NRestarts") == "1")
    lab.wait_for(lambda: box.show("svc", "ActiveState") == "active")
    lab.wait_for(lambda: lab.table() == {"tcp/7000": LAN1})
    assert is_program(box, box.show("svc", "MainPID"))
    stop(box, lab, "svc")


def test_a_service_that_forks_and_tells_no_pid(box: Box, lab: Lab) -> None:
    box.service("svc", "Type=forking", program="fork /run/svc.pid 7000")
    assert "Type=forking without PIDFile=" in box.run(
        "cat", "/etc/systemd/system/svc.service.d/natsup.conf"
    )
    start(box, lab, "svc")
    box.run("systemctl", "stop", "svc")
    assert box.said("svc")[-2:] == ["SIGTERM 1", "over"]
    assert lab.table() == {}


def test_one_shot_commands_one_after_the_other(box: Box, lab: Lab) -> None:
    box.write(
        "/etc/systemd/system/svc.service",
        "[Service]\nType=oneshot\nRemainAfterExit=yes\nEnvironment=A=b\n"
        "ExecStart=@/bin/sh ! -c 'echo \"$$0 $A ${A} x\" %n' ; -/bin/false\n"
        'ExecStart=@/bin/sh "" -c \'echo "[$$0]"\' ; @/bin/sh $A -c \'echo "$$0"\'\n'
        "ExecStart=:/bin/echo $A\n"
        "ExecStart=+/bin/echo \\; \"x  y\" \\\n# not this\n 'z'\n"
        "SyslogIdentifier=python3\n",
    )
    box.run("systemctl", "daemon-reload")
    box.run("systemctl", "start", "svc")
    before = box.said("svc")
    assert before[1:3] == ["[]", "b"]
    assert len(before) == 5
    box.run(NATSUP, "unit", "svc", "--install")
    box.run("systemctl", "restart", "svc")
    after = box.said("svc")[5:]
    assert after == before


def test_activated_by_a_socket(box: Box, lab: Lab) -> None:
    """The port is mapped once the service runs, and stays open without it."""
    socket = "[Socket]\nListenStream=0.0.0.0:7000\n"
    box.write("/etc/systemd/system/svc.socket", socket)
    box.service("svc", program="activated")
    box.run("systemctl", "start", "svc.socket")
    assert lab.table() == {}
    connect = f"import socket; print(socket.create_connection(('{LAN1}', 7000), 20).recv(9))"
    assert lab.run("lan1", [sys.executable, "-c", connect]).stdout == "b'here'\n"
    lab.wait_for(lambda: lab.table() == {"tcp/7000": LAN1})
    assert lab.fetch("tcp", 7000) == b"here"
    stop(box, lab, "svc")


def test_what_is_left_when_the_main_process_ends_is_killed_at_once(box: Box, lab: Lab) -> None:
    """But not before the session has ended, and its hooks with it."""
    hook = "sleep 1; echo told >/run/hook"
    box.service("svc", "KillMode=mixed", program="7000", options=["--on-released", hook])
    start(box, lab, "svc")
    stop(box, lab, "svc")
    assert box.run("cat", "/run/hook") == "told\n"


def test_as_parent(box: Box, lab: Lab) -> None:
    """As where a process may look into its descendants alone, but for that: no kernel has to."""
    unit = "[Service]\nType=notify\nWatchdogSec=3\nExecReload=/bin/kill -HUP $MAINPID\n"
    unit += f"ExecStart=/usr/bin/python3 {SERVICE} notify 7000\n"
    box.write("/etc/systemd/system/svc.service", unit)
    made = drop_in(read(unit), Here(NATSUP, (), yama=True, user=True))
    box.write("/etc/systemd/system/svc.service.d/natsup.conf", made)
    box.run("systemctl", "daemon-reload")
    start(box, lab, "svc")
    assert box.run("cat", f"/proc/{box.show('svc', 'MainPID')}/comm") != "python3\n"
    box.run("systemctl", "reload", "svc")
    lab.wait_for(lambda: "SIGHUP 1" in box.said("svc"))
    stop(box, lab, "svc")
    assert "SIGHUP 2" not in box.said("svc")


_HARDENED = (
    "ProtectSystem=strict",
    "ProtectHome=yes",
    "PrivateTmp=yes",
    "PrivateDevices=yes",
    "ProtectProc=invisible",
    "ProcSubset=pid",
    "ProtectKernelTunables=yes",
    "ProtectKernelModules=yes",
    "ProtectControlGroups=yes",
    "ProtectClock=yes",
    "ProtectHostname=yes",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "LockPersonality=yes",
    "MemoryDenyWriteExecute=yes",
    "NoNewPrivileges=yes",
    "RestrictAddressFamilies=AF_INET",
    "CapabilityBoundingSet=",
    "SystemCallArchitectures=native",
    "UMask=0077",
)


@pytest.mark.parametrize(
    "settings",
    [
        ["DynamicUser=yes", "SystemCallFilter=@system-service"],
        [
            "User=nobody",
            "StateDirectory=mine",
            "SystemCallFilter=@system-service",
            "SystemCallFilter=~@privileged @resources",
            "SystemCallErrorNumber=EPERM",
        ],
        [
            "SystemCallFilter=@basic-io @file-system @io-event @network-io @process @signal",
            "SystemCallFilter=@ipc @timer @default",
        ],
        ["User=nobody", "SystemCallFilter=~@debug @privileged @resources @mount @obsolete"],
    ],
)
def test_sandboxes(box: Box, lab: Lab, settings: list[str]) -> None:
    box.service("svc", *_HARDENED, *settings, program="7000")
    start(box, lab, "svc")
    assert is_program(box, box.show("svc", "MainPID"))
    mine = "/var/lib/mine" if "StateDirectory=mine" in settings else None
    assert box.said("svc") == [f"serving 7000, {mine}"]
    stop(box, lab, "svc")
    for line in box.log("svc").splitlines():
        assert "PRIORITY=4" not in line, box.log("svc")
        assert "PRIORITY=3" not in line, box.log("svc")


def as_person(box: Box, *words: str) -> str:
    """Run a command as a person who has a service manager."""
    who = ["setpriv", "--reuid=4321", "--regid=4321", "--clear-groups", "env"]
    return box.run(*who, "HOME=/home/person", "XDG_RUNTIME_DIR=/run/user/4321", *words)


def have_person(box: Box) -> None:
    """With a service for a manager of services that is not running yet."""
    box.run("useradd", "--create-home", "--uid", "4321", "person")
    unit = f"[Service]\nExecStart=/usr/bin/python3 {SERVICE} 7000\n"
    box.write("/home/person/.config/systemd/user/inner.service", unit)
    box.run("chown", "-R", "person:", "/home/person")
    more = "\n".join(["[Service]", *box.more])
    box.write("/etc/systemd/system/user@.service.d/more.conf", f"{more}\n")
    box.run("systemctl", "daemon-reload")
    box.run("systemctl", "start", "dbus", "systemd-logind")


def test_a_timer_removes_what_a_dead_session_left(box: Box, lab: Lab) -> None:
    """A minute after the start, and hourly; here at once."""
    box.run(NATSUP, "unit", "--clean-timer", "--install")
    assert box.run("systemctl", "is-enabled", "natsup-clean.timer") == "enabled\n"
    timers = box.show("natsup-clean.timer", "TimersMonotonic")
    assert "OnStartupUSec=1min" in timers
    assert "OnUnitInactiveUSec=1h" in timers
    box.run("systemctl", "stop", "natsup-clean.timer")
    box.write("/etc/systemd/system/svc.service", f"[Service]\nExecStart={_UNDER} 7000\n")
    box.run("systemctl", "daemon-reload")
    start(box, lab, "svc")
    box.run("systemctl", "kill", "--signal=KILL", "svc")
    lab.wait_for(lambda: box.show("svc", "ActiveState") == "failed")
    assert lab.table() == {"tcp/7000": LAN1}
    at_once = "[Timer]\nOnStartupSec=\nOnActiveSec=0\nRandomizedDelaySec=0\nAccuracySec=1ms\n"
    box.write("/etc/systemd/system/natsup-clean.timer.d/now.conf", at_once)
    box.run("systemctl", "daemon-reload")
    box.run("systemctl", "start", "natsup-clean.timer")
    lab.wait_for(lambda: lab.table() == {})
    lab.wait_for(lambda: box.show("natsup-clean.service", "ActiveState") == "inactive")
    assert box.show("natsup-clean.service", "Result") == "success"
    box.run(NATSUP, "unit", "--clean-timer", "--remove")
    assert box.show("natsup-clean.timer", "ActiveState") == "inactive"
    assert box.show("natsup-clean.service", "LoadState") == "not-found"


def test_a_person_s_own_service(box: Box, lab: Lab) -> None:
    have_person(box)
    box.run("systemctl", "start", "user@4321")
    as_person(box, NATSUP, "unit", "inner", "--user", "--install")
    as_person(box, "systemctl", "--user", "start", "inner")
    lab.wait_for(lambda: lab.table() == {"tcp/7000": LAN1})
    status = as_person(box, NATSUP, "status")
    assert "tcp" in status
    as_person(box, "systemctl", "--user", "stop", "inner")
    assert lab.table() == {}
    as_person(box, NATSUP, "unit", "inner", "--user", "--remove")
    box.run("systemctl", "stop", "user@4321")


def test_a_whole_user_session(box: Box, lab: Lab) -> None:
    """Everything that a person's service manager starts is covered, with no unit of its own."""
    have_person(box)
    box.run(NATSUP, "unit", "user@.service", "--install")
    box.run("systemctl", "start", "user@4321")
    as_person(box, "systemctl", "--user", "start", "inner")
    lab.wait_for(lambda: lab.table() == {"tcp/7000": LAN1})
    as_person(box, "systemctl", "--user", "restart", "inner")
    lab.wait_for(lambda: lab.table() == {"tcp/7000": LAN1})
    assert as_person(box, "systemctl", "--user", "is-active", "inner") == "active\n"
    box.run("systemctl", "stop", "user@4321")
    assert lab.table() == {}
