# SPDX-License-Identifier: AGPL-3.0-or-later
"""What operators may order, and what they and all others see of the children.

Written with `Drive` (tests/support/driving.py), as in `test_strategies.py`: one event at a time, the core's wishes in
short words, and a clock that only the test moves.
"""

from __future__ import annotations

import pytest
from driving import (
    CRASH,
    ENDS,
    KILLED,
    NORMAL,
    QUICK,
    STOPPED,
    TWICE,
    Drive,
    child,
    die_until_the_group_is_tired,
    group,
    nested,
    root,
    three,
)

from supervisor.events import ExitReason

# --- operators -------------------------------------------------------------------------------------------------------


def test_an_operators_restart_stops_the_child_and_starts_it_again():
    drive = Drive(child("a"), child("b")).start()
    assert drive.restart("a") == ["stop a"]
    assert drive.ends("a") == ["start a"]


def test_an_operators_restart_takes_no_sibling_along():
    assert three("one_for_all").restart("a") == ["stop a"]


def test_an_operators_restarts_do_not_count():
    drive = Drive(root(intensity=TWICE), child("a"), child("b")).start()
    for _ in range(10):
        drive.settle(drive.restart("a"))
    assert drive.dies("a") == ["start a"]


def test_after_an_operators_restart_the_count_and_the_delays_begin_anew():
    drive = Drive(root(intensity=TWICE, backoff=QUICK), child("a"), child("b")).start()
    die_until_the_group_is_tired(drive, "a")
    drive.settle(drive.restart("a"))
    assert drive.dies("a") == ["start a"]
    assert drive.dies("a") == ["wait 1 s for a"]


def test_an_operators_restart_ends_the_delay_of_a_planned_one():
    drive = Drive(root(backoff=QUICK), child("a"), child("b")).start()
    drive.settle(drive.dies("a"))
    drive.dies("a")
    assert drive.restart("a") == ["forget timer of a", "start a"]


def test_an_operators_restart_brings_a_failed_group_back():
    drive = nested(escalates=False)
    die_until_the_group_is_tired(drive, "a")
    drive.settle(drive.dies("a"))
    assert drive.settle(drive.restart("b")) == ["start a", "start b"]
    assert drive.states() == "a=ready b=ready c=ready"
    assert drive.core.child("a").reason == ""


def test_an_operator_may_restart_a_temporary_child():
    drive = Drive(child("a", restart="temporary"), child("b")).start()
    assert drive.settle(drive.restart("a")) == ["stop a", "start a"]


def test_an_operators_restart_is_shown_as_such():
    drive = Drive(child("a")).start()
    drive.settle(drive.restart("a"))
    assert drive.said("operator") == ["a: restart"]
    assert drive.core.child("a").restarts == 1


def test_orders_for_unknown_children_are_refused_and_reported():
    drive = Drive(child("a")).start()
    assert drive.restart("nobody") == []
    assert drive.remove("nobody") == []
    assert drive.said("operator") == ["nobody: refused"] * 2


def test_orders_that_come_while_the_tree_stops_are_ignored():
    drive = Drive(child("a"), child("b")).start()
    drive.stop()
    assert drive.restart("a") == []
    assert drive.add(child("c")) == []
    assert drive.remove("a") == []
    assert drive.ends("b") == ["stop a"]
    assert drive.ends("a") == ["end 0"]


def test_a_child_that_is_added_starts_and_is_supervised():
    drive = Drive(child("pool#0")).start()
    assert drive.add(child("pool#1")) == ["start pool#1"]
    assert drive.dies("pool#1", ENDS["boot_death"]) == ["start pool#1"]


def test_a_child_that_can_not_be_added_is_refused_and_harms_nobody():
    drive = Drive(child("a")).start()
    assert drive.add(child("a")) == []
    assert drive.add(child("b", group="nowhere")) == []
    assert drive.said("operator") == ["a: refused", "b: refused"]
    assert drive.states() == "a=ready"


def test_a_child_that_is_added_to_a_failed_group_waits_for_the_operator():
    drive = nested(escalates=False)
    die_until_the_group_is_tired(drive, "a")
    drive.settle(drive.dies("a"))
    assert drive.add(child("d", group="inner")) == []
    assert drive.core.child("d").state == "failed"
    assert drive.restart("a") == ["start a", "start b", "start d"]


def test_a_child_that_is_removed_is_stopped_and_forgotten():
    drive = Drive(child("a"), child("b")).start()
    assert drive.remove("a") == ["stop a"]
    assert drive.states() == "a=draining b=ready"
    assert drive.ends("a") == []
    assert drive.core.child("a") is None
    assert drive.add(child("a")) == ["start a"]


def test_a_child_that_is_removed_while_it_waits_for_its_restart_is_forgotten_at_once():
    drive = Drive(root(backoff=QUICK), child("a"), child("b")).start()
    drive.settle(drive.dies("a"))
    drive.dies("a")
    assert drive.remove("a") == ["forget timer of a"]
    assert drive.states() == "b=ready"


# --- what others see -------------------------------------------------------------------------------------------------


def test_the_states_of_a_child_in_the_course_of_its_lives():
    drive = Drive(root(backoff=QUICK), child("a"), child("b"))
    assert drive.core.child("a").state == "starting"
    drive.boot()
    assert drive.core.child("a").state == "starting"
    drive.settle(["start a", "start b"])
    assert drive.core.child("a").state == "ready"
    drive.dies("a")
    assert drive.core.child("a").state == "restarting"
    drive.dies("a")
    assert drive.core.child("a").state == "restarting"
    drive.settle(drive.timer("a"))
    drive.restart("a")
    assert drive.core.child("a").state == "draining"


def test_the_number_of_restarts_counts_every_life_after_the_first():
    drive = three("one_for_all")
    drive.settle(drive.dies("a"))
    drive.settle(drive.restart("b"))
    assert [view.restarts for view in drive.core.children()] == [1, 2, 1]


def test_the_reason_of_the_last_death_is_shown_until_the_child_is_ready_again():
    drive = Drive(child("a"), child("b")).start()
    drive.dies("a")
    assert drive.core.child("a").reason == "exit code 3: ValueError: boom"
    drive.ready("a")
    assert drive.core.child("a").reason == ""


def test_an_end_on_order_leaves_no_reason():
    drive = Drive(child("a"), child("b")).start()
    drive.remove("b")
    drive.restart("a")
    drive.ends("a")
    assert drive.core.child("a").reason == ""


def test_the_groups_are_shown_as_they_were_given():
    groups = [root(), group("tools")]
    assert Drive(*groups).core.groups() == groups


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (NORMAL, "ended normally"),
        (CRASH, "exit code 3: ValueError: boom"),
        (KILLED, "signal 9"),
        (STOPPED, "stopped"),
        (ExitReason(kind="shutdown", exit_code=2), "stopped, exit code 2"),
        (ExitReason(kind="hung", signal=9, text="no beat for 5.1 s"), "hung: no beat for 5.1 s"),
        (ExitReason(kind="boot_death", text="no process: ..."), "ended before it was ready: no process: ..."),
        (ExitReason(kind="boot_death", exit_code=0), "ended before it was ready, exit code 0"),
        (ExitReason(kind="boot_timeout", signal=9, text="it had 20 s"), "not ready in time: it had 20 s"),
        (ExitReason(kind="abnormal"), "ended"),
    ],
)
def test_the_reason_of_an_end_in_words(reason, words):
    assert reason.words == words
