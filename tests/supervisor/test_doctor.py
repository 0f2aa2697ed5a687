"""`natsup doctor`: what it makes of facts, how it tries things, and the whole of it without a
router, on this kernel and in sandboxes."""

import ctypes
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from natsup.state.journal import sessions
from natsup.state.model import (
    Conflict,
    Ignored,
    Mapped,
    Outcome,
    Port,
    Protocol,
    Removal,
    Unknown,
)
from natsup.supervisor import doctor_trials
from natsup.supervisor.doctor_facts import (
    Facts,
    Folder,
    Kernel,
    Network,
    PassedOver,
    Rights,
    Router,
    TrialMapping,
    Tried,
    Way,
)
from natsup.supervisor.doctor_findings import Finding, Level, works
from natsup.supervisor.doctor_network import try_mapping
from natsup.supervisor.doctor_path import findings
from natsup.supervisor.doctor_report import as_json, as_text
from natsup.supervisor.doctor_router import of_network
from natsup.supervisor.doctor_system import of_system
from natsup.supervisor.doctor_trials import attempt, look_into
from tests.kernel.harness import passing, supervised
from tests.nobody import as_nobody
from tests.supervisor.conftest import NATSUP

GOOD, NO, DEATH = Tried(), Tried(errno.EPERM), Tried(killed=True)
KERNEL = Kernel(
    release="6.18.44-x",
    machine="x86_64",
    libseccomp="libseccomp 2.5.4",
    libseccomp_error="",
    inside_natsup=False,
    listener=GOOD,
    wait_killable=GOOD,
    in_step=GOOD,
    gives_up_privileges=False,
    pidfd_thread=GOOD,
    netns_cookie=GOOD,
    endings=GOOD,
    io_uring_bind=NO,
    io_uring_disabled=2,
)
RIGHTS = Rights(
    uid=0,
    no_new_privs=False,
    may_trace=True,
    yama=None,
    ends_everything=False,
    as_parent=False,
    read_memory=GOOD,
    memory_file=GOOD,
    take_socket=GOOD,
    see_socket=GOOD,
)
FOLDER = Folder("/var/lib/natsup", "")
LAN, WLAN, TUNNEL = Way("eth0", "192.168.1.1"), Way("wlan0", "10.0.0.1"), Way("tun0", "")
NETWORK = Network((LAN,), "", LAN, "192.168.1.2", LAN, "192.168.1.2")
MAPPING = TrialMapping("tcp/50000", Mapped(120), 0.02, Mapped(120), Removal.GONE)
ROUTER = Router("http://192.168.1.1:5000/d.xml", "", False, "9.9.9.9", MAPPING)
SYSTEM_IDS = [
    "kernel",
    "libseccomp",
    "seccomp-listener",
    "wait-killable",
    "sync-wake-up",
    "pidfd-thread",
    "netns-cookie",
    "socket-endings",
    "io-uring",
    "privileges",
    "yama",
    "layout",
    "memory",
    "descriptors",
    "state-folder",
]
NETWORK_IDS = ["default-route", "vpn", "router", "external-address", "test-mapping"]


def only(found: list[Finding]) -> Finding:
    """The one finding that is not simply good."""
    (finding,) = (one for one in found if one.level is not Level.OK)
    return finding


def test_where_all_is_well_there_is_nothing_to_do() -> None:
    found = [*of_system(KERNEL, RIGHTS, FOLDER), *of_network(NETWORK, ROUTER)]
    assert [finding.id for finding in found] == SYSTEM_IDS + NETWORK_IDS
    assert {finding.level for finding in found} == {Level.OK}
    assert {finding.advice for finding in found} == {""}
    assert works(found)


