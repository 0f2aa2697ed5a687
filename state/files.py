"""Files in a state folder, in which somebody else may have put something.

A service's folder belongs to the service's user, and root looks into it. A symbolic link would lead
root to a file of its own; a FIFO would keep it waiting for a writer for ever.
"""

import errno
import os
import stat
from pathlib import Path


def open_regular(path: Path | str, flags: int) -> int:
    """Open a regular file, close-on-exec, 0600 if it is made. Raises OSError, also for anything
    else."""
    safe = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
    fd = os.open(path, flags | safe, 0o600)
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode):
        os.close(fd)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return fd


def check_link(path: Path) -> None:
    """Raises OSError for a symbolic link that another user has made: it may lead anywhere."""
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode) and found.st_uid != os.geteuid():
        raise OSError(errno.ELOOP, f"{path.name} is a symbolic link of uid {found.st_uid}'s")


def check_owner(path: Path) -> None:
    """Raises OSError for what root should not change, because another user could exchange it in
    the middle of that. To all others the kernel says so."""
    owner = path.lstat().st_uid
    if os.geteuid() == 0 and owner:
        raise PermissionError(
            errno.EPERM, f"it is uid {owner}'s; do it as that user (sudo -u '#{owner}')"
        )
