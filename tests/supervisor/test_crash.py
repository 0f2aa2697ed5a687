"""Errors inside natsup: no traceback reaches a user, and one line says where the report is."""

import re
import signal
import subprocess
import time
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from natsup.supervisor import crash
from tests.supervisor.conftest import NATSUP, Exec

# Python runs it at its start, in natsup's own processes, if it finds it.
_BREAK = """
import sys
class Break:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            raise KeyError("a mistake")
sys.meta_path.insert(0, Break())
"""
_BREAK_LATE = """
import sys
if {process!r} in " ".join(sys.orig_argv):
    from natsup.supervisor import {module} as module
    def fail(*words, **more):
        raise KeyError("a mistake")
    module.{name} = fail
"""
_INTERRUPT = """
import os, signal, time
from natsup.state import history
def opened(directory):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)
history.opened = opened
"""


@pytest.fixture
def broken(environ: dict[str, str], tmp_path: Path) -> Path:
    """What natsup's Python runs at its start."""
    path = tmp_path / "lib/sitecustomize.py"
    path.parent.mkdir()
    environ["PYTHONPATH"] = str(path.parent)
    return path


def reported(done: "subprocess.CompletedProcess[str]", environ: dict[str, str]) -> str:
    """The report that a command's one line names."""
    assert done.returncode == 70, done
    folder = re.escape(environ["NATSUP_STATE_DIR"])
    line = re.fullmatch(
        rf"natsup: an error inside natsup.*KeyError.*; please report it, with ({folder}.*\.txt)\n",
        done.stderr,
    )
    assert line is not None, done.stderr
    path = Path(line[1])
    assert path.stat().st_mode & 0o777 == 0o600
    return path.read_text()


@pytest.mark.parametrize(
    ("words", "module"),
    [
        (["log"], "past"),
        (["status"], "commands"),
        (["config", "show"], "config_command"),
        (["explain", "718"], "explain"),
        (["doctor"], "doctor"),
        (["exec", "--", "true"], "settings"),
        (["exec", "--", "true"], "launch"),
    ],
)
def test_a_mistake_of_natsups_own(
    environ: dict[str, str], broken: Path, words: list[str], module: str
) -> None:
    broken.write_text(_BREAK.format(name=f"natsup.supervisor.{module}"))
    done = subprocess.run([NATSUP, *words], capture_output=True, text=True, timeout=60, env=environ)
    assert done.stdout == ""
    report = reported(done, environ)
    assert report.startswith("natsup 0.")
    assert f"natsup {' '.join(words[:2])} ...\n" in report
    assert "KeyError: 'a mistake'" in report


@pytest.mark.parametrize("name", ["surroundings.look", "handover.pair"])
def test_a_mistake_before_the_program_runs(
    environ: dict[str, str], broken: Path, natsup_exec: Exec, layout: list[str], name: str
) -> None:
    module, function = name.split(".")
    # launch has taken surroundings' by name
    module = "launch" if module == "surroundings" else module
    broken.write_text(_BREAK_LATE.format(process="bin/natsup", module=module, name=function))
    done = natsup_exec(*layout, "--", "echo", "here")
    assert done.stdout == ""
    assert "KeyError: 'a mistake'" in reported(done, environ)


def test_a_mistake_under_the_filter(
    environ: dict[str, str], broken: Path, natsup_exec: Exec, layout: list[str]
) -> None:
    """Where close() is trapped nothing can be written: nobody answers."""
    broken.write_text(_BREAK_LATE.format(process="bin/natsup", module="handover", name="send"))
    done = natsup_exec(*layout, "--", "echo", "here")
    assert done.stdout == ""
    if "seccomp" in layout:
        assert done.returncode == 70
        assert done.stderr.startswith("natsup: an error inside natsup, KeyError('a mistake');")
        assert done.stderr.count("\n") == 1
    else:
        assert "in fail\n" in reported(done, environ)


