# SPDX-License-Identifier: AGPL-3.0-or-later
"""The rules of the quarantine and of the breakers: no clock, no processes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.quarantine import Call, Policy, Quarantine

POISON = Call("divide", "aa" * 16)
OTHER = Call("divide", "bb" * 16)
BYSTANDER = Call("echo", "cc" * 16)


def call(number):
    return Call("divide", f"{number:032x}")


class Ward:
    """A quarantine and its clock, which only the test moves."""

    def __init__(self, kept=(), **policy):
        self.state = Quarantine(Policy(**policy), kept)
        self.now = 1000.0

    def dies(self, *calls):
        return self.words(self.state.died(calls, cause="signal 9", at=f"at {self.now:g}", now=self.now))

    def answers(self, one):
        return self.words(self.state.survived(one))

    def passes(self, seconds):
        self.now += seconds
        return self.words(self.state.pass_time(self.now))

    def words(self, verdicts):
        return [f"{verdict.what}: {verdict.tool}" for verdict in verdicts]

    @property
    def refused(self):
        return [one.digest for one in self.state.quarantined]

    def marks(self):
        return self.state.marks(self.now)

    def breaker(self):
        (breaker,) = self.state.breakers(self.now)
        return breaker


# --- quarantine ----------------------------------------------------------------------------------------------------


def test_the_second_death_quarantines_the_call_and_no_other():
    ward = Ward()
    assert ward.dies(POISON) == []
    assert ward.dies(POISON) == ["quarantined: divide"]
    (one,) = ward.state.quarantined
    assert (one.digest, one.id, one.deaths) == (POISON.digest, POISON.digest[:12], 2)
    assert (one.cause, one.last_at) == ("signal 9", "at 1000")
    ward.dies(OTHER, BYSTANDER)
    assert ward.refused == [POISON.digest]


def test_an_answer_in_between_sets_the_count_back():
    ward = Ward(deaths=1000)
    for _ in range(50):
        ward.dies(POISON)
        ward.answers(POISON)
    assert ward.refused == []
    ward.dies(POISON)
    assert ward.dies(POISON) == ["quarantined: divide"]


def test_equal_calls_at_one_death_count_once():
    ward = Ward()
    assert ward.dies(POISON, POISON, POISON) == []


def test_an_answer_to_another_call_of_the_tool_clears_no_suspect():
    ward = Ward()
    ward.dies(POISON)
    ward.answers(OTHER)
    assert ward.dies(POISON) == ["quarantined: divide"]


def test_a_call_that_is_quarantined_stays_so_whatever_happens():
    ward = Ward()
    ward.dies(POISON), ward.dies(POISON)
    ward.answers(POISON)
    ward.passes(1e6)
    assert ward.dies(POISON) == []
    assert ward.state.quarantined[0].deaths == 3
    assert ward.refused == [POISON.digest]


@pytest.mark.parametrize("name", [POISON.digest, POISON.digest[:12]])
def test_a_released_call_is_let_in_and_counts_from_nothing(name):
    ward = Ward()
    ward.dies(POISON), ward.dies(POISON)
    assert ward.words(ward.state.release(name)) == ["released: divide"]
    assert ward.refused == []
    assert ward.state.release(name) == []
    ward.answers(POISON)
    assert ward.dies(POISON) == []
    assert ward.dies(POISON) == ["quarantined: divide"]


def test_how_many_deaths_is_a_matter_of_policy():
    ward = Ward(after=1)
    assert ward.dies(POISON) == ["quarantined: divide"]


def test_suspects_are_watched_and_quarantined_calls_are_not():
    ward = Ward()
    ward.dies(POISON, OTHER)
    assert ward.marks().watched == [POISON.digest, OTHER.digest]
    ward.dies(POISON)
    assert ward.marks().watched == [OTHER.digest]
    assert [one.digest for one in ward.marks().quarantined] == [POISON.digest]


def test_the_oldest_are_forgotten_and_a_full_quarantine_still_learns():
    ward = Ward(max_calls=3, deaths=1000)
    ward.dies(call(0)), ward.dies(call(0))
    ward.dies(call(1), call(2), call(3), call(4))
    assert ward.refused == [call(0).digest]
    assert ward.marks().watched == [call(2).digest, call(3).digest, call(4).digest]
    for number in (4, 5, 6):
        ward.dies(call(number)), ward.dies(call(number))
    assert ward.refused == [call(number).digest for number in (4, 5, 6)]
    assert len(ward.marks().watched) <= 3


def test_what_was_kept_is_refused_from_the_start_and_within_the_bound():
    before = Ward(deaths=1000)
    for number in range(5):
        before.dies(call(number)), before.dies(call(number))
    ward = Ward(before.state.quarantined, max_calls=3)
    assert ward.refused == [call(number).digest for number in (2, 3, 4)]


def test_names_of_tools_are_bounded_too():
    ward = Ward()
    ward.dies(*(Call(f"tool{number}", f"{number:032x}") for number in range(2000)))
    assert len(ward.marks().watched_tools) == 500


# --- breakers ------------------------------------------------------------------------------------------------------


def opened(**policy):
    ward = Ward(**policy)
    for number in range(2):
        assert ward.dies(call(number)) == []
    assert ward.dies(call(2)) == ["breaker open: divide"]
    return ward


def test_three_deaths_with_any_arguments_open_the_breaker():
    breaker = opened().breaker()
    assert (breaker.tool, breaker.half_open, breaker.retry_after_s, breaker.deaths) == ("divide", False, 30.0, 3)


def test_deaths_that_are_long_ago_do_not_count():
    ward = Ward()
    for number in range(6):
        assert ward.dies(call(number)) == []
        ward.passes(31)


def test_any_answer_of_the_tool_in_between_keeps_it_closed():
    ward = Ward()
    for number in range(20):
        assert ward.dies(call(number)) == []
        ward.answers(call(100))


def test_after_its_time_it_is_half_open_and_watched():
    ward = opened()
    assert ward.state.next_at() == ward.now + 30
    assert ward.marks().watched_tools == []
    assert ward.passes(29.9) == []
    assert ward.passes(0.1) == ["breaker half open: divide"]
    assert ward.breaker().half_open
    assert ward.marks().watched_tools == ["divide"]
    assert ward.state.next_at() is None


def test_a_trial_that_is_answered_closes_it_and_the_next_opening_is_short_again():
    ward = opened()
    ward.passes(30)
    assert ward.answers(call(7)) == ["breaker closed: divide"]
    assert ward.state.breakers(ward.now) == []
    for number in (10, 11):
        assert ward.dies(call(number)) == []
    ward.dies(call(12))
    assert ward.breaker().retry_after_s == 30


def test_a_trial_that_ends_a_process_opens_it_for_twice_as_long_up_to_the_cap():
    ward = opened()
    waits = []
    for number in range(3, 10):
        waits.append(ward.breaker().retry_after_s)
        ward.passes(waits[-1])
        assert "breaker open: divide" in ward.dies(call(number))
    assert waits == [30, 60, 120, 240, 480, 600, 600]


def test_while_it_is_open_neither_a_death_nor_an_answer_from_before_changes_it():
    ward = opened()
    ward.passes(10)
    assert ward.dies(call(8)) == []
    assert ward.answers(call(9)) == []
    assert ward.breaker().retry_after_s == 20


def test_the_breaker_of_one_tool_is_no_matter_of_another():
    ward = opened()
    assert ward.answers(BYSTANDER) == []
    assert [one.tool for one in ward.state.breakers(ward.now)] == ["divide"]


def test_quarantined_calls_stay_refused_when_the_breaker_closes():
    ward = Ward()
    ward.dies(POISON), ward.dies(POISON), ward.dies(OTHER)
    ward.passes(30)
    ward.answers(call(1))
    assert ward.refused == [POISON.digest]


def test_an_operator_may_close_it_and_release_all():
    ward = opened()
    assert ward.words(ward.state.release("divide")) == ["breaker closed: divide"]
    for _ in range(3):
        ward.dies(POISON)
    assert ward.words(ward.state.release_all()) == ["released: divide", "breaker closed: divide"]
    assert ward.state.release("divide") == []


# --- a model -------------------------------------------------------------------------------------------------------

CALLS = st.sampled_from([Call(tool, tool * 16 + digit * 16) for tool in "ab" for digit in "123"])
STEPS = st.one_of(
    st.tuples(st.just("dies"), st.lists(CALLS, max_size=3)),
    st.tuples(st.just("answers"), CALLS),
    st.tuples(st.just("release"), CALLS),
    st.tuples(st.just("passes"), st.sampled_from([0.0, 1.0, 29.0, 61.0, 700.0])),
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(STEPS, max_size=40))
def test_a_call_is_refused_exactly_when_two_deaths_had_no_answer_between(steps):
    ward = Ward()
    counts: dict[str, int] = {}
    for step, what in steps:
        if step == "dies":
            ward.dies(*what)
            for digest in {one.digest for one in what}:
                counts[digest] = counts.get(digest, 0) + 1
        elif step == "answers":
            ward.answers(what)
            if counts.get(what.digest, 0) < 2:
                counts.pop(what.digest, None)
        elif step == "release":
            ward.state.release(what.digest)
            if counts.get(what.digest, 0) >= 2:
                del counts[what.digest]
        else:
            ward.passes(what)
        assert set(ward.refused) == {digest for digest, count in counts.items() if count >= 2}
        assert set(ward.marks().watched) == {digest for digest, count in counts.items() if count == 1}
        for breaker in ward.state.breakers(ward.now):
            assert 0 <= breaker.retry_after_s <= 600
            assert breaker.deaths >= 3
