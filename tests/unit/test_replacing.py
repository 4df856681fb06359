# SPDX-License-Identifier: AGPL-3.0-or-later
"""Replacing without a gap, taking out of service, and giving the tree another shape.

Written with `Drive` (tests/support/driving.py), as in `test_strategies.py`.
"""

from __future__ import annotations

import pytest
from driving import CRASH, NORMAL, QUICK, Drive, child, group, root

from supervisor.events import DrainChild, Reconfigure, ReplaceChild, ResumeChild
from supervisor.spec import Intensity, SpecError, Strategy

STANDS_BY = {"stands_by": True}


def pool(**fields):
    """root[ a (can stand by), b ], all of them ready."""
    return Drive(root(**fields), child("a", **STANDS_BY), child("b")).start()


def replace(drive, name, reason="", incarnation=None):
    return drive.give(ReplaceChild(name, reason, incarnation))


def reconfigure(drive, *children, groups=(), new=()):
    return drive.give(Reconfigure(tuple(groups), tuple(children), frozenset(new)))


# --- a successor -----------------------------------------------------------------------------------------------------


def test_a_replaced_child_works_until_its_successor_is_ready_and_then_finishes_its_calls():
    drive = pool()
    old = drive.incarnations["a"]
    assert replace(drive, "a") == ["start a#spare0"]
    assert drive.states() == "a=ready b=ready a#spare0=starting"
    assert drive.ready("a#spare0") == ["swap a and a#spare0", "stop a#spare0"]
    assert drive.grace["a#spare0"] == child("a").drain
    assert drive.core.child("a#spare0").incarnation == old
    assert drive.states() == "a=ready b=ready a#spare0=draining"
    assert drive.ends("a#spare0") == []
    assert drive.states() == "a=ready b=ready"


def test_a_successor_that_can_not_start_leaves_the_present_life_at_work():
    drive = pool()
    replace(drive, "a")
    assert drive.dies("a#spare0", CRASH) == []
    assert drive.states() == "a=ready b=ready"
    assert drive.said("exited")[-1] == "a#spare0: no successor; the present life works on"


def test_a_child_that_is_being_replaced_gets_no_second_successor():
    drive = pool()
    replace(drive, "a")
    assert replace(drive, "a") == []
    assert drive.said("operator")[-1] == "a: a successor is on its way"


def test_a_successor_is_not_needed_for_a_life_that_ended_meanwhile():
    drive = pool()
    replace(drive, "a")
    assert drive.dies("a") == ["start a"]
    assert drive.ready("a#spare0") == ["stop a#spare0"], "the next life is a new one already"
    drive.ready("a")
    assert drive.ends("a#spare0") == []
    assert drive.states() == "a=ready b=ready"


def test_a_successor_takes_the_place_of_a_child_that_waits_for_its_restart():
    drive = pool(backoff=QUICK)
    drive.settle(drive.dies("a"))
    replace(drive, "a")
    assert drive.dies("a") == ["wait 1 s for a"]
    assert drive.ready("a#spare0") == ["forget timer of a", "swap a and a#spare0"]
    assert drive.states() == "a=ready b=ready"


def test_the_spares_of_a_replaced_child_stay():
    drive = Drive(root(), child("a", spares=1))
    drive.settle(drive.boot())
    assert replace(drive, "a") == ["start a#spare1"]
    assert drive.settle(drive.ready("a#spare1")) == ["swap a and a#spare1", "stop a#spare1"]
    assert drive.states() == "a=ready a#spare0=spare"


def test_a_spare_a_child_that_can_not_stand_by_and_one_that_is_not_ready_begin_again_instead():
    drive = Drive(root(), child("a", spares=1), child("b"))
    drive.settle(drive.boot())
    assert replace(drive, "b") == ["stop b"]
    assert replace(drive, "a#spare0") == ["stop a#spare0"]
    drive.dies("a")
    assert replace(drive, "a") == ["stop a"]


def test_a_limit_of_one_life_does_not_replace_the_next():
    drive = pool()
    old = drive.incarnations["a"]
    drive.settle(drive.dies("a"))
    assert replace(drive, "a", "it is large", old) == []
    assert drive.said("stale") == ["a: "]
    assert replace(drive, "a", "it is large", drive.incarnations["a"]) == ["start a#spare0"]
    assert [(r.level, r.reason) for r in drive.reports if r.context == "replaced"] == [("WARNING", "it is large")]


def test_a_child_that_is_being_stopped_needs_no_replacing():
    drive = pool()
    drive.restart("a")
    assert replace(drive, "a") == []


def test_a_restart_of_the_group_forgets_successors():
    drive = Drive(
        root(strategy=Strategy.ONE_FOR_ALL), group("g"), child("a", group="g", **STANDS_BY), child("b")
    ).start()
    replace(drive, "a")
    assert "stop a#spare0" in drive.settle(drive.dies("b"))
    assert drive.states() == "a=ready b=ready"


