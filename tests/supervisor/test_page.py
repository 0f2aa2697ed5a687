"""What supervisors and the guard leave each other in the page."""

import os
from collections.abc import Iterator

import pytest

from natsup.supervisor.page import BINDING, LEFT, UNJUDGED, Page


@pytest.fixture
def page() -> Iterator[Page]:
    found = Page.create([b"x"])
    yield found
    os.close(found.fd)


def calls(page: Page) -> list[tuple[int, int, int, int]]:
    return [(c.notification, c.thread, c.descriptor, c.stage) for c in page.left()]


def test_what_was_let_pass_stays_until_it_has_been_seen_to(page: Page) -> None:
    """A supervisor that dies before it has written anything down leaves it to the next one."""
    slot = page.keep(11, 100, 3)
    assert slot is not None
    page.stage(slot, BINDING)
    assert calls(page) == []
    page.leave()
    guard = Page(page.fd)
    guard.leave_unjudged(12, 100, 4)
    both = [(11, 100, 3, LEFT), (12, 100, 4, UNJUDGED)]
    first = Page(page.fd)
    assert calls(first) == both
    assert first.keep(13, 100, 5) not in (None, slot)
    second = Page(page.fd)
    assert calls(second) == both  # the first one's own call has not been left yet
    second.seen_to(second.left()[:1])
    assert calls(second) == both[1:]
    assert second.keep(14, 100, 6) == slot
    second.seen_to(second.left())
    assert calls(second) == []
    assert sorted(call.notification for call in second.unanswered()) == [13, 14]
