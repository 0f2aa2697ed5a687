"""WANIPv6FirewallControl:1 (Open Connectivity Foundation), section 2.4: its actions as they are
sent, and what routers answer. Pure."""

import html
import re
from collections.abc import Mapping

from natsup.upnp.adding import Fault

SERVICE = "urn:schemas-upnp-org:service:WANIPv6FirewallControl:1"
_ENVELOPE = "http://schemas.xmlsoap.org/soap/envelope/"

# What is read of the answers
_OUT = {
    "GetFirewallStatus": ("FirewallEnabled", "InboundPinholeAllowed"),
    "AddPinhole": ("UniqueID",),
}

# Nothing here may take more than linear time: the text is whatever a router sends.
_CODE = re.compile(
    r"<(?:[\w.-]{1,32}:)?errorCode\b[^<>]{0,200}>\s{0,32}(-?\d{1,9})\s{0,32}<", re.IGNORECASE
)


def request(action: str, values: Mapping[str, str]) -> tuple[dict[str, str], bytes]:
    """Headers and body; the arguments in the order they are given in. No value needs escaping."""
    inside = "".join(f"<{name}>{value}</{name}>" for name, value in values.items())
    body = (
        f'<?xml version="1.0"?><s:Envelope xmlns:s="{_ENVELOPE}"'
        ' s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>'
        f'<u:{action} xmlns:u="{SERVICE}">{inside}</u:{action}></s:Body></s:Envelope>'
    )
    headers = {
        "SOAPAction": f'"{SERVICE}#{action}"',
        "Content-Type": 'text/xml; charset="utf-8"',
    }
    return headers, body.encode()


def read(action: str, status: int, body: str) -> dict[str, str] | Fault:
    """The values that are used of an answer. A fault counts whatever the HTTP status, and a page
    of HTML is no answer."""
    good = 200 <= status < 300
    answers = re.search(rf"<(?:[\w.-]{{1,32}}:)?{action}Response\b", body, re.IGNORECASE)
    if good and answers:
        return {name: _value(name, body) for name in _OUT.get(action, ())}
    code = _CODE.search(body)
    if code:
        return Fault(int(code[1]))
    if good and action not in _OUT and re.search(r"envelope|\A\s*\Z", body, re.IGNORECASE):
        return {}
    return Fault(None)


def _value(name: str, body: str) -> str:
    match = re.search(rf"<(?:[\w.-]{{1,32}}:)?{name}\b[^<>]{{0,200}}>([^<>]{{0,64}})</", body)
    return html.unescape(match[1]).strip() if match else ""
