"""Reading the history as it is written: see `natsup.state.history`."""

import contextlib
import os
from pathlib import Path

from natsup.state.history import NAME, Entry, entry_of, opened


class Follower:
    """``there``: is there a history by now?"""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._fds: list[int] = []  # the oldest first; the last one is still written to
        self._rest = b""

    @property
    def there(self) -> bool:
        return bool(self._fds)

    def entries(self) -> list[Entry]:
        """Those that have come since the last time; at first all that there are, the oldest first.
        Raises OSError."""
        if not self._fds:
            self._fds = opened(self._directory)
        found: list[Entry] = []
        while self._fds:
            # Looked at first: what was written by the time that it was renamed is read below.
            over = len(self._fds) > 1 or self._renamed()
            found += self._read()
            if not over:
                break
            found += filter(None, [entry_of(self._rest)])
            self._rest = b""
            os.close(self._fds.pop(0))
            if not self._fds:
                *before, latest = opened(self._directory)
                self._fds = [latest]
                for fd in before:
                    os.close(fd)
        return found

    def _renamed(self) -> bool:
        """Is there another file in the place of the one that is being read?"""
        try:
            now = os.stat(self._directory / NAME)
        except FileNotFoundError:  # the next line makes one
            return False
        return not os.path.samestat(now, os.fstat(self._fds[0]))

    def _read(self) -> list[Entry]:
        data = self._rest
        while more := os.read(self._fds[0], 1 << 20):
            data += more
        *lines, self._rest = data.split(b"\n")
        return [entry for line in lines if (entry := entry_of(line)) is not None]

    def close(self) -> None:
        for fd in self._fds:
            with contextlib.suppress(OSError):
                os.close(fd)
        self._fds.clear()
