# SPDX-License-Identifier: AGPL-3.0-or-later
"""Stops, hangs, and events that come too late.

Written with `Drive` (tests/support/driving.py), as in `test_strategies.py`: one event at a time, the core's wishes in
short words, and a clock that only the test moves.
"""

from __future__ import annotations

import pytest
from driving import (
    CRASH,
    ENDS,
    KILLED,
    QUICK,
    Drive,
    child,
    group,
    root,
)

from supervisor.events import ChildExited, ChildHung, ChildReady, TimerFired

# --- stopping --------------------------------------------------------------------------------------------------------


def test_children_stop_one_after_the_other_in_reverse_start_order():
    drive = Drive(root(), group("tools"), child("pool", group="tools"), child("router"), child("gateway")).start()
    assert drive.stop() == ["stop gateway"]
    assert drive.ends("gateway") == ["stop router"]
    assert drive.ends("router") == ["stop pool"]
    assert drive.ends("pool") == ["end 0"]
    assert drive.end.reason == "told to"


def test_processes_of_one_pool_stop_together():
    drive = Drive(child("a"), child("pool#0"), child("pool#1"), child("b")).start()
    drive.stop()
    assert drive.ends("b") == ["stop pool#0", "stop pool#1"]
    assert drive.ends("pool#0") == []
    assert drive.ends("pool#1") == ["stop a"]


def test_each_child_is_stopped_in_its_own_way():
    drive = Drive(child("a", shutdown=None), child("b", shutdown="kill"), child("c", shutdown=2.5)).start()
    assert drive.settle(drive.stop()) == ["stop c", "kill b", "stop a", "end 0"]
    assert drive.grace == {"c": 2.5, "a": None}


def test_a_child_that_dies_while_it_stops_has_stopped():
    drive = Drive(child("a"), child("b")).start()
    drive.stop()
    assert drive.dies("b", KILLED) == ["stop a"]


def test_a_child_that_dies_before_its_turn_to_stop_is_not_restarted():
    drive = Drive(child("a"), child("b")).start()
    drive.stop()
    assert drive.dies("a") == []
    assert drive.ends("b") == ["end 0"]


def test_a_stop_wins_over_the_restarts_that_are_planned():
    drive = Drive(root(backoff=QUICK), child("a"), child("b")).start()
    drive.settle(drive.dies("a"))
    drive.dies("a")
    assert drive.settle(drive.stop()) == ["forget timer of a", "stop b", "end 0"]


def test_a_stop_wins_over_an_endless_loop_of_restarts():
    drive = Drive(root(strategy="one_for_all"), child("a"), child("b")).start()
    assert drive.dies("a") == ["stop b"]
    drive.stop()
    assert drive.ends("b") == ["end 0"]


def test_a_stop_during_the_first_start_is_no_failure():
    drive = Drive(child("a"), child("b"))
    drive.boot()
    assert drive.settle(drive.stop()) == ["stop b", "stop a", "end 0"]


def test_a_child_that_becomes_ready_while_the_tree_stops_starts_nobody():
    drive = Drive(root(strategy="rest_for_one"), child("a"), child("b"))
    drive.boot()
    drive.stop()
    assert drive.ready("a") == []
    assert drive.ends("a") == ["end 0"]


def test_a_second_stop_kills_what_is_left_at_once():
    drive = Drive(child("a"), child("b"), child("c")).start()
    drive.stop()
    drive.ends("c")
    assert drive.stop() == ["kill a", "kill b"]
    assert drive.stop() == []
    drive.dies("a", KILLED)
    assert drive.dies("b", KILLED) == ["end 0"]


def test_the_reason_of_a_stop_may_be_empty():
    drive = Drive(child("a")).start()
    assert drive.settle(drive.stop("")) == ["stop a", "end 0"]


def test_an_empty_tree_stops_at_once():
    drive = Drive()
    drive.boot()
    assert drive.stop() == ["end 0"]


def test_nothing_happens_after_the_end():
    drive = Drive(child("a")).start()
    drive.settle(drive.stop())
    for again in (drive.stop(), drive.restart("a"), drive.add(child("b")), drive.timer("a"), drive.dies("a")):
        assert again == []


def test_a_failed_start_keeps_its_exit_code_when_a_stop_follows():
    drive = Drive(child("a"), child("b"))
    drive.boot()
    drive.dies("a")
    drive.stop()
    assert drive.ends("b") == ["end 1"]


# --- hangs and stale events ------------------------------------------------------------------------------------------


def test_a_hung_child_is_killed_once_and_its_end_is_an_abnormal_one():
    drive = Drive(child("a", restart="transient"), child("b")).start()
    assert drive.hangs("a") == ["kill a"]
    assert drive.hangs("a") == []
    assert drive.dies("a", ENDS["hung"]) == ["start a"]
    assert drive.hangs("a") == ["kill a"]


@pytest.mark.parametrize("event", [ChildReady, ChildHung, lambda *life: ChildExited(*life, CRASH)])
@pytest.mark.parametrize("life", [("a", 1), ("a", 99), ("nobody", 1)])
def test_events_of_a_life_that_is_no_more_change_nothing(event, life):
    drive = Drive(child("a"), child("b")).start()
    drive.settle(drive.dies("a"))
    before = drive.core.children()
    assert drive.give(event(*life)) == []
    assert drive.core.children() == before
    assert drive.said("stale") == [f"{life[0]}: "]


def test_the_second_end_of_the_same_life_is_stale():
    drive = Drive(root(backoff=QUICK), child("a"), child("b")).start()
    drive.settle(drive.dies("a"))
    assert drive.dies("a") == ["wait 1 s for a"]
    assert drive.dies("a") == []


def test_a_timer_that_nobody_waits_for_changes_nothing():
    drive = Drive(child("a")).start()
    assert drive.give(TimerFired("restart a")) == []
    assert drive.give(TimerFired("something else")) == []
