"""Searching for a router: SSDP's messages. Pure. (UPnP Device Architecture 1.1, section 1.3.)

Routers answer with all that HTTP forbids, so the reader takes what it can use and passes the rest
over. An answer that says two things about where the description is says nothing.
"""

PORT = 1900
MULTICAST = "239.255.255.250"

# One search a target: some routers answer ssdp:all with their first device only, and some answer
# only for what they are.
TARGETS = (
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
    "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
    "upnp:rootdevice",
)
_LONGEST = 8192


def search(target: str, *, host: str, wait: int = 1) -> bytes:
    """An M-SEARCH for ``target``, to be sent to ``host``; ``wait``: seconds to answer within."""
    lines = (
        "M-SEARCH * HTTP/1.1",
        f"HOST: {host}:{PORT}",
        'MAN: "ssdp:discover"',
        f"MX: {wait}",
        f"ST: {target}",
        "",
        "",
    )
    return "\r\n".join(lines).encode()


def location(datagram: bytes) -> str | None:
    """The LOCATION in an answer to a search; None if it is none, or has no single one."""
    text = datagram[:_LONGEST].decode("latin-1").rstrip("\0")
    status, _, rest = text.replace("\r\n", "\n").replace("\r", "\n").partition("\n")
    words = status.split()
    if len(words) < 2 or not words[0].upper().startswith("HTTP/1.") or words[1] != "200":
        return None
    found = []
    for line in rest.split("\n"):
        name, colon, value = line.partition(":")
        if colon and name.strip().upper() == "LOCATION" and value.strip():
            found.append(value.strip())
    return found[0] if len(found) == 1 else None
