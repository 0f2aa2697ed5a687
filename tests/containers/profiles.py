"""What engines forbid to the programs in a container: their seccomp profiles and capabilities."""

import copy
import json
import os
from pathlib import Path
from typing import Any

PODMAN = Path("/usr/share/containers/seccomp.json")  # of Debian's golang-github-containers-common

# What containers have if nothing else is asked for. Podman: DefaultCapabilities in containers.conf;
# Docker: oci/caps/defaults.go in moby.
_BOTH = "CHOWN DAC_OVERRIDE FOWNER FSETID KILL NET_BIND_SERVICE SETFCAP SETGID SETPCAP SETUID"
PODMAN_CAPABILITIES = (*_BOTH.split(), "SYS_CHROOT")
DOCKER_CAPABILITIES = (*PODMAN_CAPABILITIES, "AUDIT_WRITE", "MKNOD", "NET_RAW")

_MACHINES = {"x86_64": ("amd64", "SCMP_ARCH_X86_64"), "aarch64": ("arm64", "SCMP_ARCH_AARCH64")}


def podman() -> dict[str, Any]:
    """Podman's profile."""
    profile: dict[str, Any] = json.loads(PODMAN.read_text())
    return profile


def like_docker() -> dict[str, Any]:
    """Podman's, with what makes Docker's another one for natsup: pidfd_getfd(2) is for those alone
    who have CAP_SYS_PTRACE, and what is forbidden is EPERM (profiles/seccomp in moby)."""
    profile = copy.deepcopy(podman())
    profile["defaultErrnoRet"] = 1
    for rule in profile["syscalls"]:
        if rule["action"] == "SCMP_ACT_ALLOW":
            rule["names"] = [name for name in rule["names"] if name != "pidfd_getfd"]
    profile["syscalls"].append(
        {
            "names": ["pidfd_getfd"],
            "action": "SCMP_ACT_ALLOW",
            "args": [],
            "includes": {"caps": ["CAP_SYS_PTRACE"]},
            "excludes": {},
        }
    )
    return profile


def for_runtime(profile: dict[str, Any], capabilities: tuple[str, ...]) -> dict[str, Any]:
    """The form that runtimes take (linux.seccomp in the OCI's config.json): engines choose the
    rules by capabilities and architecture."""
    machine, name = _MACHINES[os.uname().machine]
    given = {f"CAP_{capability}" for capability in capabilities}
    rules = []
    for rule in profile["syscalls"]:
        wanted, unwanted = rule.get("includes") or {}, rule.get("excludes") or {}
        applies = (
            given.issuperset(wanted.get("caps", ()))
            and given.isdisjoint(unwanted.get("caps", ()))
            and machine in wanted.get("arches", (machine,))
            and machine not in unwanted.get("arches", ())
        )
        if applies:
            known = ("names", "action", "args", "errnoRet")
            rules.append({key: rule[key] for key in known if rule.get(key) is not None})
    kinds = [
        kind
        for entry in profile.get("archMap", ())
        if entry["architecture"] == name
        for kind in (name, *entry["subArchitectures"])
    ]
    kept: dict[str, Any] = {
        key: profile[key] for key in ("defaultAction", "defaultErrnoRet") if key in profile
    }
    return {**kept, "architectures": kinds or [name], "syscalls": rules}
