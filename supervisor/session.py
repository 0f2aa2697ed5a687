"""The supervisor's process.

    python -m natsup.supervisor.session HOW LISTENER PAGE CONTROL CHILD [JOURNAL...]

Started by the guard (in place) or in the launcher's child (as parent), with three descriptors and,
as parent, the pid of the program, which then is this process's child; else CHILD is ``-``. HOW is
``first``, or ``after`` another supervisor that has ended and left its journal, or ``again``: the
same process, which has begun anew by its own wish.

Calls are received from the first moment; the libraries that act on them take half a second to
import, and meanwhile whatever natsup does not act on has been answered.
"""

import contextlib
import os
import resource
import socket
import sys
from collections.abc import Callable
from typing import NoReturn

from natsup.state import points
from natsup.supervisor import handover, libc, netlink, sandbox, unanswered
from natsup.supervisor import log as logs
from natsup.supervisor.bell import Bell
from natsup.supervisor.clients import Clients
from natsup.supervisor.guard import AGAIN, FIRST, carried
from natsup.supervisor.listener import Listener
from natsup.supervisor.mirror import Mirror
from natsup.supervisor.options import Settings, parse
from natsup.supervisor.page import VERSION, Page
from natsup.supervisor.ports import Ports
from natsup.supervisor.receiver import Receiver
from natsup.supervisor.surroundings import LIMITS, Surroundings
from natsup.supervisor.verdict import FIRST_UNPRIVILEGED, Rules

# How long one Python thread may keep another waiting: the receiver is the one that must not wait.
_SWITCH_SECONDS = 0.0005

# How long the guard may take to hand the calls over. As parent it may be stopped, by Ctrl-Z say.
_GUARD_SECONDS = 1.0


def rules_of(settings: Settings) -> Rules:
    """The rules that the user's options make."""
    rules = Rules(
        ports=Ports(settings["ports"]),
        denied=Ports([*settings["deny"], *settings["never"]]),
        ephemeral=settings["ephemeral"],
        may_own=settings["own_address"],
        pinholes=not settings["no_pinholes"],
        first_unprivileged=_first_unprivileged(),
    )
    if rules.may_own:
        rules.own_addresses = _facing(settings)
    return rules


def _facing(settings: Settings) -> frozenset[bytes]:
    """This host's address on the way to its router, as the kernel would choose it.

    The search for the router has the last word; it takes longer than many a program takes to its
    first bind, which would pass unpublished for good.
    """
    host = "192.0.2.1"  # RFC 5737, TEST-NET-1: by the default route
    with contextlib.suppress(OSError, ValueError), socket.socket(type=socket.SOCK_DGRAM) as probe:
        if settings["gateway"] is not None:
            from natsup.upnp import trust

            host = trust.read(settings["gateway"]).host
        if settings["interface"] is not None:
            device = settings["interface"].encode()
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)
        probe.connect((host, 9))  # of UDP: nothing is sent
        return frozenset({socket.inet_aton(probe.getsockname()[0])})
    return frozenset()


def _survives(function: Callable[[int], object]) -> bool:
    """May a process do this to the program and live? Tried by a child, on this one."""

    def attempt() -> int:
        with contextlib.suppress(OSError):  # to be refused is no harm
            function(os.getppid())
        return 0

    return sandbox.attempt(attempt) != sandbox.KILLED


def _borrow(pid: int) -> None:
    libc.pidfd_getfd(os.pidfd_open(pid), 0)


def _read(pid: int) -> None:
    libc.Reader(1).read(pid, 0, 1)


def _first_unprivileged() -> int:
    """The first port that everybody may bind in this network namespace: ip(7)."""
    try:
        with open("/proc/sys/net/ipv4/ip_unprivileged_port_start") as file:
            return int(file.read())
    except (OSError, ValueError):
        return FIRST_UNPRIVILEGED


