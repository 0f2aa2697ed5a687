"""async-upnp-client, as much of it as natsup uses, and without aiohttp.

The library sends by the requester that it is given, and natsup's is its own. It still imports
aiohttp, to name classes of errors that only its other requesters raise. That takes 0.1 s and 10 MB,
more than all the rest of it, while a program waits for its first bind(). So something stands in
for aiohttp while the library is being imported: those names, and nothing else. A version that
wants more of it gets the real one, at once or when a function that is called later asks for it.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

_LIBRARY, _NOT_NEEDED = "async_upnp_client", "aiohttp"


class _Error(Exception):
    """aiohttp.ClientError"""


class _ResponseError(_Error):
    """aiohttp.ClientResponseError"""


class _ConnectionError(_Error):
    """aiohttp.ClientConnectionError"""


class _TimeoutError(_ConnectionError):
    """aiohttp.ServerTimeoutError"""


class _StandIn(ModuleType):
    """A module of which there are some names. Once nothing is to be imported with it any more it
    becomes the real one, for those who have it still, as soon as they want another name."""

    def __getattr__(self, name: str) -> Any:
        if isinstance(sys.modules.get(_NOT_NEEDED), _StandIn):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        real = import_module(self.__name__)
        vars(self).update(vars(real))
        return getattr(real, name)


@contextmanager
def _stand_in() -> Iterator[None]:
    """Import without aiohttp, unless it is there already."""
    if _NOT_NEEDED in sys.modules:
        yield
        return
    module, typedefs = _StandIn(_NOT_NEEDED), _StandIn(f"{_NOT_NEEDED}.typedefs")
    vars(typedefs).update(LooseHeaders=object)
    vars(module).update(
        ClientError=_Error,
        ClientResponseError=_ResponseError,
        ClientConnectionError=_ConnectionError,
        ServerTimeoutError=_TimeoutError,
        typedefs=typedefs,
    )
    sys.modules[_NOT_NEEDED] = module
    try:
        yield
    finally:
        del sys.modules[_NOT_NEEDED]


def _forget() -> None:
    """What was imported of the library by half."""
    for name in [name for name in sys.modules if name.partition(".")[0] == _LIBRARY]:
        del sys.modules[name]


try:
    with _stand_in():
        import_module("async_upnp_client.client_factory")  # which imports all that is named below
except (ImportError, AttributeError, TypeError):
    _forget()

from async_upnp_client.client import UpnpAction, UpnpRequester, UpnpService  # noqa: E402
from async_upnp_client.client_factory import UpnpFactory  # noqa: E402
from async_upnp_client.const import HttpRequest, HttpResponse  # noqa: E402
from async_upnp_client.exceptions import UpnpError  # noqa: E402

__all__ = [
    "HttpRequest",
    "HttpResponse",
    "UpnpAction",
    "UpnpError",
    "UpnpFactory",
    "UpnpRequester",
    "UpnpService",
]
