"""A child that does one thing and ends, while this process waits."""

import os
from _collections_abc import Callable

from natsup.supervisor.bare import signal


def run(function: Callable[[], object]) -> int:
    """Run ``function`` in a child. Returns the child's wait status. Raises OSError.

    No SIGCHLD stays behind: where the caller has it blocked, the program would be started with it
    pending, and take it for news of a child of its own.
    """
    pending = signal.SIGCHLD in signal.sigpending()  # then a second one is not kept (signal(7))
    pid = os.fork()
    if pid == 0:
        try:
            function()
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    if not pending:
        signal.sigtimedwait({signal.SIGCHLD}, 0)
    return status
