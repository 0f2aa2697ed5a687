"""The listener: receiving notifications and answering them. seccomp_unotify(2).

Some facts about a notification's id:

* It names one held call of one thread. It ends when the call is answered, or when its thread dies
  or (before Linux 5.19, or until it has been received) takes a signal. From then on every ioctl
  says ENOENT, which is no error here: nobody waits any more. A second answer, before the thread has
  taken the first, gets EINPROGRESS: two may hold the listener, and one of them was quicker.
* While an id is valid its thread exists, so that a thread id, reusable in itself, can be trusted
  if the id was valid *after* it was used to look the thread up.
* A call that has not been received yet is interrupted by any signal whose handler lacks
  SA_RESTART, and the program sees an EINTR that bind() never gives. Hence a thread that only
  receives: it decides what takes microseconds and leaves the rest to others.
"""

import ctypes
import errno
import fcntl
import select
from _collections_abc import Callable

from natsup.supervisor import abi, libc
from natsup.supervisor.page import Page

_MOST_DESCRIPTOR = 0x7FFFFFFF
_PASS = abi.SECCOMP_USER_NOTIF_FLAG_CONTINUE


class Listener:
    """The file descriptor that seccomp(2) returned, held by supervisor and guard alike."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._receiving: tuple[Page, Callable[[], int]] | None = None

    def wake_in_step(self) -> bool:
        """Ask for synchronous wake-ups (Linux 6.6), which halve a round trip. False: no such."""
        try:
            fcntl.ioctl(self.fd, abi.NOTIF_SET_FLAGS, abi.SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)
        except OSError:
            return False
        return True

    def let_pass(self, notification_id: int) -> bool:
        """Let the kernel carry the call out. False: the caller does not wait any more."""
        return self._send(abi.RESPONSE.pack(notification_id, 0, 0, _PASS))

    def passer(self) -> Callable[[int], bool]:
        """`let_pass` for one thread alone, and quicker: the response is written where it was."""
        memory = ctypes.create_string_buffer(abi.RESPONSE.pack(0, 0, 0, _PASS), abi.RESPONSE.size)
        whose = memoryview(memory).cast("B")[: abi.NOTIFICATION_ID.size].cast("Q")
        send = libc.ioctl(self.fd, abi.NOTIF_SEND, ctypes.addressof(memory))

        def let_pass(notification_id: int) -> bool:
            whose[0] = notification_id
            return send() != -1 or _nobody_waits(libc.error())

        return let_pass

    def answer(self, notification_id: int, number: int) -> bool:
        """End the call with an errno, or 0 for success. False: the caller does not wait."""
        return self._send(abi.RESPONSE.pack(notification_id, 0, -number, 0))

    def _send(self, response: bytes) -> bool:
        try:
            fcntl.ioctl(self.fd, abi.NOTIF_SEND, response)
        except OSError as error:
            return _nobody_waits(error)
        return True

    def valid(self, notification_id: int) -> bool:
        """Does the caller still wait?"""
        try:
            fcntl.ioctl(self.fd, abi.NOTIF_ID_VALID, abi.NOTIFICATION_ID.pack(notification_id))
        except OSError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
        return True

    def abandoned(self) -> bool:
        """Has the last task that uses the filter gone? Then no call can come any more."""
        poll = select.poll()
        poll.register(self.fd, 0)
        return any(event & select.POLLHUP for _, event in poll.poll(0))

    def end(self) -> int:
        """A descriptor that is readable once the last task has gone, and not for calls."""
        epoll = select.epoll()
        epoll.register(self.fd, 0)  # EPOLLHUP is always reported
        return _detached(epoll)

    def receive_into(self, page: Page) -> bool:
        """Wait for a call and have the kernel write it into the page. False: there will be none.

        Blocks without the interpreter's lock.
        """
        while not self._receive(page):
            if self.abandoned():
                return False
        return True

    def pass_next(self, page: Page) -> None:
        """Let the call pass that poll(2) has announced; nothing if its caller has gone since.

        Never waits for another: an older kernel does not end that wait with the last caller.
        """
        if self._receive(page):
            self.pass_last(page)

    def pass_last(self, page: Page) -> None:
        """Let the call pass that was received last, if nobody has answered it."""
        notification = page.received()
        if not (notification[0] and self.valid(notification[0])):
            return
        if is_probe(notification):
            self.answer(notification[0], errno.ENOTUNIQ)
            return
        number, arch, descriptor = notification[3], notification[4], notification[6] & 0xFFFFFFFF
        # What has its descriptor elsewhere, or none, is nothing to look at later.
        elsewhere = arch == abi.AUDIT_ARCH_I386 and number == abi.SOCKETCALL_I386
        other = notification[3:5] in abi.CLOSE or number in abi.NOTICED
        if not (other or elsewhere or descriptor > _MOST_DESCRIPTOR):
            page.leave_unjudged(notification[0], notification[1], descriptor)
        self.let_pass(notification[0])

    def _receive(self, page: Page) -> bool:
        if self._receiving is None or self._receiving[0] is not page:
            self._receiving = page, libc.ioctl(self.fd, abi.NOTIF_RECV, page.address)
        page.clear_received()
        if self._receiving[1]() != -1:
            return True
        error = libc.error()
        if error.errno in (errno.ENOENT, errno.EINTR):
            return False
        raise error


def _nobody_waits(error: OSError) -> bool:
    """False, if that is what an answer that could not be sent failed of; else raises it."""
    if error.errno in (errno.ENOENT, errno.EINPROGRESS):
        return False
    raise error


def is_probe(notification: tuple[int, ...]) -> bool:
    """Does somebody ask whether natsup is here (see `abi.PROBE_LENGTH`)? Pure."""
    descriptor, _, length = notification[6:9]
    return (
        descriptor & 0xFFFFFFFF == abi.PROBE_DESCRIPTOR & 0xFFFFFFFF
        and length & 0xFFFFFFFF == abi.PROBE_LENGTH
    )


def _detached(epoll: select.epoll) -> int:
    """The descriptor of an epoll object, which would close it when collected."""
    fd = fcntl.fcntl(epoll.fileno(), fcntl.F_DUPFD_CLOEXEC, 3)
    epoll.close()
    return fd
