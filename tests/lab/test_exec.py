"""The main job, on a real kernel and a real router: what a program under natsup gets."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.lab.lab import LAN1, LAN2, ROUTER, Lab
from tests.lab.program import NATSUP, Program
from tests.nobody import as_nobody

Start = Callable[..., Program]


@pytest.fixture(params=["events", "seccomp"])
def start(lab: Lab, tmp_path: Path, request: pytest.FixtureRequest) -> Start:
    """Starts the program, in turn with each way to see the ends of its sockets."""

    def run(*words: str, host: str = "lan1") -> Program:
        return Program(lab, tmp_path, "--track-close", request.param, *words, host=host)

    return run


LAYOUTS = [pytest.param([], id="in place"), pytest.param(["--as-parent"], id="as parent")]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bound_ports_are_open_and_gone_with_the_program(
    lab: Lab, start: Start, layout: list[str]
) -> None:
    program = start(*layout)
    assert program.bind("tcp", 6881) is None
    assert lab.table() == {"tcp/6881": LAN1}  # before bind() has returned
    assert program.bind("udp", 6882, "DGRAM") is None
    assert lab.table() == {"tcp/6881": LAN1, "udp/6882": LAN1}
    program.serve("tcp")
    assert lab.fetch("tcp", 6881) == b"here"
    os.kill(program.do("os.getpid()"), signal.SIGKILL)
    assert program.process.wait(20) == -signal.SIGKILL
    lab.wait_for(lambda: lab.table() == {})
    lab.wait_for(lambda: list(program.state.glob("sessions/*")) == [])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nobody_in_particular_can_use_it(lab: Lab, layout: list[str]) -> None:
    """Without root, and so with no_new_privs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        lab.map("lan2", "tcp", 7000)
        program = Program(lab, folder, *layout, prefix=as_nobody())
        assert program.bind("s", 7000) == "EADDRINUSE"
        assert program.do("s.bind(('', 7001))") is None
        assert lab.table() == {"tcp/7000": LAN2, "tcp/7001": LAN1}
        assert program.process.stdin is not None
        program.process.stdin.close()
        assert program.process.wait(20) == 0
        lab.wait_for(lambda: lab.table() == {"tcp/7000": LAN2})
        lab.wait_for(lambda: not list(folder.glob("*/sessions/*")))


@pytest.mark.parametrize(
    ("init", "supervisor"),
    [
        # natsup stays the program's parent: 1 is the guard, 2 the supervisor
        pytest.param([], 2, id="natsup"),
        # 1 is the init, 2 the guard; two commands, so that the shell stays
        pytest.param(["sh", "-c", '"$@"; exit $?', "sh"], 3, id="another"),
    ],
)
def test_a_container_ends_with_nothing_left_to_clean_up(
    lab: Lab, tmp_path: Path, init: list[str], supervisor: int
) -> None:
    """When its PID 1 has ended, be it natsup or the parent of natsup, nobody is left to do it."""
    container = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    program = Program(lab, tmp_path, prefix=[*container, *init])
    assert program.do("os.getppid()") == supervisor
    assert program.bind("s", 7000) is None
    assert lab.table() == {"tcp/7000": LAN1}
    assert program.process.stdin is not None
    program.process.stdin.close()
    assert program.process.wait(20) == 0
    assert lab.table() == {}
    assert not list(program.state.glob("sessions/*"))


def test_a_daemon_is_served_after_its_parent_has_ended(lab: Lab, start: Start) -> None:
    """The session lives until the last process under the filter has gone."""
    for layout in ([], ["--as-parent"]):
        program = start(*layout)
        lines = "s = socket.socket(); s.bind(('', 7000)); s.listen(); threading.Event().wait()"
        program.do("import subprocess")
        command = "[sys.executable, '-c', 'import socket, threading; ' + " + repr(lines) + "]"
        null = "stdin=-3, stdout=-3, start_new_session=True"
        child = program.do(f"subprocess.Popen({command}, {null}).pid")
        assert program.process.stdin is not None
        program.process.stdin.close()
        assert program.process.wait(20) == 0
        lab.wait_for(lambda: lab.table() == {"tcp/7000": LAN1})
        os.kill(child, signal.SIGKILL)
        lab.wait_for(lambda: lab.table() == {})


