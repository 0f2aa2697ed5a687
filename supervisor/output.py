"""The standard output of commands, which may lead nowhere: `natsup status | head`, a full disk."""

import errno
import io
import os
import sys
from collections.abc import Callable

FAILED = 125


def checked(run: Callable[[], int]) -> int:
    """Run a command that prints, to its end, whether or not what it prints can be written.

    Returns its exit status; `FAILED`, and says why, if something could not be written. A reader who
    has had enough is no failure: what the status says of the command stays true.
    """
    error: OSError | None
    if sys.stdout is None:  # it was closed before natsup was started
        status, error = _run(run), OSError(errno.EBADF, os.strerror(errno.EBADF))
    else:
        sys.stdout.flush()
        raw = _Raw(sys.stdout.fileno(), "wb", closefd=False)
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(raw),
            encoding=sys.stdout.encoding,
            errors=sys.stdout.errors,
            line_buffering=bool(sys.stdout.line_buffering),
        )
        status = _run(run)
        sys.stdout.flush()
        error = raw.error
    if error is None or error.errno == errno.EPIPE or status == FAILED:
        return status
    print(f"natsup: cannot write: {error.strerror}", file=sys.stderr)
    return FAILED


def _run(run: Callable[[], int]) -> int:
    try:
        return run()
    except SystemExit as end:  # argparse's, after its help or a complaint
        return end.code if isinstance(end.code, int) else 0


class _Raw(io.FileIO):
    """Takes everything, and remembers why it could not be written. The command is not to end for
    that: it may have a mapping to remove."""

    error: OSError | None = None

    def write(self, data: "bytes | memoryview") -> int:  # type: ignore[override]
        if self.error is None:
            try:
                return super().write(data)
            except OSError as error:
                self.error = error
        return len(data)
