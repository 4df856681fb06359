# SPDX-License-Identifier: AGPL-3.0-or-later
"""The rules of supervision, one test for each, against the pure core.

`Drive` (tests/support/driving.py) hands one event at a time to the core and returns what the core wants done, in short
words: `start a`, `stop a`, `kill a`, `wait 2 s for a`. Nothing is carried out unless the test says so, and time stands
still unless the test moves it.
"""

from __future__ import annotations

import random

import pytest
from driving import (
    CRASH,
    ENDS,
    KILLED,
    NORMAL,
    QUICK,
    Drive,
    child,
    group,
    root,
    three,
)

from supervisor.events import ExitReason
from supervisor.spec import Intensity

# --- starting --------------------------------------------------------------------------------------------------------


def test_children_start_at_once_where_they_do_not_depend_on_each_other():
    drive = Drive(child("a"), child("b"), child("c"))
    assert drive.boot() == ["start a", "start b", "start c"]


@pytest.mark.parametrize("strategy", ["rest_for_one", "one_for_all"])
def test_children_of_an_ordered_group_wait_until_those_before_them_are_ready(strategy):
    drive = Drive(root(strategy=strategy), child("a"), child("b"), child("c"))
    assert drive.boot() == ["start a"]
    assert drive.ready("a") == ["start b"]
    assert drive.ready("b") == ["start c"]


def test_a_group_starts_before_the_children_of_its_parent():
    drive = Drive(root(), group("tools"), child("gateway"), child("pool", group="tools"))
    assert drive.boot() == ["start pool", "start gateway"]


def test_an_ordered_parent_waits_for_a_nested_group_as_a_whole():
    drive = Drive(
        root(strategy="rest_for_one"),
        group("one"),
        group("two"),
        child("a1", group="one"),
        child("a2", group="one"),
        child("b", group="two"),
        child("c"),
    )
    assert drive.boot() == ["start a1", "start a2"]
    assert drive.ready("a1") == []
    assert drive.ready("a2") == ["start b"]
    assert drive.ready("b") == ["start c"]


@pytest.mark.parametrize("reason", [CRASH, KILLED, NORMAL, ExitReason(kind="boot_timeout", signal=9)])
def test_a_child_that_ends_before_the_tree_was_up_ends_the_tree(reason):
    drive = Drive(child("a"), child("b"))
    drive.boot()
    drive.ready("a")
    assert drive.dies("b", reason) == ["stop a"]
    assert drive.ends("a") == ["end 1"]


def test_a_failed_first_start_says_who_failed_and_how():
    drive = Drive(child("router"))
    drive.boot()
    drive.dies("router", ExitReason(kind="boot_death", exit_code=3, text="no such table: routes"))
    assert (
        drive.end.reason == "router could not be started: ended before it was ready, exit code 3: no such table: routes"
    )


def test_a_child_that_was_ready_may_not_die_during_the_first_start_either():
    drive = Drive(child("a"), child("b"))
    drive.boot()
    drive.ready("a")
    assert drive.dies("a") == ["stop b"]


def test_the_first_start_is_over_when_the_last_child_that_was_not_ready_is_removed():
    drive = Drive(child("a"), child("b"))
    drive.boot()
    drive.ready("a")
    drive.settle(drive.remove("b"))
    assert drive.dies("a") == ["start a"]


# --- restart types: which ends lead to a restart ---------------------------------------------------------------------


@pytest.mark.parametrize("end", ENDS)
def test_a_permanent_child_is_always_restarted(end):
    drive = Drive(child("a"), child("b")).start()
    assert drive.dies("a", ENDS[end]) == ["start a"]


@pytest.mark.parametrize("end", ENDS)
def test_a_transient_child_is_restarted_unless_it_ended_normally(end):
    drive = Drive(child("a", restart="transient"), child("b")).start()
    assert drive.dies("a", ENDS[end]) == ([] if end == "normal" else ["start a"])


