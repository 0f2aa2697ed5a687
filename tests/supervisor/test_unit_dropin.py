"""The drop-ins for services like those that distributions ship."""

from dataclasses import replace

import pytest

from natsup.supervisor.leaving import service_of
from natsup.supervisor.unit_dropin import NothingToDo, Obstructed, drop_in
from natsup.supervisor.unit_file import read
from natsup.supervisor.unit_sandbox import SYSTEM_CALLS, Here, capability

HERE = Here("/usr/local/bin/natsup", ("/opt/natsup", "/usr"), yama=False, user=False)
YAMA = Here("/usr/local/bin/natsup", ("/opt/natsup", "/usr"), yama=True, user=False)
PERSON = Here("/home/p/.local/bin/natsup", ("/home/p/.local", "/usr"), yama=False, user=True)

_CALLS = " ".join(SYSTEM_CALLS)
_STATE = """\
StateDirectory=natsup-%N
Environment=NATSUP_STATE_DIR=%S/natsup-%N
"""
_MORE = "# natsup needs more than this service may do; the service gets it, too\n"
_STOP = "ExecStopPost=-/usr/local/bin/natsup clean --wait 6\n"


def made(unit: str, here: Here = HERE, *options: str) -> str:
    return drop_in(read(f"[Service]\n{unit}"), here, options)


def test_a_torrent_daemon_with_a_user() -> None:
    unit = (
        "User=debian-transmission\nType=notify\n"
        "ExecStart=/usr/bin/transmission-daemon -f --log-level=error\n"
        "ExecReload=/bin/kill -s HUP $MAINPID\nNoNewPrivileges=true\n"
        "MemoryDenyWriteExecute=true\nProtectSystem=true\nPrivateTmp=true\n"
    )
    head = (
        "[Service]\nExecStart=\nExecStart=/usr/local/bin/natsup exec {}-- "
        "/usr/bin/transmission-daemon -f --log-level=error\n"
        "SyslogIdentifier=transmission-daemon\n"
    )
    tail = _STATE + "UnsetEnvironment=STATE_DIRECTORY\n"
    assert made(unit) == head.format("") + _STOP + tail
    assert made(unit, YAMA, "--deny", "9091") == (
        "# As parent (kernel.yama.ptrace_scope is 1): the main process is natsup's.\n"
        + head.format("--as-parent --deny 9091 ")
        + "KillMode=mixed\nNotifyAccess=all\n"
        + _STOP
        + tail
    )


def test_a_web_server_that_forks_as_root() -> None:
    unit = (
        "Type=forking\nPIDFile=/run/nginx.pid\n"
        "ExecStartPre=/usr/sbin/nginx -t -q -g 'daemon on; master_process on;'\n"
        "ExecStart=/usr/sbin/nginx -g 'daemon on; master_process on;'\n"
        "ExecStop=-/sbin/start-stop-daemon --quiet --stop --retry QUIT/5 --pidfile /run/nginx.pid\n"
        "TimeoutStopSec=5\nKillMode=mixed\n"
    )
    assert made(unit, YAMA) == (
        "# TimeoutStopSec=5: the router may need 5 s to take the ports back; what it keeps goes at"
        " the next start\n"
        "[Service]\nExecStart=\n"
        "ExecStart=/usr/local/bin/natsup exec -- /usr/sbin/nginx -g"
        " 'daemon on; master_process on;'\n"
        "SyslogIdentifier=nginx\n" + _STOP
    )


