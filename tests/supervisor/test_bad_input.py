"""Whatever is wrong with what natsup is given: one clear line, and the documented status.

Here are configuration files, the environment and permissions; for command lines see also
test_launch.py and test_commands.py.
"""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from natsup.supervisor import config, settings
from natsup.supervisor.options import OPTIONS, BadOption, Option, of_environment
from tests.nobody import as_nobody
from tests.supervisor.conftest import NATSUP

TELLS_MORE = "natsup explain state-folder tells more"


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that everybody may enter."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


@pytest.fixture
def surely(environ: dict[str, str], place: Path) -> dict[str, str]:
    """An environment with a state folder and a home in there."""
    return {
        **environ,
        "HOME": str(place),
        "XDG_CONFIG_HOME": str(place / "config"),
        "NATSUP_STATE_DIR": str(place / "state"),
    }


def run(
    *words: str, environ: dict[str, str], prefix: list[str] | None = None
) -> "subprocess.CompletedProcess[str]":
    command = ["unshare", "--net", *(prefix or []), NATSUP, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environ)


def write(place: Path, content: str | bytes) -> Path:
    """The user's configuration file."""
    path = place / "config/natsup/config.toml"
    path.parent.mkdir(parents=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(done: "subprocess.CompletedProcess[str]", message: str) -> None:
    """One line, with a subject, a reason and a remedy behind a semicolon, or a name to choose."""
    assert (done.returncode, done.stdout) == (125, ""), done
    assert done.stderr.startswith(f"natsup: {message}"), done.stderr
    assert done.stderr.count("\n") == 1
    assert "; " in done.stderr or "(did you mean" in done.stderr


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        ("\nleese = 3\n", 2, "unknown setting 'leese' (did you mean lease?); natsup config"),
        ("startup_timeout = 3", 1, "unknown setting 'startup_timeout' (did you mean startup-t"),
        ("x = 1", 1, "unknown setting 'x'; natsup config reference lists them"),
        ("config = '/x'", 1, "unknown setting 'config'"),
        ("# lease = 1\n[program.x]\n\n'leese' = 3", 4, "unknown setting 'leese' (did you mean"),
        ("[programs.x]\nlease = 300", 1, "unknown section 'programs' (did you mean [program.NAME]"),
        ("[rtorrent]\nlease = 300", 1, "unknown section 'rtorrent' (did you mean [program.rtorr"),
        ("program = 1", 1, "'program' is no setting; give sections [program.NAME]"),
        ("[program]\nlease = 300", 2, "'lease' stands in no program's section; give [program.NA"),
        ("[program.'/bin/x']\nlease = 300", 1, "[program./bin/x]: '/bin/x' will not do; give the"),
        ("[[program.x]]\nlease = 300", 1, "'x' stands in no program's section"),
        ("lease = '1h'", 1, 'lease: "1h" will not do; give a number of seconds from 120 to'),
        ("lease = 5", 1, "lease: '5' will not do; give a number of seconds from 120 to"),
        ("lease = true", 1, "lease: true will not do; give a number"),
        ("lease = 2030-01-01", 1, 'lease: "2030-01-01" will not do; give a number'),
        ("timeout = nan", 1, "timeout: 'nan' will not do; give a number"),
        ("timeout = inf", 1, "timeout: 'inf' will not do; give a number"),
        (f"lease = {'9' * 5000}", None, "this is not TOML; see"),
        (f"x = 1\nlease = 0x{'f' * 5000}", 1, "unknown setting 'x'"),
        (f"lease = 0x{'f' * 5000}", 1, "lease: such a value will not do; give a number"),
        (f"deny = [0x{'f' * 5000}]", 1, "deny: such a value will not do; give ports"),
        ("lease = 99999999999999999999", 1, "lease: '99999999999999999999' will not do"),
        ("ephemeral = 'yes'", 1, 'ephemeral: "yes" will not do; give true or false'),
        ("ports = [\n  6881,\n  'x',\n]", 1, "ports: '6881,x' will not do; give ports and ranges"),
        ("ports = []", 1, "ports: '' will not do; give ports and ranges"),
        ("deny = [true]", 1, "deny: [true] will not do; give ports and ranges"),
        ("deny = [[1]]", 1, "deny: [[1]] will not do; give ports and ranges"),
        ("deny = {a = 1}", 1, 'deny: {"a": 1} will not do; give ports and ranges'),
        ("never = '''\n\\n'''\nx = ]", 3, "this is not TOML: Invalid value; write"),
        ("protocols = ['stun']", 1, "protocols: 'stun' will not do; give upnp, pcp and natpmp"),
        ("servers = ['/bin/x']", 1, "servers: '/bin/x' will not do; give names of programs"),
        ("gateway = ''", 1, 'gateway: "" will not do; give the URL'),
        ("log = 'here'", 1, "log: 'here' will not do; give an absolute path"),
        ("lease = 300\nlease = 400", 2, "this is not TOML: Cannot overwrite a value"),
        ("lease: 300", 1, "this is not TOML: Expected '='"),
        ("a = [", 1, "this is not TOML: Invalid value"),
        (b"a = 1\nb = '\xff'", 2, "this is not UTF-8; save the file as UTF-8"),
        ("a = " + "[" * 20000, None, "this is not TOML; see https://toml.io"),
    ],
)
def test_configurations(content: str | bytes, line: int | None, message: str) -> None:
    data = content if isinstance(content, bytes) else content.encode()
    found = config.understand("FILE", data)
    assert not isinstance(found, config.Config)
    where = "FILE" if line is None else f"FILE:{line}"
    text = str(found[0])
    assert text.startswith(f"{where}: {message}")
    assert text.isprintable()
    assert "; " in text or "(did you mean" in text


