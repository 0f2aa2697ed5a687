"""Configuration files: which layer counts, for which program, and who is told of it."""

import io
import json
import os
import subprocess
import time
import tomllib
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natsup.supervisor import config, config_command, settings
from natsup.supervisor.config_lines import line_of
from natsup.supervisor.options import (
    OPTIONS,
    as_words,
    decide,
    of_environment,
    parse,
    split,
    values,
)
from tests.supervisor.conftest import NATSUP

PAGE = Path(__file__).parents[2] / "docs/configuration.md"


def understood(text: str, path: str = "FILE") -> config.Config:
    found = config.understand(path, text.encode())
    assert isinstance(found, config.Config), [str(problem) for problem in found]
    return found


def test_values_are_those_of_the_command_line() -> None:
    text = """\
        lease = 600
        timeout = 1
        ports = ["6881-6999", "udp/27960", 8080]
        deny = 9091
        never = "1-2"
        ephemeral = true
        verbose = false
        protocols = ["pcp"]
        clients = []
        log = "/x"
        """
    words = "--lease 600 --timeout 1 --ports 6881-6999,udp/27960,8080 --deny 9091 --never 1-2"
    words += " --ephemeral --protocols pcp --log /x -- x"
    decided = decide(understood(text).layers(None))
    assert values(decided, "/") == parse(words.split(), {}, "/")[0]


def test_a_programs_section_comes_before_the_rest() -> None:
    found = understood(
        'lease = 600\ntimeout = 1\n[program.rtorrent]\nlease = 700\n[program."a.b"]\nlease = 800'
    )

    def told(program: str | None) -> tuple[Any, Any]:
        settings = values(decide(found.layers(program)), "/")
        return settings["lease"], settings["timeout"]

    assert told("rtorrent") == (700, 1.0)
    assert told("a.b") == (800, 1.0)
    assert told("RTORRENT") == told("x") == told(None) == (600, 1.0)


LAYERS = ["deny = 1\nnever = 1\nlease = 300", "deny = 2\nnever = 2\nlease = 400\ntimeout = 4"]


def test_the_last_layer_counts_and_never_adds_up() -> None:
    layers = [layer for text in LAYERS for layer in understood(text).layers(None)]
    layers.append(of_environment({"NATSUP_DENY": "3", "NATSUP_NEVER": "3", "NATSUP_LEASE": "500"}))
    layers.append(split(["--deny", "4", "--never", "4", "--never=5", "ls"])[0])
    found = values(decide(layers), "/")
    assert {low for _, low, _ in found["deny"]} == {4}
    assert {low for _, low, _ in found["never"]} == {1, 2, 3, 4, 5}
    assert (found["lease"], found["timeout"]) == (500, 4.0)


def test_what_a_program_is_in_a_later_layer_it_is_not_in_an_earlier_one() -> None:
    layers = understood('servers = ["x", "y"]\n[program.p]\nclients = ["x"]').layers("p")
    found = values(decide(layers), "/")
    assert (found["clients"], found["servers"]) == (["x"], ["y"])
    layers.append(of_environment({"NATSUP_SERVERS": "x"}))
    found = values(decide(layers), "/")
    assert (found["clients"], found["servers"]) == ([], ["x"])


PORTS = st.lists(
    st.tuples(st.sampled_from(["", "tcp/", "udp/"]), st.integers(1, 65535)), min_size=1, max_size=3
).map(lambda ports: ",".join(f"{protocol}{number}" for protocol, number in ports))
TEXTS: dict[str, st.SearchStrategy[str]] = {
    "lease": st.integers(120, 604800).map(str),
    "timeout": st.floats(0, 60).map(str),
    "ports": PORTS,
    "deny": PORTS,
    "never": PORTS,
    "ephemeral": st.sampled_from(["yes", "no"]),
    "clients": st.sampled_from(["a", "b", "a,b", "all"]),
    "servers": st.sampled_from(["a", "b", "a,b", "all"]),
    "log": st.sampled_from(["x", "/y"]),
}
LAYER = st.dictionaries(st.sampled_from(sorted(TEXTS)), st.none()).flatmap(
    lambda names: st.fixed_dictionaries({name: TEXTS[name] for name in names})
)