def test_a_hardened_data_base() -> None:
    unit = (
        "Type=notify\nExecStart=/usr/bin/redis-server /etc/redis/redis.conf --supervised systemd\n"
        "User=redis\nStateDirectory=redis redis/more:link\nProtectHome=true\nProtectSystem=strict\n"
        "CapabilityBoundingSet=\nRestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX\n"
        "SystemCallFilter=@system-service\nSystemCallFilter=~@privileged @resources\n"
        "SyslogIdentifier=kept\n"
    )
    assert made(unit) == (
        "[Service]\nExecStart=\nExecStart=/usr/local/bin/natsup exec --"
        " /usr/bin/redis-server /etc/redis/redis.conf --supervised systemd\n"
        + _STOP
        + _STATE
        + "Environment=STATE_DIRECTORY=%S/redis:%S/redis/more\n"
        + f"{_MORE}SystemCallFilter={_CALLS}\n"
        + f"{_MORE}RestrictAddressFamilies=AF_NETLINK\n"
    )


def test_prefixes_specifiers_and_variables() -> None:
    unit = (
        "SyslogIdentifier=x\n"
        'ExecStart=-@"/opt/my $app" "my $NAME" --dir=%S/x $ARGS \\\n ${B}\n'
        "ExecStart=!:/usr/bin/y $A\nExecStart=+z\n"
    )
    assert made(unit, HERE, "--on-mapped", "echo $NATSUP_PORT 5%").splitlines()[2:-1] == [
        'ExecStart=-/usr/local/bin/natsup exec --on-mapped "echo $$NATSUP_PORT 5%%"'
        ' --argv0="my $NAME" -- "/opt/my $$app" --dir=%S/x $ARGS ${B}',
        'ExecStart=!:/usr/local/bin/natsup exec --on-mapped "echo $NATSUP_PORT 5%%"'
        " -- /usr/bin/y $A",
        'ExecStart=+/usr/local/bin/natsup exec --on-mapped "echo $$NATSUP_PORT 5%%" -- z',
    ]


def test_a_whole_user_session() -> None:
    unit = (
        "User=%i\nPAMName=systemd-user\nType=notify\nExecStart=/lib/systemd/systemd --user\n"
        "Slice=user-%i.slice\nKillMode=mixed\nDelegate=pids memory\nTimeoutStopSec=120s\n"
    )
    assert made(unit) == (
        "[Service]\nExecStart=\n"
        "ExecStart=/usr/local/bin/natsup exec -- /lib/systemd/systemd --user\n"
        "SyslogIdentifier=systemd\n" + _STOP
    )


def test_a_person_s_own_service_keeps_its_state_at_home() -> None:
    assert made("ExecStart=/usr/bin/syncthing serve\nSystemCallArchitectures=native", PERSON) == (
        "[Service]\nExecStart=\n"
        "ExecStart=/home/p/.local/bin/natsup exec -- /usr/bin/syncthing serve\n"
        "SyslogIdentifier=syncthing\n"
        "ExecStopPost=-/home/p/.local/bin/natsup clean --wait 6\n"
    )


@pytest.mark.parametrize(
    ("unit", "here", "lines"),
    [
        ("WatchdogSec=5\nUser=u", YAMA, ["KillMode=mixed", "NotifyAccess=all"]),
        ("NotifyAccess=main\nUser=u", YAMA, ["KillMode=mixed", "NotifyAccess=all"]),
        ("User=u", YAMA, ["KillMode=mixed"]),
        ("KillMode=process\nUser=u", YAMA, []),
        ("CapabilityBoundingSet=CAP_NET_BIND_SERVICE", YAMA, ["KillMode=mixed"]),
        ("User=u\nAmbientCapabilities=CAP_SYS_PTRACE", YAMA, []),
        ("Type=notify", YAMA, []),
        ("Type=notify\nUser=u", HERE, []),
    ],
)
def test_who_is_the_main_process(unit: str, here: Here, lines: list[str]) -> None:
    text = made(f"ExecStart=/a\n{unit}", here)
    found = [line for line in text.splitlines() if line.startswith(("KillMode", "NotifyAccess"))]
    assert found == lines
    assert ("--as-parent" in text) == (bool(lines) or "process" in unit)


