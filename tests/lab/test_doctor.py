"""`natsup doctor` behind a real router."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.lab.lab import LAN1, LAN2, OUTSIDE, ROUTER, Lab
from tests.lab.program import NATSUP
from tests.nobody import as_nobody

# natsup doctor, stopped for ever once its mapping is made.
_HANGING = """
import sys, trio
from natsup.supervisor import commands
from natsup.upnp.igd import Igd
add = Igd.add
async def add_and_hang(self, port, *, lease):
    outcome = await add(self, port, lease=lease)
    print(port, flush=True)
    await trio.sleep_forever()
Igd.add = add_and_hang
sys.exit(commands.main(["doctor"]))
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    found = {k: v for k, v in os.environ.items() if not k.startswith(("NATSUP_", "PYTHON"))}
    return {**found, "NATSUP_STATE_DIR": str(tmp_path / "state")}


def doctor(
    lab: Lab, environ: dict[str, str], *words: str, prefix: tuple[str, ...] = ()
) -> tuple[int, dict[str, dict[str, Any]]]:
    """`natsup doctor --json` on lan1: its exit status, and what it says by id."""
    status, document = report(lab, environ, *words, prefix=prefix)
    return status, {check["id"]: check for check in document["checks"]}


def report(
    lab: Lab, environ: dict[str, str], *words: str, prefix: tuple[str, ...] = ()
) -> tuple[int, dict[str, Any]]:
    """The same, with all that it says."""
    done = lab.run("lan1", [*prefix, NATSUP, "doctor", "--json", *words], env=environ)
    assert done.stderr == ""
    document: dict[str, Any] = json.loads(done.stdout)
    assert document["ok"] is (done.returncode == 0)
    return done.returncode, document


def bad(found: dict[str, dict[str, Any]]) -> set[str]:
    return {identity for identity, check in found.items() if check["level"] == "problem"}


def journals(environ: dict[str, str]) -> list[Path]:
    return list(Path(environ["NATSUP_STATE_DIR"]).glob("sessions/*"))


def test_all_is_well(lab: Lab, environ: dict[str, str]) -> None:
    lab.map("lan2", "tcp", 7000)
    status, found = doctor(lab, environ)
    assert (status, bad(found)) == (0, set())
    assert f"{ROUTER} by eth0, from {LAN1}" in found["default-route"]["found"]
    assert f"http://{ROUTER}:5555/rootDesc.xml" in found["router"]["found"]
    assert found["external-address"]["found"].startswith(f"{OUTSIDE}, a public one")
    assert found["test-mapping"]["level"] == "ok"
    assert "seen in the router's table, and removed" in found["test-mapping"]["found"]
    port = found["test-mapping"]["found"].split()[0]
    assert (
        f"AddPortMapping: ext port {port.removeprefix('tcp/')}"
        in (lab.folder / "miniupnpd.log").read_text()
    )
    assert lab.table() == {"tcp/7000": LAN2}
    assert journals(environ) == []


def test_with_the_router_named(lab: Lab, environ: dict[str, str]) -> None:
    status, found = doctor(lab, environ, "--gateway", f"http://{ROUTER}:5555/rootDesc.xml")
    assert (status, found["test-mapping"]["level"]) == (0, "ok")
    status, found = doctor(lab, environ, "--gateway", f"http://{ROUTER}:5555/other.xml")
    assert (status, bad(found)) == (1, {"router"})
    assert "--gateway" in found["router"]["advice"]
    status, found = doctor(lab, environ, "--interface", "lo")
    assert (status, bad(found)) == (1, {"default-route"})
    assert found["default-route"]["found"] == "there is no default route by lo"


def test_without_a_router(lab: Lab, environ: dict[str, str]) -> None:
    lab.stop_router()
    status, found = doctor(lab, environ)
    assert (status, bad(found)) == (1, {"router"})
    assert "does not answer to UPnP" in found["router"]["found"]
    assert f"http://{ROUTER}" in found["router"]["advice"]
    assert "test-mapping" not in found


def test_with_a_silent_router(lab: Lab, environ: dict[str, str]) -> None:
    """Its connections are taken by the kernel, and then nothing comes."""
    lab.pause_router()
    words = [NATSUP, "doctor", "--gateway", f"http://{ROUTER}:5555/rootDesc.xml"]
    done = lab.run("lan1", words, env=environ, timeout=20)
    assert (done.returncode, done.stderr) == (1, "")
    assert "problem  Router" in done.stdout
    lab.resume_router()


