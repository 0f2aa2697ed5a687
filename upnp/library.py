"""async-upnp-client, as much of it as natsup uses, and without aiohttp.

The library sends by the requester that it is given, and natsup's is its own. It still imports
aiohttp, to name classes of errors that only its other requesters raise. That takes 0.1 s and 10 MB,
more than all the rest of it, while a program waits for its first bind(). So something stands in
for aiohttp while the library is being imported: those names, and nothing else. A version that
wants more of it gets the real one.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType, SimpleNamespace

_LIBRARY, _NOT_NEEDED = "async_upnp_client", "aiohttp"


class _Error(Exception):
    """aiohttp.ClientError"""


class _ResponseError(_Error):
    """aiohttp.ClientResponseError"""


class _ConnectionError(_Error):
    """aiohttp.ClientConnectionError"""


class _TimeoutError(_ConnectionError):
    """aiohttp.ServerTimeoutError"""


@contextmanager
def _stand_in() -> Iterator[None]:
    """Import without aiohttp, unless it is there already."""
    if _NOT_NEEDED in sys.modules:
        yield
        return
    module = ModuleType(_NOT_NEEDED)
    vars(module).update(
        ClientError=_Error,
        ClientResponseError=_ResponseError,
        ClientConnectionError=_ConnectionError,
        ServerTimeoutError=_TimeoutError,
        typedefs=SimpleNamespace(LooseHeaders=object),
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