def test_a_narrow_filter_is_widened_and_that_is_said() -> None:
    text = made("ExecStart=/a\nSystemCallFilter=@basic-io @network-io:EPERM\n")
    assert "natsup needs more than this service may do" in text
    assert f"SystemCallFilter=@system-service {_CALLS}\n" in text
    forbidding = made("ExecStart=/a\nSystemCallFilter=~@debug\nNoExecPaths=/\n")
    assert f"\n{_MORE}SystemCallFilter={_CALLS}\n" in forbidding
    assert f"\n{_MORE}ExecPaths=/opt/natsup /usr\n" in forbidding


@pytest.mark.parametrize(
    ("lines", "added"),
    [
        (["~AF_PACKET"], ""),
        (["~AF_PACKET AF_INET6"], ""),
        (["~AF_PACKET AF_NETLINK", "~AF_INET6 AF_UNIX"], "AF_UNIX AF_NETLINK"),
        (["~AF_NETLINK", "AF_NETLINK"], ""),
        (["~AF_INET"], "AF_INET"),
        (["AF_INET"], "AF_UNIX AF_NETLINK"),
        (["AF_INET6 AF_UNIX", "AF_NETLINK", "~AF_UNIX"], "AF_UNIX AF_INET"),
        (["AF_UNIX", "", "AF_UNIX AF_INET AF_NETLINK"], ""),
    ],
)
def test_no_more_address_families_than_natsup_needs(lines: list[str], added: str) -> None:
    text = made("ExecStart=/a\n" + "".join(f"RestrictAddressFamilies={one}\n" for one in lines))
    line = f"{_MORE}RestrictAddressFamilies={added}\n"
    assert text.partition("clean --wait 6\n")[2] == (line if added else "")


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ('@/a "" b', '--argv0="" -- /a b'),
        ("@/a '' $B", "--argv0='' -- /a $B"),
        ("@/a $NAME", "--argv0=${NAME} -- /a"),
        ("@/a '$NAME' b", "--argv0=${NAME} -- /a b"),
        (":@/a $NAME", "--argv0=$NAME -- /a"),
        ("@/a -${NAME}", "--argv0=-${NAME} -- /a"),
    ],
)
def test_a_command_s_other_name(line: str, command: str) -> None:
    """It is one word with its option: systemd leaves a variable without a value out."""
    assert f"/natsup exec {command}\n" in made(f"ExecStart={line}")


@pytest.mark.parametrize(
    ("unit", "here", "options", "clean"),
    [
        ("", HERE, ["--on-released", "x"], "--wait 17"),
        ("", HERE, ["--on-mapped=x"], "--wait 17"),
        ("Environment=A=1 'NATSUP_ON_RELEASED=x y'\n", HERE, [], "--wait 17"),
        ("Environment='A=1 NATSUP_ON_RELEASED=x'\n", HERE, [], "--wait 6"),
        ("", replace(HERE, hooks=True), [], "--wait 17"),
        (
            "",
            HERE,
            ["--gateway", "http://10.0.0.1:5000/%41", "--interface=a", "--interface=b c"],
            '--wait 6 --gateway=http://10.0.0.1:5000/%%41 "--interface=b c"',
        ),
    ],
)
def test_what_a_service_waits_for_at_its_end(
    unit: str, here: Here, options: list[str], clean: str
) -> None:
    text = made(f"ExecStart=/a\nTimeoutStopSec=12\n{unit}", here, *options)
    assert f"\nExecStopPost=-/usr/local/bin/natsup clean {clean}\n" in text
    assert ("and the last hooks ten more" in text) == ("17" in clean)


def test_folders_with_spaces() -> None:
    text = made('ExecStart=/a\nUser=u\nStateDirectory=foo "b c:link"\n')
    assert '\nEnvironment="STATE_DIRECTORY=%S/foo:%S/b c"\n' in text


