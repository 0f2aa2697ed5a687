"""Work that may block, aside in a thread. A bind() must not wait for a disk, or for the kernel."""

import logging
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import trio

log = logging.getLogger("natsup.state")

_Result = TypeVar("_Result")
_Arguments = TypeVarTuple("_Arguments")


async def run(
    function: Callable[[*_Arguments], _Result],
    *arguments: *_Arguments,
    abandon_on_cancel: bool = False,
) -> _Result:
    """What a function returns, or raises. Where no thread can be started (the user has too many
    processes: RLIMIT_NPROC, or a container's limit) it runs here: late is better than never."""
    begun = False

    def begin() -> _Result:
        nonlocal begun
        begun = True
        return function(*arguments)

    try:
        return await trio.to_thread.run_sync(begin, abandon_on_cancel=abandon_on_cancel)
    except RuntimeError as error:  # "can't start new thread"
        if begun:
            raise
        log.debug("what is slow is not done aside: %s", error)
    return function(*arguments)