def test_a_port_of_another_host_is_in_use(lab: Lab, start: Start) -> None:
    lab.map("lan2", "tcp", 7000)
    program = start()
    assert program.bind("s", 7000) == "EADDRINUSE"
    assert program.do("s.getsockname()") == ["0.0.0.0", 0]
    assert program.do("s.bind(('', 7001))") is None  # the same descriptor goes on
    assert program.do("s.getsockname()") == ["0.0.0.0", 7001]
    assert program.bind("u", 7000, "DGRAM") is None  # UDP is another port
    assert lab.table() == {"tcp/7000": LAN2, "tcp/7001": LAN1, "udp/7000": LAN1}


def test_two_programs_under_natsup_on_two_hosts(lab: Lab, start: Start) -> None:
    first, second = start(), start(host="lan2")
    assert first.bind("s", 7000) is None
    assert second.bind("s", 7000) == "EADDRINUSE"
    first.do("s.close()")
    lab.wait_for(lambda: lab.table() == {})
    assert second.do("s.bind(('', 7000))") is None
    assert lab.table() == {"tcp/7000": LAN2}


def test_a_port_taken_here_never_reaches_the_router(lab: Lab, start: Start) -> None:
    program = start()
    assert program.bind("first", 7000) is None
    assert program.bind("second", 7000) == "EADDRINUSE"
    assert program.log().count("tcp/7000") == 1


@pytest.mark.parametrize("family", ["INET", "INET6"])
@pytest.mark.parametrize("kind", ["STREAM", "DGRAM"])
def test_both_families(lab: Lab, start: Start, family: str, kind: str) -> None:
    program = start()
    protocol = "tcp" if kind == "STREAM" else "udp"
    assert program.bind("s", 7000, kind, family) is None
    assert lab.table() == {f"{protocol}/7000": LAN1}
    program.do("s.close()")
    lab.wait_for(lambda: lab.table() == {})


def test_multipath_tcp_is_tcp(lab: Lab, start: Start) -> None:
    program = start()
    program.do("s = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, 262)")
    assert program.do("s.bind(('', 7000))") is None
    program.serve("s")
    assert lab.fetch("tcp", 7000) == b"here"
    assert lab.table() == {"tcp/7000": LAN1}
    program.kill()
    lab.wait_for(lambda: lab.table() == {})


@pytest.mark.parametrize(
    ("family", "protocol"), [("INET", 0), ("INET", 262), ("INET6", 262)], ids=str
)
def test_a_servers_end_is_its_own_not_its_connections(
    lab: Lab, start: Start, family: str, protocol: int
) -> None:
    """Multipath or not: the connections that it has accepted go on."""
    program = start()
    program.do(f"s = socket.socket(socket.AF_{family}, socket.SOCK_STREAM, {protocol})")
    assert program.do("s.bind(('', 7000))") is None
    program.do("s.listen()")
    program.do("kept = socket.create_connection(('127.0.0.1', 7000))")
    program.do("accepted = s.accept()[0]")
    program.do("socket.create_connection(('127.0.0.1', 7000)).close()")
    program.do("s.accept()[0].close()")
    assert program.bind("other", 7001) is None  # later than that
    assert lab.table() == {"tcp/7000": LAN1, "tcp/7001": LAN1}
    program.do("s.close()")
    lab.wait_for(lambda: lab.table() == {"tcp/7001": LAN1})
    assert program.do("accepted.send(b'x') and kept.recv(1) == b'x'") is True


def test_what_is_passed_is_never_published(lab: Lab, start: Start) -> None:
    program = start("--deny", "7005", "--ports", "1024-9999")
    for address, kind in (
        ("('127.0.0.1', 7001)", "STREAM"),
        (f"('{LAN1}', 7002)", "STREAM"),
        ("('', 0)", "STREAM"),
        ("('', 0)", "DGRAM"),
        ("('', 80)", "STREAM"),
        ("('', 5353)", "DGRAM"),
        ("('', 7005)", "STREAM"),
        ("('', 10000)", "STREAM"),
    ):
        program.do(f"s = socket.socket(socket.AF_INET, socket.SOCK_{kind})")
        assert program.do(f"s.bind({address})") is None
    program.do("s = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)")
    program.do("s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)")
    assert program.do("s.bind(('::', 7010))") is None
    assert program.bind("last", 7011) is None
    assert lab.table() == {"tcp/7011": LAN1}
    assert program.log().count(": mapped") == 1


