"""The options: one table for the command line, the environment and the help."""

from pathlib import Path

import pytest

from natsup.supervisor.inherited import Inherited
from natsup.supervisor.options import OPTIONS, BadOption, Help, help_text, parse, unknown
from natsup.supervisor.options_check import check
from natsup.supervisor.surroundings import Surroundings, log_destination


def _both(low: int, high: int) -> list[tuple[str, int, int]]:
    return [("tcp", low, high), ("udp", low, high)]


BOTH = [*_both(6881, 6889), *_both(51413, 51413)]
DEFAULTS = {option.key: option.default for option in OPTIONS}


@pytest.mark.parametrize(
    ("words", "changed", "command"),
    [
        (["--", "ls", "-l"], {}, ["ls", "-l"]),
        (["ls", "--timeout", "3"], {}, ["ls", "--timeout", "3"]),
        (["--timeout", "3", "ls"], {"timeout": 3.0}, ["ls"]),
        (["--timeout=0", "--", "ls"], {"timeout": 0.0}, ["ls"]),
        (["-v", "--ephemeral", "ls"], {"verbose": True, "ephemeral": True}, ["ls"]),
        (["--ephemeral=no", "ls"], {}, ["ls"]),
        (["--ports", "6881-6889, 51413", "ls"], {"ports": BOTH}, ["ls"]),
        (
            ["--deny", "80/tcp,udp/53-54", "ls"],
            {"deny": [("tcp", 80, 80), ("udp", 53, 54)]},
            ["ls"],
        ),
        (["--never", "1", "--never=tcp/2", "ls"], {"never": [*_both(1, 1), ("tcp", 2, 2)]}, ["ls"]),
        (["--log", "x.log", "ls"], {"log": "/here/x.log"}, ["ls"]),
        (["--log", "/x.log", "ls"], {"log": "/x.log"}, ["ls"]),
        (["--events", "3", "ls"], {"events": 3}, ["ls"]),
        (["--events", "x", "ls"], {"events": "/here/x"}, ["ls"]),
        (["--events", "unix:x", "ls"], {"events": "unix:/here/x"}, ["ls"]),
        (["--events", "unix:/x", "ls"], {"events": "unix:/x"}, ["ls"]),
        (["--on-mapped", "a b", "ls"], {"on_mapped": "a b"}, ["ls"]),
        (["--gateway", "http://10.0.0.1/x", "ls"], {"gateway": "http://10.0.0.1/x"}, ["ls"]),
        (["--protocols", "natpmp, UPnP", "ls"], {"protocols": ["natpmp", "upnp"]}, ["ls"]),
        (["--clients", "dig, kresd", "ls"], {"clients": ["dig", "kresd"]}, ["ls"]),
        (["--servers", "all", "ls"], {"servers": ["all"]}, ["ls"]),
        (["--clients", "All, x", "ls"], {"clients": ["all", "x"]}, ["ls"]),
        (["--", "--", "x"], {}, ["--", "x"]),
    ],
)
def test_words(words: list[str], changed: dict[str, object], command: list[str]) -> None:
    assert parse(words, {}, "/here") == ({**DEFAULTS, **changed}, command)


def test_the_command_line_comes_before_the_environment() -> None:
    environ = {"NATSUP_TIMEOUT": "2", "NATSUP_LEASE": "600", "NATSUP_EPHEMERAL": "yes"}
    settings, _ = parse(["--timeout", "1", "ls"], environ, "/")
    assert (settings["timeout"], settings["lease"], settings["ephemeral"]) == (1.0, 600, True)


