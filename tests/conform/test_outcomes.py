"""Reading other people's results, and comparing them."""

import pytest

from tests.conform.outcomes import Difference, compare, of_junit, of_lines, of_tap


def test_regrtest_results() -> None:
    document = """<testsuites><testsuite>
        <testcase name="test.a.T.test_good" status="run" result="completed" time="0.1" />
        <testcase name="test.a.T.test_bad" status="run"><failure>no</failure></testcase>
        <testcase name="test.a.T.test_wrong" status="run"><error>no</error></testcase>
        <testcase name="test.a.T.test_left" status="run"><skipped>why</skipped></testcase>
        <testcase name="test.a.T.test_sub" status="run"><failure>no</failure></testcase>
        <testcase name="test.a.T.test_sub" status="run" result="completed" />
    </testsuite></testsuites>"""
    assert of_junit(document) == {
        "test.a.T.test_good": "passed",
        "test.a.T.test_bad": "failed",
        "test.a.T.test_wrong": "failed",
        "test.a.T.test_left": "skipped",
        "test.a.T.test_sub": "failed",
    }


def test_tap() -> None:
    text = (
        "1..4\nok 1 - async\nnot ok 2 - tcp_bind\n# exit code 134\n"
        "ok 3 - tty # SKIP Cannot open /dev/tty\nok 4 - slow # TODO later\n"
    )
    assert of_tap(text) == {
        "async": "passed",
        "tcp_bind": "failed",
        "tty": "skipped",
        "slow": "passed",
    }


def test_lines() -> None:
    text = "status\t7\nstatus\t8\nempty\t\nsh: killed\n"
    assert of_lines(text) == {
        "status": "7",
        "status #2": "8",
        "empty": "",
        "(other output)": "sh: killed",
    }


def test_comparing() -> None:
    plain = {"same": "passed", "worse": "passed", "gone": "skipped", "known": "passed"}
    under = {"same": "passed", "worse": "failed", "new": "passed", "known": "failed"}
    found = compare(plain, under, {"known": "the kernel leaves no way"})
    assert [str(d) for d in found] == [
        "gone: plain skipped; natsup absent",
        "new: plain absent; natsup passed",
        "worse: plain passed; natsup failed",
    ]


@pytest.mark.parametrize(
    ("plain", "under", "real"),
    [
        ("pp", "fp", False),  # once, and not again
        ("fp", "pp", False),
        ("pppp", "fppf", True),  # twice, and never plain
        ("fffp", "pppp", True),  # better is different too
        ("fppp", "pfff", False),  # plain does so by itself
        ("ppp", "fsp", False),
        ("pp", "ff", True),
    ],
)
def test_what_is_unsteady_by_itself_is_no_difference(plain: str, under: str, real: bool) -> None:
    assert Difference("t", list(plain), list(under)).real is real