def test_every_mistake_is_named(surely: dict[str, str], place: Path) -> None:
    path = write(place, "leese = 1\n[program.x]\nlease = 1\nephemeral = 1\n[y]\n")
    done = run("config", "check", environ=surely)
    assert [line.partition(": ")[0] for line in done.stdout.splitlines()] == [
        f"{path}:{number}" for number in (1, 3, 4, 5)
    ]
    assert done.returncode == 1
    refused(run("config", "show", environ=surely), f"{path}:1: unknown setting 'leese'")
    refused(run("exec", "true", environ=surely), f"{path}:1: unknown setting 'leese'")


@pytest.mark.parametrize("command", ["doctor", "clean"])
def test_other_commands_heed_it(surely: dict[str, str], place: Path, command: str) -> None:
    path = write(place, "interface = 'nsu-none'\n")
    refused(
        run(command, environ=surely), f"{path}: interface: there is no 'nsu-none' here; ip link"
    )
    refused(run(command, environ={**surely, "NATSUP_GATEWAY": "x"}), "NATSUP_GATEWAY: 'x' will not")


def test_what_is_overridden_is_in_nobodys_way(surely: dict[str, str], place: Path) -> None:
    """Nor is what concerns `natsup exec` alone: that is told."""
    path = write(place, "interface = 'nsu-none'\ngateway = 'http://192.168.1.1/d.xml'\n")
    told: dict[str, str | None] = {"gateway": None, "interface": "lo"}
    assert settings.of_network(told, surely) == []
    assert told == {"gateway": "http://192.168.1.1/d.xml", "interface": "lo"}
    environ = {**surely, "NATSUP_LEASE": "5", "NATSUP_GATEWAY": "x"}
    told = {"gateway": "http://192.168.1.2/d.xml", "interface": "lo"}
    (mistake,) = settings.of_network(told, environ)
    assert mistake.startswith("NATSUP_LEASE: '5' will not do; give")
    assert told == {"gateway": "http://192.168.1.2/d.xml", "interface": "lo"}
    path.write_text("leese = 1\n")
    told = {"gateway": None, "interface": None}
    (mistake,) = settings.of_network(told, surely)
    assert mistake.startswith(f"{path}:1: unknown setting 'leese'")
    assert told == {"gateway": None, "interface": None}


def test_cleaning_goes_on_in_spite_of_mistakes(surely: dict[str, str], place: Path) -> None:
    path = write(place, "leese = 1\n")
    done = run("clean", environ=surely)
    assert (done.returncode, done.stdout[:17]) == (0, "Nothing to clean:")
    assert done.stderr.startswith(f"natsup: left out: {path}:1: unknown setting 'leese'")


