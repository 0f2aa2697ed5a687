"""`natsup unit` where there is no systemd to ask."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.supervisor.conftest import NATSUP


def unit(*words: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    environ = {"PATH": str(folder), "HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    return subprocess.run([NATSUP, "unit", *words], capture_output=True, text=True, env=environ)


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "a.service"
    path.write_text("[Service]\nExecStart=/bin/a\nKillMode=mixed\n")
    return str(path)


def test_files_instead_of_systemctl(file: str, tmp_path: Path) -> None:
    more = tmp_path / "more.conf"
    more.write_text("[Service]\nExecStart=\nExecStart=/bin/b\n")
    done = unit("a", "--from", file, "--from", str(more), "--", "--ports", "7000", folder=tmp_path)
    assert done.stdout.splitlines()[0].startswith("# Made by natsup unit")
    assert f"\nExecStart={NATSUP} exec --ports 7000 -- /bin/b\n" in done.stdout
    assert f"\nExecStopPost=-{NATSUP} clean --wait 6\n" in done.stdout
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["a"], 125, "there is no systemctl here; --from FILE"),
        (["a.socket"], 125, "a.socket is no service"),
        (["python3.11-app"], 125, "there is no systemctl here"),
        (["a", "--from", "FILE", "--", "--config", "/nonexistent"], 125, "it cannot be read"),
        (["../a"], 125, "is no service"),
        (["a", "--from", "/nonexistent"], 125, "the unit cannot be read"),
        (["a", "--from", "FILE", "--", "--prots", "1"], 125, "did you mean --ports?"),
        (["a", "--from", "FILE", "--", "/bin/x"], 125, "/bin/x is no option"),
        (["a", "--remove", "--user"], 125, "there is no "),
        (["b", "--remove", "--user"], 125, "is not natsup's"),
        (["b", "--install", "--user", "--from", "FILE"], 125, "is not natsup's"),
        (["a", "--install", "--remove"], 125, "not allowed with"),
        ([], 125, "either the NAME of a service or --clean-timer"),
        (["a", "--clean-timer"], 125, "either the NAME of a service or --clean-timer"),
        (["--clean-timer", "--remove", "--user"], 125, "there is no "),
        (["--clean-timer", "--", "--ports", "7000"], 125, "--clean-timer takes no unit"),
    ],
)
def test_what_does_not_work(
    file: str, tmp_path: Path, words: list[str], status: int, message: str
) -> None:
    foreign = tmp_path / "systemd/user/b.service.d/natsup.conf"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("[Service]\n")
    done = unit(*[file if word == "FILE" else word for word in words], folder=tmp_path)
    assert message in done.stderr
    assert (done.returncode, done.stdout) == (status, "")
    assert foreign.read_text() == "[Service]\n"


def test_what_systemctl_says_is_one_line(tmp_path: Path) -> None:
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(
        "#!/bin/sh\necho 'no systemd: here' >&2\necho 'cannot connect' >&2\nexit 1\n"
    )
    systemctl.chmod(0o755)
    done = unit("a", folder=tmp_path)
    said = "natsup: systemctl cat --no-pager a.service: no systemd: here; cannot connect\n"
    assert (done.returncode, done.stderr) == (125, said)


def test_hooks_of_a_configuration_file_are_waited_for(file: str, tmp_path: Path) -> None:
    config = tmp_path / "natsup/config.toml"
    config.parent.mkdir()
    config.write_text("[program.b]\non-released = 'true'\n")
    assert " clean --wait 17\n" in unit("a", "--from", file, "--user", folder=tmp_path).stdout
    assert " clean --wait 6\n" in unit("a", "--from", file, folder=tmp_path).stdout
    words = ["a", "--from", file, "--", "--config", str(config)]
    assert " clean --wait 17\n" in unit(*words, folder=tmp_path).stdout


def test_a_module_is_no_command_for_a_unit(file: str, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "natsup.supervisor.cli", "unit", "a", "--from", file]
    done = subprocess.run(words, capture_output=True, text=True, env={"PATH": str(tmp_path)})
    assert "cli.py is no command that systemd could run" in done.stderr
    assert (done.returncode, done.stdout) == (125, "")


def test_a_timer_that_is_not_natsups_is_left_alone(tmp_path: Path) -> None:
    shown = unit("--clean-timer", folder=tmp_path)
    assert f"\nExecStart={NATSUP} clean\n" in shown.stdout
    assert (shown.returncode, shown.stderr) == (0, "")
    timer = tmp_path / "systemd/user/natsup-clean.timer"
    timer.parent.mkdir(parents=True)
    timer.write_text("[Timer]\n")
    for word in ("--install", "--remove"):
        done = unit("--clean-timer", word, "--user", folder=tmp_path)
        assert f"{timer} is not natsup's" in done.stderr
        assert (done.returncode, done.stdout) == (125, "")
    assert timer.read_text() == "[Timer]\n"


def test_what_is_said_of_services_without_ports_and_of_obstacles(tmp_path: Path) -> None:
    path = tmp_path / "a.service"
    path.write_text("[Service]\nExecStart=/bin/a\nPrivateNetwork=yes\n")
    done = unit("a", "--from", str(path), folder=tmp_path)
    assert "a.service: nothing to do: PrivateNetwork=yes" in done.stderr
    assert (done.returncode, done.stdout) == (0, "")
    path.write_text("[Service]\nExecStart=/bin/a\nRootDirectory=/x\n")
    done = unit("a", "--from", str(path), folder=tmp_path)
    assert "this stands in the way:\n  RootDirectory=/x: there is" in done.stderr
    assert (done.returncode, done.stdout) == (1, "")
