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
# A library that wants another name of aiohttp's than those that are given.
ANOTHER_VERSION = """
import sys, types
types.SimpleNamespace = lambda **names: None
import natsup.upnp.library as library
assert "aiohttp" in sys.modules
library.UpnpFactory
"""


@pytest.mark.parametrize("script", [NOT_IMPORTED, STILL_THERE, ANOTHER_VERSION])
def test_without_aiohttp(script: str) -> None:
    subprocess.run([sys.executable, "-c", script], check=True)
