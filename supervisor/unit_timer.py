"""The timer that has `natsup clean` run: at the start of the service manager, and hourly. Pure.

A session cleans up at its end, a systemd service also when all of it has been killed, and the next
session sweeps what a dead one left. This is for what is left where no session follows.
"""

from natsup.supervisor.unit_file import quoted

SERVICE, TIMER = "natsup-clean.service", "natsup-clean.timer"


def units(natsup: str) -> dict[str, str]:
    """The texts by the files' names. ``natsup``: the command, absolute."""
    return {
        SERVICE: (
            "[Unit]\n"
            "Description=Remove from the router what dead sessions of natsup left\n"
            "After=network-online.target\n"
            "[Service]\n"
            "Type=oneshot\n"
            f"ExecStart={quoted(natsup, expands=False)} clean\n"
        ),
        TIMER: (
            "[Unit]\n"
            "Description=Hourly: remove from the router what dead sessions of natsup left\n"
            "[Timer]\n"
            "OnStartupSec=1min\n"
            "OnUnitInactiveSec=1h\n"
            "RandomizedDelaySec=1min\n"
            "[Install]\n"
            "WantedBy=timers.target\n"
        ),
    }