@given(st.lists(LAYER, max_size=4))
def test_the_supervisor_is_told_the_same_in_words(layers: list[dict[str, str]]) -> None:
    given_layers = [
        of_environment({f"NATSUP_{name.upper()}": text for name, text in layer.items()})
        for layer in layers
    ]
    decided = decide(given_layers)
    found, command = parse([*as_words(decided), "--", "ls"], {}, "/here")
    assert found == values(decided, "/here")
    assert command == ["ls"]


@given(st.lists(LAYER, min_size=1, max_size=4))
def test_nothing_lifts_never(layers: list[dict[str, str]]) -> None:
    before: set[tuple[str, int, int]] = set()
    for count in range(1, len(layers) + 1):
        found = [
            of_environment({f"NATSUP_{name.upper()}": text for name, text in layer.items()})
            for layer in layers[:count]
        ]
        never = set(values(decide(found), "/")["never"])
        assert never >= before
        before = never


# Statements of TOML, with the keys that they define
STATEMENTS = st.sampled_from(
    [
        ("{0} = 1", 1),
        ("'{0}' = 1 # {0} = 2", 1),
        ("{0} = [\n  1,\n  # {0} = 3\n  2 ]", 1),
        ('{0} = """\nother = 1\n[table]\n\n"""', 1),
        ("{0}={{a = 1}}", 1),
        ("# {0} = 1\n\n{0}.x = 1", 3),
        ("\n\n{0}  =  'x'", 3),
        ('{0} = "a\\"[ # \'"', 1),
        ("{0} = '''\n[[ \" ''''\n# ] '\"\"\"", 1),
        ('"{0}\\u002e" = 1\n{0} = 2', 2),
    ]
)


@given(st.lists(STATEMENTS, min_size=1, max_size=6))
def test_the_line_of_a_key(statements: list[tuple[str, int]]) -> None:
    text, lines = "", {}
    for number, (statement, offset) in enumerate(statements):
        lines[f"key{number}"] = text.count("\n") + offset
        text += statement.format(f"key{number}") + "\n"
    tomllib.loads(text)
    assert {key: line_of(text, [key]) for key in lines} == lines
    assert line_of(text, ["none"]) is None


def test_the_line_of_a_key_in_a_table() -> None:
    text = (
        "x = 1\n[ program . 'a b' ]\nx = [{y = 1}]\n[program.c]\n[[d]]\nx = 1\n[e]\nprogram.x = 1\n"
    )
    lines = {
        ("x",): 1,
        ("program",): 2,
        ("program", "a b"): 2,
        ("program", "a b", "x"): 3,
        ("program", "c"): 4,
        ("program", "c", "x"): None,
        ("d",): 5,
        ("e", "program", "x"): 8,
    }
    assert {key: line_of(text, key) for key in lines} == lines


def test_a_long_file_with_mistakes_does_not_take_long() -> None:
    """Not even where they stand at its end; it must not grow with the square of the length."""
    long = "".join(f"[program.p{n}]\nlease = 600\n" for n in range(1500))
    array = "x = [\n" + "1,\n" * 10000 + "]\n"
    for text in (long + "lease = 1\n", array + long + "lease = 1\n"):
        before = time.process_time()
        found = config.understand("FILE", text.encode(), most=1)
        assert time.process_time() - before < 1
        assert isinstance(found, list)
        assert len(found) == 1


PIECES = st.sampled_from(
    [
        "lease",
        "program",
        "[",
        "]",
        "[[",
        ".",
        "x",
        "=",
        "1",
        "'",
        '"""',
        "\n",
        "{",
        "}",
        ",",
        "#",
        "\\u",
        "-",
        ":",
    ]
)


@given(
    st.one_of(
        st.binary(max_size=40), st.lists(PIECES, max_size=20).map(lambda p: "".join(p).encode())
    )
)
def test_whatever_is_in_a_file(data: bytes) -> None:
    found = config.understand("FILE", data)
    if isinstance(found, list):
        assert found
        assert all("\n" not in str(problem) for problem in found)


