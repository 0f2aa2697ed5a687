"""What a supervisor left unanswered at its end, answered by whoever comes after it.

A call passes, and the kernel carries it out. But if natsup had bound the program's socket for it
by then, the kernel would say EINVAL: bind() has come to pass, and only the word of it is missing.
"""

from natsup.supervisor.listener import Listener
from natsup.supervisor.page import BINDING, BINDING_LENT, LEFT, Page, Unanswered

TYPE_CHECKING = False  # what type checkers take for true; importing typing takes a millisecond
if TYPE_CHECKING:
    import socket


def settle(listener: Listener, page: Page) -> None:
    """Answer every call in the page's slots. The supervisor must have ended: what it had open would
    keep the ports from the program, and it could answer, too."""
    for call in page.unanswered():
        if call.stage in (BINDING, BINDING_LENT) and _was_bound(listener, call):
            listener.answer(call.notification, 0)
        elif call.stage < LEFT:
            listener.let_pass(call.notification)
    page.leave()


def _was_bound(listener: Listener, call: Unanswered) -> bool:
    """Is the socket of a call bound? What was lent to it is taken back."""
    try:
        sock = _borrow(listener, call)
        if sock is None:
            return False
        with sock:
            if call.stage == BINDING_LENT:
                import socket

                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, False)
            return bool(sock.getsockname()[1])
    except Exception:  # a guard goes on, whatever comes
        return False


def _borrow(listener: Listener, call: Unanswered) -> "socket.socket | None":
    # Not in every guard from its beginning: nearly none will need it.
    from natsup.supervisor.target import borrow

    return borrow(listener, call.notification, call.thread, call.descriptor)
