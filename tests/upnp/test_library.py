"""The library without aiohttp. In processes of their own: what is imported, is."""

import subprocess
import sys

import pytest

NOT_IMPORTED = "import sys, natsup.upnp.igd; sys.exit('aiohttp' in sys.modules)"
# Errors of the library are raised as ever, and somebody who needs aiohttp gets it.
STILL_THERE = """
import natsup.upnp.library as library
from async_upnp_client.exceptions import UpnpConnectionTimeoutError, UpnpResponseError
for error in UpnpConnectionTimeoutError("late"), UpnpResponseError(status=500):
    try: raise error
    except library.UpnpError: pass
import aiohttp
aiohttp.ClientSession
"""
# A library that wants another name of aiohttp's than those that are given, while it is imported.
ANOTHER_VERSION = """
import importlib, sys
real = importlib.import_module
def more(name):
    importlib.import_module = real
    sys.modules["aiohttp"].ClientSession
importlib.import_module = more
import natsup.upnp.library as library
assert "aiohttp" in sys.modules
library.UpnpFactory
"""
# One that wants it when it is called.
LATER = """
import sys, natsup.upnp.library
from async_upnp_client import exceptions
assert "aiohttp" not in sys.modules
held = exceptions.aiohttp
held.{}
import aiohttp
assert held.ClientError is aiohttp.ClientError
assert held.typedefs is aiohttp.typedefs
try: held.no_such_name
except AttributeError: pass
"""


@pytest.mark.parametrize(
    "script",
    [
        NOT_IMPORTED,
        STILL_THERE,
        ANOTHER_VERSION,
        LATER.format("ClientSession"),
        LATER.format("typedefs.StrOrURL; held.ClientSession"),
    ],
)
def test_without_aiohttp(script: str) -> None:
    subprocess.run([sys.executable, "-c", script], check=True)
