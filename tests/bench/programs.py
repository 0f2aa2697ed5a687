"""What whole programs take under natsup, compared with themselves: none has a port to map."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.bench.measuring import (
    NATSUP,
    Result,
    compared,
    compile_c,
    environ_of,
    interleaved,
    printed,
    show,
)

_FILES = 60
_MAKEFILE = """
program: $(patsubst %.c,%.o,$(wildcard *.c))
\t$(CC) -o $@ $^
%.o: %.c
\t$(CC) -O2 -c -o $@ $<
"""
# Where a hypervisor has vsock but nobody at its other end, its tests wait for ever.
_SOCKET_TESTS = ("-m", "test", "--ignore", "*VSOCK*", "test_socket")


def whole(folder: Path, rounds: int) -> Result:
    """Compiling, CPython's test_socket, and a web server with as many visitors as it can take."""
    environ = environ_of(folder)
    under = [NATSUP, "exec", "--"]
    project = _project(folder / "project")
    make = ["make", "-s", "-j2", "-C", str(project)]

    def compiling(words: list[str]) -> Callable[[], float]:
        def took() -> float:
            for file in (*project.glob("*.o"), project / "program"):
                file.unlink(missing_ok=True)
            return _seconds([*words, *make], environ)

        return took

    suite = [sys.executable, *_SOCKET_TESTS]
    web = [compile_c("web", str(folder)), "1.5", "2"]
    times = {
        "compiling a C project by make -j2": interleaved(
            rounds, {"natsup": compiling(under), "plain": compiling([])}
        ),
        "CPython's test_socket": interleaved(
            max(2, rounds // 4),
            {
                "natsup": lambda: _seconds([*under, *suite], environ),
                "plain": lambda: _seconds(suite, environ),
            },
        ),
        "a connection to a web server": interleaved(
            rounds * 2,
            {
                "natsup": lambda: 1 / printed([*under, *web], environ)[0],
                "plain": lambda: 1 / printed(web, environ)[0],
            },
        ),
    }
    lines = []
    for what, values in times.items():
        scale, unit = (1e6, "us") if "web" in what else (1.0, "s")
        show(what, values, unit, scale)
        lines.append(compared(what, values, "natsup", "plain", unit, scale, most=1.03))
    return Result(lines)


def _project(folder: Path) -> Path:
    """A small one: files that the compiler is busy with for some milliseconds each."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "Makefile").write_text(_MAKEFILE)
    headers = "".join(f"#include <{name}.h>\n" for name in ("stdio", "stdlib", "string", "math"))
    for number in range(_FILES):
        functions = "".join(
            f"int f{number}_{n}(int x) {{ int a[64]; for (int i = 0; i < 64; i++)"
            f" a[i] = x * i + {n}; return a[x & 63]; }}\n"
            for n in range(40)
        )
        (folder / f"part{number}.c").write_text(headers + functions)
    (folder / "main.c").write_text("int main(void) { return 0; }\n")
    return folder


def _seconds(command: Sequence[str], environ: Mapping[str, str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, env=environ, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began
