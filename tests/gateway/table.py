"""The fake gateway's table of mappings, and what its quirks make of it. Pure; time is given."""

from dataclasses import dataclass, replace

from tests.gateway.quirks import Quirks


class Refused(Exception):
    """``code``: as it is to be written."""

    def __init__(self, code: int | str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True)
class Entry:
    client: str
    internal_port: str
    name: str = "a mapping"
    ends: float | None = None  # None: never
    by: str = "upnp"  # or "natpmp", "pcp": the protocol that it was made by
    nonce: bytes = b""  # PCP's proof of whose it is


Key = tuple[str, int]  # ("TCP", 6881)
Values = dict[str, str]


class Table:
    def __init__(self, quirks: Quirks) -> None:
        self.quirks = quirks
        self.entries: dict[Key, Entry] = {}

    def act(self, action: str, values: Values, *, peer: str, path: str, now: float) -> Values:
        """Carry an action out. Raises `Refused`."""
        quirks = self.quirks
        self.expire(now)
        if action == "AddPortMapping" and quirks.taken_meanwhile is not None:
            client, internal = quirks.taken_meanwhile
            quirks.taken_meanwhile = None
            self.entries[_key(values)] = Entry(client, internal)
        if action in quirks.faults:
            raise Refused(quirks.faults[action])
        if action == "AddPortMapping":
            self._add(values, peer, now)
            return {}
        if action == "DeletePortMapping":
            key = _key(values)
            if key not in self.entries:
                raise Refused(quirks.absent)
            if self.entries[key].client != peer and not self.quirks.lets_remove:
                raise Refused(606)
            del self.entries[key]
            return {}
        if action == "GetSpecificPortMappingEntry":
            key = _key(values)
            if key not in self.entries:
                raise Refused(quirks.absent)
            return self._shown(key, now, whole=False)
        if action == "GetGenericPortMappingEntry":
            index = values.get("NewPortMappingIndex", "")
            if not index.isdigit() or int(index) >= len(self.entries):
                raise Refused(713)
            return self._shown(list(self.entries)[int(index)], now, whole=True)
        if action == "GetListOfPortMappings" and quirks.lists is not None:
            return {"NewPortListing": self._listed(values, now)}
        if action == "GetExternalIPAddress":
            return {"NewExternalIPAddress": quirks.externals.get(path, quirks.external)}
        if action == "GetStatusInfo":
            status = quirks.connected.get(path, "Disconnected" if quirks.wan_down else "Connected")
            return {
                "NewConnectionStatus": status,
                "NewLastConnectionError": "ERROR_NONE",
                "NewUptime": str(int(now)),
            }
        raise Refused(401)

    def _add(self, values: Values, peer: str, now: float) -> None:
        quirks, key = self.quirks, _key(values)
        client, lease = values["NewInternalClient"], int(values["NewLeaseDuration"])
        if quirks.capitals and not values["NewProtocol"].isupper():
            raise Refused(402)
        if quirks.wan_down:
            raise Refused(501)
        name = values["NewPortMappingDescription"]
        if quirks.longest_name is not None and (len(name) > quirks.longest_name or "&" in name):
            raise Refused(501)
        if quirks.permanent_only is not None and lease:
            raise Refused(quirks.permanent_only)
        if quirks.leases is not None and lease not in quirks.leases:
            raise Refused(402)
        if client != (quirks.trusts or peer):
            raise Refused(quirks.untrusted)
        if key[1] < quirks.lowest_port:
            raise Refused(quirks.not_permitted)
        there = self.entries.get(key)
        if there is not None and there.client != client and not quirks.overwrites:
            raise Refused(quirks.conflict)
        if there is not None and there.client == client:
            if quirks.one_internal_port and there.internal_port != values["NewInternalPort"]:
                raise Refused(quirks.conflict)
            if quirks.refuses_renewal is not None:
                raise Refused(quirks.refuses_renewal)
        if there is None and quirks.room is not None and len(self.entries) >= quirks.room:
            raise Refused(quirks.full)
        if quirks.forgets:
            return
        ends = now + (quirks.stores_lease or lease) if lease else None
        if lease and quirks.dies_after is not None:
            ends = now + quirks.dies_after
        if there is not None and there.client == client and not quirks.renews:
            ends = there.ends
        client = quirks.stolen or client
        self.entries[key] = Entry(client, values["NewInternalPort"], name, ends)

    def _shown(self, key: Key, now: float, *, whole: bool) -> Values:
        quirks, entry = self.quirks, self.entries[key]
        left = 0 if entry.ends is None else max(1, round(entry.ends - now))
        lease = left if quirks.shows_lease is None else quirks.shows_lease
        named = {"NewRemoteHost": "", "NewExternalPort": str(key[1]), "NewProtocol": key[0]}
        return (named if whole else {}) | {
            "NewInternalPort": entry.internal_port,
            "NewInternalClient": quirks.shows_client or entry.client,
            "NewEnabled": quirks.shows_enabled,
            "NewPortMappingDescription": entry.name,
            "NewLeaseDuration": str(lease),
        }

    def _listed(self, values: Values, now: float) -> str:
        """The entries in a document, as it would be without the answer about it."""
        quirks = self.quirks
        first, last = int(values["NewStartPort"]), int(values["NewEndPort"])
        most = min(int(values["NewNumberOfPorts"]) or quirks.list_most, quirks.list_most)
        keys = [
            key
            for key in reversed(self.entries)
            if key[0] == values["NewProtocol"] and first <= key[1] <= last
            if key[1] not in quirks.list_hides
        ][:most]
        if not keys and quirks.list_nothing is not None:
            raise Refused(quirks.list_nothing)
        text = ""
        for key in keys:
            shown = self._shown(key, now, whole=True)
            shown["NewDescription"] = shown.pop("NewPortMappingDescription")
            shown["NewLeaseTime"] = shown.pop("NewLeaseDuration")
            fields = "".join(f"<p:{name}>{value}</p:{name}>" for name, value in shown.items())
            text += f"<p:PortMappingEntry>{fields}</p:PortMappingEntry>"
        return (
            '<p:PortMappingList xmlns:p="urn:schemas-upnp-org:gw:WANIPConnection">'
            f"{text}</p:PortMappingList>"
        )

    def expire(self, now: float) -> None:
        over = [k for k, e in self.entries.items() if e.ends is not None and e.ends <= now]
        for key in over:
            del self.entries[key]

    def give(self, key: Key, client: str) -> None:
        """Another host has the port from now on."""
        there = self.entries.get(key)
        fresh = Entry(client, str(key[1]))
        self.entries[key] = fresh if there is None else replace(there, client=client)


def _key(values: Values) -> Key:
    return values["NewProtocol"].upper(), int(values["NewExternalPort"])