def test_options_and_flags_are_what_they_were(lab: Lab, start: Start) -> None:
    lab.map("lan2", "tcp", 7000)
    program = start()
    look = (
        "[s.getsockopt(socket.SOL_SOCKET, o) for o in (2, 15, 7, 8, 9, 10, 13)]"
        " + [os.get_inheritable(s.fileno()), s.getblocking(), s.fileno()]"
    )
    program.do("s = socket.socket()")
    before = program.do(look)
    assert program.do("s.bind(('', 7000))") == "EADDRINUSE"
    assert program.do(look) == before
    assert program.do("s.bind(('', 7001))") is None
    assert program.do(look) == before


def test_sockets_on_one_port_are_claims_on_one_mapping(lab: Lab, start: Start) -> None:
    program = start()
    for name in ("a", "b"):
        program.do(f"{name} = socket.socket()")
        program.do(f"{name}.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)")
        assert program.do(f"{name}.bind(('', 7000))") is None
        program.do(f"{name}.listen()")
    assert program.bind("u", 7000, "DGRAM") is None
    program.do("c = b.dup()")
    program.do("a.close()")
    program.do("b.close()")
    lab.wait_for(lambda: [m["claims"] for m in program.status()[0]["mappings"]] == [1, 1])
    assert lab.table() == {"tcp/7000": LAN1, "udp/7000": LAN1}
    program.do("c.close()")
    lab.wait_for(lambda: lab.table() == {"udp/7000": LAN1})


def test_a_forked_child_keeps_the_port(lab: Lab, start: Start) -> None:
    program = start()
    assert program.bind("s", 7000) is None
    program.do("read, write = os.pipe()")
    # The child waits for the parent's end of the pipe, which only close() gives it.
    live = "(os.close(write), os.read(read, 1), os._exit(0))"
    child = program.do(f"(lambda pid: pid or {live})(os.fork())")
    program.do("s.close()")
    assert program.bind("other", 7001) is None  # later than the close
    assert lab.table() == {"tcp/7000": LAN1, "tcp/7001": LAN1}
    program.do("os.close(write)")
    program.do(f"os.waitpid({child}, 0)[1]")
    lab.wait_for(lambda: lab.table() == {"tcp/7001": LAN1})


def test_a_silent_router_costs_no_more_than_the_budget(lab: Lab, start: Start) -> None:
    program = start("--timeout", "0.3")
    assert program.bind("first", 7000) is None
    lab.pause_router()
    begin = time.monotonic()
    assert program.bind("second", 7001) is None
    took = time.monotonic() - begin
    assert 0.3 <= took < 3
    (session,) = program.status()
    states = {m["port"]: m["state"] for m in session["mappings"]}
    assert states == {7000: "mapped", 7001: "pending"}
    lab.resume_router()
    lab.wait_for(lambda: lab.table() == {"tcp/7000": LAN1, "tcp/7001": LAN1}, 40)


def test_one_slow_call_holds_up_no_other(lab: Lab, start: Start) -> None:
    program = start("--timeout", "20")
    assert program.bind("first", 7000) is None
    lab.pause_router()
    program.do("s = socket.socket()")
    program.do("t = threading.Thread(target=s.bind, args=(('', 7001),))")
    program.do("t.start()")
    begin = time.monotonic()
    assert program.do("socket.socket().bind(('127.0.0.1', 0))") is None
    assert time.monotonic() - begin < 3
    assert program.do("t.is_alive()") is True
    lab.resume_router()
    assert program.do("t.join()") is None
    assert program.do("s.getsockname()") == ["0.0.0.0", 7001]


def test_without_a_router_a_bind_goes_on(lab: Lab, start: Start) -> None:
    lab.stop_router()
    program = start("--startup-timeout", "3")
    assert program.do("len('started')") == 7
    begin = time.monotonic()
    assert program.bind("first", 7000) is None
    assert time.monotonic() - begin < 6
    begin = time.monotonic()
    for port in range(7001, 7011):
        assert program.bind("s", port) is None
    assert time.monotonic() - begin < 3  # only the first one waits, once

    def states() -> set[str]:
        return {m["state"] for session in program.status() for m in session["mappings"]}

    lab.wait_for(lambda: states() == {"ignored"})
    reason = program.status()[0]["mappings"][0]["reason"]
    assert "does not answer to UPnP" in reason
    lab.start_router()
    lab.wait_for(lambda: lab.table().get("tcp/7000") == LAN1, 40)


def known_networks(program: Program) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((program.state / "networks.json").read_text())
    return found


