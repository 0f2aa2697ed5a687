"""What `natsup doctor` makes of the facts: what was found, how good that is, what to do. Pure.

A check that could not be made, because another one has failed, is left out.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from errno import EBUSY, EINVAL, ENOSYS
from ipaddress import IPv4Address, IPv4Network

from natsup.state.model import Conflict, Ignored, Mapped, Removal, Unknown
from natsup.supervisor.doctor_facts import (
    Facts,
    Folder,
    Kernel,
    Network,
    Rights,
    Router,
    TrialMapping,
    Tried,
    Way,
)


class Level(StrEnum):
    OK = "ok"
    NOTE = "note"  # as it is: good to know
    WARNING = "warning"  # something works less well than it could
    PROBLEM = "problem"  # natsup cannot do what it is for


@dataclass(frozen=True, slots=True)
class Finding:
    """A line. ``id`` is for programs and never changes; ``advice`` is "" where all is well."""

    id: str
    title: str
    level: Level
    found: str
    advice: str = ""


def works(findings: Sequence[Finding]) -> bool:
    """Does everything that natsup needs work?"""
    return all(finding.level is not Level.PROBLEM for finding in findings)


def findings(facts: Facts) -> list[Finding]:
    """Everything, in the order in which natsup comes to need it."""
    found = [
        _kernel(facts.kernel),
        _libseccomp(facts.kernel),
        *_listener(facts.kernel),
        *_features(facts.kernel),
        _io_uring(facts.kernel),
        _privileges(facts.kernel, facts.rights),
        _yama(facts.rights),
        _layout(facts.rights),
        _memory(facts.rights),
        _descriptors(facts.rights),
        _folder(facts.folder),
        _route(facts.network),
    ]
    if facts.network.used is not None:
        found.append(_traffic(facts.network, facts.network.used))
    if facts.router is not None:
        found.append(_router(facts.router, facts.network))
        if not facts.router.reason:
            found.append(_external(facts.router))
        if facts.router.mapping is not None:
            found.append(_mapping(facts.router.mapping))
    return found


# --- the kernel ---

_OLDEST = (5, 10)
_MACHINES = ("x86_64", "aarch64")
_SANDBOX = (
    "under systemd add '{0}' to SystemCallFilter=, in a container allow it in the seccomp profile"
)


def _kernel(kernel: Kernel) -> Finding:
    found = f"Linux {kernel.release} on {kernel.machine}"
    advice = ""
    numbers = re.match(r"(\d+)\.(\d+)", kernel.release)
    if numbers is not None and (int(numbers[1]), int(numbers[2])) < _OLDEST:
        advice = "natsup is made for Linux 5.10 and newer; the lines below tell what is missing"
    elif kernel.machine not in _MACHINES:
        advice = f"natsup is made for {' and '.join(_MACHINES)}, and not tested on others"
    return Finding("kernel", "Kernel", Level.WARNING if advice else Level.OK, found, advice)


def _libseccomp(kernel: Kernel) -> Finding:
    name = ("libseccomp", "Filter library")
    if not kernel.libseccomp_error:
        return Finding(*name, Level.OK, kernel.libseccomp)
    advice = "install libseccomp2 (Debian, Ubuntu) or libseccomp (Fedora, Arch)"
    return Finding(*name, Level.PROBLEM, kernel.libseccomp_error, advice)


def _listener(kernel: Kernel) -> Iterator[Finding]:
    """The notification itself, and two improvements of it."""
    tried = kernel.listener
    name = ("seccomp-listener", "Trapping bind()")
    if tried is None:
        return
    if tried.works:
        yield Finding(*name, Level.OK, "seccomp user notification works")
    elif kernel.inside_natsup:
        found = "another natsup already supervises this process"
        yield Finding(*name, Level.NOTE, found, "nothing needs doing: the outer one serves all")
    elif tried.error == EBUSY:
        found = "another program already supervises this process; the kernel allows only one"
        yield Finding(*name, Level.PROBLEM, found, "run natsup outside of it, not inside")
    elif tried.error in (EINVAL, ENOSYS):
        found = f"the kernel has no seccomp user notification: {tried}"
        yield Finding(*name, Level.PROBLEM, found, "natsup needs Linux 5.10 or newer")
    else:
        found = f"seccomp(): {tried}"
        yield Finding(*name, Level.PROBLEM, found, _SANDBOX.format("seccomp"))
    if kernel.wait_killable is not None:
        yield _feature(
            ("wait-killable", "Calls that wait"),
            kernel.wait_killable,
            "signals do not interrupt them",
            Level.WARNING,
            "a signal can make a bind() fail with EINTR",
            "use Linux 5.19 or newer",
        )
    if kernel.in_step is not None:
        yield _feature(
            ("sync-wake-up", "Quick wake-ups"),
            kernel.in_step,
            "synchronous wake-ups work",
            Level.NOTE,
            "calls that natsup leaves alone take some microseconds longer",
            "Linux 6.6 and newer are quicker",
        )


def _features(kernel: Kernel) -> Iterator[Finding]:
    yield _feature(
        ("pidfd-thread", "Single threads"),
        kernel.pidfd_thread,
        "pidfds of single threads work",
        Level.NOTE,
        "threads that have descriptors of their own (there are few) are not served",
        "use Linux 6.9 or newer",
    )
    yield _feature(
        ("netns-cookie", "Network namespaces"),
        kernel.netns_cookie,
        "sockets tell theirs",
        Level.NOTE,
        "a socket's is guessed from its thread's",
        "use Linux 5.14 or newer",
    )
    yield _feature(
        ("socket-endings", "Ends of sockets"),
        kernel.endings,
        "the kernel tells when a socket ends (sock_diag)",
        Level.WARNING,
        "ports stay forwarded until the program ends",
        "under systemd add AF_NETLINK to RestrictAddressFamilies=; kernels need CONFIG_INET_DIAG",
    )


def _feature(
    name: tuple[str, str], tried: Tried, good: str, level: Level, bad: str, advice: str
) -> Finding:
    if tried.works:
        return Finding(*name, Level.OK, good)
    return Finding(*name, level, f"{bad}: {tried}", advice)


def _io_uring(kernel: Kernel) -> Finding:
    name = ("io-uring", "io_uring")
    if kernel.io_uring_bind.works:
        return Finding(
            *name,
            Level.NOTE,
            "programs that bind by io_uring, which are few, are not seen",
            "sysctl kernel.io_uring_disabled=2 makes programs do without io_uring",
        )
    if kernel.io_uring_disabled:
        off = f"kernel.io_uring_disabled={kernel.io_uring_disabled}"
        return Finding(*name, Level.OK, f"cannot be used to bind past natsup ({off})")
    return Finding(*name, Level.OK, "cannot be used to bind past natsup")


# --- permissions ---


def _privileges(kernel: Kernel, rights: Rights) -> Finding:
    name = ("privileges", "Privileges")
    who = "root" if rights.uid == 0 else f"user {rights.uid}"
    if rights.no_new_privs:
        found = f"{who}, and no_new_privs is set: nothing here can gain privileges, by sudo or else"
        return Finding(*name, Level.OK, found)
    if kernel.gives_up_privileges:
        return Finding(
            *name,
            Level.NOTE,
            f"{who}: programs below natsup exec cannot gain privileges (no_new_privs)",
            "for programs that need sudo or setuid, run natsup as root",
        )
    if rights.uid == 0 and not rights.may_trace:
        return Finding(
            *name,
            Level.NOTE,
            f"{who}, without CAP_SYS_PTRACE: a program that changes to another user is not served",
            "in a container --cap-add SYS_PTRACE, under systemd see CapabilityBoundingSet=",
        )
    return Finding(*name, Level.OK, who)


def _yama(rights: Rights) -> Finding:
    name = ("yama", "Yama")
    found = f"kernel.yama.ptrace_scope={rights.yama}"
    if rights.yama is None:
        return Finding(*name, Level.OK, "does not restrict anything: it is not there")
    if rights.yama <= 0:
        return Finding(*name, Level.OK, f"{found} restricts nothing")
    if rights.yama >= 3:
        return Finding(
            *name,
            Level.PROBLEM,
            f"{found}: nobody may look into a program",
            "set it to 1 or 0 where it is set at boot (/etc/sysctl.d), and restart the machine",
        )
    if rights.may_trace:
        return Finding(*name, Level.OK, f"{found} does not restrict who has CAP_SYS_PTRACE")
    if rights.yama == 1:
        return Finding(*name, Level.OK, f"{found}: a parent may look into its program, so may we")
    return Finding(
        *name,
        Level.PROBLEM,
        f"{found}: only who has CAP_SYS_PTRACE may look into a program",
        "sysctl kernel.yama.ptrace_scope=1, or run natsup as root",
    )


def _layout(rights: Rights) -> Finding:
    found = "natsup exec becomes the program"
    if rights.as_parent:
        why = "everything here ends with it" if rights.ends_everything else "Yama wants it"
        found = f"natsup exec stays the program's parent: {why}"
    return Finding("layout", "Layout", Level.OK, found)


def _memory(rights: Rights) -> Finding:
    name = ("memory", "Reading addresses")
    call, file = rights.read_memory, rights.memory_file
    if call.works or file.works:
        ways = [("process_vm_readv", call), ("/proc/PID/mem", file)]
        used = " and ".join(way for way, tried in ways if tried.works)
        return Finding(*name, Level.OK, f"a program's memory can be read by {used}")
    return Finding(
        *name,
        Level.PROBLEM,
        f"no port is published: process_vm_readv is {_is(call)}, /proc/PID/mem {_is(file)}",
        _look_in(rights, "process_vm_readv"),
    )


def _descriptors(rights: Rights) -> Finding:
    name = ("descriptors", "Borrowing sockets")
    if rights.take_socket.works:
        return Finding(*name, Level.OK, "a program's sockets can be borrowed (pidfd_getfd)")
    return Finding(
        *name,
        Level.PROBLEM,
        f"no port is published: pidfd_getfd is {_is(rights.take_socket)}",
        _look_in(rights, "pidfd_getfd"),
    )


def _is(tried: Tried) -> str:
    return "forbidden on pain of death" if tried.killed else str(tried)


def _look_in(rights: Rights, call: str) -> str:
    if rights.yama is not None and rights.yama >= 2 and not rights.may_trace:
        return "see Yama above"
    return f"{_SANDBOX.format(call)} (Docker: --cap-add SYS_PTRACE)"


def _folder(folder: Folder) -> Finding:
    name = ("state-folder", "State folder")
    if not folder.error:
        return Finding(*name, Level.OK, folder.path)
    return Finding(
        *name,
        Level.WARNING,
        f"{folder.path} cannot be written ({folder.error}): natsup status shows nothing, and what"
        " a killed natsup leaves on the router stays there until its lease ends",
        "give natsup a folder: NATSUP_STATE_DIR=/path/to/it",
    )


# --- the network ---


def _route(network: Network) -> Finding:
    name = ("default-route", "Way to the router")
    used = network.used
    if used is None:
        advice = "connect this host to a router, or name one: --interface IF, --gateway URL"
        return Finding(*name, Level.PROBLEM, network.reason, advice)
    found = f"{used.gateway} by {used.interface}, from {network.address}"
    others = [way for way in network.ways if way != used]
    if not others:
        return Finding(*name, Level.OK, found)
    listed = ", ".join(_way(way) for way in others)
    return Finding(
        *name,
        Level.NOTE,
        f"{found}; there is also {listed}",
        "if that is not the router to ask, choose: --interface IF",
    )


def _way(way: Way) -> str:
    return f"{way.gateway} by {way.interface}" if way.gateway else way.interface


def _traffic(network: Network, used: Way) -> Finding:
    name = ("vpn", "Way to the Internet")
    traffic = network.traffic
    if traffic is None:
        found = "the kernel knows no way to the Internet"
        return Finding(*name, Level.WARNING, found, "look at the routes: ip route")
    if traffic.interface == used.interface:
        return Finding(*name, Level.OK, "the same")
    source = f" from {network.traffic_address}" if network.traffic_address else ""
    return Finding(
        *name,
        Level.WARNING,
        f"traffic leaves by {_way(traffic)}{source} (a VPN?), while ports are opened on the router"
        f" at {used.gateway}: answers to who comes in there may go astray",
        f"exempt the program from the VPN, or choose the way in: --interface {traffic.interface}",
    )


def _router(router: Router, network: Network) -> Finding:
    name = ("router", "Router")
    if not router.reason:
        return Finding(*name, Level.OK, f"speaks UPnP at {router.location}")
    if router.given:
        advice = "is --gateway the URL of its description, as natsup status shows it?"
        return Finding(*name, Level.PROBLEM, router.reason, advice)
    page = f"http://{network.used.gateway}" if network.used is not None else "its settings"
    return Finding(
        *name,
        Level.PROBLEM,
        router.reason,
        f"switch UPnP (also called UPnP IGD, or automatic port forwarding) on in the router,"
        f" often at {page}; a firewall on this host has to let answers from UDP port 1900 in",
    )


_CARRIER = IPv4Network("100.64.0.0/10")  # RFC 6598
_DS_LITE = IPv4Network("192.0.0.0/29")  # RFC 6333, section 5.7
_ASK_PROVIDER = "ask the provider for a public IPv4 address; natsup cannot help here"


def _external(router: Router) -> Finding:
    name = ("external-address", "External address")
    try:
        address = IPv4Address(router.external or "")
    except ValueError:
        address = None
    if address is None or address.is_unspecified:
        return Finding(
            *name,
            Level.WARNING,
            "the router names none",
            "is the router connected to the Internet?",
        )
    if address in _CARRIER or address in _DS_LITE:
        found = f"{address}: the provider shares one address among many (carrier NAT)"
        return Finding(*name, Level.PROBLEM, found, _ASK_PROVIDER)
    if address.is_global:
        return Finding(*name, Level.OK, f"{address}, a public one")
    return Finding(
        *name,
        Level.WARNING,
        f"{address} is private: the router is behind another one, which lets nobody in"
        " (double NAT)",
        "switch one of the two to bridge mode, or have the outer one forward everything to the"
        " inner one (often called DMZ or exposed host)",
    )


_BIND_WAITS = 0.5  # seconds, see natsup.supervisor.options


def _mapping(mapping: TrialMapping) -> Finding:
    name = ("test-mapping", "Test mapping")
    port, outcome, seen = mapping.port, mapping.outcome, mapping.seen
    if not isinstance(outcome, Mapped):
        what = f"{port} was not mapped: {outcome}" if port else f"nothing was mapped: {outcome}"
        return Finding(*name, Level.PROBLEM, _with_removal(what, mapping), _why_not(mapping))
    took = f"{port} mapped in {mapping.seconds * 1000:.0f} ms"
    if isinstance(seen, Ignored | Conflict):
        return Finding(
            *name,
            Level.PROBLEM,
            _with_removal(f"{took}, says the router, but its table does not have it", mapping),
            "is the table full? Delete old entries in the router, or restart it",
        )
    if mapping.removal in (Removal.FAILED, None):
        found = f"{took}, and could not be removed; it leads to a port that nobody uses"
        return Finding(*name, Level.WARNING, found, "natsup clean removes it once that is possible")
    if isinstance(seen, Unknown) or seen is None:
        return Finding(
            *name,
            Level.WARNING,
            f"{took} and removed, but the router does not show its table ({seen or 'no answer'}):"
            " that another host has a port is seen only if the router refuses it",
            "look for newer firmware",
        )
    if mapping.seconds > _BIND_WAITS:
        return Finding(
            *name,
            Level.WARNING,
            f"{took}, seen and removed: bind() waits for {_BIND_WAITS} s only, and what comes later"
            " cannot make it fail any more",
            f"natsup exec --timeout {mapping.seconds * 1.5:.1f}",
        )
    if outcome.lease == 0:
        return Finding(
            *name,
            Level.NOTE,
            f"{took}, seen and removed; the router keeps what it maps until it is told otherwise",
            "should natsup ever be killed, natsup clean removes what it left",
        )
    return Finding(*name, Level.OK, f"{took}, seen in the router's table, and removed")


def _with_removal(found: str, mapping: TrialMapping) -> str:
    if mapping.removal is Removal.FAILED:
        return f"{found}; natsup clean is to be run, should it be there after all"
    return found


def _why_not(mapping: TrialMapping) -> str:
    outcome = mapping.outcome
    if isinstance(outcome, Ignored | Unknown) and outcome.silent:
        return "the router is overloaded or its UPnP hangs: restart it"
    if isinstance(outcome, Ignored) and outcome.slow:
        return "look in the router's settings whether this host may open ports by itself"
    return "look in the router's settings for UPnP and its table of port forwardings"
