"""The control messages of UPnP, from the router's side. Pure.

UPnP Device Architecture 1.1, section 3.2.
"""

import ipaddress
from collections.abc import Mapping as Arguments
from xml.etree.ElementTree import ParseError
from xml.sax.saxutils import escape

from natsup.state.model import Port, Protocol
from natsup.upnp.router.table import Mapping, Refused, Table

SERVICE = "urn:schemas-upnp-org:service:WANIPConnection:1"
_ENVELOPE = "http://schemas.xmlsoap.org/soap/envelope/"
_LONGEST_LEASE = 604800  # a week


def _invalid() -> Refused:
    """A new one each time: an exception keeps all that it was ever raised out of."""
    return Refused(402, "Invalid Args")


def read_action(body: bytes) -> tuple[str, dict[str, str]]:
    """The action that a request names, and its arguments. Raises `Refused`."""
    from defusedxml.ElementTree import fromstring

    try:
        root = fromstring(body, forbid_dtd=True)
    except (ParseError, ValueError, LookupError):  # LookupError: an encoding that does not exist
        raise _invalid() from None
    for element in root:
        if element.tag == f"{{{_ENVELOPE}}}Body" and len(element):
            action = element[0]
            name = action.tag.rpartition("}")[2]
            return name, {child.tag: (child.text or "").strip() for child in action}
    raise _invalid()


def answer(action: str, values: Arguments[str, str]) -> bytes:
    """The reply to an action."""
    inner = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in values.items())
    return _wrap(f'<u:{action}Response xmlns:u="{SERVICE}">{inner}</u:{action}Response>')


def fault(error: Refused) -> bytes:
    """The reply that an error makes; its HTTP status is 500."""
    return _wrap(
        "<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail>"
        '<UPnPError xmlns="urn:schemas-upnp-org:control-1-0">'
        f"<errorCode>{error.code}</errorCode>"
        f"<errorDescription>{escape(error.text)}</errorDescription>"
        "</UPnPError></detail></s:Fault>"
    )


def _wrap(inner: str) -> bytes:
    return (
        '<?xml version="1.0"?>\n'
        f'<s:Envelope xmlns:s="{_ENVELOPE}"'
        ' s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/">'
        f"<s:Body>{inner}</s:Body></s:Envelope>\n"
    ).encode()


def read_port(arguments: Arguments[str, str]) -> Port:
    """The outside port that arguments name. Raises `Refused`."""
    if arguments.get("NewRemoteHost") not in (None, "", "*", "0.0.0.0"):
        raise Refused(726, "RemoteHostOnlySupportsWildcard")
    number = _number(arguments, "NewExternalPort", 65535)
    if number == 0:
        raise Refused(716, "WildCardNotPermittedInExtPort")
    try:
        return Port(Protocol(arguments["NewProtocol"].lower()), number)
    except (KeyError, ValueError):
        raise _invalid() from None


def read_mapping(arguments: Arguments[str, str], now: float) -> Mapping:
    """The mapping that AddPortMapping's arguments ask for. Raises `Refused`."""
    port = read_port(arguments)
    internal = _number(arguments, "NewInternalPort", 65535)
    if internal == 0:
        raise Refused(732, "WildCardNotPermittedInIntPort")
    lease = _number(arguments, "NewLeaseDuration", _LONGEST_LEASE)
    try:
        client = str(ipaddress.IPv4Address(arguments["NewInternalClient"]))
    except (KeyError, ValueError):
        raise _invalid() from None
    description = arguments.get("NewPortMappingDescription", "")[:64]
    return Mapping(port, client, internal, description, now + lease if lease else None)


def _number(arguments: Arguments[str, str], name: str, most: int) -> int:
    text = arguments.get(name, "")
    # Python refuses to read thousands of digits.
    if not text.isascii() or not text.isdigit() or len(text) > 10 or int(text) > most:
        raise _invalid()
    return int(text)


def show(mapping: Mapping, now: float, *, whole: bool) -> dict[str, str]:
    """A mapping as GetSpecific- (or, ``whole``, GetGeneric-) PortMappingEntry answers it."""
    key = {
        "NewRemoteHost": "",
        "NewExternalPort": str(mapping.port.number),
        "NewProtocol": mapping.port.protocol.value.upper(),
    }
    rest = {
        "NewInternalPort": str(mapping.internal_port),
        "NewInternalClient": mapping.client,
        "NewEnabled": "1",
        "NewPortMappingDescription": mapping.description,
        "NewLeaseDuration": str(mapping.left(now)),
    }
    return key | rest if whole else rest


def look_up(
    table: Table, action: str, arguments: Arguments[str, str], *, external: str, now: float
) -> dict[str, str]:
    """What an action that changes nothing answers. Raises `Refused`."""
    if action == "GetExternalIPAddress":
        return {"NewExternalIPAddress": external}
    if action == "GetStatusInfo":
        return {
            "NewConnectionStatus": "Connected",
            "NewLastConnectionError": "ERROR_NONE",
            "NewUptime": str(int(now)),
        }
    if action == "GetSpecificPortMappingEntry":
        return show(table.find(read_port(arguments)), now, whole=False)
    if action == "GetGenericPortMappingEntry":
        return show(table.at(_number(arguments, "NewPortMappingIndex", 65535)), now, whole=True)
    raise Refused(401, "Invalid Action")
