# SPDX-License-Identifier: AGPL-3.0-or-later
"""Random workflows, run through a queue where all goes wrong that may, come to what they come to one step at a time."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from workflow_rig import Chances, Rig
from workflow_sequence import Outcome, in_sequence

from actors.p2p.workflow_scheduler.run_values import Rules
from actors.workflow_messages import Condition, Step, StepRetry, Workflow

RANDOM = settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
SEEDS = st.integers(0, 2**32)
PATHS = ("", "/name", "/number", "/list", "/list/0", "/list/1/at", "/nowhere")


@st.composite
def workflows(draw: st.DrawFn) -> Workflow:
    """Of up to 9 steps."""
    steps: list[Step] = []
    for number in range(draw(st.integers(1, 9))):
        steps.append(_step(draw, f"s{number}", [step.step_id for step in steps]))
    return Workflow(name="random", workflow_id="wf", steps=steps)


def _step(draw: st.DrawFn, name: str, names: list[str]) -> Step:
    before = draw(st.lists(st.sampled_from(names), unique=True, max_size=4)) if names else []
    kind = draw(st.sampled_from(["plain"] * 5 + ["late", "memo", "each", "each"]))
    more: dict[str, Any] = {"memo": kind == "memo"}
    # Work that is memoised is to be found equal now and then.
    inputs: dict[str, Any] = {} if kind == "memo" else {"me": name}
    if before and draw(st.booleans()):
        inputs["given"] = [_reference(draw, before), {"$literal": {"$from": "nobody"}}]
    if draw(st.integers(0, 5)) == 0:
        inputs["fails"] = True
    if before and draw(st.integers(0, 3)) == 0:
        more["when"] = draw(st.sampled_from(["on_failure", "always", _condition(draw, before)]))
    if kind == "each":
        items = [{"at": n, "bad": draw(st.integers(0, 9)) == 0} for n in range(draw(st.integers(0, 4)))]
        more["for_each"] = _reference(draw, before) if before and draw(st.booleans()) else items
        inputs |= {"item": {"$item": ""}, "at": {"$index": True}}
        if draw(st.integers(0, 2)) == 0:
            inputs["fails"] = {"$item": "/bad"}
        more["memo"] = draw(st.integers(0, 4)) == 0
    return Step(
        step_id=name,
        action="mix",
        inputs=inputs,
        depends_on=before,
        retry_policy=StepRetry(max_retries=draw(st.integers(0, 2))),
        **more,
    )


def _reference(draw: st.DrawFn, before: list[str]) -> dict[str, str]:
    return {"$from": draw(st.sampled_from(before)), "path": draw(st.sampled_from(PATHS))}


def _condition(draw: st.DrawFn, before: list[str]) -> Condition:
    ended = Condition(
        step=draw(st.sampled_from(before)),
        ended=draw(st.lists(st.sampled_from(["completed", "failed", "skipped"]), min_size=1, unique=True)),
    )
    number = Condition(op="<", left={"$from": draw(st.sampled_from(before)), "path": "/number"}, right=128)
    return draw(st.sampled_from([ended, number, Condition(any=[ended, number]), Condition(not_=number)]))


def comes_to_the_same(workflow: Workflow, seed: int, chances: Chances, rules: Rules) -> Rig:
    """Run it, and hold it against the sequence."""
    rig = Rig(workflow, rng=random.Random(seed), chances=chances, rules=rules)
    rig.begin()
    rig.to_end()
    wanted = in_sequence(workflow)
    view = rig.run.view()
    assert {step.step_id: step.status for step in view.steps} == wanted.steps
    assert rig.outputs() == wanted.outputs
    assert view.status == wanted.status
    check_calls(rig, wanted)
    rig.check_order()
    assert rig.same_when_replayed()
    assert rig.left_open() == []
    return rig


def check_calls(rig: Rig, wanted: Outcome) -> None:
    """Each call was made with its arguments; those of equal work that is memoised once or more, all others once."""
    memoised = [rig.plan.steps[one[3:].partition("[")[0]].memo for one in wanted.calls]
    own = [one for one, memo in zip(wanted.calls, memoised, strict=True) if not memo]
    assert all(wanted.calls.get(one) == call for one, call in rig.queue.calls.items())
    assert rig.queue.calls.keys() >= set(own)
    assert all(call in rig.queue.calls.values() for call in wanted.calls.values())


@RANDOM
@given(workflows(), SEEDS)
def test_news_in_any_order_and_repeatedly_come_to_the_same(workflow, seed):
    comes_to_the_same(workflow, seed, Chances(repeat=0.3, flaky=0.3), Rules())


@RANDOM
@given(workflows(), SEEDS, st.integers(1, 4), st.integers(1, 3))
def test_small_windows_and_full_queues_come_to_the_same(workflow, seed, most, parents):
    rules = Rules(max_queued=most, max_depends_on=parents)
    rig = comes_to_the_same(workflow, seed, Chances(repeat=0.1, full=0.3, flaky=0.1), rules)
    assert rig.queue.waiting_most <= most


@RANDOM
@given(workflows(), SEEDS)
def test_deaths_and_broken_ways_come_to_the_same(workflow, seed):
    chances = Chances(die=0.05, lose=0.05, repeat=0.2, full=0.1, flaky=0.2, haunt=0.5)
    comes_to_the_same(workflow, seed, chances, Rules(max_queued=5))


@RANDOM
@given(workflows(), SEEDS, st.integers(0, 60), st.sampled_from(["cancel", "force", "time"]))
def test_whenever_it_is_stopped_it_ends_and_leaves_nothing(workflow, seed, after, how):
    chances = Chances(die=0.05, lose=0.05, repeat=0.2, full=0.1, flaky=0.2)
    rig = Rig(workflow, rng=random.Random(seed), chances=chances, rules=Rules(max_queued=5, timeout_s=100.0))
    rig.begin()
    while after and rig.step():
        after -= 1
    over = rig.run.status != "running"
    if how == "time":
        rig.now += 100.0
        rig.run.expire(rig.now)
        rig.settle()
    else:
        rig.control("cancel", force=how == "force")
    rig.to_end()
    assert rig.left_open() == []
    assert over or rig.run.status in ({"failed"} if how == "time" else {"cancelled"}) or _all_ended_by_itself(rig)
    rig.check_order()
    assert rig.same_when_replayed()


def _all_ended_by_itself(rig: Rig) -> bool:
    return rig.run.status in ("completed", "failed") and "cancelled" not in rig.run.view().counts


@RANDOM
@given(workflows(), SEEDS, st.floats(0.01, 0.2))
def test_whatever_somebody_takes_away_it_ends(workflow, seed, often):
    chances = Chances(die=0.03, lose=0.1, repeat=0.1, full=0.1, flaky=0.2)
    rig = Rig(workflow, rng=random.Random(seed), chances=chances, rules=Rules(max_queued=5))
    rig.begin()
    for _ in range(20_000):
        if not rig.step():
            break
        open_ones = rig.left_open()
        if open_ones and rig.rng.random() < often:
            rig.queue.remove(rig.rng.choice(open_ones))
            rig.lose()  # it is noticed
    assert rig.run.state.ended_at is not None, rig.run.view()
    assert rig.left_open() == []
    assert rig.same_when_replayed()
