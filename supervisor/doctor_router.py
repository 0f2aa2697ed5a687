"""What `natsup doctor` makes of the network and of its router. Pure."""

from collections.abc import Iterator, Sequence

from natsup.state.gateway import protocol_of
from natsup.state.model import Conflict, Ignored, Mapped, Removal, Unknown
from natsup.state.outside import Reach, reach
from natsup.supervisor import quirks
from natsup.supervisor.doctor_facts import Asked, Network, Pinholes, Router, TrialMapping, Way
from natsup.supervisor.doctor_findings import Finding, Level
from natsup.upnp.description import Device


def of_network(network: Network, router: Router | None) -> list[Finding]:
    """The findings, from this host outwards. See `of_system`."""
    found = [*_container(network, router), _route(network)]
    if network.used is not None:
        found.append(_traffic(network, network.used))
    if router is not None:
        found.append(_router(router, network))
        found += _device(router)
        if not router.reason:
            found.append(_external(router))
        if router.mapping is not None:
            found += _passed_over(router.mapping)
            found.append(_mapping(router.mapping, protocol_of(router.location)))
        if router.pinholes is not None:
            found.append(_pinholes(router.pinholes))
    return found


_ON_THE_LAN = (
    "give it the host's network (docker and podman: --network host, Kubernetes: hostNetwork) or one"
    " on the LAN (macvlan): docs/containers.md"
)


def _container(network: Network, router: Router | None) -> Iterator[Finding]:
    """Nothing, outside of containers."""
    name = ("container", "Container")
    if not network.container:
        return
    found = f"this is one, by {network.container}"
    if router is not None and not router.reason:
        yield Finding(*name, Level.OK, f"{found}, and its network reaches a router")
    elif network.behind_host:
        found = f"{found}, in a network that leads to its own host alone (a bridge)"
        yield Finding(*name, Level.NOTE, f"{found}: no home router is found there", _ON_THE_LAN)
    else:
        yield Finding(*name, Level.NOTE, f"{found}, and reaches no router", _ON_THE_LAN)


def _route(network: Network) -> Finding:
    name = ("default-route", "Way to the router")
    used = network.used
    if used is None:
        advice = "connect this host to a router, or name one: --interface IF, --gateway URL"
        return Finding(*name, Level.PROBLEM, network.reason, advice)
    found = f"{used.gateway} by {used.interface}, from {network.address}"
    others = [way for way in network.ways if way != used]
    if not others:
        return Finding(*name, Level.OK, found)
    listed = ", ".join(_way(way) for way in others)
    return Finding(
        *name,
        Level.NOTE,
        f"{found}; there is also {listed}",
        "if that is not the router to ask, choose: --interface IF",
    )


def _way(way: Way) -> str:
    return f"{way.gateway} by {way.interface}" if way.gateway else way.interface


def _traffic(network: Network, used: Way) -> Finding:
    name = ("vpn", "Way to the Internet")
    traffic = network.traffic
    if traffic is None:
        found = "the kernel knows no way to the Internet"
        return Finding(*name, Level.WARNING, found, "look at the routes: ip route")
    if traffic.interface == used.interface:
        return Finding(*name, Level.OK, "the same")
    source = f" from {network.traffic_address}" if network.traffic_address else ""
    return Finding(
        *name,
        Level.WARNING,
        f"traffic leaves by {_way(traffic)}{source} (a VPN?), while ports are opened on the router"
        f" at {used.gateway}: answers to who comes in there may go astray",
        f"exempt the program from the VPN, or choose the way in: --interface {traffic.interface}",
    )


_TITLES = {"upnp": "UPnP", "pcp": "PCP", "natpmp": "NAT-PMP"}