def test_what_stops_a_program_is_not_in_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, log = tmp_path / "config.toml", tmp_path / "log"
    text = f'log = "{log}"\n[program.x]\nservers = ["x"]\nclients = ["x"]\n'
    path.write_text(text)
    assert config_command._check(str(path), {}) == 1
    assert "servers: 'x' is among" in capsys.readouterr().out
    path.write_text(f'interface = "eth77"\n{text}[program.y]\ninterface = "lo"\n')
    assert config_command._check(str(path), {}) == 1
    said = capsys.readouterr().out
    assert said.count("there is no 'eth77' here") == 1
    assert "in order" not in said
    path.write_text(text.partition("servers")[0])
    assert config_command._check(str(path), {}) == 0
    assert not log.exists()


def test_of_several_files_on_a_command_line_the_last_is_read(tmp_path: Path) -> None:
    files = [tmp_path / "one.toml", tmp_path / "two.toml"]
    for lease, file in zip((600, 700), files, strict=True):
        file.write_text(f"lease = {lease}\n")
    chosen, _ = split([*(f"--config={file}" for file in files), "--", "true"])
    assert settings.found(chosen, ["true"], {}).settings["lease"] == 700


def test_what_is_in_force_can_be_shown_in_any_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_CONFIG_HOME", "LC_ALL", "LC_CTYPE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANG", "C.UTF-8")
    monkeypatch.setenv("NATSUP_ON_MAPPED", "tell → me")
    for encoding, shown in (("latin-1", b"tell -> me"), ("utf-8", "tell → me".encode())):
        written = io.BytesIO()
        with monkeypatch.context() as patch:
            patch.setattr("sys.stdout", io.TextIOWrapper(written, encoding, write_through=True))
            assert config_command.main(ArgumentParser, ["show"]) == 0
            assert shown in written.getvalue()


def test_places() -> None:
    own = "/home/x/.config/natsup/config.toml"
    assert settings.places({"HOME": "/home/x"}, None) == [settings.SYSTEM, own]
    home = {"HOME": "/home/x", "XDG_CONFIG_HOME": "/y"}
    assert settings.places(home, None) == [settings.SYSTEM, "/y/natsup/config.toml"]
    assert settings.places({**home, "XDG_CONFIG_HOME": "y"}, None) == [settings.SYSTEM, own]
    assert settings.places(home, "/z") == [settings.SYSTEM, "/z"]
    assert settings.places(home, "none") == settings.places({}, None) == [settings.SYSTEM]


@pytest.mark.parametrize("uid", [0, 1000])
def test_files_of_users_that_this_namespace_does_not_know(uid: int) -> None:
    def status(owner: int, mode: int = 0o644) -> os.stat_result:
        return os.stat_result((0o100000 | mode, 1, 1, 1, owner, 0, 0, 0, 0, 0))

    assert config.distrusted(status(65534), uid, None) != ""
    assert config.distrusted(status(65534), uid, 65534) == ""
    assert config.distrusted(status(65534, 0o646), uid, 65534) != ""


@pytest.mark.parametrize(
    ("owner", "group", "uid", "trusted"),
    [
        (1000, 1000, 1000, True),
        (0, 0, 1000, True),
        (0, 0, 0, True),
        (0, 50, 1000, False),
        (0, 50, 0, False),
        (65534, 50, 1000, False),
    ],
)
def test_files_that_a_group_can_write(owner: int, group: int, uid: int, trusted: bool) -> None:
    status = os.stat_result((0o100664, 1, 1, 1, owner, group, 0, 0, 0, 0))
    assert (config.distrusted(status, uid, 65534) == "") == trusted


@pytest.mark.parametrize("text", ['"true\\u0000x"', '"\\u0000"'])
def test_no_text_ends_early(text: str) -> None:
    """Or all options behind it would be lost, `never` among them."""
    for name in ("argv0", "on-mapped", "events"):
        found = config.understand("FILE", f'{name} = {text}\nnever = ["7300"]'.encode())
        assert isinstance(found, list)
        assert "NUL" in str(found[0])
        assert found[0].line == 1


