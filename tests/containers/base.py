"""An image of a small Debian to build on, made of packages that this machine has installed.

The tests have no registry, and debootstrap(8) takes a minute. What apt-get(8) is asked to install
in it is there already, and it has no sources: nothing is fetched.
"""

import os
import re
import subprocess
from pathlib import Path

_PACKAGES = ("apt", "libseccomp2", "python3", "python3-venv")
_LEFT_OUT = re.compile("/usr/share/(doc|info|lintian|locale|man)/")
_MERGED = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")  # into /usr, by symbolic links
# What packages make when they are installed. pip does not start without certificates.
_MORE = (
    "/etc/group",
    "/etc/passwd",
    "/etc/ssl/certs/ca-certificates.crt",
    "/usr/local/bin",
    "/var/lib/dpkg/status",
)


def write(path: Path) -> None:
    """Write the image's root, as a tar file."""
    command = ["tar", "-P", "-c", "--no-recursion", "--null", "-T", "-", "-f", str(path)]
    subprocess.run(command, input="\0".join(files()).encode(), check=True)


def files() -> list[str]:
    """What belongs into it: absolute paths."""
    listed = _run("dpkg-query", "-L", *_closure()).splitlines()
    found = {path for path in _MERGED if os.path.islink(path)}
    for path in (*listed, *_more()):
        folder, name = os.path.split(path)
        real = os.path.join(os.path.realpath(folder), name)  # /bin is /usr/bin
        if path.startswith("/") and os.path.lexists(real) and not _LEFT_OUT.match(real + "/"):
            found.add(real)
    compiled = {os.path.dirname(path) + "/__pycache__" for path in found if path.endswith(".py")}
    for cache in filter(os.path.isdir, compiled):
        found.update((cache, *(f"{cache}/{name}" for name in os.listdir(cache))))
    return sorted(found - {"/"})


def _more() -> list[str]:
    return [*_MORE, *(str(path) for path in Path("/etc/alternatives").iterdir())]


def _closure() -> list[str]:
    """The packages, those that Debian cannot do without, and all that these depend on."""
    form = "${Package}\t${Essential}\t${Provides}\t${Pre-Depends}, ${Depends}\n"
    needs: dict[str, set[str]] = {}
    provided: dict[str, str] = {}
    wanted = list(_PACKAGES)
    for line in _run("dpkg-query", "-W", "-f", form).splitlines():
        package, essential, provides, depends = line.split("\t")
        needs[package] = set(_names(depends))
        provided.update(dict.fromkeys(_names(provides), package))
        if essential == "yes":
            wanted.append(package)
    found: set[str] = set()
    while wanted:
        name = wanted.pop()
        package = name if name in needs else provided.get(name, "")
        if package and package not in found:  # what is not installed is an alternative
            found.add(package)
            wanted += needs[package]
    return sorted(found)


def _names(relations: str) -> list[str]:
    """The packages that a field like Depends names: deb-control(5)."""
    return re.findall(r"(?:^|[,|])\s*([a-z0-9][a-z0-9+.-]*)", relations)


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