@pytest.mark.parametrize(
    ("kernel", "identity", "level", "found", "advice"),
    [
        ({"release": "5.4.0-90"}, "kernel", "warning", "Linux 5.4.0-90", "Linux 5.10"),
        ({"machine": "riscv64"}, "kernel", "warning", "riscv64", "not tested"),
        ({"wait_killable": NO}, "wait-killable", "warning", "EINTR: refused (EPERM)", "5.19"),
        ({"libseccomp_error": "gone"}, "libseccomp", "problem", "gone", "install libseccomp2"),
        ({"in_step": NO}, "sync-wake-up", "note", "longer", "6.6"),
        ({"pidfd_thread": NO}, "pidfd-thread", "note", "not served", "6.9"),
        ({"netns_cookie": NO}, "netns-cookie", "note", "guessed", "5.14"),
        ({"endings": DEATH}, "socket-endings", "warning", "kills whoever tries", "AF_NETLINK"),
        ({"io_uring_bind": GOOD}, "io-uring", "note", "are not seen", "--no-io-uring"),
        ({"gives_up_privileges": True}, "privileges", "note", "no_new_privs", "as root"),
    ],
)
def test_what_a_kernel_lacks(
    kernel: dict[str, Any], identity: str, level: str, found: str, advice: str
) -> None:
    report = of_system(replace(KERNEL, **kernel), RIGHTS, FOLDER)
    finding = only(report)
    assert (finding.id, finding.level.value) == (identity, level)
    assert found in finding.found
    assert advice in finding.advice
    assert works(report) == (level != "problem")


@pytest.mark.parametrize(
    ("tried", "inside_natsup", "level", "advice"),
    [
        (Tried(errno.EBUSY), False, "problem", "run natsup outside of it"),
        (Tried(errno.EBUSY), True, "note", "the outer one serves all"),
        (Tried(errno.ENOSYS), False, "problem", "Linux 5.10"),
        (Tried(errno.EINVAL), False, "problem", "Linux 5.10"),
        (Tried(errno.EPERM), False, "problem", "'seccomp' to SystemCallFilter="),
        (DEATH, False, "problem", "'seccomp' to SystemCallFilter="),
    ],
)
def test_without_a_listener(tried: Tried, inside_natsup: bool, level: str, advice: str) -> None:
    without = replace(
        KERNEL, listener=tried, wait_killable=None, in_step=None, inside_natsup=inside_natsup
    )
    finding = only(of_system(without, RIGHTS, FOLDER))
    assert (finding.id, finding.level.value) == ("seccomp-listener", level)
    assert advice in finding.advice


def test_without_libseccomp_nothing_is_said_of_what_needs_it() -> None:
    without = replace(KERNEL, libseccomp_error="it is not there", listener=None)
    without = replace(without, wait_killable=None, in_step=None)
    found = of_system(without, RIGHTS, FOLDER)
    assert only(found).id == "libseccomp"
    assert "install libseccomp2" in only(found).advice
    assert not {"seccomp-listener", "wait-killable", "sync-wake-up"} & {one.id for one in found}
    assert not works(found)


@pytest.mark.parametrize(
    ("rights", "expected"),
    [
        ({"uid": 1000, "may_trace": False}, {}),
        ({"may_trace": False}, {"privileges": ("note", "--cap-add SYS_PTRACE")}),
        ({"yama": 0}, {}),
        ({"yama": 1}, {}),
        ({"yama": 2}, {}),
        ({"uid": 1000, "yama": 1, "may_trace": False, "as_parent": True}, {}),
        (
            {"uid": 1, "yama": 2, "may_trace": False, "take_socket": NO, "see_socket": NO},
            {"yama": ("problem", "ptrace_scope=1"), "descriptors": ("problem", "see Yama above")},
        ),
        ({"yama": 3}, {"yama": ("problem", "/etc/sysctl.d")}),
        ({"read_memory": DEATH}, {}),
        ({"memory_file": NO}, {}),
        (
            {"read_memory": DEATH, "memory_file": NO},
            {"memory": ("problem", "'process_vm_readv' to SystemCallFilter=")},
        ),
        ({"take_socket": NO}, {"descriptors": ("warning", "'pidfd_getfd' to SystemCallFilter=")}),
        ({"take_socket": DEATH}, {"descriptors": ("warning", "--cap-add SYS_PTRACE")}),
        (
            {"take_socket": NO, "see_socket": NO},
            {"descriptors": ("problem", "'pidfd_getfd' to SystemCallFilter=")},
        ),
    ],
)
def test_rights(rights: dict[str, Any], expected: dict[str, tuple[str, str]]) -> None:
    found = of_system(KERNEL, replace(RIGHTS, **rights), FOLDER)
    levels = {one.id: one.level.value for one in found if one.level is not Level.OK}
    assert levels == {identity: level for identity, (level, _) in expected.items()}
    for one in found:
        assert expected.get(one.id, ("", ""))[1] in one.advice
    assert works(found) == ("problem" not in levels.values())


