"""A bell: rung in one thread, heard in another."""

import os


class Bell:
    """``fd`` is readable when it was rung since it was last heard. However often it is rung
    meanwhile, only the first time costs a system call."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._rung = False

    def ring(self) -> None:
        if not self._rung:
            self._rung = True
            os.eventfd_write(self.fd, 1)

    def hear(self) -> None:
        """To be called before looking at what it was rung for: a ring after that comes again."""
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            return
        self._rung = False

    def close(self) -> None:
        os.close(self.fd)
