"""The actions of WANIPConnection that natsup uses or serves: names and order of their arguments.

WANIPConnection:1 (Open Connectivity Foundation), section 2.4. Some routers want the order as well.
"""

KEY = ("NewRemoteHost", "NewExternalPort", "NewProtocol")
ENTRY = (
    "NewInternalPort",
    "NewInternalClient",
    "NewEnabled",
    "NewPortMappingDescription",
    "NewLeaseDuration",
)

# Name: what goes in, what comes out
ACTIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "GetExternalIPAddress": ((), ("NewExternalIPAddress",)),
    "GetStatusInfo": ((), ("NewConnectionStatus", "NewLastConnectionError", "NewUptime")),
    "AddPortMapping": ((*KEY, *ENTRY), ()),
    "DeletePortMapping": (KEY, ()),
    "GetSpecificPortMappingEntry": (KEY, ENTRY),
    "GetGenericPortMappingEntry": (("NewPortMappingIndex",), (*KEY, *ENTRY)),
}

# Used, and not served: WANIPConnection:2, section 2.5.21
LIST = "GetListOfPortMappings"
LIST_IN = ("NewStartPort", "NewEndPort", "NewProtocol", "NewManage", "NewNumberOfPorts")
LISTING = "NewPortListing"