@pytest.mark.parametrize(
    ("clients", "servers"),
    [("foo", "foo"), ("foo", "FOO,foo"), ("a-very-long-name", "a-very-long-nam")],
)
def test_what_a_program_is_by_the_command_line_it_is_not_by_the_environment(
    clients: str, servers: str
) -> None:
    settings, _ = parse(["--clients", clients, "ls"], {"NATSUP_SERVERS": f"{servers},x"}, "/")
    assert settings["clients"] == [clients]
    assert settings["servers"] == [name for name in ("FOO", "x") if name in f"{servers},x"]
    settings, _ = parse(["--servers", servers, "ls"], {"NATSUP_CLIENTS": f"x,{clients}"}, "/")
    assert (settings["clients"], settings["servers"]) == (["x"], servers.split(","))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--timout", "3", "ls"], "unknown option --timout (did you mean --timeout?)"),
        (["-x", "ls"], "unknown option -x"),
        (["--timeout", "-1", "ls"], "a number of seconds from 0 to 60"),
        (["--timeout", "nan", "ls"], "'nan' will not do; give a number of seconds from 0 to 60"),
        (["--lease", "1h", "ls"], "from 120 to 604800"),
        (["--lease", "5", "ls"], "from 120 to 604800"),
        (["--ports", "0", "ls"], "ports and ranges, such as"),
        (["--ports", "70000", "ls"], "ports and ranges, such as"),
        (["--ports", "", "ls"], "ports and ranges, such as"),
        (["--events", "2", "ls"], "0 to 2 are the program's"),
        (["--events", "unix:", "ls"], "a descriptor, a file or unix:PATH"),
        (["--deny", "80/sctp", "ls"], "ports and ranges, such as"),
        (["--gateway", "192.168.1.1", "ls"], "the URL of its description"),
        (["--gateway", "http://", "ls"], "the URL of its description"),
        (["--gateway", "http://router/x", "ls"], "the URL of its description"),
        (["--gateway", "http://10.0.0.1:0/x", "ls"], "the URL of its description"),
        (["--gateway", "http://10.0.0.256/", "ls"], "the URL of its description"),
        (["--clients", "", "ls"], "names of programs as ps -e shows them"),
        (["--clients", "a,,b", "ls"], "names of programs as ps -e shows them"),
        (["--servers", "/usr/bin/x", "ls"], "names of programs as ps -e shows them"),
        (["--protocols", "upnp,stun", "ls"], "'upnp,stun' will not do; give upnp, pcp and natpmp"),
        (["--protocols", "pcp,pcp", "ls"], "upnp, pcp and natpmp"),
        (["--protocols", "", "ls"], "upnp, pcp and natpmp"),
        (["--ephemeral=perhaps", "ls"], "yes or no"),
        (["--log"], "--log needs a value: --log FILE"),
        (["--"], "no command to run"),
    ],
)
def test_bad_words_are_named(words: list[str], message: str) -> None:
    with pytest.raises(BadOption) as caught:
        parse(words, {}, "/")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_things_that_are_not_there_are_named(tmp_path: Path) -> None:
    def told(*words: str, **environ: str) -> str:
        settings, _ = parse([*words, "--", "ls"], environ, str(tmp_path))
        try:
            check(settings, environ)
        except BadOption as error:
            return str(error)
        return ""

    assert told() == told("--log", "x") == told("--interface", "lo") == ""
    assert told("--clients", "a,b", "--servers", "all,c") == ""
    assert told("--clients", "a,b", "--servers", "b,c").startswith("--servers: 'b' is among")
    cut = "transmission-daemon", "transmission-da"
    assert told("--clients", cut[0], "--servers", cut[1]) == (
        "--servers: 'transmission-da' is among --clients, too, as 'transmission-daemon', of which"
        " the kernel keeps 15 bytes; give it to one of them"
    )
    assert told("--servers", "b", NATSUP_CLIENTS="a,b") == ""
    assert told(NATSUP_SERVERS="b", NATSUP_CLIENTS="a,b").startswith("--servers: 'b' is among")
    assert "cannot be written: No such file or directory; give" in told("--log", "no/such/x")
    assert "cannot be written: Is a directory; give" in told("--log", ".")
    assert told("--interface", "nsu-none").startswith("--interface: there is no 'nsu-none' here")
    assert told("--interface", "../net/lo") != ""
    assert told(NATSUP_STATE_DIR="x").startswith("NATSUP_STATE_DIR: 'x' will not do")
    assert told(NATSUP_STATE_DIR=str(tmp_path)) == ""


def test_mistyped_variables_are_found() -> None:
    environ = {"NATSUP_TIEMOUT": "1", "NATSUP_TIMEOUT": "1", "NATSUP_STATE_DIR": "/x", "HOME": "/"}
    environ |= {"NATSUP_PORT": "7000"}  # a hook that runs natsup
    assert unknown(environ) == ["NATSUP_TIEMOUT"]


def test_help() -> None:
    with pytest.raises(Help):
        parse(["--help"], {}, "/")
    assert all(f"--{option.name}" in help_text() for option in OPTIONS)
    assert max(map(len, help_text().splitlines())) <= 100


def test_surroundings_travel_as_texts() -> None:
    sockets = [Inherited(1 << 63, 10, 6, 7000, 5, 0), Inherited(2, 2, 17, 7001, 6, 1)]
    found = Surroundings(12, 1.25, "file", "/some where", "seccomp", sockets, 7, {7: 1024})
    again, rest = Surroundings.split([*found.texts(), "exec", "words"])
    assert again.texts() == found.texts()
    assert again.limits == {7: 1024}
    assert rest == ["exec", "words"]


def test_where_the_log_goes() -> None:
    import os

    status = os.stat_result((0o010600, 7, 5, 1, 0, 0, 0, 0, 0, 0))
    assert log_destination({}, None, pid=5) == "file"
    assert log_destination({}, status, pid=5) == "file"
    assert log_destination({}, status, pid=1) == "stderr"
    assert log_destination({"JOURNAL_STREAM": "5:7"}, status, pid=5) == "journal"
    assert log_destination({"JOURNAL_STREAM": "5:8"}, status, pid=5) == "file"