def test_root_in_a_strict_sandbox_keeps_its_own_folder() -> None:
    text = made("ExecStart=/a\nProtectSystem=strict\nCapabilityBoundingSet=CAP_CHOWN\n")
    assert "StateDirectory=natsup\nEnvironment=NATSUP_STATE_DIR=%S/natsup\n" in text
    assert "CAP_SYS_PTRACE: if the program changes its user" in text
    own = made("ExecStart=/a\nUser=u\nEnvironment='NATSUP_STATE_DIR=/x' A=b\n")
    assert "StateDirectory" not in own


@pytest.mark.parametrize(
    ("unit", "why"),
    [
        ("PrivateNetwork=yes\nExecStart=/a", "PrivateNetwork=yes: it has no port"),
        ("RestrictAddressFamilies=AF_UNIX\nExecStart=/a", "AF_UNIX: it has no port"),
        ("RestrictAddressFamilies=none\nExecStart=/a", "none: it has no port"),
        ("Type=oneshot", "it has no ExecStart="),
        ("ExecStart=/usr/local/bin/natsup exec -- /a", "natsup runs it already"),
    ],
)
def test_nothing_to_do(unit: str, why: str) -> None:
    with pytest.raises(NothingToDo, match=why):
        made(unit)


@pytest.mark.parametrize(
    ("line", "here", "why"),
    [
        ("RootDirectory=/srv/x", HERE, "RootDirectory=/srv/x: there is no natsup in there"),
        ("ProtectHome=yes", PERSON, "ProtectHome=yes: natsup is in /home/p/.local"),
        ("ProtectHome=tmpfs", PERSON, "ProtectHome=tmpfs: natsup is in"),
        ("InaccessiblePaths=-/opt", HERE, "InaccessiblePaths=/opt: natsup is in /opt/natsup"),
        ("TemporaryFileSystem=/opt:ro", HERE, "TemporaryFileSystem=/opt: natsup is in"),
        ("DynamicUser=yes", Here("/tmp/n", ("/tmp/n",), False, False), "PrivateTmp=yes"),
        ("User=u", Here("/root/n", ("/root/n",), False, False, "/root"), "User=u: natsup is in"),
    ],
)
def test_what_stands_in_the_way_is_named(line: str, here: Here, why: str) -> None:
    with pytest.raises(Obstructed, match=why):
        made(f"ExecStart=/a\n{line}", here)


@pytest.mark.parametrize(
    ("lines", "has"),
    [
        ([], True),
        ([""], False),
        (["CAP_CHOWN"], False),
        (["CAP_CHOWN", "CAP_SYS_PTRACE"], True),
        (["CAP_SYS_PTRACE", ""], False),
        (["~CAP_SYS_PTRACE"], False),
        (["~CAP_CHOWN"], True),
        (["~"], True),
        (["CAP_SYS_PTRACE", "~cap_sys_ptrace"], False),
    ],
)
def test_bounding_sets(lines: list[str], has: bool) -> None:
    text = "".join(f"CapabilityBoundingSet={line}\n" for line in lines)
    assert capability(read(f"[Service]\n{text}"), "CAP_SYS_PTRACE") == has


def test_whose_control_group() -> None:
    service = "/user.slice/user@1000.service"
    assert service_of(f"0::{service}/.control\n") == service
    assert service_of(f"0::{service}/app.slice/x.service\n") == f"{service}/app.slice/x.service"
    hybrid = "9:cpu:/\n1:name=systemd:/system.slice/a.service\n0::/\n"
    assert service_of(hybrid) == "/system.slice/a.service"
    for other in ("1:name=systemd:/\n", "1:name=systemd:/user.slice/session-1.scope\n"):
        assert service_of(f"{other}0::/system.slice/x.service\n") == "/system.slice/x.service"
        assert service_of(f"0::/system.slice/x.service\n{other}") == "/system.slice/x.service"
    assert service_of("0::/user.slice/session-1.scope\n") == ""
    assert service_of("") == ""