@pytest.mark.parametrize(
    ("address", "level", "found", "status"),
    [
        ("10.1.2.3", "warning", "double NAT", 0),
        ("100.64.1.1", "problem", "carrier NAT", 1),
    ],
)
def test_an_external_address_that_is_none(
    lab: Lab, environ: dict[str, str], address: str, level: str, found: str, status: int
) -> None:
    """With natsup's own router: miniupnpd does not name an address that is not public."""
    lab.stop_router()
    lab.run("router", ["ip", "addr", "add", f"{address}/32", "dev", "wan"], check=True)
    command = [NATSUP, "gateway", "--internal", ROUTER, "--external", address]
    router = lab.popen("router", command, stdout=subprocess.PIPE, text=True)
    assert router.stdout is not None
    assert router.stdout.readline().startswith("router: ready")
    exit_status, checks = doctor(lab, environ)
    external = checks["external-address"]
    assert external["found"].startswith(address)
    assert (external["level"], exit_status) == (level, status)
    assert found in external["found"]
    assert external["advice"]
    assert checks["test-mapping"]["level"] == "ok"
    port = checks["test-mapping"]["found"].split()[0]
    assert router.stdout.readline().startswith(f"{port} → {LAN1}:")
    assert router.stdout.readline().startswith(f"{port} → {LAN1} removed")


def test_miniupnpd_behind_another_router(lab: Lab, environ: dict[str, str]) -> None:
    """It names no address, and refuses to map."""
    lab.stop_router()
    for command in ("ip addr flush dev wan", "ip addr add 10.1.2.3/24 dev wan"):
        lab.run("router", command.split(), check=True)
    config = lab.folder / "miniupnpd.conf"
    config.write_text(config.read_text().replace(f"ext_ip={OUTSIDE}\n", ""))
    words = ["miniupnpd", "-d", "-f", str(config), "-P", str(lab.folder / "other.pid")]
    with (lab.folder / "other.log").open("w") as log:
        lab.popen("router", words, stdout=log, stderr=log)
    lab.wait_for(lambda: "listening on" in (lab.folder / "other.log").read_text())
    status, found = doctor(lab, environ)
    assert (status, bad(found)) == (1, {"test-mapping"})
    assert "was not mapped" in found["test-mapping"]["found"]
    assert found["external-address"]["level"] == "warning"
    assert "behind another router" in found["external-address"]["advice"]
    assert lab.table() == {}


def test_traffic_that_leaves_by_another_way(lab: Lab, environ: dict[str, str]) -> None:
    """A tunnel that covers everything by two routes, as OpenVPN's do."""
    for command in (
        "ip link add tun7 type veth peer name tun8",
        "ip link set tun8 up",
        "ip addr add 10.8.0.2/24 dev tun7",
        "ip link set tun7 up",
        "ip route add 0.0.0.0/1 dev tun7",
        "ip route add 128.0.0.0/1 dev tun7",
        "ip route add default dev tun7 metric 500",
    ):
        lab.run("lan1", command.split(), check=True)
    status, found = doctor(lab, environ)
    assert (status, found["vpn"]["level"]) == (0, "warning")
    assert "traffic leaves by tun7 from 10.8.0.2" in found["vpn"]["found"]
    assert found["default-route"]["level"] == "note"
    assert "there is also tun7" in found["default-route"]["found"]
    assert lab.table() == {}


def test_nobody_in_particular(lab: Lab, environ: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        folder = {**environ, "NATSUP_STATE_DIR": f"{name}/state"}
        status, found = doctor(lab, folder, prefix=tuple(as_nobody()))
    assert (status, bad(found)) == (0, set())
    assert found["privileges"]["level"] == "note"
    assert found["test-mapping"]["level"] == "ok"
    assert lab.table() == {}


def test_in_a_sandbox_like_dockers(lab: Lab, environ: dict[str, str]) -> None:
    script = (
        "import os, sys, pyseccomp as s\n"
        "f = s.SyscallFilter(s.ALLOW)\n"
        "f.add_rule(s.ERRNO(1), 'pidfd_getfd')\n"
        "f.load()\n"
        "os.execv(sys.argv[1], sys.argv[1:])\n"
    )
    status, found = doctor(lab, environ, prefix=(sys.executable, "-c", script))
    assert (status, bad(found)) == (0, set())
    assert found["descriptors"]["level"] == "warning"
    assert "--cap-add SYS_PTRACE" in found["descriptors"]["advice"]
    assert found["test-mapping"]["level"] == "ok"


def hanging(lab: Lab, environ: dict[str, str]) -> "subprocess.Popen[str]":
    """natsup doctor, with its mapping made and nothing more."""
    process = lab.popen(
        "lan1", [sys.executable, "-c", _HANGING], stdout=subprocess.PIPE, text=True, env=environ
    )
    assert process.stdout is not None
    port = process.stdout.readline().strip()
    assert lab.table() == {port: LAN1}
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_it_removes_what_it_made(
    lab: Lab, environ: dict[str, str], number: signal.Signals
) -> None:
    process = hanging(lab, environ)
    process.send_signal(number)
    assert process.wait(20) == -number
    assert lab.table() == {}
    assert journals(environ) == []


def test_killed_it_leaves_word_for_natsup_clean(lab: Lab, environ: dict[str, str]) -> None:
    process = hanging(lab, environ)
    process.kill()
    process.wait()
    assert len(lab.table()) == 1
    done = lab.run("lan1", [NATSUP, "clean"], env=environ)
    assert (done.returncode, done.stderr) == (0, "")
    assert lab.table() == {}
    assert journals(environ) == []