def test_a_file_that_is_no_configuration(surely: dict[str, str], place: Path) -> None:
    path = write(place, "#" * 70000)
    refused(run("exec", "true", environ=surely), f"{path}: it is larger than 65536 bytes; is it")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["doctor", "--interface", "nsu-none"], "argument --interface: there is no 'nsu-none'"),
        (["config"], "the following arguments are required: WHAT; see natsup config --help"),
        (["config", "shwo"], "argument WHAT: invalid choice: 'shwo'"),
        (["config", "check", "--json"], "check has no --json; see natsup config --help"),
        (["config", "reference", "x"], "reference takes no 'x'; see natsup config --help"),
        (["config", "show", "a", "b"], "unrecognized arguments: b; see natsup config --help"),
        (["config", "check", "/no/such"], "/no/such: there is no such file; natsup config show"),
        (["config", "check"], "there is no configuration file; write "),
        (["explain", "hairpn"], "nothing is known of 'hairpn' (did you mean hairpin"),
        (["explain", "\x1b[2J"], "nothing is known of '\\x1b[2J'; natsup explain lists all"),
        (["explain", "a", "b"], "unrecognized arguments: b; see natsup explain --help"),
        (["explain", "--markdown", "718"], "--markdown takes no topic; see natsup explain"),
        (["manual", "natsup.8"], "argument PAGE: invalid choice: 'natsup.8' (choose from"),
        (["completions", "ksh"], "argument SHELL: invalid choice: 'ksh' (choose from"),
        (["completions"], "the following arguments are required: SHELL; see natsup completions"),
        (["exec", "--config", "/no/such", "true"], "/no/such: it cannot be read: No such file"),
        (["exec", "--config", "/", "true"], "/: it cannot be read: Is a directory; give"),
        (["exec", "--config", "/dev/null", "true"], "/dev/null: this is no regular file; give"),
        (["exec", "--config", "", "true"], "--config: '' will not do; give a name"),
        (["exec", "--never", "x", "true"], "--never: 'x' will not do; give ports and ranges"),
        (["exec", "--ports", "sctp/1", "true"], "--ports: 'sctp/1' will not do; give ports"),
        (["exec", "--log", "/no/such/x", "true"], "--log: /no/such/x cannot be written: No such"),
    ],
)
def test_command_lines(surely: dict[str, str], words: list[str], message: str) -> None:
    refused(run(*words, environ=surely), message)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"NATSUP_CONFIG": "/no/such"}, "/no/such: it cannot be read: No such file"),
        ({"NATSUP_STATE_DIR": "here"}, "NATSUP_STATE_DIR: 'here' will not do; give an absolute"),
        ({"NATSUP_LEASE": "\x1b]0;"}, "NATSUP_LEASE: '\\x1b]0;' will not do; give a number"),
        ({"NATSUP_VERBOSE": "much"}, "NATSUP_VERBOSE: 'much' will not do; give yes or no"),
        ({"NATSUP_INTERFACE": "nsu-none"}, "NATSUP_INTERFACE: there is no 'nsu-none' here; ip"),
        ({"NATSUP_LOG": "/no/x"}, "NATSUP_LOG: /no/x cannot be written: No such file or"),
        ({"NATSUP_CLIENTS": "a,,b"}, "NATSUP_CLIENTS: 'a,,b' will not do; give names"),
        (
            {"NATSUP_CLIENTS": "a", "NATSUP_SERVERS": "a"},
            "NATSUP_SERVERS: 'a' is among NATSUP_CLIENTS, too; give it to one of them",
        ),
    ],
)
def test_variables(surely: dict[str, str], variables: dict[str, str], message: str) -> None:
    done = run("exec", "--", "true", environ={**surely, **variables})
    refused(done, message)
    assert done.stderr.rstrip("\n").isprintable()


ANYTHING = ("a name", "a descriptor, a file or unix:PATH")


