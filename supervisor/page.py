"""Memory that supervisor and guard share: what one leaves unanswered the other can answer.

    0     the notification that the supervisor receives, written there by the kernel itself (struct
          seccomp_notif)
    80    the one that the guard receives
    252   the version of all this, 4 bytes; it has stood there since the first
    256   the ids of calls that were received and wait for an answer, 8 bytes each, 0: free
    ...   of each such call its thread, its descriptor, how far it has come, the port that it wants
          and when it was noted, 4 bytes each
    ...   what the launcher was told and found: its length in 4 bytes, then texts that end in NUL

A notification's id is all it takes to answer it, from any process that holds the listener, until
the caller dies or is interrupted. So the kernel writes the id here, where it outlives the
supervisor, and not first into the supervisor's own memory: there is no instant at which a call has
been received and only the dead knew of it. How it is to be answered depends on whether natsup has
bound the program's socket for it by then: the kernel binds no socket twice.
"""

import ctypes
import mmap
import os
import time
from _collections_abc import Collection, Sequence

from natsup.supervisor.abi import BIND_NOTIFICATION, NOTIFICATION, NOTIFICATION_ID

VERSION = 4
_GUARDS, _VERSION, _IDS = 80, 252, 256
SLOTS = 1024
GUARDS_SLOTS = 64  # of these, the last ones
_CALLS = _IDS + SLOTS * NOTIFICATION_ID.size
_FIELDS = 5
_TEXTS = _CALLS + SLOTS * _FIELDS * 4
_NOTHING = bytes(NOTIFICATION.size)
_TICKS = os.sysconf("SC_CLK_TCK")

# How far a call has come
HELD = 0  # natsup has done nothing to the program's socket
BINDING = 1  # it is being bound on the program's behalf, or is bound
BINDING_LENT = 2  # the same, with an SO_REUSEADDR that it did not have
LEFT = 3  # it was let pass, and its socket may be bound by now
UNJUDGED = 4  # the same, and no supervisor has seen it


class Unanswered:
    """A call that was received, and that perhaps nobody has answered."""

    __slots__ = ("descriptor", "noted", "notification", "port", "stage", "thread")

    def __init__(
        self, notification: int, thread: int, descriptor: int, stage: int, port: int, noted: int
    ) -> None:
        self.notification = notification
        self.thread = thread
        self.descriptor = descriptor
        self.stage = stage
        self.port = port  # that it wants; 0: another one each time, or not known
        self.noted = noted  # ticks, see `ticks`


