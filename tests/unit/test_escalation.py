# SPDX-License-Identifier: AGPL-3.0-or-later
"""When restarting does not help: intensity, escalation, groups that stay failed, significant children.

Written with `Drive` (tests/support/driving.py), as in `test_strategies.py`: one event at a time, the core's wishes in
short words, and a clock that only the test moves.
"""

from __future__ import annotations

import pytest
from driving import (
    CRASH,
    NORMAL,
    QUICK,
    TWICE,
    Drive,
    child,
    die_until_the_group_is_tired,
    group,
    nested,
    root,
)

from supervisor.spec import Intensity

# --- intensity and escalation ----------------------------------------------------------------------------------------


def test_one_restart_more_than_allowed_and_the_root_gives_up_with_exit_code_70():
    drive = Drive(root(intensity=TWICE), child("a"), child("b")).start()
    die_until_the_group_is_tired(drive, "a")
    assert drive.dies("a") == ["stop b"]
    assert drive.ends("b") == ["end 70"]
    assert drive.end.reason == "gave up: a: exit code 3: ValueError: boom; more than 2 restarts in 10 s"


def test_the_window_of_the_intensity_slides():
    drive = Drive(root(intensity=TWICE), child("a"), child("b")).start()
    for _ in range(20):
        drive.now += 5.0
        assert drive.settle(drive.dies("a"))[-1] != "stop b"
        if "a" not in drive.alive:
            drive.settle(drive.timer("a"))
    assert drive.end is None
    drive.now += 4.9
    assert drive.dies("a") == ["stop b"]


def test_the_intensity_counts_the_restarts_of_all_children_of_the_group():
    drive = Drive(root(intensity=TWICE), child("a"), child("b"), child("c")).start()
    drive.dies("a")
    drive.dies("b")
    assert drive.dies("c") == ["stop b"]
    assert drive.said("gave_up") == ["root: stop the tree"]


def test_no_restart_is_allowed_where_the_intensity_is_zero():
    drive = Drive(root(intensity=Intensity(restarts=0)), child("a"), child("b")).start()
    assert drive.dies("a") == ["stop b"]


def test_a_group_that_gives_up_is_restarted_by_its_parent_as_a_whole():
    drive = nested()
    die_until_the_group_is_tired(drive, "a")
    assert drive.dies("a") == ["stop b"]
    assert drive.ends("b") == ["start a", "start b"]
    assert drive.said("gave_up") == ["inner: restart the group"]


def test_a_restarted_group_starts_from_a_clean_count_and_without_delay():
    drive = nested(backoff=QUICK)
    die_until_the_group_is_tired(drive, "a")
    drive.settle(drive.dies("a"))
    assert drive.dies("a") == ["start a"]


def test_a_restarted_group_forgets_the_delays_of_its_children():
    drive = nested(backoff=QUICK)
    drive.settle(drive.dies("b"))
    assert drive.dies("b") == ["wait 1 s for b"]
    assert drive.dies("a") == ["forget timer of b", "start a", "start b"]


def test_each_restart_of_a_group_counts_for_its_parent_until_the_root_gives_up():
    drive = nested()
    for _ in range(2):
        die_until_the_group_is_tired(drive, "a")
        drive.settle(drive.dies("a"))
    die_until_the_group_is_tired(drive, "a")
    assert drive.settle(drive.dies("a")) == ["stop c", "stop b", "end 70"]
    assert drive.said("gave_up") == ["inner: restart the group"] * 2 + ["inner: escalate", "root: stop the tree"]
    assert drive.end.reason.startswith("gave up: group inner: a: exit code 3")


@pytest.mark.parametrize(
    ("strategy", "wanted"),
    [
        ("one_for_one", ["stop m2", "start m1", "start m2"]),
        ("rest_for_one", ["stop z", "stop n", "stop m2", "start m1", "start m2", "start n", "start z"]),
        (
            "one_for_all",
            ["stop z", "stop n", "stop m2", "stop k", "start k", "start m1", "start m2", "start n", "start z"],
        ),
    ],
)
def test_the_parents_strategy_says_who_is_restarted_with_a_group(strategy, wanted):
    drive = Drive(
        root(strategy=strategy),
        group("first"),
        group("middle", intensity=TWICE, backoff=QUICK),
        group("last"),
        child("k", group="first"),
        child("m1", group="middle"),
        child("m2", group="middle"),
        child("n", group="last"),
        child("z"),
    ).start()
    die_until_the_group_is_tired(drive, "m1")
    assert drive.settle(drive.dies("m1")) == wanted


def test_a_group_that_is_restarted_with_its_sibling_waits_for_all_that_stop():
    drive = Drive(
        root(strategy="one_for_all"), group("inner"), child("a", group="inner"), child("b"), child("c")
    ).start()
    assert drive.dies("b") == ["stop c"]
    assert drive.ends("c") == ["stop a"]
    assert drive.ends("a") == ["start a"]
    assert drive.settle(drive.ready("a")) == ["start b", "start c"]


def test_a_group_that_does_not_escalate_stays_failed_while_the_others_work_on():
    drive = nested(escalates=False)
    die_until_the_group_is_tired(drive, "a")
    assert drive.dies("a") == ["stop b"]
    assert drive.ends("b") == []
    assert drive.states() == "a=failed b=failed c=ready"
    assert drive.said("gave_up") == ["inner: stay failed; others work on"]
    assert drive.dies("c") == ["start c"]


def test_every_child_of_a_failed_group_says_why():
    drive = nested(escalates=False)
    die_until_the_group_is_tired(drive, "a")
    drive.settle(drive.dies("a"))
    assert drive.core.child("a").reason == "exit code 3: ValueError: boom"
    assert drive.core.child("b").reason.startswith(
        "its group inner gave up: a: exit code 3: ValueError: boom; more than 2"
    )


def test_groups_below_a_failed_group_are_failed_too():
    drive = Drive(
        root(),
        group("outer", intensity=TWICE, escalates=False),
        group("inner", parent="outer"),
        child("a", group="outer"),
        child("b", group="inner"),
        child("c"),
    ).start()
    die_until_the_group_is_tired(drive, "a")
    drive.settle(drive.dies("a"))
    assert drive.states() == "b=failed a=failed c=ready"


def test_a_group_that_gives_up_forgets_the_restarts_that_it_had_planned():
    drive = nested(escalates=False, backoff=QUICK)
    drive.settle(drive.dies("a"))
    assert drive.dies("a") == ["wait 1 s for a"]
    assert drive.dies("b") == ["forget timer of a"]
    assert drive.timer("a") == []


# --- significant children --------------------------------------------------------------------------------------------


def test_the_end_of_a_significant_child_stops_its_group_for_good():
    drive = Drive(
        root(),
        group("job"),
        child("helper", group="job"),
        child("worker", group="job", restart="transient", significant=True),
        child("c"),
    ).start()
    assert drive.dies("worker", NORMAL) == ["stop helper"]
    assert drive.ends("helper") == []
    assert drive.states() == "helper=off worker=off c=ready"


def test_a_significant_child_that_is_restarted_stops_nobody():
    drive = Drive(child("a", restart="transient", significant=True), child("b")).start()
    assert drive.dies("a", CRASH) == ["start a"]


@pytest.mark.parametrize(("reason", "code"), [(NORMAL, 0), (CRASH, 70)])
def test_the_end_of_a_significant_child_of_the_root_ends_the_tree(reason, code):
    drive = Drive(child("a"), child("b", restart="temporary", significant=True)).start()
    assert drive.settle(drive.dies("b", reason)) == ["stop a", f"end {code}"]