@pytest.mark.parametrize(
    "option", [option for option in OPTIONS if config.wanted(option) not in ANYTHING]
)
def test_every_variable(option: Option) -> None:
    name = f"NATSUP_{option.key.upper()}"
    with pytest.raises(BadOption) as caught:
        of_environment({name: "/\x1b]0;"})
    assert str(caught.value).startswith(f"{name}: '/\\x1b]0;' will not do; give ")


@pytest.mark.parametrize(
    "variables",
    [
        {"XDG_CONFIG_HOME": "not/absolute", "HOME": "neither"},
        {"XDG_CONFIG_HOME": "", "HOME": ""},
        {"NATSUP_LEASE": "", "NATSUP_CONFIG": ""},
        {"NATSUP_TIEMOUT": "1"},  # which the log tells
        {"NATSUP_CONFIG": "none"},
    ],
)
def test_variables_that_are_no_obstacle(surely: dict[str, str], variables: dict[str, str]) -> None:
    done = run("exec", "--", "echo", "here", environ={**surely, **variables})
    assert (done.returncode, done.stdout, done.stderr) == (0, "here\n", "")


@pytest.mark.parametrize(
    ("uid", "gid", "mode", "nobody", "message"),
    [
        (0, 0, 0o644, False, None),
        (0, 0, 0o664, False, None),
        (0, 65534, 0o640, False, None),
        (0, 65534, 0o664, False, "its group can write it, so it is not read; chmod go-w it"),
        (0, 0, 0o646, False, "others can write it, so it is not read; chmod go-w it"),
        (65534, 65534, 0o600, False, "it belongs to user 65534, and is not read for user 0; chown"),
        (0, 0, 0o644, True, None),
        (65534, 65534, 0o664, True, None),
        (65534, 65534, 0o666, True, "others can write it, so it is not read; chmod go-w it"),
        (1, 65534, 0o644, True, "it belongs to user 1, and is not read for user 65534; chown it"),
        (0, 0, 0o600, True, "it cannot be read: Permission denied; make it readable for user 655"),
    ],
)
def test_whose_file_is_read(
    surely: dict[str, str],
    place: Path,
    uid: int,
    gid: int,
    mode: int,
    nobody: bool,
    message: str | None,
) -> None:
    """Root reads nothing that others can write: a file may name commands."""
    path = write(place, "lease = 300\n")
    os.chown(path, uid, gid)
    path.chmod(mode)
    prefix = as_nobody() if nobody else []
    done = run("config", "show", environ=surely, prefix=prefix)
    if message is None:
        assert (done.returncode, done.stderr) == (0, "")
        assert f"{path}:1\n" in done.stdout
    else:
        refused(done, f"{path}: {message}")


def test_anothers_home_has_no_configuration(surely: dict[str, str], place: Path) -> None:
    """su and sudo may leave HOME as it was."""
    write(place, "leese = 1\n")
    (place / "config").chmod(0o700)
    done = run("exec", "--", "echo", "here", environ=surely, prefix=as_nobody())
    assert (done.returncode, done.stdout, done.stderr) == (0, "here\n", "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["status"], "the state folder {} cannot be read: Permission denied; " + TELLS_MORE),
        (["log"], "the history in {} cannot be read: Permission denied; " + TELLS_MORE),
        (["clean"], "the state folder {} cannot be used: Permission denied; " + TELLS_MORE),
        (["restart"], "the state folder {} cannot be read: Permission denied; " + TELLS_MORE),
    ],
)
def test_a_state_folder_that_cannot_be_read(
    surely: dict[str, str], place: Path, words: list[str], message: str
) -> None:
    folder = place / "state"
    (folder / "sessions").mkdir(parents=True)
    folder.chmod(0o700)
    done = run(*words, environ=surely, prefix=as_nobody())
    refused(done, message.format(folder))


def test_a_state_folder_that_cannot_be_written_is_no_obstacle(
    surely: dict[str, str], place: Path
) -> None:
    """The program runs as without natsup; doctor tells of it."""
    (place / "state").mkdir(mode=0o755)
    done = run("exec", "--", "echo", "here", environ=surely, prefix=as_nobody())
    assert (done.returncode, done.stdout, done.stderr) == (0, "here\n", "")