def test_a_transient_child_that_has_finished_stays_known():
    drive = Drive(child("a", restart="transient"), child("b")).start()
    drive.dies("a", NORMAL)
    assert drive.states() == "a=off b=ready"
    assert drive.restart("a") == ["start a"]


@pytest.mark.parametrize("end", ENDS)
def test_a_temporary_child_is_never_restarted_and_is_forgotten(end):
    drive = Drive(child("a", restart="temporary"), child("b")).start()
    assert drive.dies("a", ENDS[end]) == []
    assert drive.states() == "b=ready"


def test_an_end_that_needs_no_restart_is_no_error_if_it_was_normal():
    for end, level in ((NORMAL, "INFO"), (CRASH, "ERROR")):
        drive = Drive(child("a", restart="temporary"), child("b")).start()
        drive.dies("a", end)
        assert (drive.reports[-1].level, drive.reports[-1].decision) == (level, "leave it")


def test_each_life_has_a_higher_number_than_every_life_before_it():
    drive = Drive(child("a"), child("b")).start()
    numbers = [drive.incarnations["a"], drive.incarnations["b"]]
    for name in ("b", "a", "a"):
        drive.dies(name)
        drive.timer(name)
        numbers.append(drive.incarnations[name])
    assert numbers == sorted(set(numbers))


# --- strategies: who goes down with a child --------------------------------------------------------------------------


def test_one_for_one_restarts_nobody_else():
    assert three("one_for_one").dies("b") == ["start b"]


def test_one_for_all_stops_all_and_starts_all_again_in_order():
    drive = three("one_for_all")
    assert drive.dies("b") == ["stop c"]
    assert drive.ends("c") == ["stop a"]
    assert drive.ends("a") == ["start a"]
    assert drive.ready("a") == ["start b"]
    assert drive.ready("b") == ["start c"]


def test_rest_for_one_restarts_those_behind_and_leaves_those_before():
    drive = three("rest_for_one")
    assert drive.dies("b") == ["stop c"]
    assert drive.ends("c") == ["start b"]
    assert drive.ready("b") == ["start c"]


def test_the_last_of_a_rest_for_one_group_takes_nobody_along():
    assert three("rest_for_one").dies("c") == ["start c"]


def test_children_that_were_stopped_for_a_sibling_do_not_count_as_restart_attempts():
    drive = three("one_for_all", intensity=Intensity(restarts=1, within_s=10.0))
    assert drive.settle(drive.dies("b"))[-1] == "start c"
    assert drive.end is None


def test_a_sibling_that_dies_by_itself_while_it_waits_for_its_stop_is_just_gone():
    drive = three("one_for_all")
    assert drive.dies("b") == ["stop c"]
    assert drive.dies("a") == []
    assert drive.ends("c") == ["start a"]
    assert drive.said("gave_up") == []


def test_a_sibling_that_fails_while_it_is_restarted_is_an_attempt_of_its_own():
    drive = three("one_for_all", intensity=Intensity(restarts=1, within_s=10.0))
    assert drive.dies("a") == ["stop c"]
    drive.ends("c")
    assert drive.ends("b") == ["start a"]
    assert drive.ready("a") == ["start b"]
    assert drive.dies("b") == ["stop a"]
    assert drive.said("gave_up") == ["root: stop the tree"]


def test_a_sibling_may_die_in_its_boot_during_a_restart_without_ending_the_tree():
    drive = three("one_for_all", backoff=QUICK)
    drive.dies("a")
    drive.ends("c")
    assert drive.ends("b") == ["start a"]
    assert drive.ready("a") == ["start b"]
    assert drive.dies("b", ENDS["boot_death"]) == ["stop a"]
    assert drive.settle(drive.ends("a")) == ["start a", "start b", "start c"]


def test_a_temporary_bystander_is_stopped_with_its_group_and_not_started_again():
    drive = Drive(root(strategy="one_for_all"), child("a"), child("b", restart="temporary"), child("c")).start()
    assert drive.settle(drive.dies("a")) == ["stop c", "stop b", "start a", "start c"]
    assert drive.states() == "a=ready c=ready"


