"""A session that has nothing to do does nothing."""

import time
from pathlib import Path

import pytest

from tests.lab import watchers
from tests.lab.lab import LAN1, Lab
from tests.lab.overheard import Overheard
from tests.lab.program import Program

_SECONDS = 10.0  # many times what anything polls by, and far less than the first timer


@pytest.mark.parametrize("words", [(), ("--as-parent",)], ids=["in place", "as parent"])
def test_a_session_that_waits_is_never_woken(
    lab: Lab, tmp_path: Path, words: tuple[str, ...]
) -> None:
    overheard = Overheard(lab, tmp_path)
    program = Program(lab, tmp_path, *words)
    assert program.bind("s", 7000) is None
    assert lab.table() == {"tcp/7000": LAN1}
    pids = watchers.watchers(lab)
    assert set(pids) == {watchers.SUPERVISOR, watchers.GUARD}
    watchers.wait_for_idleness(lab, overheard, pids, 7000)
    lab.pause_router()  # it announces itself now and then, which is a reason to wake up
    before = watchers.switches(pids)
    time.sleep(_SECONDS)  # that nothing happens can only be seen by waiting
    assert watchers.switches(pids) == before
    lab.resume_router()
    program.do("s.close()")  # nor is it asleep for good
    lab.wait_for(lambda: lab.table() == {})
