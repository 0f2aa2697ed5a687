"""What a guard says in the session's log when no supervisor is left that could.

    python -m natsup.supervisor.last_word JOURNAL TEXT...

JOURNAL is a descriptor of the session's journal, -1 without one; the texts are what the shared page
has. A process of its own, which nobody waits for: the guard has nothing that a log takes, and what
ended all supervisors may end this one as well.
"""

import contextlib
import logging
import os
import sys
from pathlib import Path

from natsup.state.journal import default_directory, replay
from natsup.supervisor import log as logs
from natsup.supervisor.options import parse
from natsup.supervisor.surroundings import Surroundings

_WORD = (
    "natsup has ended again and again, and is not started any more: the program goes on, its binds"
    " pass and are not published, and what is published ends with its lease"
)


def main(arguments: list[str]) -> None:
    """Write one line. Raises what it may: nobody is there to hear it."""
    journal, *texts = arguments
    surroundings, words = Surroundings.split(texts)
    settings, _ = parse(words, os.environ, surroundings.folder)
    session = "?"
    with contextlib.suppress(OSError), open(f"/proc/self/fd/{journal}", "rb") as file:
        record = replay(file)
        session = session if record is None else record.header.session
    folder = Path(surroundings.folder) / default_directory(os.environ, os.getuid())
    logs.set_up(surroundings.log_to, file=settings["log"], folder=folder, session=session)
    logging.getLogger("natsup").propagate = False
    logging.getLogger("natsup.session").error("%s", _WORD)


if __name__ == "__main__":
    main(sys.argv[1:])