def _take_calls(control: handover.End) -> bool:
    """From the guard, which lets them pass until it hears this. True: it wants the session to end.

    If it has gone meanwhile, there is nobody else to take them, or to clean up. The time limit also
    makes up for what this process may have done before it began anew: that its end of the stream
    is non-blocking stays across exec.
    """
    finish = False
    control.settimeout(_GUARD_SECONDS)
    with contextlib.suppress(OSError):
        handover.send(control, handover.TAKING)
        while (word := handover.receive(control)[0]) not in (handover.RECEIVED, b""):
            finish = finish or word == handover.FINISH
    return finish


def _end_at_once(
    command: list[str],
    settings: Settings,
    surroundings: Surroundings,
    control: handover.End,
    mirror: Mirror | None,
) -> NoReturn:
    """The program has ended before anything was done for it: there is nothing to undo."""
    if mirror is not None:
        with contextlib.suppress(ChildProcessError):  # the mirror has taken it
            os.waitid(os.P_PID, mirror.child, os.WEXITED | os.WNOWAIT)
        mirror.collect(everybody=True)
    from natsup.supervisor import beginning

    beginning.open_log(settings, surroundings, beginning.new_name())
    beginning.tell(command, surroundings.pid if mirror is None else mirror.child, first=True)
    with contextlib.suppress(OSError):  # as parent, the guard ends with the program
        handover.send(control, handover.DONE)
    os._exit(0)


def main(arguments: list[str]) -> None:
    """Supervise until nobody uses the filter any more."""
    for limit in LIMITS:  # a core of its own nobody asked for
        _, hard = resource.getrlimit(limit)
        with contextlib.suppress(OSError, ValueError):  # more descriptors than fs.nr_open allows
            resource.setrlimit(limit, (hard, hard))
    sys.setswitchinterval(_SWITCH_SECONDS)
    with contextlib.suppress(OSError), open("/proc/self/comm", "w") as file:
        file.write("natsup")
    how, *numbers = arguments
    listener = Listener(int(numbers[0]))
    page = Page(int(numbers[1]))
    control = handover.End(fileno=int(numbers[2]))
    child = None if numbers[3] == "-" else int(numbers[3])
    journals = [int(number) for number in numbers[4:]]
    if page.version != VERSION:
        os._exit(70)  # of another natsup, which this one replaced; the guard goes on without one
    for fd in (listener.fd, page.fd, control.fileno(), *journals, *carried(page)):
        os.set_inheritable(fd, False)
    if how == AGAIN:
        unanswered.settle(listener, page)
    if points.STOP_AT and how != FIRST:
        points.reached("takeover")
    mirror = None if child is None else Mirror(child, control)
    if mirror is not None:
        mirror.watch()
    texts = [os.fsdecode(text) for text in page.texts()]
    surroundings, words = Surroundings.split(texts)
    settings, command = parse(words, {}, surroundings.folder)  # the launcher has read the rest
    logs.hold(verbose=settings["verbose"])
    listener.wake_in_step()
    clients = Clients(settings["clients"], settings["servers"])
    closes = Bell() if surroundings.closes else None
    sandboxed = sandbox.filtered()
    borrows, reads, pidfds = (
        not sandboxed or _survives(function) for function in (_borrow, _read, os.pidfd_open)
    )
    netlink.heed()
    rules = rules_of(settings)
    receiver = Receiver(
        listener, page, rules, clients, closes, borrows=borrows, reads=reads, pidfds=pidfds
    )
    finish = False
    if how != FIRST:
        from natsup.supervisor import serving  # the slow part, while the guard lets calls pass

        if points.STOP_AT:
            points.reached("taking")
        finish = _take_calls(control)
        if points.STOP_AT:
            points.reached("taken")
    receiver.left = page.left()
    receiver.start()
    if how == FIRST and listener.abandoned():
        _end_at_once(command, settings, surroundings, control, mirror)

    from natsup.supervisor import serving  # the same, while calls are being received

    status = serving.serve(
        command,
        settings,
        surroundings,
        listener,
        page,
        control,
        receiver,
        mirror,
        journals if how != FIRST else None,
        finish=finish,
    )
    # The receiver may still sit in the kernel, where nothing but this wakes it.
    os._exit(status)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Exception as error:
        from natsup.supervisor import crash

        os._exit(crash.end_quietly(error))