def test_a_temporary_bystander_that_never_ran_is_forgotten_too():
    drive = Drive(root(strategy="rest_for_one"), child("a"), child("b")).start()
    drive.dies("a")
    drive.add(child("c", restart="temporary"))
    drive.ends("b")
    assert drive.dies("a") == ["wait 0.1 s for a"]
    assert drive.states() == "a=restarting b=restarting"


def test_a_sibling_that_has_finished_stays_so_when_its_group_is_restarted():
    drive = Drive(root(strategy="one_for_all"), child("a"), child("b", restart="transient"), child("c")).start()
    drive.dies("b", NORMAL)
    assert drive.settle(drive.dies("a")) == ["stop c", "start a", "start c"]


def test_a_restart_does_not_wait_for_an_independent_sibling_that_is_slow_to_stop():
    drive = Drive(child("a"), child("b")).start()
    assert drive.restart("a") == ["stop a"]
    assert drive.dies("b") == ["start b"]


def test_a_restart_in_an_ordered_group_waits_for_the_sibling_that_is_slow_to_stop():
    drive = three("rest_for_one")
    assert drive.restart("a") == ["stop a"]
    assert drive.dies("b") == ["stop c"]
    assert drive.ends("c") == []
    assert drive.settle(drive.ends("a")) == ["start a", "start b", "start c"]


# --- back-off --------------------------------------------------------------------------------------------------------


def test_the_first_restart_is_at_once_and_the_bound_of_the_delay_doubles_up_to_the_cap():
    drive = Drive(root(backoff=QUICK), child("a"), child("b")).start()
    wanted = []
    for _ in range(6):
        wanted += drive.dies("a")
        wanted += drive.timer("a") if "a" not in drive.alive else []
    waits = [words for words in wanted if words.startswith("wait")]
    assert wanted[0] == "start a"
    assert waits == [f"wait {seconds} s for a" for seconds in (1, 2, 4, 8, 8)]


def test_the_delay_is_drawn_from_the_whole_range_below_its_bound():
    seed = random.randrange(2**32)
    print("seed", seed)
    drive = Drive(root(backoff=QUICK), child("a"), child("b"), rng=random.Random(seed)).start()
    waits = []
    for _ in range(400):
        for words in drive.dies("a"):
            if words.startswith("wait"):
                waits.append(float(words.split()[1]))
                drive.timer("a")
    late = waits[10:]
    assert max(late) <= 8.0
    assert min(late) < 1.0
    assert max(late) > 7.0


def test_a_child_that_was_ready_for_long_starts_again_without_delay():
    drive = Drive(root(backoff=QUICK), child("a"), child("b")).start()
    drive.settle(drive.dies("a"))
    drive.now += 29.9
    assert drive.dies("a") == ["wait 1 s for a"]
    drive.settle(drive.timer("a"))
    drive.now += 30.0
    assert drive.dies("a") == ["start a"]


def test_time_that_a_child_spent_in_its_boot_does_not_count_as_ready():
    drive = Drive(root(backoff=QUICK), child("a"), child("b")).start()
    assert drive.dies("a") == ["start a"]
    drive.now += 1000
    assert drive.dies("a") == ["wait 1 s for a"]


def test_nothing_starts_before_the_timer_has_fired():
    drive = Drive(root(backoff=QUICK), child("a"), child("b")).start()
    drive.settle(drive.dies("a"))
    drive.dies("a")
    assert drive.dies("b") == ["start b"]
    assert drive.timer("b") == []
    assert drive.timer("a") == ["start a"]


def test_siblings_wait_in_their_order_for_a_delayed_restart():
    drive = three("rest_for_one", backoff=QUICK)
    drive.settle(drive.dies("b"))
    assert drive.dies("b") == ["wait 1 s for b", "stop c"]
    assert drive.ends("c") == []
    assert drive.timer("b") == ["start b"]
    assert drive.ready("b") == ["start c"]