def test_what_finishes_its_calls_has_less_time_when_the_tree_stops():
    drive = pool()
    replace(drive, "a")
    drive.ready("a#spare0")
    assert drive.stop()[0] == "stop a#spare0"
    assert drive.grace["a#spare0"] == child("a").shutdown


def test_a_stop_wins_over_a_successor():
    drive = pool()
    replace(drive, "a")
    assert drive.settle(drive.stop())[-1] == "end 0"


def test_a_life_that_takes_the_place_of_a_hung_one_can_be_killed_itself():
    drive = pool()
    replace(drive, "a")
    assert drive.hangs("a") == ["kill a"]
    drive.ready("a#spare0")
    assert drive.hangs("a") == ["kill a"]


# --- out of service --------------------------------------------------------------------------------------------------


def test_a_drained_child_is_told_and_so_is_every_life_that_follows():
    drive = pool()
    assert drive.give(DrainChild("a")) == ["drain a"]
    assert drive.states() == "a=draining b=ready"
    assert drive.give(DrainChild("a")) == []
    assert drive.dies("a") == ["start a"]
    assert drive.ready("a") == ["drain a"]
    replace(drive, "a")
    assert drive.ready("a#spare0") == ["swap a and a#spare0", "drain a", "stop a#spare0"]
    assert drive.give(ResumeChild("a")) == ["resume a"]
    assert drive.states() == "a=ready b=ready a#spare0=draining"


def test_a_child_that_is_drained_before_it_is_ready_is_told_when_it_is():
    drive = pool()
    drive.dies("a")
    assert drive.give(DrainChild("a")) == []
    assert drive.ready("a") == ["drain a"]


def test_a_restart_puts_a_drained_child_back_into_service():
    drive = pool()
    drive.give(DrainChild("a"))
    drive.settle(drive.restart("a"))
    assert drive.states() == "a=ready b=ready"


# --- another shape ---------------------------------------------------------------------------------------------------


def test_a_child_that_is_removed_finishes_its_calls():
    drive = pool()
    assert drive.remove("a") == ["stop a"]
    assert drive.grace["a"] == child("a").drain
    assert drive.ends("a") == []
    assert drive.states() == "b=ready"


def test_orders_about_a_child_that_leaves_are_refused():
    drive = pool()
    drive.remove("a")
    for order in (ReplaceChild("a"), DrainChild("a"), ResumeChild("a")):
        assert drive.give(order) == []
    assert drive.restart("a") == drive.remove("a") == []
    assert drive.said("operator")[-1] == "a: refused"


def test_a_child_that_leaves_comes_back_when_it_is_wanted_again():
    drive = pool()
    drive.remove("a")
    assert drive.add(child("a", shutdown=9.0)) == []
    assert drive.ends("a") == ["start a"]
    assert drive.core.child("a").spec.shutdown == 9.0


def test_a_child_that_comes_back_and_is_removed_once_more_is_forgotten():
    drive = pool()
    drive.remove("a")
    drive.add(child("a"))
    assert drive.remove("a") == [], "it was told already"
    assert drive.ends("a") == []
    assert drive.states() == "b=ready"


def test_a_child_that_comes_back_to_a_group_that_gave_up_stays_failed_with_it():
    tired = group("g", escalates=False, intensity=Intensity(restarts=0))
    drive = Drive(root(), tired, child("a", group="g"), child("b", group="g"), child("c")).start()
    drive.remove("b")
    drive.dies("a")
    reconfigure(drive, child("a", group="g"), child("b", group="g"), child("c"))
    assert drive.ends("b") == []
    assert drive.states() == "a=failed b=failed c=ready"
    assert drive.restart("a") == ["start a", "start b"]


def test_a_child_that_leaves_can_not_come_back_in_another_group():
    drive = Drive(root(), group("g"), child("a", group="g"), child("b")).start()
    drive.remove("a")
    assert drive.add(child("a")) == []
    assert drive.said("operator")[-1] == "a: refused"
    drive.ends("a")
    assert drive.states() == "b=ready"
    assert drive.add(child("a")) == ["start a"]


def test_a_new_configuration_moves_no_child_to_another_group_and_does_the_rest():
    drive = Drive(root(), group("g"), child("a", group="g"), child("b")).start()
    assert reconfigure(drive, child("a", shutdown=9.0), child("b"), child("c"), new={"a"}) == ["start c"]
    assert [(r.level, r.reason, r.decision) for r in drive.reports if r.context == "operator"] == [
        ("ERROR", "it can't move to group 'root'", "refused")
    ]
    assert drive.core.child("a").spec == child("a", group="g")