def test_every_option_has_words_for_what_it_wants() -> None:
    for option in OPTIONS:
        assert config.wanted(option)
        assert config.kind(option) in ("true or false", "list", "number", "text")


def test_the_page_has_all_settings() -> None:
    table = config_command.reference()
    assert f"\n\n{table}\n\n" in PAGE.read_text(), "put in what natsup config reference prints"


def test_the_pages_examples_are_in_order() -> None:
    parts = PAGE.read_text().split("```toml\n")[1:]
    assert parts
    for part in parts:
        understood(part.partition("```")[0])


# --- as a user types it ---


class Home:
    """A user's files, and /etc/natsup/config.toml, in a mount namespace of the commands' own."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self.etc, self.own = folder / "etc.toml", folder / "config/natsup/config.toml"
        self.own.parent.mkdir(parents=True)
        self.environ = {**environ, "XDG_CONFIG_HOME": str(folder / "config")}
        self._folder = folder

    def run(self, *words: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        script = """
            mkdir "$0/etc"; mount -t tmpfs none "$0/etc"; cp -a /etc/. "$0/etc"
            mkdir "$0/etc/natsup"; cp "$0/etc.toml" "$0/etc/natsup/config.toml"
            mount --bind "$0/etc" /etc; exec "$@"
            """
        command = ["unshare", "--net", "--mount", "sh", "-ec", script, str(self._folder), NATSUP]
        environ = {**self.environ, **variables}
        return subprocess.run(
            [*command, *words], capture_output=True, text=True, env=environ, timeout=60
        )


@pytest.fixture
def home(tmp_path: Path, environ: dict[str, str]) -> Home:
    return Home(tmp_path, environ)


def test_what_is_in_force_and_from_where(home: Home) -> None:
    home.etc.write_text("never = [22000]\nlease = 300\n\n[program.x]\ntimeout = 1\n")
    home.own.write_text("\nlease = 400\nnever = ['udp/1-9']\nports = [7000]\n")
    done = home.run("config", "show", "--json", "/bin/x", NATSUP_PORTS="7001")
    found = json.loads(done.stdout)
    assert found["files"] == [settings.SYSTEM, str(home.own)]
    told = {name: one for name, one in found["settings"].items() if one["from"]}
    assert told == {
        "timeout": {"value": 1.0, "from": [f"{settings.SYSTEM}:5"]},
        "ports": {"value": ["tcp/7001-7001", "udp/7001-7001"], "from": ["NATSUP_PORTS"]},
        "never": {
            "value": ["tcp/22000-22000", "udp/1-9", "udp/22000-22000"],
            "from": [f"{settings.SYSTEM}:1", f"{home.own}:3"],
        },
        "lease": {"value": 400, "from": [f"{home.own}:2"]},
    }
    assert found["settings"]["ephemeral"] == {"value": False, "from": []}


def test_a_program_is_served_by_all_layers(home: Home, tmp_path: Path) -> None:
    """What the system's file never publishes is not, whatever the user's own and options say."""
    log = tmp_path / "log"
    home.etc.write_text("never = [7000]\n")
    home.own.write_text(f"dry-run = true\nports = [7000, 7001]\n[program.sh]\nlog = '{log}'\n")
    bind = "import socket; [socket.socket().bind(('', port)) for port in (7000, 7002, 7003, 7001)]"
    words = ["--ports", "7000-7002", "--never", "7002", "--", "sh", "-c", 'exec python3 -c "$0"']
    done = home.run("exec", *words, bind)
    assert (done.returncode, done.stderr) == (0, "")
    deadline = time.monotonic() + 30
    while "would be published" not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)
    published = [line for line in log.read_text().splitlines() if "would be published" in line]
    assert ["tcp/7001 " in line for line in published] == [True]


def test_a_mistake_in_the_systems_file_is_everybodys(home: Home) -> None:
    home.etc.write_text("leese = 300\n")
    done = home.run("exec", "--config", "none", "true")
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith(f"natsup: {settings.SYSTEM}:1: unknown setting 'leese'")
