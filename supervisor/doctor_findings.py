"""What `natsup doctor` says: a line for each check. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    OK = "ok"
    NOTE = "note"  # as it is: good to know
    WARNING = "warning"  # something works less well than it could
    PROBLEM = "problem"  # natsup cannot do what it is for


@dataclass(frozen=True, slots=True)
class Finding:
    """A line. ``id`` is for programs and never changes; ``advice`` is "" where all is well."""

    id: str
    title: str
    level: Level
    found: str
    advice: str = ""


def works(findings: Sequence[Finding]) -> bool:
    """Does everything that natsup needs work?"""
    return all(finding.level is not Level.PROBLEM for finding in findings)
