"""A program for tests in a container, with natsup as its entrypoint."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tests.containers.engines import Box, Engine
from tests.lab.lab import Lab
from tests.lab.program import Program
from tests.leftovers import VARIABLE

# A shell that waits for it, twice: natsup is neither PID 1 nor PID 1's child.
BELOW_SHELLS = ("sh", "-c", 'sh -c \'"$@"; exit $?\' sh "$@"; exit $?', "sh")


class Contained(Program):
    """See `Program`. The container's standard error is collected in a file.

    ``keep``: the state folder is the machine's, and outlives the container; else it is where natsup
    puts it by itself.
    """

    def __init__(
        self,
        engine: Engine,
        box: Box,
        lab: Lab,
        folder: Path,
        *words: str,
        keep: bool = True,
        prefix: Sequence[str] = (),
    ) -> None:
        self._said = folder / "stderr"

        def within(command: list[str]) -> list[str]:
            environ = [f"{VARIABLE}={os.environ[VARIABLE]}"]
            writable: tuple[Path, ...] = ()
            if keep:
                state = folder / "state-lan1"
                state.mkdir(exist_ok=True)
                state.chmod(0o777)
                environ.append(f"NATSUP_STATE_DIR={state}")
                writable = (state,)
            given = replace(box, writable=writable, environ=(*box.environ, *environ))
            return engine.command(given, command)

        with self._said.open("ab") as stderr:
            super().__init__(
                lab, folder, *words, prefix=prefix, within=within, stderr=stderr.fileno()
            )

    def log(self) -> str:
        """What the container has printed on its standard error, natsup's log among it."""
        return self._said.read_text()

    def end(self) -> int:
        """Have the program end by itself. The container's exit status."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(30)