@pytest.mark.parametrize(
    ("rights", "found"),
    [
        ({}, "becomes the program"),
        ({"as_parent": True}, "stays the program's parent: Yama wants it"),
        ({"as_parent": True, "ends_everything": True}, "everything here ends with it"),
    ],
)
def test_the_layout_is_told(rights: dict[str, Any], found: str) -> None:
    report = of_system(KERNEL, replace(RIGHTS, **rights), FOLDER)
    assert found in next(one.found for one in report if one.id == "layout")


def test_a_folder_that_cannot_be_written_is_no_obstacle() -> None:
    found = of_system(KERNEL, RIGHTS, Folder("/x", "Permission denied"))
    finding = only(found)
    assert (finding.id, finding.level) == ("state-folder", Level.WARNING)
    assert "NATSUP_STATE_DIR" in finding.advice
    assert works(found)


@pytest.mark.parametrize(
    ("network", "identity", "level", "found", "advice"),
    [
        ({"ways": (LAN, WLAN)}, "default-route", "note", "10.0.0.1 by wlan0", "--interface IF"),
        ({"ways": (TUNNEL, LAN)}, "default-route", "note", "there is also tun0", "--interface IF"),
        (
            {"traffic": TUNNEL, "traffic_address": "10.8.0.2"},
            "vpn",
            "warning",
            "traffic leaves by tun0 from 10.8.0.2 (a VPN?)",
            "--interface tun0",
        ),
        ({"traffic": None}, "vpn", "warning", "no way to the Internet", "ip route"),
    ],
)
def test_networks(
    network: dict[str, Any], identity: str, level: str, found: str, advice: str
) -> None:
    report = of_network(replace(NETWORK, **network), ROUTER)
    finding = only(report)
    assert (finding.id, finding.level.value) == (identity, level)
    assert found in finding.found
    assert advice in finding.advice
    assert works(report)


def test_without_a_network_nothing_else_is_said() -> None:
    (finding,) = of_network(Network((), "there is no default route", None, "", None, ""), None)
    assert (finding.id, finding.level) == ("default-route", Level.PROBLEM)
    assert finding.found == "there is no default route"
    assert "--gateway URL" in finding.advice


@pytest.mark.parametrize(
    ("given", "advice"), [(False, "often at http://192.168.1.1"), (True, "is --gateway the URL")]
)
def test_without_a_router(given: bool, advice: str) -> None:
    found = of_network(NETWORK, Router("", "it does not answer", given))
    assert [one.id for one in found] == ["default-route", "vpn", "router"]
    assert (only(found).level, only(found).found) == (Level.PROBLEM, "it does not answer")
    assert advice in only(found).advice


@pytest.mark.parametrize(
    ("behind_host", "reason", "level", "says"),
    [
        (True, "it does not answer", "note", "(a bridge)"),
        (False, "it does not answer", "note", "reaches no router"),
        (True, "", "ok", "by podman, and its network reaches a router"),
    ],
)
def test_in_a_container(behind_host: bool, reason: str, level: str, says: str) -> None:
    """A bridge may be behind a router of the engine's own making, and then all is well."""
    network = replace(NETWORK, container="podman", behind_host=behind_host)
    found = of_network(network, replace(ROUTER, reason=reason))
    assert (found[0].id, found[0].level.value) == ("container", level)
    assert says in found[0].found
    assert ("macvlan" in found[0].advice) is bool(reason)
    (router,) = [one for one in found if one.id == "router"]
    assert (router.advice == "see Container above") is (behind_host and bool(reason))