def _router(router: Router, network: Network) -> Finding:
    name = ("router", "Router")
    if not router.reason:
        title = _TITLES[protocol_of(router.location)]
        return Finding(*name, Level.OK, f"speaks {title} at {router.location}")
    if router.given:
        advice = "is --gateway the URL of its description, as natsup status shows it?"
        return Finding(*name, Level.PROBLEM, router.reason, advice)
    if network.behind_host:
        return Finding(*name, Level.PROBLEM, router.reason, "see Container above")
    page = f"http://{network.used.gateway}" if network.used is not None else "its settings"
    return Finding(
        *name,
        Level.PROBLEM,
        router.reason,
        f"switch UPnP (also called UPnP IGD, or automatic port forwarding) on in the router, or"
        f" NAT-PMP or PCP,"
        f" often at {page}; a firewall on this host has to let answers from UDP port 1900 in",
    )


def _device(router: Router) -> list[Finding]:
    """Which one it is, and what is known of it: nothing that is wrong by itself."""
    if router.device is None:
        return []
    found = [Finding("router-model", "Model", Level.OK, model(router.device))]
    for quirk in quirks.of_device(router.device):
        about = f"{quirk.router}: {quirk.does}"
        level = Level.NOTE if quirk.advice else Level.OK
        found.append(Finding(f"quirk-{quirk.id}", "Known of it", level, about, quirk.advice))
    return found


def model(device: Device) -> str:
    """Vendor and model, as people say them."""
    if device.model.lower().startswith(device.vendor.lower()):
        return device.model or "it does not say"
    return f"{device.vendor} {device.model}".strip()


def of_asked(asked: Sequence[Asked]) -> list[Finding]:
    """Who answers by which protocol, a line for each interface."""
    found = []
    for one in asked:
        name = (f"answers-{one.interface}", "Who answers")
        said = ", ".join(
            f"{_TITLES[answer.protocol]} {'yes' if answer.location else 'no'}"
            for answer in one.answers
        )
        at = f" at {one.gateway}" if one.gateway else ""
        what = f"by {one.interface}, from {one.address}{at}: {said or 'nobody'}"
        there = any(answer.location for answer in one.answers)
        if there == one.used:  # elsewhere nobody need answer
            found.append(Finding(*name, Level.OK, what))
        elif one.used:
            found.append(Finding(*name, Level.NOTE, what, "see Router below"))
        else:
            advice = f"to ask the router there: --interface {one.interface}"
            found.append(Finding(*name, Level.NOTE, what, advice))
    return found


_ASK_PROVIDER = "ask the provider for a public IPv4 address; natsup cannot help here"


def _external(router: Router) -> Finding:
    name = ("external-address", "External address")
    address, found = router.external, reach(router.external)
    if found is Reach.NONE:
        return Finding(
            *name,
            Level.WARNING,
            "the router names none",
            "is the router connected to the Internet, and not behind another router?",
        )
    if found is Reach.CARRIER:
        shared = f"{address}: the provider shares one address among many (carrier NAT)"
        return Finding(*name, Level.PROBLEM, shared, _ASK_PROVIDER)
    if found is Reach.PUBLIC:
        return Finding(*name, Level.OK, f"{address}, a public one")
    return Finding(
        *name,
        Level.WARNING,
        f"{address} is private: the router is behind another one, which lets nobody in"
        " (double NAT)",
        "switch one of the two to bridge mode, or have the outer one forward everything to the"
        " inner one (often called DMZ or exposed host)",
    )


def _passed_over(mapping: TrialMapping) -> list[Finding]:
    """That another port than the one asked about was tried."""
    over = mapping.instead_of
    if over is None:
        return []
    name = ("port-asked-about", "Port asked about")
    instead = f"; {mapping.port} was tried instead" if mapping.port else ""
    if isinstance(over.there, Mapped):
        found = f"{over.port} is forwarded to this host already{instead}"
        return [Finding(*name, Level.OK, found)]
    found = f"{over.port} is in use here, and was not tried (the router: {over.there}){instead}"
    advice = f"to try {over.port} itself, end the program here that has it"
    return [Finding(*name, Level.NOTE, found, advice)]


_BIND_WAITS = 0.5  # seconds, see natsup.supervisor.options


