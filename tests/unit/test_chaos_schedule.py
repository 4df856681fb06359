# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which fault comes when: the seed says it all, and no group is asked for more deaths than it survives."""

from __future__ import annotations

import os
import random
from collections import Counter

import pytest

from supervisor.chaos.faults import FAULTS, OWN_ONLY, OwnTreeOnlyError, UnknownFaultError, chosen
from supervisor.chaos.schedule import FORK_SERVER, NoFaultFitsError, Process, Shape, duration_s, make_schedule

SEED = int(os.environ.get("GREENROOM_TEST_SEED", str(random.randrange(2**32))))
PROCESSES = [
    Process("gateway", "root"),
    Process("gateway#spare0", "root", spare=True),
    Process("router", "root"),
    Process("router#spare0", "root", spare=True),
    Process("tools.chaos#0", "tools"),
    Process("tools.chaos#spare0", "tools", spare=True),
    Process("tools.general#0", "tools"),
    Process("tools.general#1", "tools"),
]
ALL = list(FAULTS)


def shape(restarts=100_000, within_s=30.0, **changes):
    given = {
        "processes": PROCESSES,
        "pool": "tools.chaos",
        "fork_server": True,
        "intensity": {"root": (max(3, restarts), 60.0), "tools": (restarts, within_s)},
        "hung_after_s": 5.0,
        "ready_timeout_s": 10.0,
        "own": True,
    }
    return Shape(**(given | changes))


def test_the_same_seed_gives_the_same_schedule():
    print(f"seed {SEED}")
    first = make_schedule(SEED, 600, ALL, shape())
    assert first == make_schedule(SEED, 600, ALL, shape())
    # Neither the order of the faults nor that of the processes matters: they come from a user and from the root.
    again = make_schedule(SEED, 600, ALL[::-1], shape(processes=PROCESSES[::-1]))
    assert again == first
    assert make_schedule(SEED + 1, 600, ALL, shape()) != first


def test_every_fault_comes_and_none_much_oftener_than_another():
    print(f"seed {SEED}")
    counts = Counter(step.fault for step in make_schedule(SEED, 600, ALL, shape()))
    assert set(counts) == set(FAULTS)
    assert max(counts.values()) - min(counts.values()) <= 2


def test_faults_do_not_overlap_and_end_in_time():
    print(f"seed {SEED}")
    here = shape()
    steps = make_schedule(SEED, 300, ALL, here)
    ends = [step.at_s + duration_s(FAULTS[step.fault], here) for step in steps]
    assert all(step.at_s > end for step, end in zip(steps[1:], ends, strict=False))
    assert ends[-1] <= 300
    assert [step.number for step in steps] == list(range(1, len(steps) + 1))


@pytest.mark.parametrize(
    ("fault", "targets"),
    [
        ("kill", {process.name for process in PROCESSES} | {FORK_SERVER}),
        ("stop", {process.name for process in PROCESSES}),
        ("spin", {"tools.chaos#0"}),
        ("slow_reader", {""}),
        ("root_death", {""}),
    ],
)
def test_targets_are_what_a_fault_is_aimed_at(fault, targets):
    print(f"seed {SEED}")
    steps = make_schedule(SEED, 400, [fault], shape(hung_after_s=0.1))
    assert {step.target for step in steps} == targets


def test_each_parameter_comes():
    print(f"seed {SEED}")
    steps = make_schedule(SEED, 300, ["odd_exception"], shape())
    assert {step.parameter for step in steps} == set(FAULTS["odd_exception"].parameters)


@pytest.mark.parametrize("restarts", [1, 2, 5, 10])
@pytest.mark.parametrize("number", range(10))
def test_no_group_is_given_more_deaths_than_its_intensity_less_one(restarts, number):
    """Those of spares and of the fork server do not count."""
    print(f"seed {SEED + number}")
    here = shape(restarts=restarts)
    groups = {process.name: process.group for process in PROCESSES if not process.spare}
    deaths = {"root": [], "tools": []}
    for step in make_schedule(SEED + number, 200, ALL, here):
        if step.target in groups:
            deaths[groups[step.target]] += [step.at_s] * FAULTS[step.fault].deaths
    for group, times in deaths.items():
        most, within_s = here.intensity[group]
        for time in times:
            assert sum(time - within_s < other <= time for other in times) <= max(1, most - 1)


def test_harmless_faults_go_on_while_the_deadly_ones_wait_for_their_group():
    print(f"seed {SEED}")
    steps = make_schedule(SEED, 300, ["os_exit", "file_size"], shape(restarts=2))
    counts = Counter(step.fault for step in steps)
    assert 9 <= counts["os_exit"] <= 11
    assert counts["file_size"] > 100


def test_a_group_that_may_not_restart_at_all_is_spared_the_deaths():
    steps = make_schedule(SEED, 300, ALL, shape(restarts=0))
    names = {step.target for step in steps if FAULTS[step.fault].deaths}
    assert not {name for name in names if name.startswith("tools.") and "spare" not in name}
    with pytest.raises(NoFaultFitsError, match=r"supervisor\.restarts"):
        make_schedule(SEED, 300, ["spin"], shape(restarts=0))


def test_the_root_is_killed_only_where_the_run_can_start_it_again():
    with pytest.raises(NoFaultFitsError):
        make_schedule(SEED, 300, list(OWN_ONLY), shape(own=False))


def test_without_a_pool_of_chaos_tools_their_faults_are_left_out():
    steps = make_schedule(SEED, 300, ALL, shape(pool=""))
    assert {FAULTS[step.fault].where for step in steps} <= {"process", "actor", "root"}


# --- naming faults ---------------------------------------------------------------------------------------------------


def test_all_faults_are_chosen_when_none_is_named():
    assert chosen(None, own=True) == ALL
    assert set(ALL) - set(chosen(None, own=False)) == set(OWN_ONLY)


def test_named_faults_keep_the_order_of_the_table():
    assert chosen("stop, kill,kill", own=False) == ["kill", "stop"]


@pytest.mark.parametrize(
    ("names", "hint"), [("kil", "did you mean kill"), ("zzzz", "there are: kill"), ("", "names none")]
)
def test_a_fault_that_does_not_exist_is_refused(names, hint):
    with pytest.raises(UnknownFaultError, match=hint):
        chosen(names, own=True)


def test_the_death_of_a_users_root_is_refused_with_the_way_to_try_it():
    with pytest.raises(OwnTreeOnlyError, match="--own --faults root_death"):
        chosen("kill,root_death", own=False)
