"""`natsup explain`: whatever natsup shows a code of can be looked up; the page says the same."""

import errno
import re
from pathlib import Path

import pytest

from natsup.state.happenings import What
from natsup.state.ledger import State
from natsup.supervisor import explain
from natsup.supervisor.explanations_router import CODES
from natsup.upnp import faults
from natsup.upnp.pinhole import opening
from natsup.upnp.pmp import natpmp, pcp
from natsup.upnp.pmp.answers import Refusal

TOPIC = re.compile(r"\(natsup explain ([\w-]+)\)")


def test_every_code_that_a_reason_can_name_is_explained() -> None:
    known = {int(topic.names[1]) for topic in CODES if topic.names[0].startswith("upnp-")}
    assert known == faults.EXPLAINED
    assert known >= faults._MEANINGS.keys() | opening._MEANINGS.keys()
    for code in known:
        assert faults.meaning(code).reason.endswith(f" (natsup explain {code})")
    assert faults.meaning(899).reason == "the router refuses (error 899)"


def test_every_refusal_is_explained() -> None:
    for refusal in Refusal:
        named = TOPIC.search(str(refusal.outcome()))
        assert named is not None
        (topic,) = explain.lookup(named[1])
        assert refusal.value in topic.title
    for protocol, table in (("natpmp", natpmp.REFUSALS), ("pcp", pcp.REFUSALS)):
        for code, refusal in table.items():
            (topic,) = explain.lookup(f"{protocol}-{code}")
            assert topic.names[0] == refusal.topic
            assert topic in explain.lookup(str(code))


@pytest.mark.parametrize("word", [*State, *What])
def test_every_word_of_status_and_log_is_explained(word: str) -> None:
    assert len(explain.lookup(word)) == 1


@pytest.mark.parametrize("name", ["EADDRINUSE", "ENOSYS", "EACCES", "EPERM"])
def test_an_error_means_the_same_by_name_and_by_number(name: str) -> None:
    (topic,) = explain.lookup(name)
    assert topic in explain.lookup(str(getattr(errno, name)))


def test_names_mean_one_thing() -> None:
    names = [name for topic in explain.ALL for name in topic.names if not name.isdecimal()]
    assert len(names) == len(set(names))
    for topic in explain.ALL:
        assert all(topic in explain.lookup(name) for name in topic.names)
        for text in (topic.reason, topic.remedy):
            assert text.endswith((".", "]."))
            assert "\n" not in text
        assert not topic.title.endswith(".")


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("718", "UPnP error 718"),
        ("Error 718", "UPnP error 718"),
        ("double nat", "The router's own external address"),
        ("DOUBLE-NAT", "The router's own external address"),
        ("70", "Exit status 70"),
        ("130", "Exit status 130"),
        ("137", "Exit status 137: ended by SIGKILL"),
        ("status-143", "Exit status 143: ended by SIGTERM"),
        ("eacces", "EACCES, EPERM"),
        ("enospc", f"ENOSPC ({errno.ENOSPC})"),
    ],
)
def test_topics(name: str, title: str) -> None:
    assert explain.lookup(name)[0].title.startswith(title)


def test_a_number_may_mean_several_things() -> None:
    titles = [topic.title for topic in explain.lookup("2")]
    assert [title.split(":")[0] for title in titles] == ["NAT-PMP 2, PCP 2", "ENOENT (2)"]


@pytest.mark.parametrize("name", ["", " ", "0", "-1", "9999", "99999999999", "__name__", "\0", "²"])
def test_what_means_nothing(name: str) -> None:
    assert explain.lookup(name) == []


def test_the_nearest_name() -> None:
    assert explain.nearest("hairpn")[0] == "hairpin"
    assert explain.nearest("zzzzzz") == []
    for name in ("1x", "21", "14"):
        assert len(explain.nearest(name)) == len(set(explain.nearest(name)))


def test_texts_fit_a_terminal() -> None:
    for topic in explain.ALL:
        assert max(map(len, explain.as_text(topic).splitlines())) <= 80
    listed = explain.as_list()
    assert all(f"  {topic.names[0]} " in listed for topic in explain.ALL)


def test_the_page_says_the_same() -> None:
    page = Path(__file__).parents[2] / "docs/explain.md"
    assert page.read_text() == explain.as_markdown() + "\n", "just explain-page writes it anew"
