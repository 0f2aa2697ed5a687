"""Which protocol is taken, by the clock of the test."""

from natsup.upnp.race import HEAD_START, OPENING, Race

ORDER = ("upnp", "pcp", "natpmp")
NEVER = float("inf")


def test_the_preferred_one_is_taken_at_once() -> None:
    race = Race(ORDER)
    assert race.winner(0.0) is None
    assert race.next_deadline() == NEVER
    race.arrived("upnp", 0.0)
    assert race.winner(0.0) == "upnp"


def test_one_that_answers_a_little_later_is_preferred_still() -> None:
    race = Race(ORDER)
    race.arrived("natpmp", 10.0)
    race.arrived("pcp", 10.1)
    assert race.next_deadline() == 10.0 + HEAD_START
    assert race.winner(10.0 + HEAD_START - 0.01) is None
    race.arrived("upnp", 10.9)
    assert race.winner(10.9) == "upnp"


def test_one_that_does_not_answer_is_not_waited_for_longer() -> None:
    race = Race(ORDER)
    race.arrived("natpmp", 10.0)
    assert race.winner(race.next_deadline()) == "natpmp"
    race.arrived("pcp", 10.1)
    assert race.winner(race.next_deadline()) == "pcp"


def test_what_has_failed_is_not_waited_for() -> None:
    race = Race(ORDER)
    race.arrived("natpmp", 10.0)
    race.failed("upnp")
    assert race.winner(10.0) is None
    race.failed("pcp")
    assert race.winner(10.0) == "natpmp"
    assert not race.over
    assert race.next_deadline() == 10.0


def test_one_that_has_been_heard_has_longer() -> None:
    race = Race(ORDER)
    race.heard("upnp")
    race.arrived("pcp", 10.0)
    assert race.next_deadline() == 10.0 + OPENING
    assert race.winner(10.0 + OPENING - 0.01) is None
    assert race.winner(10.0 + OPENING) == "pcp"


def test_when_all_have_failed_it_is_over() -> None:
    race = Race(ORDER)
    for protocol in ORDER:
        assert not race.over
        race.failed(protocol)
    assert race.over
    assert race.winner(0.0) is None
