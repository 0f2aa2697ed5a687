"""Running commands as a user who is nobody in particular, wherever this checkout lies."""

import sys
from pathlib import Path

# A folder that nobody may enter (/root, say) is covered, in a mount namespace of the command's own,
# by an empty one, in which what the command needs is mounted again.
_UNCOVER = """
set -eu
covered=$1; shift
exec 8<"$covered"
mount -t tmpfs -o mode=755 none "$covered"
while [ "$1" != -- ]; do
    if [ -d "/proc/self/fd/8/$1" ]; then
        mkdir -p "$covered/$1"
    else
        mkdir -p "$(dirname "$covered/$1")"
        : > "$covered/$1"
    fi
    mount --no-canonicalize --bind "/proc/self/fd/8/$1" "$covered/$1"
    shift
done
shift
exec 8<&-
exec "$@"
"""
_SETPRIV = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


def as_nobody() -> list[str]:
    """What to put before a command that runs natsup."""
    return [*for_everybody(), *_SETPRIV]


def for_everybody() -> list[str]:
    """What to put before a command that lets another user run natsup."""
    project = Path(__file__).resolve().parent.parent
    needed = {Path(sys.base_prefix), Path(sys.prefix), project}
    covers: dict[Path, set[str]] = {}
    for path in needed:
        closed = next((f for f in [*reversed(path.parents), path] if not _open(f)), None)
        if closed is not None:
            opened = list(path.iterdir()) if closed == path else [path]
            covers.setdefault(closed, set()).update(str(p.relative_to(closed)) for p in opened)
    command = ["unshare", "--mount"] if covers else []
    for closed, names in covers.items():
        command += ["sh", "-c", _UNCOVER, "sh", str(closed), *sorted(names), "--"]
    return command


def _open(folder: Path) -> bool:
    return bool(folder.stat().st_mode & 0o001)