@pytest.mark.parametrize(
    ("address", "level", "found"),
    [
        ("8.8.8.8", "ok", "8.8.8.8, a public one"),
        ("100.63.255.255", "ok", "public"),
        ("100.64.0.0", "problem", "carrier NAT"),
        ("100.127.255.255", "problem", "carrier NAT"),
        ("100.128.0.0", "ok", "public"),
        ("192.0.0.2", "problem", "carrier NAT"),
        ("10.1.2.3", "warning", "double NAT"),
        ("172.16.0.1", "warning", "double NAT"),
        ("192.168.178.2", "warning", "double NAT"),
        ("0.0.0.0", "warning", "names none"),
        (None, "warning", "names none"),
        ("999.1.1.1", "warning", "names none"),
    ],
)
def test_external_addresses(address: str | None, level: str, found: str) -> None:
    report = of_network(NETWORK, replace(ROUTER, external=address))
    finding = next(one for one in report if one.id == "external-address")
    assert finding.level.value == level
    assert found in finding.found
    assert bool(finding.advice) == (level != "ok")
    assert works(report) == (level != "problem")


@pytest.mark.parametrize(
    ("mapping", "level", "found", "advice"),
    [
        (
            {"outcome": Ignored("it does not want to", slow=True), "seen": None, "removal": None},
            "problem",
            "tcp/50000 was not mapped: it does not want to",
            "whether this host may",
        ),
        (
            {"outcome": Ignored("full"), "seen": None, "removal": None},
            "problem",
            "tcp/50000 was not mapped: full",
            "table of port forwardings",
        ),
        (
            {"outcome": Conflict("192.168.1.9"), "seen": None, "removal": None},
            "problem",
            "held by 192.168.1.9",
            "table of port forwardings",
        ),
        (
            {"outcome": Unknown("late", silent=True), "removal": Removal.FAILED, "seen": None},
            "problem",
            "natsup clean is to be run",
            "restart it",
        ),
        ({"port": "", "outcome": Ignored("no port is free")}, "problem", "nothing was mapped", ""),
        ({"seen": Ignored("gone")}, "problem", "its table does not have it", "full?"),
        ({"seen": Unknown("not told")}, "warning", "(not told)", "firmware"),
        ({"removal": Removal.FAILED}, "warning", "could not be removed", "natsup clean"),
        ({"seconds": 1.0}, "warning", "mapped in 1000 ms", "natsup exec --timeout 1.5"),
        ({"outcome": Mapped(0)}, "note", "until it is told otherwise", "natsup clean"),
    ],
)
def test_mappings(mapping: dict[str, Any], level: str, found: str, advice: str) -> None:
    report = of_network(NETWORK, replace(ROUTER, mapping=replace(MAPPING, **mapping)))
    finding = only(report)
    assert (finding.id, finding.level.value) == ("test-mapping", level)
    assert found in finding.found
    assert advice in finding.advice
    assert works(report) == (level != "problem")


# --- what is printed ---

SAID = [
    Finding("one", "One", Level.OK, "good"),
    Finding("other", "The other", Level.PROBLEM, "bad \x1b[2J", "mend it"),
]


def test_the_table() -> None:
    assert as_text(SAID) == (
        "ok       One        good\n"
        "problem  The other  bad ?[2J\n"
        "                    → mend it\n"
        "\n"
        "Do this first: The other: mend it\n"
        "1 problem: natsup does not work here yet."
    )
    assert as_text(SAID[:1]).endswith("\n\nEverything that natsup needs works here.")


def test_the_document() -> None:
    facts = Facts(KERNEL, RIGHTS, FOLDER, NETWORK, ROUTER)
    one, other = as_json(SAID, facts)["checks"]
    assert one == {"id": "one", "title": "One", "level": "ok", "found": "good", "advice": None}
    assert (other["level"], other["advice"]) == ("problem", "mend it")
    assert as_json(SAID, facts)["ok"] is False
    assert as_json(SAID, facts)["next"] == ["other"]
    assert as_json(SAID[:1], facts)["ok"] is True