def test_a_new_configuration_adds_removes_and_renews():
    drive = Drive(child("p#0", **STANDS_BY), child("p#1", **STANDS_BY), child("b")).start()
    specs = [child("p#0", drain=7.0, **STANDS_BY), child("b", shutdown=1.0), child("c")]
    assert reconfigure(drive, *specs, new={"p#0"}) == ["stop p#1", "start p#spare0", "start c"]
    assert drive.core.child("b").spec.shutdown == 1.0
    drive.ready("c")
    drive.ends("p#1")
    drive.settle(drive.ready("p#spare0"))
    assert drive.states() == "p#0=ready b=ready c=ready"
    assert drive.grace["p#spare0"] == 7.0


def test_a_newer_configuration_takes_a_successor_of_an_older_one_back():
    drive = pool()
    reconfigure(drive, child("a", **STANDS_BY), child("b"), new={"a"})
    assert reconfigure(drive, child("a", drain=9.0, **STANDS_BY), child("b"), new={"a"}) == [
        "stop a#spare0",
        "start a#spare1",
    ]
    drive.ends("a#spare0")
    drive.settle(drive.ready("a#spare1"))
    assert drive.states() == "a=ready b=ready"


@pytest.mark.parametrize(("before", "after"), [(0, 2), (2, 1), (1, 0), (1, 1)])
def test_spares_follow_a_new_configuration_and_begin_anew_with_their_children(before, after):
    drive = Drive(root(), child("a", spares=before, **STANDS_BY), child("b"))
    drive.settle(drive.boot())
    old = {name: life for name, life in drive.incarnations.items() if "spare" in name}
    wanted = reconfigure(drive, child("a", spares=after, **STANDS_BY), child("b"), new={"a"})
    drive.settle(wanted)
    spares = [view for view in drive.core.children() if "#spare" in view.name]
    assert [view.state for view in spares] == ["spare"] * after
    assert not {view.incarnation for view in spares} & set(old.values())


def test_groups_follow_a_new_configuration():
    drive = pool()
    reconfigure(drive, child("a", **STANDS_BY), child("b"), groups=[root(backoff=QUICK), group("unheard_of")])
    assert [spec.backoff for spec in drive.core.groups()] == [QUICK]


def test_a_child_that_has_done_its_work_starts_again_when_a_new_configuration_makes_it_permanent():
    drive = Drive(child("a", restart="transient"), child("b")).start()
    drive.dies("a", NORMAL)
    assert reconfigure(drive, child("a", restart="transient", shutdown=1.0), child("b"), new={"a"}) == []
    assert reconfigure(drive, child("a"), child("b")) == ["start a"]
    drive.ready("a")
    assert reconfigure(drive, child("a"), child("b")) == []
    assert drive.said("operator") == ["a: start"], "once"
    assert drive.dies("a", NORMAL) == ["start a"]


def test_a_new_restart_type_decides_about_the_end_of_the_present_life_already():
    drive = Drive(child("a", restart="transient"), child("b")).start()
    assert reconfigure(drive, child("a"), child("b")) == []
    assert drive.dies("a", NORMAL) == ["start a"]


def test_a_drained_child_that_starts_again_by_a_new_configuration_stays_out_of_service():
    drive = Drive(child("a", restart="transient"), child("b")).start()
    drive.give(DrainChild("a"))
    drive.dies("a", NORMAL)
    assert reconfigure(drive, child("a"), child("b")) == ["start a"]
    assert drive.ready("a") == ["drain a"]


@pytest.mark.parametrize("restart", ["transient", "permanent"])
def test_a_new_configuration_starts_nobody_of_a_group_that_stopped_as_a_whole(restart):
    chief = child("chief", group="g", restart="transient", significant=True)
    drive = Drive(root(), group("g"), chief, child("a", group="g", restart="transient"), child("b")).start()
    drive.dies("a", NORMAL)
    drive.settle(drive.dies("chief", NORMAL))
    assert reconfigure(drive, chief, child("a", group="g", restart=restart), child("b")) == []
    assert drive.states() == "chief=off a=off b=ready"


def test_a_child_that_an_operator_started_again_is_not_started_twice_by_a_new_configuration():
    drive = Drive(child("a", restart="transient"), child("b")).start()
    drive.dies("a", NORMAL)
    drive.settle(drive.restart("a"))
    assert reconfigure(drive, child("a"), child("b")) == []
    assert drive.said("operator") == ["a: restart"]


def test_a_child_of_a_group_that_is_unknown_is_refused_and_the_rest_goes_on():
    drive = pool()
    assert reconfigure(drive, child("a", **STANDS_BY), child("b"), child("c", group="nowhere"), child("d")) == [
        "start d"
    ]
    assert drive.said("operator")[-1] == "c: refused"


def test_children_of_ordered_groups_can_not_stand_by():
    with pytest.raises(SpecError, match="stands_by makes no sense"):
        Drive(root(), group("g", strategy=Strategy.REST_FOR_ONE), child("a", group="g", **STANDS_BY))


def test_who_has_spares_must_be_able_to_stand_by():
    with pytest.raises(SpecError, match="can't stand by"):
        child("a", spares=1, stands_by=False)
