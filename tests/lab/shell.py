"""`just lab`: a shell on a host of the lab."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.lab.lab import LAN1, LAN2, OUTSIDE, ROUTER, WAN, Lab

_WELCOME = f"""\
You are on lan1 ({LAN1}), behind a real router ({ROUTER}, outside {OUTSIDE}).
lan2 is {LAN2}, somebody on the Internet is {WAN}. In another terminal:
  ip netns exec {{wan}} bash -c 'cat < /dev/tcp/{OUTSIDE}/PORT'
  ip netns exec {{lan2}} bash
Leave with exit; nothing stays behind.
"""


def main() -> int:
    if os.geteuid() != 0:
        print(
            "just lab: it makes network namespaces and needs root: sudo just lab", file=sys.stderr
        )
        return 1
    with tempfile.TemporaryDirectory() as folder, Lab(Path(folder)) as lab:
        print(_WELCOME.format(wan=lab.name("wan"), lan2=lab.name("lan2")))
        environ = {**os.environ, "NATSUP_STATE_DIR": f"{folder}/state"}
        environ["PATH"] = f"{Path(sys.executable).parent}:{environ['PATH']}"
        return subprocess.run(lab.on("lan1", ["bash", "-i"]), env=environ).returncode


if __name__ == "__main__":
    sys.exit(main())
