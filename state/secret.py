"""A secret of the state folder's own, for what has to be the same after a restart, and not to be
guessed by others: PCP's nonces."""

import contextlib
import logging
import os
import secrets
from pathlib import Path

from natsup.state.files import open_regular

log = logging.getLogger("natsup.state")
_NAME = "secret"
_BYTES = 32


def secret(folder: Path) -> bytes:
    """The folder's secret, made if there is none. Where it cannot be kept, one for now."""
    path = folder / _NAME
    kept = _read(path)
    if kept is not None:
        return kept
    fresh = secrets.token_bytes(_BYTES)
    temporary = folder / f"{_NAME}.{os.getpid()}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, fresh)
        finally:
            os.close(fd)
        # Of two sessions that start together the first one's counts, whole, for both; but one that
        # was cut off, by a full disk, counts for none.
        try:
            os.link(temporary, path)
        except FileExistsError:
            kept = _read(path)
            if kept is None:
                temporary.replace(path)
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
    except OSError as error:
        log.info("the secret cannot be kept in %s: %s", folder, error.strerror)
    return kept or fresh


def _read(path: Path) -> bytes | None:
    try:
        with open(open_regular(path, os.O_RDONLY), "rb") as file:
            found = file.read(_BYTES)
    except OSError:
        return None
    return found if len(found) == _BYTES else None
