"""When natsup itself is at fault: a report in the state folder, and one line that says where.

Reports are for who mends natsup. They hold what failed and where, and nothing of the environment.
"""

import contextlib
import os
import platform
import sys
import time
import traceback

from natsup.supervisor.complaints import complain

SOFTWARE = 70  # EX_SOFTWARE (sysexits.h)
INTERRUPTED = 130  # 128 and SIGINT, as shells count
_MOST = 20  # reports that are kept


def end(error: BaseException) -> int:
    """What to say of an error that nobody has caught, and the exit status. Raises `SystemExit` if
    it is one."""
    if isinstance(error, SystemExit):
        raise error
    if holds(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, MemoryError):
        return complain("out of memory; end something that needs much of it, and try again")
    what = f"an error inside natsup ({type(error).__name__})"
    try:
        path = write(error)
    except Exception as problem:  # natsup may be half removed
        reason = getattr(problem, "strerror", None) or repr(problem)
        why = f"no report of it can be written: {reason}"
        return complain(f"{what}; {why}; natsup doctor may tell more", SOFTWARE)
    return complain(f"{what}; please report it, with {path}", SOFTWARE)


def end_quietly(error: BaseException) -> int:
    """The same where the terminal is the program's, if there is one."""
    with contextlib.suppress(Exception):
        write(error)
    return SOFTWARE


def holds(error: BaseException, kind: type[BaseException]) -> bool:
    """Is it of this kind, or a group of some that are?"""
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(kind) is not None
    return isinstance(error, kind)


def write(error: BaseException) -> str:
    """Write a report. Returns its path; raises OSError."""
    from natsup.state.journal import default_directory

    folder = os.path.join(default_directory(os.environ, os.getuid()), "crashes")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    reports = sorted(name for name in os.listdir(folder) if name.endswith(".txt"))
    for old in reports[: -_MOST + 1 or None]:
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(folder, old))
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    path = os.path.join(folder, f"{stamp}-{os.getpid()}.txt")
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    head = f"natsup {_version()}, Python {platform.python_version()}, Linux {os.uname().release}"
    words = " ".join(sys.argv[1:3])  # what the user asked for, and no more
    with open(fd, "w", encoding="utf-8", errors="replace") as file:
        file.write(f"{head}, {os.uname().machine}\nnatsup {words} ...\n\n")
        file.writelines(traceback.format_exception(error))
    return path


def _version() -> str:
    try:
        from importlib.metadata import version

        return version("natsup")
    except Exception:  # its metadata has gone: it is being removed, or replaced
        return "unknown"
