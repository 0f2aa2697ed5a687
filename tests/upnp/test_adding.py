"""The decisions: what each answer of a router comes to. No router, no time."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natsup.state.model import Conflict, Ignored, Mapped, Outcome, Port, Protocol, Removal, Unknown
from natsup.upnp import faults
from natsup.upnp.adding import (
    Answer,
    Delete,
    Device,
    Done,
    Fault,
    Found,
    Holder,
    Kind,
    Look,
    NoAnswer,
    Put,
    Step,
    adding,
    holder,
    looking,
    removing,
)

PORT = Port(Protocol.TCP, 6881)
UDP = Port(Protocol.UDP, 6881)
HERE, ROUTER, OTHER = "192.168.1.2", "192.168.1.1", "192.168.1.3"
WIRELESS = "192.168.1.4"  # this host's too
DEVICE = Device(HERE, ROUTER, own=frozenset({HERE, WIRELESS}))
ADDED = replace(DEVICE, added=frozenset({PORT}))

NOBODY = Fault(714)
OURS = Found(HERE, "6881", "1")
THEIRS = Found(OTHER, "6881", "1")
NAMED = Found("nas", "6881", "1")
OFF = Found(HERE, "6881", "0")
ELSEWHERE = Found(HERE, "6882", "1")
UNSUPPORTED = Fault(401)
LOST = NoAnswer("lost", sent=True)
UNSENT = NoAnswer("refused", sent=False)

Said = tuple[tuple[type[Step], Answer], ...]


def look(answer: Answer) -> tuple[type[Step], Answer]:
    return Look, answer


def put(answer: Answer) -> tuple[type[Step], Answer]:
    return Put, answer


DELETED: tuple[type[Step], Answer] = (Delete, Done())


def add(*said: tuple[type[Step], Answer], device: Device = DEVICE) -> tuple[Outcome, list[int]]:
    """Play an add through, each answer to the kind of step that it is for. Returns the outcome
    and the leases that were asked for."""
    outcome, leases, _ = play(said, device)
    return outcome, leases


def play(said: Said, device: Device, lease: int = 3600) -> tuple[Outcome, list[int], Device]:
    machine = adding(PORT, lease, device)
    leases = []
    step = next(machine)
    rest = list(said)
    while True:
        assert rest, f"asked {step} after the end"
        kind, answer = rest.pop(0)
        assert isinstance(step, kind), f"{step} where {kind.__name__} was expected"
        if isinstance(step, Put):
            leases.append(step.lease)
        try:
            step = machine.send(answer)
        except StopIteration as end:
            assert not rest, f"never asked: {rest}"
            outcome, learned = end.value
            return outcome, leases, learned


class TestConflict:
    def test_free_port(self) -> None:
        assert add(look(NOBODY), put(Done())) == (Mapped(3600), [3600])

    def test_another_hosts_is_never_asked_for(self) -> None:
        assert add(look(THEIRS)) == (Conflict(OTHER), [])

    def test_another_hosts_that_is_off_is_held_all_the_same(self) -> None:
        assert add(look(Found(OTHER, "6881", "0"))) == (Conflict(OTHER), [])

    def test_our_own_is_renewed(self) -> None:
        assert add(look(OURS), put(Done())) == (Mapped(3600), [3600])

    @pytest.mark.parametrize("stale", [OFF, ELSEWHERE])
    def test_our_own_that_does_not_fit_is_made_anew(self, stale: Found) -> None:
        assert add(look(stale), DELETED, put(Done())) == (Mapped(3600), [3600])

    @pytest.mark.parametrize("code", [718, 729, 501])
    def test_taken_in_between(self, code: int) -> None:
        assert add(look(NOBODY), put(Fault(code)), look(THEIRS))[0] == Conflict(OTHER)

    @pytest.mark.parametrize("code", [718, 729, 501])
    def test_refused_though_nobody_has_it(self, code: int) -> None:
        outcome, _ = add(look(NOBODY), put(Fault(code)), look(NOBODY))
        assert isinstance(outcome, Ignored)
        assert not outcome.slow

    @pytest.mark.parametrize("code", [718, 729, 501])
    def test_refused_though_it_is_ours(self, code: int) -> None:
        assert isinstance(add(look(OURS), put(Fault(code)), look(OURS))[0], Mapped)

    def test_refused_for_a_stale_one_of_ours(self) -> None:
        said = (look(NOBODY), put(Fault(718)), look(ELSEWHERE), DELETED, put(Done()))
        assert add(*said) == (Mapped(3600), [3600, 3600])

    def test_a_stale_one_is_deleted_once_only(self) -> None:
        said = (look(ELSEWHERE), DELETED, put(Fault(718)), look(ELSEWHERE))
        assert isinstance(add(*said)[0], Ignored)

    def test_718_where_no_look_is_possible_is_a_conflict(self) -> None:
        said = (look(UNSUPPORTED), put(Fault(718)), look(UNSUPPORTED))
        assert add(*said)[0] == Conflict("")

    @pytest.mark.parametrize("client", ["nas", "", "0.0.0.0", ROUTER, WIRELESS])
    def test_718_for_an_entry_that_names_no_other_host_is_none(self, client: str) -> None:
        entry = Found(client, "6881", "1")
        assert isinstance(add(look(NOBODY), put(Fault(718)), look(entry))[0], Ignored)

    @pytest.mark.parametrize("client", ["nas", "", "0.0.0.0", ROUTER, WIRELESS])
    def test_an_entry_that_does_not_say_whose_it_is_is_not_overwritten(self, client: str) -> None:
        outcome, leases = add(look(Found(client, "6881", "1")))
        assert isinstance(outcome, Ignored)
        assert "left alone" in outcome.reason
        assert not outcome.silent
        assert leases == []

    @pytest.mark.parametrize("first", [Done(), LOST])
    def test_unless_it_was_made_from_here(self, first: Answer) -> None:
        """There are routers that list a host by its name."""
        _, _, learned = play((look(NOBODY), put(first)), DEVICE)
        assert add(look(NAMED), put(Done()), device=learned) == (Mapped(3600), [3600])

    @pytest.mark.parametrize("seen", [NOBODY, THEIRS, ELSEWHERE])
    def test_what_was_lost_is_not_from_here_any_more(self, seen: Answer) -> None:
        _, learned = see(ADDED, seen)
        assert add(look(NAMED), device=learned)[1] == []

    @pytest.mark.parametrize("code", [729, 501])
    def test_others_where_no_look_is_possible_are_none(self, code: int) -> None:
        said = (look(UNSUPPORTED), put(Fault(code)), look(UNSUPPORTED))
        assert isinstance(add(*said)[0], Ignored)

    def test_no_look_is_possible_and_it_works(self) -> None:
        assert add(look(UNSUPPORTED), put(Done()))[0] == Mapped(3600)


class TestLeases:
    def test_permanent_only(self) -> None:
        outcome, leases, learned = play((look(NOBODY), put(Fault(725)), put(Done())), DEVICE)
        assert (outcome, leases) == (Mapped(0), [3600, 0])
        assert add(look(OURS), put(Done()), device=learned) == (Mapped(0), [0])

    def test_a_lease_refused_as_an_invalid_argument(self) -> None:
        assert add(look(NOBODY), put(Fault(402)), put(Done())) == (Mapped(0), [3600, 0])

    def test_only_a_long_lease(self) -> None:
        said = (look(NOBODY), put(Fault(402)), put(Fault(402)), put(Done()))
        assert add(*said) == (Mapped(604800), [3600, 0, 604800])

    def test_402_always_ends_after_three(self) -> None:
        outcome, leases = add(look(NOBODY), *[put(Fault(402))] * 3)
        assert outcome == Ignored(faults.meaning(402).reason, full=True)
        assert leases == [3600, 0, 604800]

    def test_no_longer_permanent_only(self) -> None:
        device = Device(HERE, ROUTER, permanent_only=True)
        said = (look(NOBODY), put(Fault(402)), put(Done()))
        outcome, leases, learned = play(said, device)
        assert (outcome, leases) == (Mapped(3600), [0, 3600])
        assert not learned.permanent_only

    def test_for_ever_where_that_is_refused(self) -> None:
        said = (look(NOBODY), put(Fault(402)), put(Fault(402)), put(Done()))
        outcome, leases, learned = play(said, DEVICE, lease=0)
        assert (outcome, leases) == (Mapped(604800), [0, 3600, 604800])
        assert not learned.permanent_only

    def test_for_ever_where_that_was_wanted_teaches_nothing(self) -> None:
        outcome, leases, learned = play((look(NOBODY), put(Done())), DEVICE, lease=0)
        assert (outcome, leases) == (Mapped(0), [0])
        assert not learned.permanent_only

    def test_725_for_a_permanent_lease(self) -> None:
        outcome, leases = add(look(NOBODY), put(Fault(725)), put(Fault(725)))
        assert isinstance(outcome, Ignored)
        assert leases == [3600, 0]


class TestCodes:
    # Code → is the table asked; can only the user change it; may it be for want of room
    ROWS = (
        (401, False, False, False),
        (606, False, True, False),
        (715, False, True, False),
        (716, False, False, False),
        (718, True, False, False),
        (724, False, False, False),
        (726, False, False, False),
        (727, False, True, False),
        (728, False, False, True),
        (729, True, False, False),
        (731, False, True, False),
        (732, False, False, False),
        (733, False, False, False),
        (501, True, False, True),
        (600, True, False, False),
        (605, True, False, False),
        (899, True, False, False),
        (399, True, False, False),
        (-911, True, False, False),
        (None, True, False, False),
    )

    @pytest.mark.parametrize(("code", "verified", "slow", "full"), ROWS)
    def test_refusals(self, code: int | None, verified: bool, slow: bool, full: bool) -> None:
        confirmation = (look(NOBODY),) if verified else ()
        outcome, leases = add(look(NOBODY), put(Fault(code)), *confirmation)
        assert outcome == Ignored(faults.meaning(code).reason, slow=slow, full=full)
        assert leases == [3600]

    @given(st.integers())
    def test_no_code_is_without_a_meaning(self, code: int) -> None:
        reason = faults.meaning(code).reason
        assert reason
        assert not reason.endswith(".")


class TestSilence:
    @pytest.mark.parametrize("silence", [LOST, UNSENT])
    def test_nothing_is_asked_of_a_router_that_is_silent(self, silence: NoAnswer) -> None:
        assert add(look(silence)) == (Ignored(silence.reason, silent=True), [])

    def test_an_add_that_was_not_answered_may_have_been_carried_out(self) -> None:
        assert add(look(NOBODY), put(LOST))[0] == Unknown("lost", silent=True)

    def test_an_add_with_an_answer_like_none(self) -> None:
        said = (look(UNSUPPORTED), put(Fault(None)), look(UNSUPPORTED))
        assert add(*said)[0] == Unknown(faults.meaning(None).reason)

    def test_an_add_that_was_not_sent_was_not(self) -> None:
        assert add(look(NOBODY), put(UNSENT))[0] == Ignored("refused", silent=True)


class TestDialects:
    """Some routers say "no such entry" with a code that means another thing."""

    @pytest.mark.parametrize("code", [402, 501, 606])
    def test_a_code_that_a_free_port_has_too_means_nobody(self, code: int) -> None:
        found, learned = see(DEVICE, Fault(code), Fault(code))
        assert found.kind is Kind.NOBODY
        again, _ = see(learned, Fault(code))  # and that is asked once
        assert again.kind is Kind.NOBODY

    @pytest.mark.parametrize("other", [NOBODY, THEIRS])
    def test_a_code_that_a_free_port_has_not_means_nothing(self, other: Answer) -> None:
        found, learned = see(DEVICE, Fault(402), other)
        assert found.kind is Kind.UNKNOWN
        assert see(learned, Fault(402))[0].kind is Kind.UNKNOWN

    def test_silence_teaches_nothing(self) -> None:
        found, learned = see(DEVICE, Fault(402), LOST)
        assert found.kind is Kind.UNKNOWN
        assert see(learned, Fault(402), Fault(402))[0].kind is Kind.NOBODY

    def test_each_code_is_asked_about(self) -> None:
        _, learned = see(DEVICE, Fault(402), NOBODY)
        found, learned = see(learned, Fault(501), Fault(501))
        assert found.kind is Kind.NOBODY
        assert see(learned, Fault(402))[0].kind is Kind.UNKNOWN

    @pytest.mark.parametrize("code", [401, 718, -1, None])
    def test_other_codes_mean_nothing(self, code: int | None) -> None:
        assert see(DEVICE, Fault(code))[0].kind is Kind.UNKNOWN

    @given(st.integers(1, 65535))
    def test_the_other_port_is_another_one(self, number: int) -> None:
        machine = looking(Port(Protocol.UDP, number), DEVICE)
        next(machine)
        step = machine.send(Fault(402))
        assert isinstance(step, Look)
        assert step.port.protocol is Protocol.UDP
        assert step.port.number != number
        assert 1024 <= step.port.number <= 65535


def see(device: Device, *answers: Answer) -> tuple[Holder, Device]:
    machine = looking(PORT, device)
    next(machine)
    for number, answer in enumerate(answers, 1):
        try:
            machine.send(answer)
        except StopIteration as end:
            assert number == len(answers)
            found: tuple[Holder, Device] = end.value
            return found
    raise AssertionError("it asks on")


def left(seconds: int) -> Found:
    """Ours, with so much of its lease left."""
    return Found(HERE, "6881", "1", str(seconds))


class TestLearned:
    """What a router does with leases, without saying so."""

    ADDED: Said = (look(NOBODY), put(Done()))
    OLD = left(1800)

    def test_a_lease_that_is_granted_for_less(self) -> None:
        _, _, device = play(self.ADDED, DEVICE)
        _, device = see(device, left(597))
        assert add(look(left(300)), put(Done()), look(left(600)), device=device)[0] == Mapped(597)
        assert add(*self.ADDED, device=device)[0] == Mapped(597)

    @pytest.mark.parametrize(
        ("shown", "granted"), [(0, 3600), (1, 60), (3597, 3600), (10**9, 3600)]
    )
    def test_what_is_said_of_a_lease_is_not_taken_at_its_word(
        self, shown: int, granted: int
    ) -> None:
        _, _, device = play(self.ADDED, DEVICE)
        _, device = see(device, left(shown))
        assert add(*self.ADDED, device=device)[0] == Mapped(granted)

    def test_a_renewal_that_prolongs_is_looked_at_once(self) -> None:
        said = (look(self.OLD), put(Done()), look(left(3600)))
        outcome, _, device = play(said, DEVICE)
        assert outcome == Mapped(3600)
        assert add(look(self.OLD), put(Done()), device=device) == (Mapped(3600), [3600])

    def test_where_nothing_is_prolonged_it_is_made_anew(self) -> None:
        said = (look(self.OLD), put(Done()), look(self.OLD), DELETED, put(Done()))
        outcome, leases, device = play(said, DEVICE)
        assert (outcome, leases) == (Mapped(3600), [3600, 3600])
        again = (look(self.OLD), DELETED, put(Done()))
        assert add(*again, device=device) == (Mapped(3600), [3600])

    def test_what_is_fresh_is_not_made_anew(self) -> None:
        device = replace(DEVICE, prolongs=False)
        assert add(look(left(3500)), put(Done()), device=device) == (Mapped(3600), [3600])

    @pytest.mark.parametrize("again", [NOBODY, THEIRS, OURS, UNSUPPORTED, LOST])
    def test_a_second_look_that_says_nothing_of_it_deletes_nothing(self, again: Answer) -> None:
        outcome, _, device = play((look(self.OLD), put(Done()), look(again)), DEVICE)
        assert outcome == Mapped(3600)
        assert device.prolongs is None

    def test_where_what_has_a_lease_is_gone_a_permanent_one_is_tried(self) -> None:
        _, _, device = play(self.ADDED, DEVICE)
        _, device = see(device, NOBODY)
        outcome, leases, device = play(self.ADDED, device)
        assert (outcome, leases) == (Mapped(0), [0])
        _, device = see(device, OURS)
        _, device = see(device, NOBODY)  # later on; that has another reason
        assert add(*self.ADDED, device=device) == (Mapped(0), [0])

    def test_where_a_permanent_one_is_gone_as_well_it_was_not_the_lease(self) -> None:
        device = DEVICE
        leases = []
        for _ in range(4):
            _, asked, device = play(self.ADDED, device)
            leases += asked
            _, device = see(device, NOBODY)
        assert leases == [3600, 0, 3600, 3600]

    def test_a_mapping_that_has_been_seen_may_go_for_any_reason(self) -> None:
        _, _, device = play(self.ADDED, DEVICE)
        for answer in (OURS, NOBODY):
            _, device = see(device, answer)
        assert add(*self.ADDED, device=device) == (Mapped(3600), [3600])


class TestFormer:
    """What this host left at the address that it had before."""

    LEFT = replace(DEVICE, former=frozenset({(PORT, OTHER), (UDP, OTHER)}))

    def test_it_is_moved_once(self) -> None:
        outcome, _, device = play((look(THEIRS), DELETED, put(Done())), self.LEFT)
        assert outcome == Mapped(3600)
        assert device.former == {(UDP, OTHER)}
        # By now it is another host that has the address.
        assert add(look(THEIRS), device=device)[0] == Conflict(OTHER)

    @pytest.mark.parametrize("seen", [NOBODY, OURS, NAMED, Found("192.168.1.9", "6881", "1")])
    def test_what_is_not_there_any_more_does_not_come_back(self, seen: Answer) -> None:
        machine = looking(PORT, self.LEFT)
        next(machine)
        with pytest.raises(StopIteration) as end:
            machine.send(seen)
        assert end.value.value[1].former == {(UDP, OTHER)}

    @pytest.mark.parametrize("seen", [LOST, Fault(401), THEIRS])
    def test_what_was_not_seen_to_be_gone_may_be_there(self, seen: Answer) -> None:
        machine = looking(PORT, self.LEFT)
        next(machine)
        with pytest.raises(StopIteration) as end:
            machine.send(seen)
        assert end.value.value[1].former == self.LEFT.former

    def test_one_that_cannot_be_removed_is_told_from_other_refusals(self) -> None:
        stays = (look(THEIRS), DELETED, put(Fault(718)), look(THEIRS))
        outcome, _, device = play(stays, self.LEFT)
        assert isinstance(outcome, Ignored)
        assert outcome.taken
        assert device.former == self.LEFT.former
        outcome, _, _ = play((look(NOBODY), put(Fault(718)), look(NOBODY)), self.LEFT)
        assert isinstance(outcome, Ignored)
        assert not outcome.taken

    def test_an_addition_without_an_answer_may_have_moved_it(self) -> None:
        _, _, device = play((look(THEIRS), DELETED, put(LOST)), self.LEFT)
        assert device.former == {(UDP, OTHER)}


class TestHolder:
    @pytest.mark.parametrize("client", [HERE, f" {HERE}\n"])
    def test_ours(self, client: str) -> None:
        assert holder(Found(client, " 6881 ", "true"), PORT, DEVICE).kind is Kind.OURS

    @pytest.mark.parametrize("enabled", ["0", "false", "No"])
    def test_switched_off(self, enabled: str) -> None:
        assert holder(Found(HERE, "6881", enabled), PORT, DEVICE).kind is Kind.STALE

    @pytest.mark.parametrize(
        "client", ["", "nas", "nas.lan", ROUTER, "0.0.0.0", "127.0.0.1", "1.2.3", "::1", "\0"]
    )
    def test_what_names_no_host_proves_nothing(self, client: str) -> None:
        assert holder(Found(client, "6881", "1"), PORT, DEVICE).kind is Kind.UNKNOWN

    @pytest.mark.parametrize(
        ("client", "lan", "kind"),
        [
            ("192.168.1.77", 24, Kind.OTHER),
            ("192.168.1.77", 0, Kind.OTHER),
            ("8.8.8.8", 24, Kind.UNKNOWN),
            (WIRELESS, 24, Kind.UNKNOWN),
            ("192.168.1.0", 24, Kind.UNKNOWN),
            ("192.168.1.255", 24, Kind.UNKNOWN),
            ("192.168.1.255", 16, Kind.OTHER),
            ("192.168.255.255", 16, Kind.UNKNOWN),
            ("192.168.1.3", 31, Kind.OTHER),
            ("255.255.255.255", 0, Kind.UNKNOWN),
            ("224.0.0.1", 0, Kind.UNKNOWN),
        ],
    )
    def test_only_a_host_of_the_lan_can_be_another(self, client: str, lan: int, kind: Kind) -> None:
        found = holder(Found(client, "6881", "1"), PORT, replace(DEVICE, lan=lan))
        assert (found.kind, found.listed) == (kind, kind is Kind.UNKNOWN)

    @pytest.mark.parametrize(
        ("said", "seconds"),
        [
            ("3600", 3600),
            (" 59\n", 59),
            ("0", 0),
            ("", 0),
            ("-1", 0),
            ("soon", 0),
            ("1.5", 0),
            ("\u0663", 0),
            ("4294967295", 4294967295),
            ("4294967296", 0),
            ("9" * 5000, 0),
        ],
    )
    def test_the_seconds_left(self, said: str, seconds: int) -> None:
        found = holder(Found(HERE, "6881", "1", said), PORT, DEVICE)
        assert (found.kind, found.lease) == (Kind.OURS, seconds)

    @given(st.text(), st.text(), st.text())
    def test_any_text(self, client: str, number: str, enabled: str) -> None:
        found = holder(Found(client, number, enabled), PORT, DEVICE)
        assert (found.kind is Kind.OTHER) == bool(found.address)


class TestRemoving:
    @pytest.mark.parametrize(
        ("said", "removal"),
        [
            ((look(NOBODY),), Removal.GONE),
            ((look(THEIRS),), Removal.NOT_OURS),
            ((look(ELSEWHERE),), Removal.NOT_OURS),
            ((look(LOST),), Removal.FAILED),
            ((look(UNSENT),), Removal.FAILED),
            ((look(OURS), (Delete, Done())), Removal.GONE),
            ((look(OURS), (Delete, Fault(714))), Removal.GONE),
            ((look(OURS), (Delete, Fault(606))), Removal.NOT_OURS),
            ((look(OURS), (Delete, Fault(501))), Removal.FAILED),
            ((look(OURS), (Delete, Fault(None))), Removal.FAILED),
            ((look(OURS), (Delete, LOST)), Removal.FAILED),
            ((look(UNSUPPORTED), (Delete, Done())), Removal.GONE),
            ((look(NAMED),), Removal.FAILED),
            ((look(Found(WIRELESS, "6881", "1")),), Removal.FAILED),
        ],
    )
    def test_rows(self, said: Said, removal: Removal) -> None:
        machine = removing(PORT, DEVICE)
        step = next(machine)
        for kind, answer in said[:-1]:
            assert isinstance(step, kind)
            step = machine.send(answer)
        kind, answer = said[-1]
        assert isinstance(step, kind)
        with pytest.raises(StopIteration) as end:
            machine.send(answer)
        assert end.value.value == (removal, DEVICE)

    @pytest.mark.parametrize("entry", [NAMED, OURS])
    def test_what_was_made_from_here_is_removed_whatever_it_is_called(self, entry: Found) -> None:
        machine = removing(PORT, ADDED)
        next(machine)
        assert machine.send(entry) == Delete(PORT)
        with pytest.raises(StopIteration) as end:
            machine.send(Done())
        assert end.value.value == (Removal.GONE, DEVICE)


ANSWERS = st.one_of(
    st.sampled_from([OURS, THEIRS, OFF, ELSEWHERE, NAMED, LOST, UNSENT, Done()]),
    st.builds(Fault, st.sampled_from([401, 402, 501, 606, 713, 714, 718, 725, 729, None])),
)


@given(st.lists(ANSWERS, min_size=40, max_size=40), st.booleans())
def test_whatever_is_answered_it_ends_and_steals_nothing(
    answers: list[Answer], permanent: bool
) -> None:
    machine = adding(PORT, 3600, Device(HERE, ROUTER, permanent_only=permanent))
    step = next(machine)
    last: Answer | None = None  # what the last look at our port showed
    adds = 0
    for answer in answers:
        if isinstance(step, Look) and step.port == PORT:
            last = answer
        elif not isinstance(step, Look):
            assert last not in (THEIRS, NAMED)
            adds += isinstance(step, Put)
            if isinstance(step, Put) and isinstance(answer, Found):
                answer = Done()  # only a look finds something
        try:
            step = machine.send(answer)
        except StopIteration as end:
            outcome, _ = end.value
            assert isinstance(outcome, Mapped | Conflict | Ignored | Unknown)
            if isinstance(outcome, Mapped):
                assert last not in (THEIRS, NAMED)
            assert adds <= 6
            return
    raise AssertionError("it never ends")
