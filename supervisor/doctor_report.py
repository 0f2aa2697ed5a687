"""What `natsup doctor` prints: findings as a table, and as JSON. Pure."""

from collections.abc import Sequence
from typing import Any

from natsup.state.report import printable
from natsup.supervisor.doctor_findings import Finding, Level, works

_ALL_WELL = "Everything that natsup needs works here."


def as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """The document of `natsup doctor --json`."""
    return {
        "ok": works(findings),
        "checks": [
            {
                "id": finding.id,
                "title": finding.title,
                "level": finding.level.value,
                "found": finding.found,
                "advice": finding.advice or None,
            }
            for finding in findings
        ],
    }


def as_text(findings: Sequence[Finding]) -> str:
    """The table for people: a line for each check, and one below it for what to do."""
    levels = max(len(level.value) for level in Level)
    titles = max((len(finding.title) for finding in findings), default=0)
    lines = []
    for finding in findings:
        start = f"{finding.level.value.ljust(levels)}  {finding.title.ljust(titles)}  "
        lines.append(start + printable(finding.found))
        if finding.advice:
            lines.append(" " * len(start) + "→ " + printable(finding.advice))
    return "\n".join([*lines, "", _summary(findings)])


def _summary(findings: Sequence[Finding]) -> str:
    problems = sum(finding.level is Level.PROBLEM for finding in findings)
    if not problems:
        return _ALL_WELL
    return (
        f"{problems} {'problem' if problems == 1 else 'problems'}: natsup does not work here yet."
    )
