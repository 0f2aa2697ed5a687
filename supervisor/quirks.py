"""What is known of single makes of routers, to tell people: docs/routers.md is made of it. Pure.

natsup behaves the same on all routers, and finds out by itself what one of them will do; nothing
hangs on this table. Each line has its source; what users have reported there is as they saw it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from natsup.upnp.description import Device


@dataclass(frozen=True, slots=True)
class Quirk:
    """``id`` is for programs and never changes. ``names``: a pattern for makers and models.
    ``does``: a clause, with what natsup makes of it. ``advice``: what the user can do, "" where
    that is nothing."""

    id: str
    router: str
    names: str
    does: str
    advice: str
    source: str


QUIRKS = (
    Quirk(
        "miniupnpd-rules",
        "miniupnpd (in OpenWrt, OPNsense and others)",
        r"miniupnp|openwrt|opnsense|pfsense",
        "it maps for the host that asks alone, and by its default rules no port below 1024",
        "a port that is refused has to be allowed in its list (OpenWrt: Services, UPnP, ACLs)",
        "miniupnpd.conf: secure_mode, allow and deny",
    ),
    Quirk(
        "miniupnpd-private",
        "miniupnpd (in OpenWrt, OPNsense and others)",
        r"miniupnp|openwrt|opnsense|pfsense",
        "behind another router it names no external address, and refuses every mapping",
        "there: ext_allow_private_ipv4=yes, or ext_ip=, or STUN (ext_perform_stun=yes)",
        "miniupnpd.conf; https://github.com/miniupnp/miniupnp/issues/333",
    ),
    Quirk(
        "fritzbox-permission",
        "AVM FRITZ!Box",
        r"fritz|\bavm\b",
        "it lets a host open ports only where that is allowed for this very host (code 606)",
        "Internet, Permit Access (Port Sharing), this device: permit independent port sharing",
        "https://github.com/miniupnp/miniupnp/issues/392",
    ),
    Quirk(
        "fritzbox-lease",
        "AVM FRITZ!Box",
        r"fritz|\bavm\b",
        "some models report leases that mean nothing; natsup renews by its own clock",
        "",
        "https://github.com/miniupnp/miniupnp/issues/222",
    ),
    Quirk(
        "mikrotik-permanent",
        "MikroTik RouterOS",
        r"mikrotik|routeros",
        "it takes permanent mappings only (code 725), which natsup removes itself",
        "after a crash: natsup clean",
        "https://github.com/benoitc/erlang-nat/issues/14",
    ),
    Quirk(
        "zyxel-permanent",
        "ZyXEL",
        r"zyxel",
        "some models take permanent mappings only (code 725), which natsup removes itself",
        "after a crash: natsup clean",
        "https://github.com/ofekp/TinyUPnP/issues/39",
    ),
    Quirk(
        "arris-lease",
        "ARRIS NVG (AT&T)",
        r"\barris\b|\bnvg\d",
        "some models refuse every lease (code 402); natsup then asks for a permanent mapping",
        "after a crash: natsup clean",
        "https://github.com/tailscale/tailscale/issues/15223",
    ),
    Quirk(
        "ddwrt-lease",
        "DD-WRT",
        r"dd-?wrt",
        "mappings with a lease can vanish at once; natsup looks, and asks for permanent ones",
        "after a crash: natsup clean",
        "https://github.com/tailscale/tailscale/issues/18196",
    ),
    Quirk(
        "er605-low-ports",
        "TP-Link ER605",
        r"\ber605",
        "it refuses ports below 1024",
        "use a port from 1024 on",
        "https://github.com/tailscale/tailscale/issues/7377",
    ),
    Quirk(
        "tplink-manual",
        "TP-Link",
        r"tp-?link",
        "forwardings made by hand are not in the table that it shows, and can be overridden",
        "do not make forwardings by hand for ports that programs open by themselves",
        "https://github.com/libp2p/go-libp2p-nat/pull/8",
    ),
    Quirk(
        "sagemcom-conflict",
        "Sagemcom Livebox",
        r"sagemcom|livebox",
        "it may say that a port is taken (718) which nobody has; natsup looks it up in the table",
        "if it stays so, restart the router, or use another port",
        "https://github.com/ofekp/TinyUPnP/issues/69",
    ),
    Quirk(
        "broadcom-table",
        "Linksys (with Broadcom's software)",
        r"linksys|broadcom",
        "its table may be small (32 entries), and full without saying so; natsup looks again",
        "delete old entries, or restart the router",
        "http://www.upnp-hacks.org",
    ),
    Quirk(
        "asus-clean",
        "ASUS",
        r"\basus",
        "with Asuswrt-Merlin, mappings could vanish after a while; natsup puts them back",
        "newer firmware leaves them alone",
        "https://github.com/gnuton/asuswrt-merlin.ng/issues/977",
    ),
    Quirk(
        "huawei-402",
        "Huawei (fibre terminals)",
        r"huawei",
        "some models answer 402 to any mapping, whatever is asked",
        "look for UPnP in its settings, or have the provider switch it on",
        "https://github.com/qbittorrent/qBittorrent/issues/19586",
    ),
    Quirk(
        "draytek-close",
        "DrayTek Vigor",
        r"draytek|vigor",
        "it answers nothing to who closes his half of a connection early; natsup does not",
        "",
        "the source of miniupnpc (miniwget.c)",
    ),
)


def of_device(device: Device) -> list[Quirk]:
    """What is known of a router that says that it is this one."""
    said = " / ".join((device.vendor, device.model, *device.names))
    return [quirk for quirk in QUIRKS if re.search(quirk.names, said, re.IGNORECASE)]


def as_markdown(quirks: Sequence[Quirk] = QUIRKS) -> str:
    """The table of docs/routers.md."""
    lines = ["| Router | What it does | What you can do | Source |", "|---|---|---|---|"]
    for quirk in quirks:
        advice = quirk.advice or "nothing"
        lines.append(f"| {quirk.router} | {quirk.does} | {advice} | {quirk.source} |")
    return "\n".join(lines)
