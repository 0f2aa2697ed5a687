"""What `natsup doctor` makes of the kernel and of what natsup may do here. Pure."""

import re
from collections.abc import Iterator
from errno import EBUSY, EINVAL, ENOSYS

from natsup.supervisor.doctor_facts import Folder, Kernel, Rights, Tried
from natsup.supervisor.doctor_findings import Finding, Level


def of_system(kernel: Kernel, rights: Rights, folder: Folder) -> list[Finding]:
    """The findings, in the order in which natsup comes to need these things.

    A check that could not be made, because another one has failed, is left out.
    """
    return [
        _kernel(kernel),
        *_libseccomp(kernel),
        *_listener(kernel),
        *_features(kernel),
        _io_uring(kernel, folder),
        _privileges(kernel, rights),
        _yama(rights),
        _layout(rights),
        _memory(rights),
        _descriptors(rights),
        _folder(folder),
    ]


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


def _libseccomp(kernel: Kernel) -> Iterator[Finding]:
    name = ("libseccomp", "Filter library")
    if kernel.libseccomp_error:
        advice = "install libseccomp2 (Debian, Ubuntu) or libseccomp (Fedora, Arch)"
        yield Finding(*name, Level.PROBLEM, kernel.libseccomp_error, advice)
    elif kernel.libseccomp:
        yield Finding(*name, Level.OK, kernel.libseccomp)


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
        "natsup sees them by trapping close(), which makes every close() slower",
        "under systemd add AF_NETLINK to RestrictAddressFamilies=; kernels need CONFIG_INET_DIAG",
    )


def _feature(
    name: tuple[str, str], tried: Tried, good: str, level: Level, bad: str, advice: str
) -> Finding:
    if tried.works:
        return Finding(*name, Level.OK, good)
    return Finding(*name, level, f"{bad}: {tried}", advice)


def _io_uring(kernel: Kernel, folder: Folder) -> Finding:
    name = ("io-uring", "io_uring")
    if kernel.io_uring_bind.works:
        users = f"; {', '.join(folder.io_uring)} may be one" if folder.io_uring else ""
        return Finding(
            *name,
            Level.NOTE,
            f"programs that bind by io_uring, which are few, are not seen{users}",
            "natsup exec --no-io-uring makes a program do without it",
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
    if rights.see_socket.works:
        return Finding(
            *name,
            Level.WARNING,
            f"pidfd_getfd is {_is(rights.take_socket)}: binds are left to the kernel, and another"
            " program could take the port while natsup lets go of it",
            _look_in(rights, "pidfd_getfd"),
        )
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
