"""One line on the standard error, which may lead nowhere, and the status that goes with it."""

import sys

FAILED = 125  # natsup itself failed, or was asked for what cannot be; as env(1) has it


def complain(message: str, status: int = FAILED) -> int:
    """Say what is wrong, and why, and what to do. Returns the exit status."""
    if sys.stderr is not None:
        line = "".join(char if char.isprintable() else "?" for char in message)
        try:
            sys.stderr.write(f"natsup: {line}\n")
            sys.stderr.flush()
        except OSError:
            pass  # nobody is there to be told; the status says it, too
    return status
