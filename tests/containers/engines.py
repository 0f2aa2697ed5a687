"""Three container engines of Debian's, and one way to have each of them run a program.

No image is needed: a container's root is a new folder in which the machine's own /usr, the
interpreter and this project are mounted, read-only.
"""

import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.containers import profiles

PROJECT = Path(__file__).resolve().parent.parent.parent
NAMES = ("runc", "crun", "podman")
_CGROUPS = str(Path(__file__).with_name("cgroups.sh"))
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_USERS = "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/:/bin/sh\n"
_GROUPS = "root:x:0:\napp:x:1000:\n"
_FOLDERS = ("usr", "etc", "tmp", "run", "proc", "sys", "dev", "root", "var/lib", "var/cache")
# Of the processes there; an engine of the tests' own may not give more than it has itself.
_LIMITS = ("nofile=1024:4096", "nproc=4096:4096")
_count = itertools.count()


@dataclass(frozen=True)
class Box:
    """What a container is given. By default: podman's capabilities and profile, the network of who
    starts it, and an ordinary root."""

    capabilities: tuple[str, ...] = profiles.PODMAN_CAPABILITIES
    profile: Mapping[str, Any] | None = None  # None: the engine's, which is podman's
    user: int = 0
    read_only: bool = False
    no_new_privs: bool = False
    network: Path | None = None  # a network namespace
    writable: tuple[Path, ...] = ()  # folders of the machine's
    environ: tuple[str, ...] = ("PATH=" + _PATH,)


class Engine:
    """One of `NAMES`, and the containers that a test has it run. ``within``: a folder with a short
    name, for its files."""

    def __init__(self, name: str, within: Path | None = None) -> None:
        self.name = name
        # Short: conmon, podman's, does not write down the end of a container if it is not (it has
        # sockets there, see unix(7)), and podman then waits for 20 s.
        self.folder = Path(tempfile.mkdtemp(prefix="engine-", dir=within))
        self._cgroup = f"natsup-tests-{os.getpid()}-{next(_count)}"
        self._state = self.folder / "state"
        self.last = ""  # the container that was started last

    def command(self, box: Box, words: Sequence[str]) -> list[str]:
        """What runs ``words`` in a new container, as its PID 1, with standard input and output."""
        self.last = f"c{os.getpid()}-{next(_count)}"
        bundle = self.folder / self.last
        _make_root(bundle / "rootfs")
        profile = dict(profiles.podman() if box.profile is None else box.profile)
        if self.name == "podman":
            return self.cli(*self._podman_words(box, bundle, profile, words))
        (bundle / "config.json").write_text(json.dumps(_config(box, profile, words), indent=1))
        return self.cli("run", "-b", str(bundle), self.last)

    def signal(self, number: int) -> None:
        """Send a signal to the last container's PID 1, as `kill` does."""
        signal = [str(number)]
        words = ["--signal", *signal, self.last] if self.name == "podman" else [self.last, *signal]
        self.ask("kill", *words)

    def execute(self, *words: str) -> str:
        """Run something else in the last container; what it prints."""
        return self.ask("exec", self.last, *words)

    def close(self) -> None:
        """Remove everything, with the containers that the test has left behind."""
        for bundle in self.folder.glob("c[0-9]*-*"):
            words = ["rm", "--ignore", "--time=0"] if self.name == "podman" else ["delete"]
            run = self.cli(*words, "--force", bundle.name)
            subprocess.run(run, capture_output=True, timeout=60)
        subprocess.run(["sh", _CGROUPS, self._cgroup], check=True, timeout=60)
        shutil.rmtree(self.folder)

    def ask(self, *words: str) -> str:
        """Have the engine itself do something; what it prints."""
        run = self.cli(*words)
        done = subprocess.run(run, check=True, timeout=60, capture_output=True, text=True)
        return done.stdout

    def cli(self, *words: str) -> list[str]:
        """A command line of the engine's own."""
        engine = [self.name, "--root", str(self._state)]
        if self.name == "podman":
            engine = podman(self.folder)
        return ["sh", _CGROUPS, self._cgroup, *engine, *words]

    def _podman_words(
        self, box: Box, bundle: Path, profile: Mapping[str, Any], words: Sequence[str]
    ) -> list[str]:
        found = ["run", "--rm", "--interactive", "--name", self.last, "--cap-drop=all"]
        found += [f"--cap-add={capability}" for capability in box.capabilities]
        if box.profile is not None:
            (bundle / "profile.json").write_text(json.dumps(profile))
            found.append(f"--security-opt=seccomp={bundle / 'profile.json'}")
        if box.no_new_privs:
            found.append("--security-opt=no-new-privileges")
        network = "host" if box.network is None else f"ns:{box.network}"
        found += [f"--user={box.user}:{box.user}", f"--network={network}", "--tmpfs=/tmp"]
        found += [f"--env={entry}" for entry in box.environ]
        for folder in _shown():
            found.append(f"--volume={folder}:{folder}:ro")
        for folder in box.writable:
            found.append(f"--volume={folder}:{folder}")
        if box.read_only:
            found += ["--read-only", "--read-only-tmpfs=false"]
        return [*found, *engine_limits(), "--rootfs", str(bundle / "rootfs"), *words]


