"""Debian's Transmission."""

import json
from pathlib import Path

from tests.programs import torrent


def command(folder: Path, **settings: object) -> list[str]:
    """Its command line, with a torrent and settings of the test's."""
    torrent.write(folder / "torrents" / "nowhere.torrent")  # it loads what it finds here
    given = {
        "download-dir": str(folder),
        "lpd-enabled": False,
        "port-forwarding-enabled": False,
        "rpc-bind-address": "127.0.0.1",
        **settings,
    }
    (folder / "settings.json").write_text(json.dumps(given))
    return ["transmission-daemon", "--foreground", "--config-dir", str(folder)]