def test_mistakes_of_a_configuration() -> None:
    facts = Facts(KERNEL, RIGHTS, FOLDER, NETWORK, ROUTER)
    assert works(findings(facts))
    mistakes = ("FILE:1: unknown setting 'x'; natsup config reference lists them", "another")
    finding = only(findings(replace(facts, mistakes=mistakes)))
    assert (finding.id, finding.level) == ("configuration", Level.PROBLEM)
    assert "FILE:1: unknown setting 'x' (and 1 more)" in finding.found
    assert "natsup config reference lists them" in finding.advice


# --- trying things ---


def fail(number: int) -> None:
    raise OSError(number, "")


def test_what_comes_of_a_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_trials, "_PATIENCE", 1)
    assert attempt(lambda: None) == GOOD
    assert attempt(lambda: fail(errno.EPERM)) == NO
    assert attempt(lambda: os.kill(os.getpid(), signal.SIGSYS)) == DEATH
    assert attempt(lambda: 1 / 0) == Tried(errno.EIO)
    assert attempt(signal.pause) == Tried(errno.ETIME)


@pytest.mark.parametrize("as_parent", [False, True])
def test_looking_into_another_process(as_parent: bool) -> None:
    read, write = os.pipe()

    def tell(pid: int) -> None:
        text = f"{pid} {os.getpid()} {os.getppid()}"
        os.write(write, text.encode())

    assert look_into(tell, as_parent=as_parent) == GOOD
    program, looker, parent = map(int, os.read(read, 100).split())
    os.close(read)
    os.close(write)
    assert program not in (looker, os.getpid())
    assert (program == parent) != as_parent  # in place the looker descends from the program
    assert look_into(lambda _: fail(errno.EPERM), as_parent=as_parent) == NO
    kill = look_into(lambda _: os.kill(os.getpid(), signal.SIGSYS), as_parent=as_parent)
    assert kill == DEATH


# --- the test mapping ---


class Gateway:
    """A gateway that holds what it is told to, and fails as it is told to."""

    protocol = "upnp"
    location = "http://192.168.1.1/d.xml"
    internal_address = "127.0.0.1"

    def __init__(self) -> None:
        self.table: set[Port] = set()
        self.made: list[Port] = []
        self.said: dict[Port, Outcome] = {}  # what `check` says of some
        self.hidden: Outcome | None = None  # what `check` says instead
        self.refuse: Outcome | None = None  # what `add` says instead, having done nothing
        self.taken = 0  # so many ports are another host's
        self.added = trio.Event()
        self.slow = 0.0  # seconds that `check` takes once something is mapped

    async def add(self, port: Port, *, lease: int) -> Outcome:
        await trio.sleep(0.1)
        assert 0 < lease <= 120
        assert not self.refused_here(port)
        if self.refuse is not None:
            return self.refuse
        self.table.add(port)
        self.made.append(port)
        self.added.set()
        return Mapped(lease)

    async def check(self, port: Port) -> Outcome:
        await trio.sleep(self.slow if port in self.table else 0)
        if self.taken:
            self.taken -= 1
            return Conflict("192.168.1.9")
        if port in self.said and port not in self.table:
            return self.said[port]
        if self.hidden is not None:
            return self.hidden
        return Mapped(100) if port in self.table else Ignored("not there")

    async def remove(self, port: Port) -> Removal:
        await trio.sleep(0.1)
        self.table.remove(port)
        return Removal.GONE

    async def external_address(self) -> str | None:
        raise AssertionError

    @staticmethod
    def refused_here(port: Port) -> bool:
        """Can the port be bound? Then it is held by nobody."""
        with socket.socket() as sock:
            try:
                sock.bind(("", port.number))
            except OSError:
                return False
        return True


