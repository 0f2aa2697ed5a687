"""What came of the tests of a corpus, and whether natsup made a difference. Touches nothing."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from xml.etree import ElementTree

Outcomes = dict[str, str]  # test name: "passed", "failed", "skipped", or what a script said

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
ABSENT = "absent"  # the run did not get that far, or has no such test
WHOLE = "(the run)"  # the name under which a run's own exit status stands

_TAP = re.compile(r"(ok|not ok) \d+ - (\S+)(?: # (SKIP|TODO)\b.*)?")


def of_junit(document: str) -> Outcomes:
    """What a JUnit file of regrtest says.

    A test that stands there several times (subtests, a second try) is as bad as the worst of them.
    """
    found: Outcomes = {}
    for case in ElementTree.fromstring(document).iter("testcase"):
        name = case.get("name") or "?"
        if case.find("failure") is not None or case.find("error") is not None:
            outcome = FAILED
        elif case.find("skipped") is not None or case.get("result") == "skipped":
            outcome = SKIPPED
        else:
            outcome = PASSED
        if found.get(name) != FAILED:
            found[name] = outcome
    return found


def of_tap(text: str) -> Outcomes:
    """What lines like ``not ok 7 - name`` and ``ok 8 - name # SKIP why`` say."""
    found: Outcomes = {}
    for line in text.splitlines():
        if match := _TAP.fullmatch(line):
            good, name, word = match.groups()
            found[name] = SKIPPED if word == "SKIP" else PASSED if good == "ok" else FAILED
    return found


def of_lines(text: str) -> Outcomes:
    """What lines ``name<TAB>value`` say; the value itself is the outcome.

    A name that comes again is another test, by number: nothing a script says is overlooked.
    """
    found: Outcomes = {}
    for line in text.splitlines():
        name, tab, value = line.partition("\t")
        if not tab:
            name, value = "(other output)", line
        plain, number = name, 1
        while name in found:
            number += 1
            name = f"{plain} #{number}"
        found[name] = value
    return found


@dataclass
class Difference:
    """A test that came out in two ways: plain and under natsup, each run's outcome in turn."""

    test: str
    plain: list[str] = field(default_factory=list)
    under: list[str] = field(default_factory=list)

    def again(self, plain: Outcomes, under: Outcomes) -> None:
        """One more run of both."""
        self.plain.append(plain.get(self.test, ABSENT))
        self.under.append(under.get(self.test, ABSENT))

    @property
    def real(self) -> bool:
        """Did one side come out at least twice as the other one never did?

        Once alone is a test that does so by itself now and then; the report names it all the same.
        """
        return _peculiar(self.plain, self.under) or _peculiar(self.under, self.plain)

    def __str__(self) -> str:
        return f"{self.test}: plain {', '.join(self.plain)}; natsup {', '.join(self.under)}"


def _peculiar(one: list[str], other: list[str]) -> bool:
    return any(one.count(outcome) > 1 for outcome in set(one) - set(other))


def compare(
    plain: Outcomes, under: Outcomes, known: Mapping[str, str] | None = None
) -> list[Difference]:
    """The tests that came out differently, in order, but for those in ``known`` (name: why)."""
    differences = []
    for test in sorted(plain.keys() | under.keys()):
        if test in (known or {}):
            continue
        difference = Difference(test)
        difference.again(plain, under)
        if difference.plain != difference.under:
            differences.append(difference)
    return differences
