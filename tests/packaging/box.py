"""A small Debian in memory, to install things in, and to throw away."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PATH = "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Box:
    """``root``: its file system. ``bound``: folders of the machine's that it sees, by their place
    in it; nothing else of the machine is there but its network and /sys."""

    def __init__(self, root: Path, bound: dict[str, Path]) -> None:
        self.root = root
        self._bound = bound

    def run(self, script: str, *, user: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a script there, by sh(1); the folder of that user is /home/UID."""
        home = self.root / f"home/{user}"
        home.mkdir(parents=True, exist_ok=True)
        (self.root / "tmp").chmod(0o1777)
        subprocess.run(["chown", str(user), str(home)], check=True)
        command = ["bwrap", "--bind", str(self.root), "/", "--dev", "/dev", "--proc", "/proc"]
        command += ["--ro-bind", "/sys", "/sys", "--unshare-pid", "--die-with-parent"]
        for place, folder in self._bound.items():
            command += ["--ro-bind", str(folder), place]
        command += ["--cap-add", "ALL", "--clearenv", "--chdir", f"/home/{user}"]
        for name, value in (("HOME", f"/home/{user}"), ("PATH", _PATH)):
            command += ["--setenv", name, value]
        ids = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user else []
        command += ["--", *ids, "sh", "-euc", script]
        return subprocess.run(command, capture_output=True, text=True, timeout=300)

    def do(self, script: str, *, user: int = 0) -> str:
        """The same; it has to work. Returns what it writes."""
        done = self.run(script, user=user)
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def files(self) -> set[str]:
        """Every path in it, but for those of a user and of temporary files."""
        own = ("home", "tmp", "proc", "dev", "sys", *(place[1:] for place in self._bound))
        found = set()
        for path in self.root.rglob("*"):
            name = str(path.relative_to(self.root))
            if name.partition("/")[0] not in own:
                found.add(name)
        return found


@contextmanager
def box(archive: Path, bound: dict[str, Path]) -> Iterator[Box]:
    """A box whose root is unpacked from a tar file."""
    with tempfile.TemporaryDirectory(prefix="box-") as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "none", folder], check=True)
        try:
            subprocess.run(
                ["tar", "-C", folder, "-xf", str(archive)], check=True, stderr=subprocess.DEVNULL
            )
            for place in bound:
                (Path(folder) / place[1:]).mkdir(parents=True, exist_ok=True)
            yield Box(Path(folder), bound)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)
