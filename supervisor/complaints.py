"""One line on the standard error, which may lead nowhere, and the status that goes with it."""

import os
import sys

from natsup.supervisor.bare import suppress

FAILED = 125  # natsup itself failed, or was asked for what cannot be; as env(1) has it
SEE_FOLDER = "natsup explain state-folder tells more"


def complain(message: str, status: int = FAILED) -> int:
    """Say what is wrong, and why, and what to do. Returns the exit status."""
    if sys.stderr is not None:  # or another file may have its number
        line = "".join(char if char.isprintable() else "?" for char in message)
        data = f"natsup: {line}\n".encode(sys.stderr.encoding, "backslashreplace")
        with suppress(OSError):  # nobody hears it; the status says it, too
            os.write(2, data)  # what sys.stderr could not write it would try again at the end
    return status