def ticks() -> int:
    """Time since the machine was started, in the unit of /proc/PID/stat (proc_pid_stat(5),
    starttime), without the bits that go beyond a signed word."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * _TICKS) & 0x7FFFFFFF


class Page:
    """The shared memory behind ``fd`` (memfd_create(2)), mapped into this process."""

    def __init__(self, fd: int, *, guards: bool = False) -> None:
        """``guards``: for the guard, which receives in another place, and has slots of its own: for
        an instant both may receive."""
        self.fd = fd
        self._map = mmap.mmap(fd, 0)
        view = memoryview(self._map)
        at = _GUARDS if guards else 0
        self._received = view[at : at + NOTIFICATION.size]
        self._ids = view[_IDS:_CALLS].cast("Q")
        self._calls = view[_CALLS:_TEXTS].cast("i")
        first = SLOTS - GUARDS_SLOTS
        self._own = range(first, SLOTS) if guards else range(first)
        self._free: list[int] = []
        self._find_free()
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._map)) + at

    @classmethod
    def create(cls, texts: Sequence[bytes]) -> "Page":
        """A new page; its descriptor is close-on-exec. Raises OSError.

        It is no larger than it must be: the limit of a file's size holds for it too (ulimit -f).
        """
        assert not any(b"\0" in text for text in texts)
        data = b"".join(text + b"\0" for text in texts)
        fd = os.memfd_create("natsup-session", os.MFD_CLOEXEC)
        try:
            os.ftruncate(fd, _TEXTS + 4 + len(data))
        except OSError:
            os.close(fd)
            raise
        page = cls(fd)
        page._map[_VERSION:_IDS] = VERSION.to_bytes(4, "little")
        page._map[_TEXTS : _TEXTS + 4] = len(data).to_bytes(4, "little")
        page._map[_TEXTS + 4 : _TEXTS + 4 + len(data)] = data
        return page

    @property
    def version(self) -> int:
        """What the launcher took it for; another one's cannot be read."""
        return int.from_bytes(self._map[_VERSION:_IDS], "little")

    def texts(self) -> list[bytes]:
        """What `create` was given."""
        length = int.from_bytes(self._map[_TEXTS : _TEXTS + 4], "little")
        return self._map[_TEXTS + 4 : _TEXTS + 4 + length].split(b"\0")[:-1]

    # The supervisor's side.

    def clear_received(self) -> None:
        """The kernel refuses to receive into a struct that is not zeroed (EINVAL)."""
        self._received[:] = _NOTHING

    def received(self) -> tuple[int, ...]:
        """The notification, unpacked by `NOTIFICATION`."""
        return NOTIFICATION.unpack_from(self._received)

    def received_bind(self) -> tuple[int, ...]:
        """Of the notification what counts of a bind(), unpacked by `BIND_NOTIFICATION`."""
        return BIND_NOTIFICATION.unpack_from(self._received)

    def keep(self, notification_id: int, thread: int, descriptor: int, port: int = 0) -> int | None:
        """Note a call that will be answered later. Returns its slot; None if all are taken."""
        if not self._free:
            return None
        slot = self._free.pop()
        for at, value in enumerate((thread, descriptor, HELD, port, ticks()), _FIELDS * slot):
            self._calls[at] = value
        self._ids[slot] = notification_id  # last: what has no id is not looked at
        return slot

    def stage(self, slot: int, stage: int) -> None:
        """The call in ``slot`` has come so far."""
        self._calls[_FIELDS * slot + 2] = stage

    def drop(self, slot: int) -> None:
        """What became of the call in ``slot`` is known."""
        self._ids[slot] = 0
        if slot in self._own:
            self._free.append(slot)

    # The side of whoever comes after a supervisor: the guard, or another supervisor.

    def last(self) -> int:
        """The id that was received last, 0 if there is none; it may have been answered."""
        return int(NOTIFICATION_ID.unpack_from(self._received)[0])

    def unanswered(self) -> list[Unanswered]:
        """The calls in slots. Some may have been answered, which does no harm."""
        ids = enumerate(self._ids)
        return [
            Unanswered(found, *self._calls[_FIELDS * n : _FIELDS * (n + 1)])
            for n, found in ids
            if found
        ]

    def leave(self) -> None:
        """All that are in slots have been answered; they stay for the next supervisor to see."""
        for slot, number in enumerate(self._ids):
            if number and self._calls[_FIELDS * slot + 2] < LEFT:
                self._calls[_FIELDS * slot + 2] = LEFT
        self._find_free()

    def leave_unjudged(self, notification_id: int, thread: int, descriptor: int) -> None:
        """A call was let pass that no supervisor has seen. Without a free slot it is forgotten."""
        slot = self.keep(notification_id, thread, descriptor)
        if slot is not None:
            self.stage(slot, UNJUDGED)

    def left(self) -> list[Unanswered]:
        """The calls that were left."""
        self._find_free()
        return [call for call in self.unanswered() if call.stage >= LEFT]

    def seen_to(self, calls: Collection[Unanswered]) -> None:
        """What became of these calls that were left is known, and written down."""
        numbers = {call.notification for call in calls}
        for slot, number in enumerate(self._ids):
            if number in numbers and self._calls[_FIELDS * slot + 2] >= LEFT:
                self.drop(slot)

    def _find_free(self) -> None:
        """Which slots are free: another process has taken some, or freed them."""
        self._free = [slot for slot in reversed(self._own) if self._ids[slot] == 0]