def engine_limits() -> list[str]:
    """What `podman run` needs where the tests' root may not do everything."""
    return ["--cgroups=disabled", *(f"--ulimit={limit}" for limit in _LIMITS)]


def podman(folder: Path) -> list[str]:
    """podman(1), with everything that it keeps below a folder."""
    store = folder / "podman"
    if not store.exists():
        store.mkdir(parents=True)
        driver = "overlay" if _can_overlay(store) else "vfs"
        roots = f'runroot = "{store}/run"\ngraphroot = "{store}/store"\n'
        (store / "storage.conf").write_text(f'[storage]\ndriver = "{driver}"\n{roots}')
        (store / "containers.conf").write_text(
            '[containers]\nlog_driver = "k8s-file"\n[engine]\ncgroup_manager = "cgroupfs"\n'
            f'events_logger = "file"\nruntime = "crun"\ntmp_dir = "{store}/tmp"\n'
            'lock_type = "file"\n'
        )
    kept = {
        "PATH": _PATH,
        "CONTAINERS_STORAGE_CONF": f"{store}/storage.conf",
        "CONTAINERS_CONF": f"{store}/containers.conf",
        "HOME": str(store),
        "XDG_RUNTIME_DIR": str(store),
        "TMPDIR": str(store),
    }
    return ["env", "-i", *(f"{name}={value}" for name, value in kept.items()), "podman"]


def _can_overlay(folder: Path) -> bool:
    """May layers be laid over each other here? Else they are copied, which takes long."""
    layers = {name: folder / "try" / name for name in ("lowerdir", "upperdir", "workdir")}
    for layer in layers.values():
        layer.mkdir(parents=True)
    options = ",".join(f"{name}={layer}" for name, layer in layers.items())
    mount = ["unshare", "--mount", "mount", "-t", "overlay", "-o", options, "none"]
    tried = subprocess.run([*mount, str(folder / "try")], capture_output=True)
    shutil.rmtree(folder / "try")
    return tried.returncode == 0


def _make_root(root: Path) -> None:
    for folder in _FOLDERS:
        (root / folder).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)  # which runc then gives to what is mounted there
    for name in ("bin", "sbin", "lib", "lib64"):
        if os.path.isdir(f"/{name}"):
            (root / name).symlink_to(f"usr/{name}")
    (root / "etc/passwd").write_text(_USERS)
    (root / "etc/group").write_text(_GROUPS)
    cache = Path("/etc/ld.so.cache")
    (root / "etc/ld.so.cache").write_bytes(cache.read_bytes())


def _shown() -> list[Path]:
    """What of the machine is in every container, to be read."""
    needed = {Path("/usr"), Path(sys.base_prefix), Path(sys.prefix), PROJECT}
    return sorted(f for f in needed if not any(other in f.parents for other in needed))


def _config(box: Box, profile: Mapping[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """A container's config.json, by the OCI's runtime specification."""
    capabilities = [f"CAP_{capability}" for capability in box.capabilities]
    effective = capabilities if box.user == 0 else []
    spaces = [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")]
    if box.network is not None:
        spaces.append({"type": "network", "path": str(box.network)})
    mounts = [
        _mount("proc", "/proc", "proc", "nosuid", "noexec", "nodev"),
        _mount("tmpfs", "/dev", "tmpfs", "nosuid", "strictatime", "mode=755"),
        _mount("devpts", "/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666"),
        _mount("tmpfs", "/dev/shm", "shm", "nosuid", "noexec", "nodev", "mode=1777"),
        _mount("bind", "/sys", "/sys", "rbind", "nosuid", "noexec", "nodev", "ro"),
        _mount("tmpfs", "/tmp", "tmpfs", "nosuid", "nodev", "mode=1777"),
        *(_mount("bind", str(folder), str(folder), "rbind", "ro") for folder in _shown()),
        *(_mount("bind", str(folder), str(folder), "rbind") for folder in box.writable),
    ]
    return {
        "ociVersion": "1.0.2",
        "hostname": "container",
        "root": {"path": "rootfs", "readonly": box.read_only},
        "process": {
            "user": {"uid": box.user, "gid": box.user},
            "args": [*words],
            "env": [*box.environ],
            "cwd": "/",
            "noNewPrivileges": box.no_new_privs,
            "capabilities": {
                "bounding": capabilities,
                "effective": effective,
                "permitted": effective,
            },
        },
        "mounts": mounts,
        "linux": {
            "namespaces": spaces,
            "resources": {},
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"],
            "seccomp": profiles.for_runtime(dict(profile), box.capabilities),
        },
    }


def _mount(kind: str, destination: str, source: str, *options: str) -> dict[str, Any]:
    return {
        "type": kind,
        "destination": destination,
        "source": source,
        "options": list(options),
    }
