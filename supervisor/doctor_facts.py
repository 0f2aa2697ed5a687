"""What `natsup doctor` finds out, before anything is made of it. Pure."""

from dataclasses import dataclass
from enum import Enum
from errno import errorcode

from natsup.state.model import Outcome, Removal
from natsup.supervisor.firewall_rules import Drop, Packet
from natsup.upnp.description import Device


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of a thing that was tried in a child: an errno, 0 if it worked, or a death."""

    error: int = 0
    killed: bool = False  # as sandboxes do to who calls what they forbid

    @property
    def works(self) -> bool:
        return not self.error and not self.killed

    def __str__(self) -> str:
        if self.killed:
            return "a sandbox kills whoever tries"
        if self.error:
            return f"refused ({errorcode.get(self.error, str(self.error))})"
        return "works"


@dataclass(frozen=True, slots=True)
class Kernel:
    """The kernel, and what it lets this process do for itself."""

    release: str
    machine: str
    libseccomp: str  # its version and the bindings that are used
    libseccomp_error: str  # why it cannot be used; both are "" if seccomp() cannot be called
    inside_natsup: bool  # the supervisor that watches this process is another natsup
    # None: not tried, for want of libseccomp, or of a listener
    listener: Tried | None
    wait_killable: Tried | None
    in_step: Tried | None
    gives_up_privileges: bool  # the kernel wants no_new_privs before a filter
    pidfd_thread: Tried
    netns_cookie: Tried
    endings: Tried
    io_uring_bind: Tried
    io_uring_disabled: int | None  # the sysctl; None: there is none


@dataclass(frozen=True, slots=True)
class Rights:
    """Who we are, and what we may do to a program."""

    uid: int
    no_new_privs: bool  # set already
    may_trace: bool  # CAP_SYS_PTRACE
    yama: int | None  # kernel.yama.ptrace_scope; None: there is none
    ends_everything: bool  # PID 1, or what PID 1 waits for
    as_parent: bool  # the layout in which the following were tried
    read_memory: Tried  # process_vm_readv
    memory_file: Tried  # /proc/PID/mem
    take_socket: Tried  # pidfd_getfd
    see_socket: Tried  # its protocol and inode, by /proc/PID/fd


@dataclass(frozen=True, slots=True)
class Folder:
    """The state folder. ``error``: why nothing can be written there."""

    path: str
    error: str
    io_uring: tuple[str, ...] = ()  # programs of living sessions that use it


@dataclass(frozen=True, slots=True)
class Way:
    """A default route; ``gateway`` is "" where it leads to no router, as in a tunnel."""

    interface: str
    gateway: str


@dataclass(frozen=True, slots=True)
class Network:
    """How this host is connected. ``reason``: why there is no router to ask, else ""."""

    ways: tuple[Way, ...]  # the kernel's choice first
    reason: str
    used: Way | None  # the one that leads to the router
    address: str  # ours, facing the router
    traffic: Way | None  # by which packets for the Internet leave
    traffic_address: str  # and from which address
    container: str = ""  # what made the container that this is, if it is one
    behind_host: bool = False  # is it one that has no network but to its own host?


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of asking by one protocol. ``location``: where the router was found by it, ""
    if it was not, and ``reason`` says why."""

    protocol: str
    location: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """An interface, and who answers there. ``gateway``: who was asked, "" where nobody is known."""

    interface: str
    gateway: str
    address: str  # ours
    used: bool  # it is the one that leads to the router in use
    answers: tuple[Answer, ...]


class Hairpin(Enum):
    """What became of a connection to ourselves by the router's external address."""

    CAME = "came"
    LOST = "lost"  # nothing came
    ASTRAY = "astray"  # somebody else took it, the router itself perhaps


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A port that was to be mapped, and was not, since it is in use here or mapped to this host
    already. ``there``: what the router says of it."""

    port: str
    there: Outcome


@dataclass(frozen=True, slots=True)
class TrialMapping:
    """A mapping that was asked for, looked for and removed again."""

    port: str
    outcome: Outcome
    seconds: float  # that the request took
    seen: Outcome | None  # what the router's table says; None: it was not mapped, or not asked
    removal: Removal | None  # None: there was nothing to remove
    hairpin: Hairpin | None = None  # None: not tried
    instead_of: PassedOver | None = None


@dataclass(frozen=True, slots=True)
class Pinholes:
    """What lets IPv6 in to ``address`` of ours. ``reason``: why nothing does, else ""."""

    address: str
    reason: str
    location: str = ""
    trial: TrialMapping | None = None


@dataclass(frozen=True, slots=True)
class Router:
    """The router. ``reason``: why it cannot be used, else "", and then the rest is known."""

    location: str
    reason: str
    given: bool  # by --gateway
    external: str | None = None
    mapping: TrialMapping | None = None
    pinholes: Pinholes | None = None  # None: there is no IPv6
    device: Device | None = None  # None: it does not say


@dataclass(frozen=True, slots=True)
class Firewall:
    """What this host's firewall makes of a packet. ``manager``: ``"ufw"``, ``"firewalld"``, or "".
    ``reason``: why that is not known, else "", and ``remedy``: what can be done about that."""

    packet: Packet
    manager: str
    reason: str = ""
    remedy: str = ""
    drop: Drop | None = None  # None: it passes


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything. ``router`` is None where there is no network to look for one, and then there are
    no ``firewalls``. ``wanted``: the port that the user asked about, as in ``tcp/6881``, or "".
    ``mistakes``: what is wrong with configuration files and the environment."""

    kernel: Kernel
    rights: Rights
    folder: Folder
    network: Network
    router: Router | None
    asked: tuple[Asked, ...] = ()
    firewalls: tuple[Firewall, ...] = ()  # for IPv4, and for IPv6 where there is any
    wanted: str = ""
    mistakes: tuple[str, ...] = ()
