"""All that `natsup doctor` finds, and the path from a program to the Internet as it is. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from natsup.supervisor.doctor_facts import Facts
from natsup.supervisor.doctor_findings import Finding, Level
from natsup.supervisor.doctor_router import model, of_asked, of_network
from natsup.supervisor.doctor_system import of_system
from natsup.supervisor.doctor_way_in import of_way_in


@dataclass(frozen=True, slots=True)
class Station:
    """A place on the path. ``reached``: how it can be reached from the one before; None: not known,
    because of what is wrong before it, or for the first one."""

    name: str
    details: tuple[str, ...]
    reached: Level | None


_TO_ROUTER = ("default-route", "router", "test-mapping", "firewall")


def findings(facts: Facts) -> list[Finding]:
    """Everything, from the program outwards and back in."""
    return [
        *_here(facts),
        *of_asked(facts.asked),
        *of_network(facts.network, facts.router),
        *of_way_in(facts.router, facts.firewalls, facts.wanted),
    ]


def _here(facts: Facts) -> list[Finding]:
    found = of_system(facts.kernel, facts.rights, facts.folder)
    if facts.mistakes:
        found.append(_configuration(facts.mistakes))
    return found


def _configuration(mistakes: Sequence[str]) -> Finding:
    """The first mistake; what it is, and what can be done about it."""
    what, _, remedy = mistakes[0].rpartition("; ")
    more = f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
    return Finding(
        "configuration",
        "Configuration",
        Level.PROBLEM,
        f"natsup exec starts nothing: {what or remedy}{more}",
        f"{remedy if what else 'mend it'}; natsup config check looks for all mistakes",
    )


def path(facts: Facts) -> list[Station]:
    """Program, natsup, router, Internet."""
    levels = {finding.id: finding.level for finding in findings(facts)}
    here = [one.level for one in _here(facts)]
    network, router = facts.network, facts.router
    used = network.used
    host = (network.address, used.interface) if used is not None else ()
    there: tuple[str, ...] = (used.gateway,) if used is not None else ()
    outside: tuple[str, ...] = ()
    if router is not None and router.device is not None:
        there += (model(router.device),)
    if router is not None and router.external:
        outside = (router.external,)
    to_internet = levels.get("external-address")
    return [
        Station("program", (facts.wanted,) if facts.wanted else (), None),
        Station("natsup", host, _worst(here)),
        Station("router", there, _worst([levels[one] for one in _TO_ROUTER if one in levels])),
        Station("Internet", outside, None if to_internet is None else _worst([to_internet])),
    ]


def to_do(found: Sequence[Finding]) -> list[Finding]:
    """What is to be changed, the first thing first: what is broken, along the path, and then what
    could be better. What comes later may mend itself with what comes before."""
    return [
        finding
        for level in (Level.PROBLEM, Level.WARNING)
        for finding in found
        if finding.level is level
    ]


def _worst(levels: Sequence[Level]) -> Level:
    """A note is no trouble."""
    order = (Level.PROBLEM, Level.WARNING)
    return next((level for level in order if level in levels), Level.OK)
