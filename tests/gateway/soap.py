"""The fake gateway's SOAP: reading requests, and the many ways of writing answers. Pure."""

import html
import re
from collections.abc import Callable

from tests.gateway.quirks import Quirks

_NAMESPACE = "http://schemas.xmlsoap.org/soap/envelope/"
_FAULT = (
    "<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail>"
    '<UPnPError xmlns="urn:schemas-upnp-org:control-1-0"><errorCode>{code}</errorCode>'
    "<errorDescription>so there</errorDescription></UPnPError></detail></s:Fault>"
)


def _envelope(inside: str) -> str:
    return (
        f'<?xml version="1.0"?><s:Envelope xmlns:s="{_NAMESPACE}" s:encodingStyle='
        f'"http://schemas.xmlsoap.org/soap/encoding/"><s:Body>{inside}</s:Body></s:Envelope>'
    )


# How a fault is written
FAULTS = {
    "plain": _envelope(_FAULT),
    "bare": "<errorCode>{code}</errorCode>",
    "no namespace": _envelope(_FAULT.replace(' xmlns="urn:schemas-upnp-org:control-1-0"', "")),
    "glued": _envelope(_FAULT.replace("UPnPError xmlns", "UPnPErrorxmlns")),
    "undeclared": _envelope(_FAULT.replace("errorCode", "e:errorCode")),
    "soap 1.2": (
        '<e:Envelope xmlns:e="http://www.w3.org/2003/05/soap-envelope"><e:Body><e:Fault><e:Detail>'
        "<errorCode>{code}</errorCode></e:Detail></e:Fault></e:Body></e:Envelope>"
    ),
    "capitals": _envelope(_FAULT.replace("errorCode", "ERRORCODE")).upper(),
    "faultCode": _envelope(_FAULT.replace("faultcode", "faultCode")),
    "empty": "",
}
FAULTS["capitals"] = FAULTS["capitals"].replace("{CODE}", "{code}")

LOGIN = "<html><head></head><body>Please log in</body></html>"

# How the success of an action that answers nothing is written; None: as it should be
SUCCESSES = {
    "plain": None,
    "empty": "",
    "blank": "\r\n",
    "html": LOGIN,
    "short": '<?xml version="1.0"?><Envelope><Body/></Envelope>',
}


# How the document with a list stands in its answer
LISTS: dict[str, Callable[[str], str]] = {
    "cdata": lambda text: f"<![CDATA[{text}]]>",
    "escaped": html.escape,
    "bare": lambda text: text,
    "empty": lambda text: "",
    "html": lambda text: html.escape(LOGIN),
}


def read(head: bytes, body: str) -> tuple[str, str, dict[str, str]]:
    """The service, the action, and its arguments; "" where the header names none."""
    named = re.search(rb"^soapaction: *\"?([^\"#\r\n]*)#(\w+)", head, re.IGNORECASE | re.MULTILINE)
    if named is None:
        return "", "", {}
    found = re.findall(r"<(\w+)(?:\s[^>]*)?>([^<]*)</", body)
    values = {name: html.unescape(value) for name, value in found}
    return named[1].decode(), named[2].decode(), values


def exact(head: bytes) -> bool:
    """Is the header spelled as in the standard?"""
    return re.search(rb'^SOAPAction: "[^"]+#\w+"\r?$', head, re.MULTILINE) is not None


def success(service: str, action: str, values: dict[str, str], quirks: Quirks) -> tuple[int, str]:
    """Status and body."""
    if "NewPortListing" in values and quirks.lists is not None:
        values = {"NewPortListing": LISTS[quirks.lists](values["NewPortListing"])}
    inside = "".join(f"<{name}>{value}</{name}>" for name, value in values.items())
    plain = _envelope(f'<u:{action}Response xmlns:u="{service}">{inside}</u:{action}Response>')
    written = None if values else SUCCESSES[quirks.success_form]
    body = plain if written is None else written
    status = 200 if values else quirks.success_status
    return status, quirks.before_body + body + quirks.after_body


def fault(code: object, quirks: Quirks) -> tuple[int, str]:
    """Status and body."""
    body = FAULTS[quirks.fault_form].replace("{code}", quirks.code_form.format(code))
    return quirks.fault_status, quirks.before_body + body + quirks.after_body
