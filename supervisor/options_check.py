"""Do the things exist here that options name? Only the launcher can say so to the user."""

import os
from _collections_abc import Mapping

from natsup.supervisor.options import (
    UNIX,
    BadOption,
    Layer,
    Settings,
    among,
    check_state_folder,
)

_LONGEST_SOCKET = 107  # bytes of a socket's path (unix(7))


def check(
    settings: Settings, environ: Mapping[str, str], decided: Mapping[str, Layer] | None = None
) -> None:
    """Look at all of them: the program's terminal is no place to say so later.
    ``decided``: who gave them. Raises `BadOption`."""
    check_state_folder(environ)
    where = {key: layer[-1].where for key, layer in (decided or {}).items()}
    if settings["log"] is not None:
        try:
            with open(settings["log"], "ab"):
                pass
        except OSError as error:
            raise BadOption(
                f"{where.get('log', '--log')}: {settings['log']} cannot be written:"
                f" {error.strerror}; give a file that this user may write"
            ) from None
    if settings["events"] is not None:
        _check_events(settings["events"], where.get("events", "--events"))
    for name in settings["servers"]:
        same = among(name, settings["clients"])
        if same:
            more = "" if same == name else f", as {same!r}, of which the kernel keeps 15 bytes"
            giver, other = where.get("servers", "--servers"), where.get("clients", "--clients")
            raise BadOption(
                f"{giver}: {name!r} is among {other}, too{more}; give it to one of them"
            )
    name = settings["interface"]
    if name is not None and ("/" in name or not os.path.exists(f"/sys/class/net/{name}")):
        giver = where.get("interface", "--interface")
        raise BadOption(f"{giver}: there is no {name!r} here; ip link lists what there is")


def _check_events(where: "int | str", giver: str) -> None:
    """Raises `BadOption` unless events can be told there; a socket may be made later."""
    try:
        if isinstance(where, int):
            from fcntl import F_GETFL, fcntl

            if fcntl(where, F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
                raise OSError(0, "it is open for reading")
        elif where.startswith(UNIX):
            if len(os.fsencode(where.removeprefix(UNIX))) > _LONGEST_SOCKET:
                raise OSError(0, f"it is longer than {_LONGEST_SOCKET} bytes")
        elif not _is_fifo(where):  # which may have no reader yet
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
            os.close(os.open(where, flags, 0o600))
    except OSError as error:
        what = f"{giver}: {where} cannot be written: {error.strerror}"
        raise BadOption(f"{what}; give a file, unix:PATH or a descriptor") from None


def _is_fifo(path: str) -> bool:
    from stat import S_ISFIFO

    try:
        return S_ISFIFO(os.stat(path).st_mode)
    except OSError:
        return False