def test_a_known_router_needs_no_search(lab: Lab, start: Start) -> None:
    first = start()
    assert first.bind("s", 7000) is None
    lab.wait_for((first.state / "networks.json").exists)
    ((name, known),) = known_networks(first).items()
    assert name.startswith(f"{ROUTER} ")
    assert len(name.split()[1].split(":")) == 6
    assert known["location"] == f"http://{ROUTER}:5555/rootDesc.xml"
    # It does not answer to searches any more; only who knows where to ask finds it.
    rule = "add rule inet filter input udp dport 1900 drop"
    chain = "add chain inet filter input { type filter hook input priority 0; }"
    lab.run("router", ["nft", f"{chain}; {rule}"], check=True)
    second = start()
    assert second.bind("s", 7001) is None
    assert lab.table() == {"tcp/7000": LAN1, "tcp/7001": LAN1}


def test_where_there_was_no_router_nobody_waits_for_one(lab: Lab, start: Start) -> None:
    lab.stop_router()
    lab.run("lan1", ["ip", "neigh", "flush", "dev", "eth0"], check=True)
    first = start("--startup-timeout", "1")
    assert first.bind("s", 7000) is None
    lab.wait_for((first.state / "networks.json").exists)
    second = start("--startup-timeout", "60")
    begin = time.monotonic()
    assert second.bind("s", 7001) is None
    assert time.monotonic() - begin < 10
    lab.start_router()
    lab.wait_for(lambda: "tcp/7001" in lab.table(), 40)  # the search went on


def test_the_own_address_where_asked_for(lab: Lab, start: Start) -> None:
    program = start("--own-address")
    program.do("s = socket.socket()")
    assert program.do(f"s.bind(('{LAN1}', 7001))") is None  # the first: no router is known yet
    assert program.do("s.getsockname()") == [LAN1, 7001]
    program.serve("s")
    assert lab.table() == {"tcp/7001": LAN1}
    assert lab.fetch("tcp", 7001) == b"here"
    program.do("t = socket.socket()")
    assert program.do(f"t.bind(('{LAN1}', 7002))") is None
    assert lab.table() == {"tcp/7001": LAN1, "tcp/7002": LAN1}


def test_a_dry_run_asks_nothing(lab: Lab, start: Start) -> None:
    program = start("--dry-run")
    assert program.bind("s", 7000) is None
    assert "tcp/7000 would be published" in program.log()
    assert lab.table() == {}


def test_a_given_gateway_is_used(lab: Lab, start: Start) -> None:
    program = start("--gateway", "http://192.168.77.1:5555/rootDesc.xml")
    assert program.bind("s", 7000) is None
    assert lab.table() == {"tcp/7000": LAN1}


def test_an_unwritable_state_folder_is_no_obstacle(lab: Lab, start: Start, tmp_path: Path) -> None:
    (tmp_path / "state-lan1").write_text("a file, where a folder is wanted")
    log = tmp_path / "log"
    program = start("--log", str(log))
    assert program.bind("s", 7000) is None
    assert lab.table() == {"tcp/7000": LAN1}
    assert "no journal" in log.read_text()
    program.kill()
    lab.wait_for(lambda: lab.table() == {})


# --- what dead sessions leave ---


