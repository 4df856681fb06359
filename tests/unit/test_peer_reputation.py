# SPDX-License-Identifier: AGPL-3.0-or-later
"""Reputation: what a peer did counts, the latest most, and time draws it to the middle."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.p2p.peer_registry.reputation import RULES, Outcome, Track, after, after_lie, reputation

DONE, FAILED = Outcome(ok=True), Outcome(ok=False)
LATE = Outcome(ok=True, seconds=10.0, expected_s=1.0)
NOW = 1_000_000.0


def track_of(*outcomes, at=NOW):
    track = Track()
    for outcome in outcomes:
        track = after_lie(track, at) if outcome == "lie" else after(track, outcome, at)
    return track


def score(*outcomes, later=0.0):
    return reputation(track_of(*outcomes), NOW + later)


def test_nothing_done_is_the_middle():
    assert score() == RULES.prior == 0.5


def test_a_single_outcome_is_no_verdict_and_many_are():
    assert 0.5 < score(DONE) < 0.7
    assert score(*[DONE] * 100) > 0.9
    assert score(*[FAILED] * 100) < 0.1


def test_the_latest_outcomes_count_most():
    assert score(*[DONE] * 1000, *[FAILED] * 100) < 0.2
    assert score(*[FAILED] * 1000, *[DONE] * 100) > 0.8


def test_a_success_that_was_far_too_late_is_worth_half():
    assert score(FAILED) < score(LATE) < score(DONE)
    assert score(*[Outcome(ok=True, seconds=1e6, expected_s=1.0)] * 1000) == pytest.approx(0.5, abs=0.01)
    assert score(Outcome(ok=True, seconds=0.1, expected_s=1.0)) == score(DONE) == score(Outcome(ok=True, seconds=9.0))


def test_one_lie_outweighs_all_that_was_done_right():
    assert score(*[DONE] * 1000, "lie") < 0.3
    assert score("lie") < score(*[FAILED] * 10)


def test_time_draws_everything_to_the_middle():
    bad = [score("lie", later=hours * 3600.0) for hours in range(0, 100, 10)]
    assert bad == sorted(bad)
    assert bad[-1] == pytest.approx(0.5, abs=0.01)
    assert score(*[DONE] * 50, later=100 * 3600.0) == pytest.approx(0.5, abs=0.01)


def test_a_clock_that_was_put_back_changes_nothing():
    assert score(DONE, later=-1e6) == score(DONE)


@given(st.lists(st.tuples(st.sampled_from([DONE, FAILED, LATE, "lie"]), st.floats(-1e5, 1e7)), max_size=80))
def test_a_reputation_is_between_0_and_1_and_its_memory_has_a_bound(steps):
    track, now = Track(), NOW
    for outcome, later in steps:
        now += later
        before = reputation(track, now)
        track = after_lie(track, now) if outcome == "lie" else after(track, outcome, now)
        assert 0.0 <= track.good <= track.weight <= RULES.window * (1 + 1e-9)
        assert 0.0 < reputation(track, now) < 1.0
        if outcome == DONE:
            assert reputation(track, now) >= before - 1e-12
        elif outcome != LATE:
            assert reputation(track, now) <= before + 1e-12
