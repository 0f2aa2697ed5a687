"""Signs that the router is to be looked for anew: it was restarted, or is another one, or is there.

A restart is seen by every host of the LAN at once, and so is answered by all of them: whoever has
no reason to hurry looks at what he had after a while that chance chooses. A change of this host's
own network is nobody else's affair.
"""

import logging
from collections.abc import Callable

import trio

log = logging.getLogger("natsup.session")


class Signs:
    """What has been seen since the last search for the router began.

    ``any``: set by every sign; ``changed``: by those that make a search that is under way one of
    another network, or of yesterday. ``spread``: after how many seconds a host looks, by chance.
    """

    def __init__(self, spread: Callable[[], float]) -> None:
        self.any = trio.Event()
        self.changed = trio.Event()
        self._spread = spread
        self._first = True

    def begin(self) -> bool:
        """A search begins. Is there a reason to hurry?"""
        hurry = self._first or self.changed.is_set()
        self._first = False
        self.any, self.changed = trio.Event(), trio.Event()
        return hurry

    def delay(self, *, hurry: bool) -> float:
        """Seconds until what was mapped is looked for."""
        return 0.0 if hurry else self._spread()

    def restarted(self, reason: str) -> None:
        log.info("%s", reason)
        self.any.set()

    def change(self, reason: str) -> None:
        log.info("%s", reason)
        self.changed.set()
        self.any.set()
