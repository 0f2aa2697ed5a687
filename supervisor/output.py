"""The standard output of commands, which may lead nowhere: `natsup status | head`, a full disk."""

import errno
import io
import os
import signal
import sys
from collections.abc import Callable

from natsup.supervisor.complaints import FAILED, complain


def checked(run: Callable[[], int], *, goes_on: bool = False) -> int:
    """Run a command that prints, to its end, whether or not what it prints can be written.

    Returns its exit status; `FAILED`, and says why, if something could not be written. A reader who
    has had enough is no failure: what the status says of the command stays true. ``goes_on``: the
    command prints for as long as it runs, and ends when nobody reads.
    """
    raw = None
    if sys.stdout is None:  # it was closed before natsup was started
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the end
        error: OSError | None = OSError(errno.EBADF, os.strerror(errno.EBADF))
    else:
        sys.stdout.flush()
        raw = _Raw(sys.stdout.fileno(), "wb", closefd=False)
        raw.raises = goes_on
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(raw),
            encoding=sys.stdout.encoding,
            errors=sys.stdout.errors,
            line_buffering=bool(sys.stdout.line_buffering),
        )
    try:
        status = run()
    except SystemExit as end:  # argparse's, after its help or a complaint
        status = end.code if isinstance(end.code, int) else 0
    except Exception:
        if raw is None or raw.error is None:
            raise
        status = 128 + signal.SIGPIPE
    if raw is not None:
        raw.raises = False
        sys.stdout.flush()
        error = raw.error
    if error is None or error.errno == errno.EPIPE or status == FAILED:
        return status
    return complain(f"cannot write: {error.strerror}")


class _Raw(io.FileIO):
    """Takes everything, and remembers why it could not be written."""

    error: OSError | None = None
    raises = False

    def write(self, data: "bytes | memoryview") -> int:  # type: ignore[override]
        if self.error is None:
            try:
                return super().write(data)
            except OSError as error:
                self.error = error
                if self.raises:
                    raise
        return len(data)
