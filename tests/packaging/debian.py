"""`just install-test SUITE`: natsup installed on a fresh Debian from the mirrors, in every way.

The tests do the same on a Debian made of the machine's own packages, which takes no network.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from tests.packaging import checks
from tests.packaging.box import Box, box
from tests.packaging.test_installing import OFFLINE, PROJECT, SOURCES

_IMAGES = Path("/var/cache/natsup-tests")
_CERTIFICATES = "/etc/ssl/certs"


def image(suite: str) -> Path:
    """The tar file of a minimal Debian with pipx, made once."""
    path = _IMAGES / f"{suite}.tar"
    if not path.exists():
        _IMAGES.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new.tar")
        command = ["mmdebstrap", "--variant=minbase", "--include=libseccomp2,pipx", suite, str(new)]
        subprocess.run(command, check=True)
        new.rename(path)
    return path


def main(suite: str) -> None:
    bound = {"/source": PROJECT, _CERTIFICATES: Path(_CERTIFICATES)}
    with box(image(suite), bound) as debian:
        shutil.copy("/etc/resolv.conf", debian.root / "etc/resolv.conf")
        prepare(debian)
        checks.by_pipx(debian, OFFLINE)
        print(f"{suite}: pipx: installed, used and removed", flush=True)
        checks.by_uv(debian, OFFLINE)
        print(f"{suite}: uv: installed, used and removed", flush=True)
        checks.by_package(debian, "/packages/natsup_*.deb")
        print(f"{suite}: the package: installed, used, removed and purged", flush=True)


def prepare(debian: Box) -> None:
    """Make natsup's wheel and package there, with the Python that is there."""
    debian.do("python3 -m venv /opt/tools")
    copied = " ".join(SOURCES)
    debian.do(f"mkdir /copy && cd /source && cp -R {copied} /copy")
    debian.do("/opt/tools/bin/pip wheel -q -w /wheels /copy 'setuptools>=77' pip uv wheel")
    debian.do(f"/opt/tools/bin/pip install -q {OFFLINE} uv && ln -s /opt/tools/bin/uv /usr/bin/uv")
    debian.do("export PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels; /source/packaging/deb /packages")


if __name__ == "__main__":
    main(*sys.argv[1:])
