"""Who is reached from the Internet, by the router's external address."""

import pytest

from natsup.state.outside import Reach, reach, warning


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("11.22.33.1", Reach.PUBLIC),
        ("192.168.1.2", Reach.PRIVATE),
        ("10.1.2.3", Reach.PRIVATE),
        ("172.31.0.1", Reach.PRIVATE),
        ("169.254.1.1", Reach.PRIVATE),
        ("127.0.0.1", Reach.PRIVATE),
        ("100.64.0.1", Reach.CARRIER),
        ("100.127.255.254", Reach.CARRIER),
        ("100.128.0.1", Reach.PUBLIC),
        ("192.0.0.2", Reach.CARRIER),
        ("0.0.0.0", Reach.NONE),
        ("", Reach.NONE),
        (None, Reach.NONE),
        ("nonsense", Reach.NONE),
    ],
)
def test_reach(address: str | None, expected: Reach) -> None:
    assert reach(address) is expected
    assert bool(warning(address)) is (expected is not Reach.PUBLIC)