def test_clean_removes_what_a_dead_session_left_and_only_that(
    lab: Lab, start: Start, tmp_path: Path
) -> None:
    lab.map("lan2", "tcp", 6999)
    state = tmp_path / "state-lan1"
    state.mkdir()
    with (state / "sweep.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        dead, living = start(), start()
        assert living.bind("s", 7002) is None
        assert dead.bind("s", 7000) is None
        # What each does at its start is over, and cannot come after the death.
        lab.wait_for(lambda: living.log().count("another natsup is cleaning up") == 2)
    assert dead.bind("t", 7001) is None
    everything = {"tcp/6999": LAN2, "tcp/7002": LAN1}
    assert lab.table() == {**everything, "tcp/7000": LAN1, "tcp/7001": LAN1}
    dead.alone()
    dead.kill()
    assert sorted(s["alive"] for s in living.status()) == [False, True]
    done = lab.run("lan1", [NATSUP, "clean"], env=living.environ)
    assert done.returncode == 0, done.stderr
    assert "tcp/7000" in done.stdout
    assert lab.table() == everything
    assert [s["alive"] for s in living.status()] == [True]
    again = lab.run("lan1", [NATSUP, "clean"], env=living.environ)
    assert again.stdout == "Nothing to clean: no session ended without cleaning up.\n"


def test_the_next_session_removes_what_a_dead_one_left(lab: Lab, start: Start) -> None:
    dead = start()
    assert dead.bind("s", 7000) is None
    dead.alone()
    dead.kill()
    assert lab.table() == {"tcp/7000": LAN1}
    program = start()
    assert program.bind("s", 7001) is None
    lab.wait_for(lambda: lab.table() == {"tcp/7001": LAN1})
    lab.wait_for(lambda: f"tcp/7000 of {Path(sys.executable).name} " in program.log())


def test_a_dead_session_does_not_take_what_is_another_hosts_by_now(lab: Lab, start: Start) -> None:
    dead = start()
    assert dead.bind("s", 7000) is None
    dead.alone()
    dead.kill()
    lab.unmap("lan1", "tcp", 7000)
    lab.map("lan2", "tcp", 7000)
    done = lab.run("lan1", [NATSUP, "clean"], env=dead.environ)
    assert done.returncode == 0
    assert "belongs to another host" in done.stdout
    assert lab.table() == {"tcp/7000": LAN2}


def test_a_program_lives_on_when_its_supervisor_dies(lab: Lab, start: Start) -> None:
    program = start()
    assert program.bind("s", 7000) is None
    guard, supervisor = sorted(program.behind())
    os.kill(supervisor, signal.SIGKILL)
    assert [program.bind(f"s{n}", 7001 + n) for n in range(5)] == [None] * 5
    program.process.stdin.close()  # type: ignore[union-attr]
    assert program.process.wait(20) == 0
    lab.wait_for(lambda: not Path(f"/proc/{guard}/fd").exists() or not fds(guard))


def fds(pid: int) -> list[str]:
    try:
        return os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return []


# --- 32-bit programs ---

_INT80 = r"""
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <arpa/inet.h>

/* The system calls of an i386 program, made by the gate that those use. */
static long int80(long number, long a, long b, long c)
{
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory");
    return result;
}

static char *low;

/* bind(), and then the same by socketcall(SYS_BIND), of a socket of its own each. */
static void bind_both(int first, int second, long length, int readable)
{
    struct sockaddr_in *address = (struct sockaddr_in *)(low + 64);
    unsigned *arguments = (unsigned *)low;
    unsigned long pointer = readable ? (unsigned long)address : 16;

    memset(low, 0, 512);
    address->sin_family = AF_INET;
    address->sin_port = htons(first);
    printf("%ld ", int80(361, socket(AF_INET, SOCK_STREAM, 0), pointer, length));
    address->sin_port = htons(second);
    arguments[0] = socket(AF_INET, SOCK_STREAM, 0);
    arguments[1] = pointer;
    arguments[2] = length;
    printf("%ld ", int80(102, 2, (long)low, 0));
}

int main(void)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT;

    low = mmap(0, 4096, PROT_READ | PROT_WRITE, flags, -1, 0);
    bind_both(7000, 7001, 16, 1);
    bind_both(7002, 7002, 16, 1); /* another host's */
    bind_both(7003, 7004, 28, 1);
    bind_both(7005, 7006, 128, 1);
    bind_both(7007, 7007, 129, 1);
    bind_both(7007, 7007, 15, 1);
    bind_both(7007, 7007, 0, 1);
    bind_both(7007, 7007, -1, 1);
    bind_both(7007, 7007, 16, 0);
    printf("%ld\n", int80(102, 2, 16, 0));
    fflush(stdout);
    getchar();
    return 0;
}
"""


def test_i386_binds_in_both_ways(lab: Lab, tmp_path: Path) -> None:
    assert os.uname().machine == "x86_64"
    lab.map("lan2", "tcp", 7002)
    source, program = tmp_path / "int80.c", tmp_path / "int80"
    source.write_text(_INT80)
    subprocess.run(["gcc", "-o", str(program), str(source)], check=True)
    plain = lab.run("wan", [str(program)], stdin=subprocess.DEVNULL).stdout.split()
    expected = [int(word) for word in plain]
    assert expected[:8] == [0, 0, 0, -errno.EADDRINUSE, 0, 0, 0, 0]  # the fourth binds it again
    assert set(expected[8:]) == {-errno.EINVAL, -errno.EFAULT}
    expected[2:4] = [-errno.EADDRINUSE] * 2
    environ = {**os.environ, "NATSUP_STATE_DIR": str(tmp_path / "state")}
    process = lab.popen(
        "lan1",
        [NATSUP, "exec", "--", str(program)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environ,
    )
    assert process.stdout is not None
    assert [int(word) for word in process.stdout.readline().split()] == expected
    ours = dict.fromkeys((f"tcp/{n}" for n in (7000, 7001, 7003, 7004, 7005, 7006)), LAN1)
    assert lab.table() == ours | {"tcp/7002": LAN2}
