"""Networks that a container may have, on a host of the lab."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab.lab import ROUTER, Lab

IN_MACVLAN = "192.168.77.4"
_SCRIPTS = {
    # What docker and podman make by default: an address of the host's alone, translated by it.
    "bridge": """
ip -n "$host" link add engine0 type bridge
ip -n "$host" addr add 172.17.0.1/16 dev engine0
ip -n "$host" link set engine0 up
ip -n "$host" link add veth0 type veth peer name eth0 netns "$box"
ip -n "$host" link set veth0 master engine0 up
ip -n "$box" addr add 172.17.0.2/16 dev eth0
ip -n "$box" link set eth0 up
ip -n "$box" route add default via 172.17.0.1
ip netns exec "$host" sysctl -qw net.ipv4.ip_forward=1
ip netns exec "$host" nft -f - <<RULES
table ip engine {
    chain postrouting {
        type nat hook postrouting priority 100;
        ip saddr 172.17.0.0/16 oifname eth0 masquerade
    }
}
RULES
""",
    # A second device on the host's own wire, with an address of the LAN's.
    "macvlan": f"""
ip -n "$host" link add of-box link eth0 type macvlan mode bridge
ip -n "$host" link set of-box netns "$box" name eth0
ip -n "$box" addr add {IN_MACVLAN}/24 dev eth0
ip -n "$box" link set eth0 up
ip -n "$box" route add default via {ROUTER}
""",
}


@contextmanager
def network(lab: Lab, kind: str) -> Iterator[Path]:
    """A network namespace for a container on lan1: ``bridge`` or ``macvlan``."""
    host = lab.name("lan1")
    box = f"{host}-box"
    script = f'set -eu\nip netns add "$box"\nip -n "$box" link set lo up\n{_SCRIPTS[kind]}'
    try:
        subprocess.run(["env", f"host={host}", f"box={box}", "sh", "-c", script], check=True)
        yield Path("/run/netns", box)
    finally:
        subprocess.run(["ip", "netns", "del", box], check=False)