@pytest.mark.parametrize("words", [[], ["--as-parent"]])
def test_a_mistake_in_the_supervisor(
    environ: dict[str, str], broken: Path, tmp_path: Path, words: list[str]
) -> None:
    """The program notices nothing, and another supervisor follows."""
    once = f"not __import__('os').path.exists({str(tmp_path / 'once')!r})"
    broken.write_text(
        _BREAK.format(name="natsup.supervisor.serving")
        .replace("if name ==", f"if {once} and name ==")
        .replace("raise", f"open({str(tmp_path / 'once')!r}, 'w').close(); raise")
    )
    folder = Path(environ["NATSUP_STATE_DIR"]) / "crashes"
    command = ["unshare", "--net", NATSUP, "exec", *words, "--", "sh", "-c", "read x; echo here"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=environ) as process:
        deadline = time.monotonic() + 30
        while not any("'a mistake'" in path.read_text() for path in folder.glob("*.txt")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert process.communicate(b"\n", timeout=30) == (b"here\n", b"")
    assert process.returncode == 0


def test_a_report_that_cannot_be_written(environ: dict[str, str], broken: Path) -> None:
    broken.write_text(_BREAK.format(name="natsup.supervisor.past"))
    environ["NATSUP_STATE_DIR"] = "/proc/no/such"
    done = subprocess.run([NATSUP, "log"], capture_output=True, text=True, env=environ)
    assert done.returncode == 70
    assert done.stderr == (
        "natsup: an error inside natsup (KeyError); no report of it can be written: No such file or"
        " directory; natsup doctor may tell more\n"
    )


def test_old_reports_go(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NATSUP_STATE_DIR", environ["NATSUP_STATE_DIR"])
    folder = Path(environ["NATSUP_STATE_DIR"]) / "crashes"
    folder.mkdir(parents=True)
    for number in range(25):
        (folder / f"20000101T0000{number:02}Z-1.txt").touch()
    path = Path(crash.write(KeyError("x")))
    left = sorted(folder.iterdir())
    assert len(left) == 20
    assert left[-1] == path
    assert left[0].name == "20000101T000006Z-1.txt"


def test_a_report_of_a_natsup_that_is_half_gone(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NATSUP_STATE_DIR", environ["NATSUP_STATE_DIR"])
    folder = Path(environ["NATSUP_STATE_DIR"]) / "crashes"
    for number in range(25):
        (folder / f"2000{number}.txt").mkdir(parents=True)
    (folder / "2000").mkdir()

    def fail(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", fail)
    assert Path(crash.write(KeyError("x"))).read_text().startswith("natsup unknown, Python")
    assert (folder / "2000").exists()


def test_a_report_that_fails_otherwise(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(error: BaseException) -> str:
        raise ImportError("no journal")

    monkeypatch.setattr(crash, "write", fail)
    assert crash.end(KeyError("x")) == crash.SOFTWARE
    assert crash.end_quietly(KeyError("x")) == crash.SOFTWARE
    assert "no report of it can be written: ImportError('no journal')" in capfd.readouterr().err


def test_interrupted(environ: dict[str, str], broken: Path) -> None:
    broken.write_text(_INTERRUPT)
    done = subprocess.run([NATSUP, "log"], capture_output=True, text=True, env=environ, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


_INTERRUPTED_IMPORT = """
import os, signal, sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
"""
_INTERRUPTED_CALL = """
import os, signal
from natsup.supervisor import {module} as module
def call(*words, **more):
    os.kill(0, signal.SIGINT)
    raise KeyError("a mistake")
module.{name} = call
"""


@pytest.mark.parametrize("layout", [[], ["--as-parent"]], ids=["in place", "as parent"])
@pytest.mark.parametrize(
    "interrupt",
    [
        pytest.param(_INTERRUPTED_IMPORT.format(name="natsup.supervisor.complaints"), id="first"),
        pytest.param(_INTERRUPTED_IMPORT.format(name="natsup.supervisor.launch"), id="imports"),
        pytest.param(_INTERRUPTED_CALL.format(module="filter", name="load"), id="before filter"),
        pytest.param(_INTERRUPTED_CALL.format(module="libc", name="execvp"), id="before exec"),
    ],
)
def test_interrupted_before_the_program_runs(
    environ: dict[str, str], broken: Path, layout: list[str], interrupt: str
) -> None:
    """The terminal tells all there is. A shell's loop ends where a command dies of it."""
    broken.write_text(interrupt)
    command = ["unshare", "--net", NATSUP, "exec", *layout, "--", "true"]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdout=pipe, stderr=pipe, env=environ, process_group=0
    ) as process:
        assert process.communicate(timeout=30) == (b"", b"")
    assert process.returncode == -signal.SIGINT


def test_interrupted_in_a_group() -> None:
    group = BaseExceptionGroup("", [BaseExceptionGroup("", [KeyboardInterrupt()]), ValueError()])
    assert crash.end(group) == 128 + signal.SIGINT


def test_nobody_hears_a_complaint(environ: dict[str, str]) -> None:
    """A closed standard error must not make the standard output of it."""
    for where in ("2>&-", "2>/dev/full"):
        done = subprocess.run(
            ["sh", "-c", f"{NATSUP} stauts {where}"], capture_output=True, text=True, env=environ
        )
        assert (done.returncode, done.stdout, done.stderr) == (125, "", "")
