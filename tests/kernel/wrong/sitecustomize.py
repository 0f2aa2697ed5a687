"""Supervisors that are wrong on purpose, so that the tests can show that they would notice.

Python imports a module of this name at its start if it finds one (the module site). The tests put
this folder on PYTHONPATH for the natsup that they start, and name a fault in WRONG_SUPERVISOR:
natsup itself has no such switch.
"""

import errno
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any


def keeps_its_copy() -> None:
    """The port stays bound for a second after the program has closed its socket."""
    from natsup.supervisor.publishing import Publisher

    right = Publisher._answer

    def answer(self: Any, call: Any, number: int) -> bool:
        copy = call.sock.dup()
        threading.Timer(1.0, copy.close).start()
        return right(self, call, number)

    Publisher._answer = answer  # type: ignore[method-assign]


def leaves_reuseaddr() -> None:
    """The option that lends the port stays set on the program's socket."""
    from natsup.supervisor import reservation

    right = reservation.Reservation.hand_over

    def hand_over(self: Any, program: Any) -> int:
        result = right(self, program)
        program.setsockopt(*reservation._REUSEADDR, 1)
        return result

    reservation.Reservation.hand_over = hand_over  # type: ignore[method-assign]


def refuses_odd_lengths() -> None:
    """An address must be as long as its struct, though the kernel takes longer ones."""
    from natsup.supervisor.receiver import Receiver

    right = Receiver._consider

    def consider(
        self: Any, notification: int, tid: int, number: int, arch: int, words: Any
    ) -> bool:
        call = self._memory.bind_arguments(tid, number, arch, words)
        if call is not None and call[2] not in (16, 28):
            return bool(self._listener.answer(notification, errno.EINVAL))
        return right(self, notification, tid, number, arch, words)

    Receiver._consider = consider  # type: ignore[method-assign, assignment]


def binds_everything() -> None:
    """All of TCP and UDP is bound on behalf, with natsup's own rights."""
    from natsup.state.model import Port
    from natsup.supervisor import publishing, receiver, verdict

    def judge_socket(address: Any, facts: Any, rules: Any) -> Any:
        protocol = verdict._PROTOCOLS.get((facts.kind, facts.protocol))
        if protocol is None or facts.bound or not address.port:
            return verdict.Pass("cannot be bound on behalf")
        return verdict.Publish(protocol, Port(protocol, address.port))

    vars(receiver)["passes_at_sight"] = lambda raw, rules: False
    vars(receiver)["judge_address"] = lambda address, rules: None
    vars(receiver)["judge_socket"] = judge_socket
    vars(publishing)["publishable"] = lambda port, rules: True


def does_not_wait_killable() -> None:
    """A call that has been received is still interrupted by every signal."""
    from natsup.supervisor import abi

    abi.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV = 0


def answers_late() -> None:
    """The budget of a call is not kept."""
    import trio

    from natsup.supervisor.publishing import Publisher

    right = Publisher._outcome

    async def outcome(self: Any, wish: Any, until: float, *, searched: bool) -> Any:
        await trio.sleep(5)
        return await right(self, wish, until, searched=searched)

    Publisher._outcome = outcome  # type: ignore[method-assign]


def receives_late() -> None:
    """A call lies about before it is received, and may be interrupted meanwhile."""
    from natsup.supervisor.listener import Listener

    right = Listener.receive_into

    def receive_into(self: Any, page: Any) -> bool:
        time.sleep(0.5)
        return right(self, page)

    Listener.receive_into = receive_into  # type: ignore[method-assign]


def loses_the_dead() -> None:
    """That a caller has died is not noticed, and its call is served on."""
    import trio

    from natsup.supervisor.listener import Listener
    from natsup.supervisor.publishing import Publisher

    async def watch_callers(self: Any) -> None:
        await trio.sleep_forever()

    Publisher.watch_callers = watch_callers  # type: ignore[method-assign]
    Listener.valid = lambda self, notification_id: True  # type: ignore[method-assign]


def reads_twice() -> None:
    """The port is published, and the kernel then told to read the address once more."""
    from natsup.supervisor.publishing import Publisher
    from natsup.supervisor.target import cookie

    def bind(self: Any, call: Any, reservation: Any, port: Any, wish: Any) -> None:
        wish.claim(cookie(call.sock))
        reservation.let_go()
        call.sock.close()
        call.answered = True
        self._listener.let_pass(call.notification)

    Publisher._bind = bind  # type: ignore[method-assign]


def does_not_linger() -> None:
    """A port is taken from the router as soon as nobody has it."""
    from natsup.state.ledger import Policy
    from natsup.supervisor import serving

    vars(serving)["Policy"] = lambda lease: Policy(lease=lease, linger=0.0)


def looks_again() -> None:
    """What is bound is the socket that stands under the descriptor's number at the end."""
    from natsup.supervisor import receiver
    from natsup.supervisor.publishing import Publisher

    right, borrow = Publisher._bind, receiver.__dict__["borrow"]
    borrowed: dict[int, tuple[Any, ...]] = {}

    def remember(listener: Any, notification: int, tid: int, fd: int) -> Any:
        borrowed[notification] = listener, notification, tid, fd
        return borrow(*borrowed[notification])

    def bind(self: Any, call: Any, reservation: Any, port: Any, wish: Any) -> None:
        call.sock.close()
        again = borrow(*borrowed[call.notification])
        if again is None:
            self._answer(call, errno.EBADF)
            return
        call.sock = again
        right(self, call, reservation, port, wish)

    vars(receiver)["borrow"] = remember
    Publisher._bind = bind  # type: ignore[method-assign]


def router_takes_its_time() -> None:
    """No supervisor, but a router that needs a while for every answer."""
    import trio

    from natsup.upnp.router.server import Router

    right = Router._act

    async def act(self: Any, action: str, arguments: Any, peer: str) -> Any:
        await trio.sleep(0.3)
        return await right(self, action, arguments, peer)

    Router._act = act  # type: ignore[method-assign]


def ends_again_and_again() -> None:
    """No supervisor but the first lives, and the guard does not try for long."""
    from natsup.supervisor import restarts

    restarts._PAUSES = (0.0, 0.01, 0.02)  # type: ignore[assignment]
    if "after" in sys.orig_argv:
        os._exit(1)


FAULTS: dict[str, Callable[[], None]] = {
    fault.__name__: fault
    for fault in (
        keeps_its_copy,
        leaves_reuseaddr,
        refuses_odd_lengths,
        binds_everything,
        does_not_wait_killable,
        answers_late,
        receives_late,
        loses_the_dead,
        reads_twice,
        does_not_linger,
        looks_again,
        router_takes_its_time,
        ends_again_and_again,
    )
}


def _is_natsup() -> bool:
    """Not the program that natsup runs, which inherits the environment."""
    words = sys.orig_argv[1:4]
    return any(w == "natsup.supervisor.session" or os.path.basename(w) == "natsup" for w in words)


if "WRONG_SUPERVISOR" in os.environ and _is_natsup():
    FAULTS[os.environ["WRONG_SUPERVISOR"]]()
