# SPDX-License-Identifier: AGPL-3.0-or-later
"""Spares: processes that are ready and do nothing, until one of them takes the place of another that died."""

from __future__ import annotations

import pytest
from driving import CRASH, NEVER_GIVES_UP, QUICK, Drive, child, group, root

from supervisor.events import ChildExited
from supervisor.spec import Intensity, SpecError, Strategy


def with_a_spare(**fields):
    """root[ a (with a spare), b ], all of them ready."""
    return ready_with_spares(Drive(root(**fields), child("a", spares=1), child("b")))


def ready_with_spares(drive):
    wanted = drive.settle(drive.boot())
    assert any("#spare" in words for words in wanted)
    return drive


def test_spares_start_once_the_tree_is_up():
    drive = Drive(root(), child("a", spares=2), child("b"))
    assert drive.boot() == ["start a", "start b"]
    assert drive.ready("a") == []
    assert drive.ready("b") == ["start a#spare0", "start a#spare1"]
    drive.ready("a#spare0")
    assert drive.states() == "a=ready a#spare0=spare a#spare1=starting b=ready"


def test_a_ready_spare_takes_the_place_of_the_dead_at_once():
    drive = with_a_spare(backoff=QUICK)
    life = drive.incarnations["a#spare0"]
    wanted = drive.dies("a")
    assert wanted == ["swap a and a#spare0", "start a#spare0"]
    assert drive.core.child("a").incarnation == life
    assert drive.core.child("a").restarts == 1
    assert drive.states() == "a=ready a#spare0=restarting b=ready"
    assert drive.said("exited")[-1] == "a: restart as a#spare0"
    assert drive.said("started")[-1] == "a: "


def test_a_death_is_known_by_the_number_of_the_life_whatever_it_was_called():
    drive = with_a_spare()
    drive.dies("a")
    drive.alive.discard("a")
    # It was told while the life still had the spare's name.
    assert drive.give(ChildExited("a#spare0", drive.incarnations["a"], CRASH)) == ["wait 0.1 s for a"]
    assert drive.states() == "a=restarting a#spare0=restarting b=ready"


def test_without_a_ready_spare_the_child_starts_as_ever():
    drive = Drive(root(), child("a", spares=1))
    drive.boot()
    assert drive.ready("a") == ["start a#spare0"]
    assert drive.dies("a") == ["start a"]


def test_a_spare_that_becomes_ready_ends_the_delay_of_a_restart():
    drive = Drive(root(backoff=QUICK), child("a", spares=1))
    drive.boot()
    drive.ready("a")
    drive.dies("a")
    drive.ready("a")
    assert drive.dies("a") == ["wait 1 s for a"]
    assert drive.ready("a#spare0") == ["forget timer of a", "swap a and a#spare0", "start a#spare0"]
    assert drive.core.child("a").state == "ready"


def test_the_death_of_a_spare_counts_for_nothing():
    drive = with_a_spare(intensity=Intensity(restarts=1, within_s=60.0), backoff=QUICK)
    assert drive.dies("a#spare0") == ["start a#spare0"]
    for delay in (1, 2, 4, 8, 8):
        assert drive.dies("a#spare0") == [f"wait {delay} s for a#spare0"]
        assert drive.timer("a#spare0") == ["start a#spare0"]
    assert drive.states() == "a=ready a#spare0=restarting b=ready"
    assert drive.dies("b") == ["start b"], "the group has its attempts left"


def test_promotions_count_for_the_intensity():
    drive = with_a_spare(intensity=Intensity(restarts=1, within_s=60.0))
    drive.settle(drive.dies("a"))
    wanted = drive.dies("a")
    assert "stop b" in wanted
    drive.settle(wanted)
    assert drive.end.exit_code == 70


def test_an_operators_restart_lets_the_old_life_end_under_the_spares_name():
    drive = with_a_spare()
    old = drive.incarnations["a"]
    assert drive.restart("a") == ["swap a and a#spare0", "stop a#spare0"]
    assert drive.core.child("a#spare0").incarnation == old
    assert drive.states() == "a=ready a#spare0=draining b=ready"
    assert drive.ends("a#spare0") == ["start a#spare0"]


def test_a_spare_serves_every_process_of_its_base():
    drive = ready_with_spares(Drive(root(), child("t#0", spares=1), child("t#1")))
    assert drive.dies("t#1") == ["swap t#1 and t#spare0", "start t#spare0"]


def test_spares_stop_with_the_tree_and_with_their_group():
    drive = with_a_spare()
    assert drive.settle(drive.stop())[-1] == "end 0"
    assert drive.alive == set()
    drive = ready_with_spares(
        Drive(
            root(intensity=NEVER_GIVES_UP),
            group("g", intensity=Intensity(restarts=0, within_s=9.0), escalates=False),
            child("a", spares=1, group="g"),
            child("b"),
        )
    )
    assert drive.settle(drive.dies("a")) == ["stop a#spare0"]
    assert drive.states() == "a=failed a#spare0=failed b=ready"


def test_spares_need_a_group_without_order():
    with pytest.raises(SpecError, match="spares") as error:
        Drive(root(strategy=Strategy.REST_FOR_ONE), child("a", spares=1))
    assert error.value.field == "spares"


def test_numbers_of_spares_are_used_once():
    drive = Drive(root(), child("t#0", spares=1), child("t#1", spares=2))
    assert [view.name for view in drive.core.children()] == ["t#0", "t#spare0", "t#1", "t#spare1", "t#spare2"]