async def test_a_mapping_is_made_seen_and_removed(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    gateway = Gateway()
    gateway.taken = 2
    made = await try_mapping(gateway, tmp_path, trio.current_time() + 5)
    assert [str(port) for port in gateway.made] == [made.port]
    assert made == TrialMapping(made.port, Mapped(120), made.seconds, Mapped(100), Removal.GONE)
    assert made.seconds == pytest.approx(0.1)
    assert gateway.table == set()
    assert sessions(tmp_path) == []


@pytest.mark.parametrize("said", [Conflict("192.168.1.9"), Mapped(100), Ignored("not there")])
@pytest.mark.parametrize("used", [True, False])
async def test_a_port_asked_about_is_asked_about(
    autojump_clock: MockClock, tmp_path: Path, said: Outcome, used: bool
) -> None:
    """Though a program here has it."""
    gateway = Gateway()
    with socket.socket() as program:
        program.bind(("127.0.0.1", 0))
        wanted = Port(Protocol.TCP, program.getsockname()[1])
        if not used:
            program.close()
        gateway.said[wanted] = said
        made = await try_mapping(gateway, tmp_path, trio.current_time() + 5, wanted=wanted)
    if isinstance(said, Conflict):
        assert (made.port, made.outcome, gateway.made) == (str(wanted), said, [])
    elif used or isinstance(said, Mapped):
        assert made.instead_of == PassedOver(str(wanted), said)
        assert (made.outcome, made.port) == (Mapped(120), str(gateway.made[0]))
        assert wanted not in gateway.made
    else:
        assert (made.instead_of, gateway.made) == (None, [wanted])
    assert gateway.table == set()


@pytest.mark.parametrize(
    ("said", "level", "found"),
    [
        (Mapped(100), Level.OK, "tcp/7100 is forwarded to this host already; tcp/50000 was tried"),
        (Ignored("gone"), Level.NOTE, "tcp/7100 is in use here, and was not tried (the router: go"),
    ],
)
def test_another_port_than_the_one_asked_about(said: Outcome, level: Level, found: str) -> None:
    mapping = replace(MAPPING, instead_of=PassedOver("tcp/7100", said))
    report = of_network(NETWORK, replace(ROUTER, mapping=mapping))
    (finding,) = (one for one in report if one.id == "port-asked-about")
    assert finding.level is level
    assert finding.found.startswith(found)
    assert "tcp/50000 was tried instead" in finding.found
    assert works(report)


async def test_what_a_router_refuses_is_not_removed(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    gateway = Gateway()
    gateway.refuse = Ignored("full")
    made = await try_mapping(gateway, tmp_path, trio.current_time() + 5)
    assert (made.outcome, made.seen, made.removal) == (Ignored("full"), None, None)
    assert sessions(tmp_path) == []


async def test_every_port_is_taken(autojump_clock: MockClock, tmp_path: Path) -> None:
    gateway = Gateway()
    gateway.taken = 1000
    made = await try_mapping(gateway, tmp_path, trio.current_time() + 5)
    assert (made.port, made.outcome) == ("", Ignored("no port is free"))
    assert gateway.made == []


async def test_a_table_that_is_not_shown(autojump_clock: MockClock, tmp_path: Path) -> None:
    gateway = Gateway()
    gateway.hidden = Unknown("not told")
    made = await try_mapping(gateway, tmp_path, trio.current_time() + 5)
    assert (made.outcome, made.seen) == (Mapped(120), Unknown("not told"))
    assert gateway.table == set()


async def test_the_time_is_bounded_and_the_mapping_removed(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    gateway = Gateway()
    gateway.slow = 1000
    begin = trio.current_time()
    made = await try_mapping(gateway, tmp_path, begin + 5)
    assert trio.current_time() - begin == pytest.approx(5.1)
    assert isinstance(made.seen, Unknown)
    assert (made.removal, gateway.table) == (Removal.GONE, set())


async def test_the_mapping_is_removed_when_all_is_given_up(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    gateway = Gateway()
    gateway.slow = 1000
    async with trio.open_nursery() as nursery:
        nursery.start_soon(try_mapping, gateway, tmp_path, trio.current_time() + 500)
        await gateway.added.wait()
        assert gateway.table
        (session,) = sessions(tmp_path)
        assert [str(port) for port in session.ports] == [str(gateway.made[0])]
        nursery.cancel_scope.cancel()
    assert gateway.table == set()
    assert sessions(tmp_path) == []


async def test_a_removal_that_never_ends_leaves_word_for_natsup_clean(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    class Stuck(Gateway):
        async def remove(self, port: Port) -> Removal:
            await trio.sleep_forever()
            raise AssertionError

    gateway = Stuck()
    begin = trio.current_time()
    made = await try_mapping(gateway, tmp_path, begin + 5)
    assert trio.current_time() - begin < 5
    assert made.removal is Removal.FAILED
    (session,) = sessions(tmp_path)
    assert (session.alive, set(session.ports)) == (False, gateway.table)


# --- the command, where there is no router ---


def doctor(
    environ: dict[str, str], *words: str, prefix: tuple[str, ...] = ()
) -> "subprocess.CompletedProcess[str]":
    command = ["unshare", "--net", *prefix, NATSUP, "doctor", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, env=environ)


def checks(done: "subprocess.CompletedProcess[str]") -> dict[str, dict[str, Any]]:
    """What `natsup doctor --json` says, by id."""
    assert done.stderr == ""
    document = json.loads(done.stdout)
    assert document["ok"] is (done.returncode == 0)
    return {check["id"]: check for check in document["checks"]}


def bad(found: dict[str, dict[str, Any]]) -> set[str]:
    return {identity for identity, check in found.items() if check["level"] == "problem"}


def test_on_this_kernel(environ: dict[str, str]) -> None:
    done = doctor(environ, "--json")
    found = checks(done)
    assert done.returncode == 1
    assert [name for name in found if name != "container"] == [*SYSTEM_IDS, "default-route"]
    assert bad(found) == {"default-route"}
    assert os.uname().release in found["kernel"]["found"]
    assert "pyseccomp" in found["libseccomp"]["found"]
    assert not list(Path(environ["NATSUP_STATE_DIR"]).iterdir())


def test_for_people(environ: dict[str, str]) -> None:
    done = doctor(environ)
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    (at,) = (n for n, line in enumerate(lines) if line.startswith("problem  "))
    assert lines[at].endswith("  there is no default route")
    assert lines[at + 1].strip().startswith("→ ")
    assert lines[-1] == "1 problem: natsup does not work here yet."
    assert "\x1b" not in done.stdout


def sandbox(action: str, call: str, where: str = "") -> tuple[str, ...]:
    """A command that runs another under a filter that does ``action`` for a call, if its arguments
    are as in ``where``."""
    script = (
        "import os, sys, pyseccomp as s\n"
        "f = s.SyscallFilter(s.ALLOW)\n"
        f"f.add_rule(s.{action}, '{call}', {where})\n"
        "f.load()\n"
        "os.execvp(sys.argv[1], sys.argv[1:])\n"
    )
    return (sys.executable, "-c", script)


@pytest.mark.parametrize("action", ["ERRNO(1)", "KILL_PROCESS", "KILL"])
@pytest.mark.parametrize(
    ("call", "identity", "level"),
    [
        ("pidfd_getfd", "descriptors", "warning"),
        ("seccomp", "seccomp-listener", "problem"),
        ("process_vm_readv", "memory", "ok"),
        ("pidfd_open", "descriptors", "warning"),
    ],
)
def test_in_a_sandbox(
    environ: dict[str, str], action: str, call: str, identity: str, level: str
) -> None:
    found = checks(doctor(environ, "--json", prefix=sandbox(action, call)))
    assert found[identity]["level"] == level
    assert bad(found) - {"default-route"} == ({identity} if level == "problem" else set())
    if level == "ok":
        assert found[identity]["found"].endswith("read by /proc/PID/mem")
    else:
        killed = "death" in found[identity]["found"] or "kills" in found[identity]["found"]
        assert killed == (action != "ERRNO(1)")


def test_in_a_sandbox_without_io_uring(environ: dict[str, str]) -> None:
    there = checks(doctor(environ, "--json"))["io-uring"]
    refused = checks(doctor(environ, "--json", prefix=sandbox("ERRNO(1)", "io_uring_setup")))
    major, minor = map(int, os.uname().release.split(".")[:2])
    switch = Path("/proc/sys/kernel/io_uring_disabled")
    usable = (major, minor) >= (6, 11) and switch.read_text() != "2\n"
    assert there["level"] == ("note" if usable else "ok")
    assert refused["io-uring"]["level"] == "ok"


@pytest.mark.parametrize("action", ["ERRNO(93)", "KILL_PROCESS"])
def test_in_a_sandbox_without_sock_diag(environ: dict[str, str], action: str) -> None:
    netlink = "s.Arg(0, s.EQ, 16), s.Arg(2, s.EQ, 4)"
    found = checks(doctor(environ, "--json", prefix=sandbox(action, "socket", netlink)))
    assert found["socket-endings"]["level"] == "warning"
    assert bad(found) == {"default-route"}


def test_without_libseccomp(environ: dict[str, str]) -> None:
    with open("/proc/self/maps") as maps:
        ctypes.CDLL("libseccomp.so.2")
        library = next(line.split()[-1] for line in maps if "libseccomp.so" in line)
    covered = ("unshare", "--mount", "sh", "-c", 'mount --bind /dev/null "$0" && exec "$@"')
    found = checks(doctor(environ, "--json", prefix=(*covered, library)))
    assert bad(found) == {"default-route", "libseccomp"}
    assert "libseccomp cannot be loaded" in found["libseccomp"]["found"]
    assert "seccomp-listener" not in found


def test_as_nobody(environ: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        folder = {**environ, "NATSUP_STATE_DIR": f"{name}/state"}
        found = checks(doctor(folder, "--json", prefix=tuple(as_nobody())))
    assert bad(found) == {"default-route"}
    assert found["privileges"]["level"] == "note"
    assert found["privileges"]["found"].startswith("user 65534: ")
    assert found["state-folder"]["level"] == "ok"


def test_as_nobody_without_a_folder(environ: dict[str, str]) -> None:
    folder = {**environ, "NATSUP_STATE_DIR": "/proc/natsup"}
    found = checks(doctor(folder, "--json", prefix=tuple(as_nobody())))
    assert found["state-folder"]["level"] == "warning"
    assert bad(found) == {"default-route"}


def test_as_pid_1(environ: dict[str, str]) -> None:
    container = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
    found = checks(doctor(environ, "--json", prefix=container))
    assert "everything here ends with it" in found["layout"]["found"]
    assert bad(found) == {"default-route"}


def test_inside_another_supervisor(environ: dict[str, str]) -> None:
    def nested() -> tuple[int, str, str]:
        done = doctor(environ, "--json")
        return done.returncode, done.stdout, done.stderr

    with supervised(nested) as child, passing(child):
        status, output, error = child.result()
    found = checks(subprocess.CompletedProcess([], status, output, error))
    assert bad(found) == {"default-route", "seccomp-listener"}
    assert "run natsup outside of it" in found["seccomp-listener"]["advice"]


def test_inside_another_natsup(environ: dict[str, str]) -> None:
    found = checks(doctor(environ, "--json", prefix=(NATSUP, "exec", "--")))
    assert bad(found) == {"default-route"}
    assert found["seccomp-listener"]["level"] == "note"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--interface", "nope"], "argument --interface: there is no 'nope' here; ip link"),
        (["--interface", ".."], "argument --interface: there is no '..' here"),
        (["--gateway", "192.168.1.1"], "argument --gateway: '192.168.1.1' is of no use"),
        (["--gateway", "http://router/d.xml"], "no IPv4 address and port in figures"),
        (["now"], "unrecognized arguments: now; see natsup doctor --help"),
    ],
)
def test_bad_input_gets_one_line(environ: dict[str, str], words: list[str], message: str) -> None:
    done = doctor(environ, *words)
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith("natsup: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_tells_the_exit_statuses(environ: dict[str, str]) -> None:
    done = doctor(environ, "--help")
    assert done.returncode == 0
    assert "1 something does not, 125 bad input" in " ".join(done.stdout.split())
