"""What is known of networks that this host was in before: by which protocol the router was asked,
and where; or that there was no router to ask; and under which address the Internet found it.

It saves the first call of a session the search, and lets its history say where the first ports are
found. A network is told by its router's address and MAC; whoever lies about both has the LAN
anyway. Nothing here is relied on: what was known is tried, and a search goes on beside it.
"""

import contextlib
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from natsup.state.files import open_regular

_NAME = "networks.json"
_MOST = 32  # networks
_NONE_FOR = 300.0  # seconds for which "no router here" counts
_LONGEST = 1 << 16


@dataclass(frozen=True, slots=True)
class Known:
    """``location``: of the gateway, which names its protocol as well; None if there was no router.
    ``since``: wall clock, when that was so. ``external``: the router's external address, None if it
    was not told. ``chosen``: wall clock, when its protocol won against the others.
    """

    location: str | None
    since: float
    reason: str = ""  # why there was none
    external: str | None = None
    chosen: float = 0.0


def recall(folder: Path, network: str, *, wall: float) -> Known | None:
    """What is known of a network; None if nothing is, or not any more."""
    known = _load(folder).get(network)
    if known is None:
        return None
    if known.location is None and not known.since <= wall < known.since + _NONE_FOR:
        return None
    return known


def remember(folder: Path, network: str, known: Known) -> None:
    """Note down what was found. Where it cannot be written it is forgotten.

    An external address counts until another one is told.
    """
    everything = _load(folder)
    before = everything.get(network)
    if known.external is None and before is not None:
        known = replace(known, external=before.external)
    everything[network] = known
    newest = sorted(everything.items(), key=lambda item: item[1].since)[-_MOST:]
    text = json.dumps({name: _written(known) for name, known in newest})
    temporary = folder / f"{_NAME}.{os.getpid()}"
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(folder / _NAME)


def _load(folder: Path) -> dict[str, Known]:
    """What stands in the file, as far as it can be read."""
    try:
        with open(open_regular(folder / _NAME, os.O_RDONLY), "rb") as file:
            document = json.loads(file.read(_LONGEST))
        return {str(name): _read(known) for name, known in document.items()}
    except (
        OSError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        OverflowError,
        RecursionError,
    ):
        return {}


def _written(known: Known) -> dict[str, Any]:
    record: dict[str, Any] = {
        "location": known.location,
        "since": known.since,
        "reason": known.reason,
        "chosen": known.chosen,
    }
    return record if known.external is None else {**record, "external": known.external}


def _read(known: Any) -> Known:
    location, external = known["location"], known.get("external")
    return Known(
        None if location is None else str(location),
        float(known["since"]),
        str(known["reason"]),
        None if external is None else str(external),
        float(known.get("chosen", 0.0)),
    )
