"""Who looks at once, and who is spread by chance."""

import random
from functools import partial

from natsup.supervisor.signs import Signs


def test_after_a_restart_hosts_are_spread() -> None:
    delays = []
    for host in range(100):
        signs = Signs(partial(random.Random(host).uniform, 0.0, 5.0))
        assert signs.begin()  # nobody else begins just now
        signs.restarted("the router was restarted")
        assert signs.any.is_set()
        delays.append(signs.delay(hurry=signs.begin()))
    assert all(0 <= delay <= 5 for delay in delays)
    assert max(delays) - min(delays) > 4
    assert all(any(delay // 1 == second for delay in delays) for second in range(5))


def test_a_change_of_this_host_s_network_is_looked_at_at_once() -> None:
    signs = Signs(lambda: 4.0)
    signs.begin()
    signs.change("the machine has slept")
    assert signs.any.is_set()
    assert signs.delay(hurry=signs.begin()) == 0
    assert not signs.changed.is_set()
    assert signs.delay(hurry=signs.begin()) == 4
