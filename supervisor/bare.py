"""What the launcher needs of modules of the standard library that are slow to import.

`signal` makes enumerations of its numbers, and `contextlib` loads functools and collections: with
what they load, a fifth of the launch.
"""

TYPE_CHECKING = False  # what type checkers take for true; importing typing takes a millisecond
if TYPE_CHECKING:
    import signal
    from contextlib import suppress
    from functools import partial
else:
    import _signal as signal  # its numbers are plain ones
    from _functools import partial

    class suppress:
        """contextlib.suppress."""

        __slots__ = ("_kinds",)

        def __init__(self, *kinds):
            self._kinds = kinds

        def __enter__(self):
            pass

        def __exit__(self, kind, error, trace):
            return kind is not None and issubclass(kind, self._kinds)


__all__ = ["partial", "signal", "suppress"]
