"""What a service's sandbox means for natsup inside it: systemd.exec(5). Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from natsup.supervisor.unit_file import Service

# Beside @system-service, which has neither (systemd 252: `systemd-analyze syscall-filter`), and
# beside what services often forbid that has it (~@privileged, ~@resources, ~@debug): what the
# supervisor cannot do without.
SYSTEM_CALLS = (
    "seccomp",
    "pidfd_getfd",
    "pidfd_open",
    "pidfd_send_signal",
    "process_vm_readv",
    "memfd_create",
    "prlimit64",
    "fchown",
)
# Not AF_INET6: a program that has none of it binds nothing that natsup would need it for.
FAMILIES = ("AF_UNIX", "AF_INET", "AF_NETLINK")
_HOMES = ("/home", "/root", "/run/user")


@dataclass(frozen=True, slots=True)
class Here:
    """What counts where the service is to run."""

    natsup: str  # the command, absolute
    folders: tuple[str, ...]  # what it consists of, resolved: the environment, and its Python
    yama: bool  # may a process look into its descendants alone?
    user: bool  # is it a person's own service manager?
    closed: str = ""  # the first folder of those that only its owner may enter
    hooks: bool = False  # does a configuration file name commands to be run?


def implied(service: Service, name: str) -> str:
    """A setting of the sandbox, which DynamicUser= may have set."""
    told = service.last(name)
    if not service.is_on("DynamicUser"):
        return told
    if name == "ProtectSystem":
        return "strict"
    if name == "ProtectHome":
        return told if told not in ("", "no", "false", "0", "off") else "read-only"
    return "yes" if name == "PrivateTmp" else told


def is_root(service: Service, here: Here) -> bool:
    user = service.last("User")
    return not here.user and not service.is_on("DynamicUser") and user in ("", "root", "0")


def capability(service: Service, name: str) -> bool:
    """Is a capability in the bounding set? An empty line empties it, a "~" fills it."""
    has = True
    for position, line in enumerate(service.lines("CapabilityBoundingSet")):
        names = line.removeprefix("~").upper().split()
        if line.startswith("~"):
            has = line == "~" or (has and name not in names)
        else:
            has = (has and position > 0 and bool(line)) or name in names
    return has


def may_trace(service: Service, here: Here) -> bool:
    """Will the service have CAP_SYS_PTRACE?"""
    name = "CAP_SYS_PTRACE"
    if is_root(service, here):
        return capability(service, name)
    return any(name in line.upper().split() for line in service.all("AmbientCapabilities"))


def no_network(service: Service) -> str:
    """The line by which it has no port that a router could forward; "" if there is none."""
    if service.is_on("PrivateNetwork"):
        return "PrivateNetwork=yes"
    families = service.all("RestrictAddressFamilies")
    names = {name for line in families for name in line.split()}
    if families and not families[0].startswith("~") and not names & {"AF_INET", "AF_INET6"}:
        return f"RestrictAddressFamilies={' '.join(families)}"
    return ""


def obstacles(service: Service, here: Here) -> list[str]:
    """The lines that keep natsup out, each with what to do about it."""
    found = []
    for name in ("RootDirectory", "RootImage"):
        if service.last(name):
            found.append(f"{name}={service.last(name)}: there is no natsup in there")
    if here.closed and not here.user and not is_root(service, here):
        who = f"User={service.last('User')}" if service.last("User") else "DynamicUser=yes"
        found.append(f"{who}: natsup is in {here.closed}, which that user may not enter")
    hidden = list[tuple[str, str]]()
    home = implied(service, "ProtectHome").lower()
    if home in ("1", "yes", "y", "true", "t", "on", "tmpfs"):
        hidden += [(f"ProtectHome={home}", folder) for folder in _HOMES]
    if implied(service, "PrivateTmp") in ("yes", "true", "1", "on", "disconnected"):
        hidden += [("PrivateTmp=yes", folder) for folder in ("/tmp", "/var/tmp")]
    for name in ("InaccessiblePaths", "TemporaryFileSystem"):
        paths = [word.lstrip("-+").partition(":")[0] for word in service.words(name)]
        hidden += [(f"{name}={path}", path) for path in paths]
    for line, folder in hidden:
        inside = [own for own in here.folders if within(own, folder)]
        if inside:
            found.append(f"{line}: natsup is in {inside[0]}; install it elsewhere, in /opt, say")
    return found


def within(path: str, folder: str) -> bool:
    return folder == "/" or path == folder or path.startswith(folder.rstrip("/") + "/")


def additions(service: Service, here: Here) -> list[str]:
    """The lines that let natsup do its work in this sandbox, and say that the service gets that,
    too."""
    found = []
    filters = service.all("SystemCallFilter")
    if filters:
        names = {name.partition(":")[0] for line in filters for name in line.split()}
        # The first line decides whether it is a list of what is allowed or of what is not; a line
        # without "~" is right for both.
        narrow = not filters[0].startswith("~") and "@system-service" not in names
        words = (*(("@system-service",) if narrow else ()), *SYSTEM_CALLS)
        found += _widened("SystemCallFilter", words)
    families = [family for family in FAMILIES if not may_use(service, family)]
    if families:
        found += _widened("RestrictAddressFamilies", families)
    if service.all("NoExecPaths"):
        found += _widened("ExecPaths", here.folders)
    return found


def _widened(name: str, words: Sequence[str]) -> list[str]:
    note = "# natsup needs more than this service may do; the service gets it, too"
    return [note, f"{name}={' '.join(words)}"]


def may_use(service: Service, family: str) -> bool:
    """Does RestrictAddressFamilies= leave it an address family? The first line decides whether the
    list is of what is allowed or of what is not; the other ones add to it or take from it."""
    lines = service.all("RestrictAddressFamilies")
    if not lines:
        return True
    has = lines[0].startswith("~")
    for line in lines:
        if family in line.removeprefix("~").split():
            has = not line.startswith("~")
    return has


def notes(service: Service, here: Here) -> list[str]:
    """What works less well, and by which line."""
    found = []
    if is_root(service, here) and not capability(service, "CAP_SYS_PTRACE"):
        found.append(
            "CapabilityBoundingSet= without CAP_SYS_PTRACE: if the program changes its user, natsup"
            " cannot bind for it, but only ask the router and let the kernel bind"
        )
    if service.all("IPAddressDeny"):
        found.append(
            "IPAddressDeny=: natsup reaches the router only if IPAddressAllow= has its address, and"
            " for the search 239.255.255.250"
        )
    if service.all("SocketBindDeny"):
        found.append("SocketBindDeny=: natsup may bind what the program may, and nothing else")
    return found