def _mapping(mapping: TrialMapping, protocol: str) -> Finding:
    name = ("test-mapping", "Test mapping")
    port, outcome, seen = mapping.port, mapping.outcome, mapping.seen
    if not isinstance(outcome, Mapped):
        what = f"{port} was not mapped: {outcome}" if port else f"nothing was mapped: {outcome}"
        return Finding(*name, Level.PROBLEM, _with_removal(what, mapping), _why_not(mapping))
    took = f"{port} mapped in {mapping.seconds * 1000:.0f} ms"
    if isinstance(seen, Ignored | Conflict):
        return Finding(
            *name,
            Level.PROBLEM,
            _with_removal(f"{took}, says the router, but its table does not have it", mapping),
            "is the table full? Delete old entries in the router, or restart it",
        )
    if mapping.removal in (Removal.FAILED, None):
        found = f"{took}, and could not be removed; it leads to a port that nobody uses"
        return Finding(*name, Level.WARNING, found, "natsup clean removes it once that is possible")
    if isinstance(seen, Unknown) or seen is None:
        return Finding(
            *name,
            Level.WARNING,
            f"{took} and removed, but the router does not show its table ({seen or 'no answer'}):"
            " that another host has a port is seen only if the router refuses it",
            "look for newer firmware",
        )
    if mapping.seconds > _BIND_WAITS:
        return Finding(
            *name,
            Level.WARNING,
            f"{took}, seen and removed: bind() waits for {_BIND_WAITS} s only, and what comes later"
            " cannot make it fail any more",
            f"natsup exec --timeout {mapping.seconds * 1.5:.1f}",
        )
    if outcome.lease == 0:
        return Finding(
            *name,
            Level.NOTE,
            f"{took}, seen and removed; the router keeps what it maps until it is told otherwise",
            "should natsup ever be killed, natsup clean removes what it left",
        )
    if protocol != "upnp":
        found = f"{took}, and removed; by {_TITLES[protocol]} the router does not show its table"
        return Finding(*name, Level.OK, found)
    return Finding(*name, Level.OK, f"{took}, seen in the router's table, and removed")


def _pinholes(pinholes: Pinholes) -> Finding:
    """Never worse than a warning: natsup is of use without."""
    name = ("pinholes", "IPv6 pinholes")
    advice = "allow this host to open ports for IPv6 in the router, by UPnP or PCP"
    if pinholes.reason:
        found = f"{pinholes.reason}: servers here may not be reached by IPv6"
        return Finding(*name, Level.NOTE, found, advice)
    trial = pinholes.trial
    assert trial is not None
    to = f"to {pinholes.address}"
    if not isinstance(trial.outcome, Mapped):
        found = _with_removal(f"none was opened {to}: {trial.outcome}", trial)
        return Finding(*name, Level.WARNING, found, advice)
    by = _TITLES[protocol_of(pinholes.location)]
    took = f"{trial.port} opened by {by} {to} in {trial.seconds * 1000:.0f} ms"
    if trial.removal is not Removal.GONE:
        found = f"{took}, and not closed; it leads to a port that nobody uses"
        return Finding(*name, Level.WARNING, found, "it closes by itself within two minutes")
    return Finding(*name, Level.OK, f"{took}, and closed")


def _with_removal(found: str, mapping: TrialMapping) -> str:
    if mapping.removal is Removal.FAILED:
        return f"{found}; natsup clean is to be run, should it be there after all"
    return found


def _why_not(mapping: TrialMapping) -> str:
    outcome = mapping.outcome
    if isinstance(outcome, Conflict):
        return (
            "give the program another port, or free this one on that host; if nothing there has it,"
            " remove it from the router's table of port forwardings"
        )
    if isinstance(outcome, Ignored | Unknown) and outcome.silent:
        return "the router is overloaded or its UPnP hangs: restart it"
    if isinstance(outcome, Ignored) and outcome.slow:
        return "look in the router's settings whether this host may open ports by itself"
    return "look in the router's settings for UPnP and its table of port forwardings"
