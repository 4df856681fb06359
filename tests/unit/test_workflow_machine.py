# SPDX-License-Identifier: AGPL-3.0-or-later
"""One workflow's run: what it decides when it is told something, and what it wants done."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from workflow_queue import FULL
from workflow_rig import Rig

from actors.messages import ErrorInfo
from actors.p2p.workflow_scheduler.run_values import Rules
from actors.task_messages import Enqueue, Retry, TaskState
from actors.task_views import TaskFact
from actors.workflow_messages import Step, StepRetry, Workflow

BEGIN = 1000.0


def step(name: str, *before: str, **more: Any) -> Step:
    inputs = more.pop("inputs", {"me": name})
    return Step(step_id=name, action="mix", inputs=inputs, depends_on=list(before), **more)


def rig_of(*steps: Step, rules: Rules | None = None, **more: Any) -> Rig:
    """Begun; its first commands are lined up."""
    rig = Rig(Workflow(name="test", workflow_id="wf", steps=list(steps), **more), rules=rules)
    rig.begin()
    return rig


def fact(name: str, state: str, *, attempt: int = 1, token: int = 0, **more: Any) -> TaskFact:
    return TaskFact(
        id=f"wf:{name}",
        state=TaskState(state),
        owner="ann",
        attempt=attempt,
        token=token or attempt,
        worker="w",
        **more,
    )


def done(name: str, value: Any = None, **more: Any) -> TaskFact:
    return fact(name, "completed", result=json.dumps(value), **more)


def tell(rig: Rig, *facts: TaskFact) -> Any:
    """The run hears of these; what follows."""
    rig.run.observe(facts, rig.now)
    return rig.settle()


def sent(rig: Rig) -> list[Any]:
    """The tasks that are to be enqueued; the queue has them."""
    ops = [one for kind, one in rig.commands if kind == "do" and isinstance(one, Enqueue)]
    rig.commands.clear()
    rig.run.accepted([op.id for op in ops])
    return ops


def kinds(rig: Rig) -> list[str]:
    return [event.kind for event in rig.stored]


def statuses(rig: Rig) -> dict[str, str]:
    return {one.step_id: one.status for one in rig.run.view().steps}


# --- going ahead ---------------------------------------------------------------------------------------------------


def test_nothing_is_sent_before_it_begins():
    rig = Rig(Workflow(name="test", workflow_id="wf", steps=[step("a")]))
    assert not rig.commands
    assert kinds(rig) == ["submitted"]
    assert rig.run.status == "submitted"


def test_a_chain_is_sent_at_once_and_each_task_depends_on_the_one_before():
    given = {"$from": "a", "path": "/name"}
    tasks = sent(rig_of(step("a"), step("b", "a", inputs={"x": given}), step("c", "b")))
    assert [task.id for task in tasks] == ["wf:a", "wf:b", "wf:c"]
    assert [task.depends_on for task in tasks] == [[], ["wf:a"], ["wf:b"]]
    assert json.loads(tasks[1].payload) == {"x": {"$task": "wf:a", "path": "/name"}}
    assert [task.links for task in tasks] == [False, True, False]


def test_outputs_that_are_known_are_put_in():
    rules = Rules(max_queued=1)
    rig = rig_of(step("a"), step("b", "a", inputs={"x": {"$from": "a", "path": "/n"}}), rules=rules)
    sent(rig)
    tell(rig, done("a", {"n": {"$task": "mine"}}))
    (task,) = sent(rig)
    assert json.loads(task.payload) == {"x": {"$task": "mine"}}
    assert task.depends_on == []
    assert not task.links


def test_a_task_carries_what_the_workflow_says():
    retry = StepRetry(max_retries=4, backoff_factor=3.0)
    one = step("a", retry_policy=retry, timeout=7.0, tags=["x"], placement="local")
    (task,) = sent(rig_of(one, priority=8.0, deadline=BEGIN + 50, rules=Rules(timeout_s=100.0, keep_s=10.0)))
    assert task.retry == Retry(max_attempts=5, factor=3.0)
    assert (task.timeout_s, task.priority, task.owner) == (7.0, 8.0, "ann")
    assert (task.tags, task.needs, task.fairness_key) == (["x", "workflow"], ["local"], "workflow:wf")
    assert (task.deadline, task.keep_s) == (BEGIN + 50, 60.0)
    assert json.loads(task.metadata) == {"workflow_id": "wf", "step_id": "a"}


def test_the_queue_needs_nobody_to_go_on_when_it_has_all_that_is_left():
    rig = rig_of(step("a"), step("b", "a"))
    assert rig.run.all_sent
    tell(rig, done("a"))
    assert rig.run.all_sent
    some = rig_of(step("a"), step("b", "a"), rules=Rules(max_queued=1))
    assert not some.run.all_sent, "there was no room for b"
    late = rig_of(step("a"), step("b", "a", when="on_failure"))
    assert not late.run.all_sent, "whether b runs is not for the queue to say"


def test_no_more_tasks_wait_than_may_and_the_first_ones_go_first():
    names = [f"s{number}" for number in range(6)]
    rig = rig_of(*map(step, names), rules=Rules(max_queued=2))
    assert [task.id for task in sent(rig)] == ["wf:s0", "wf:s1"]
    tell(rig, done("s1"))
    assert [task.id for task in sent(rig)] == ["wf:s2"]


def test_a_step_waits_until_so_few_are_open_as_a_task_may_depend_on():
    parents = [f"p{number}" for number in range(4)]
    rig = rig_of(*map(step, parents), step("last", *parents), rules=Rules(max_depends_on=2))
    assert len(sent(rig)) == 4
    tell(rig, done("p0"))
    assert sent(rig) == []
    tell(rig, done("p3"))
    assert [task.depends_on for task in sent(rig)] == [["wf:p1", "wf:p2"]]


# --- news ----------------------------------------------------------------------------------------------------------


def test_the_same_news_again_change_nothing():
    rig = rig_of(step("a"), step("b", "a"))
    sent(rig)
    news = [fact("a", "leased"), done("a", 1), fact("b", "leased"), done("b", 2)]
    tell(rig, *news)
    before = kinds(rig)
    for one in reversed(news):
        assert tell(rig, one).events == []
    assert kinds(rig) == before
    assert rig.run.status == "completed"


def test_news_of_an_older_attempt_change_nothing():
    rig = rig_of(step("a"))
    sent(rig)
    tell(rig, fact("a", "leased", attempt=2))
    assert tell(rig, fact("a", "leased", attempt=1), fact("a", "scheduled", attempt=1)).events == []
    assert rig.run.step_view("a").attempt == 2


def test_each_attempt_is_written_down_once():
    rig = rig_of(step("a"))
    sent(rig)
    for attempt in (1, 2):
        tell(rig, fact("a", "leased", attempt=attempt), fact("a", "leased", attempt=attempt))
    assert kinds(rig).count("step_started") == 2


def test_a_completion_after_the_end_changes_nothing():
    rig = rig_of(step("a"), step("b"))
    sent(rig)
    tell(rig, fact("a", "cancelled"))
    assert tell(rig, done("a")).events == []
    assert statuses(rig)["a"] == "cancelled"


def test_news_of_a_child_wait_until_its_parent_was_looked_up():
    rig = rig_of(step("a"), step("b", "a"))
    sent(rig)
    changes = tell(rig, done("b", 2))
    assert changes.events == []
    assert changes.commands.look == ["wf:a"]
    tell(rig, done("a", 1))
    assert [event.payload["step"] for event in rig.stored if event.kind == "step_completed"] == ["a", "b"]
    assert rig.run.status == "completed"


def test_a_parent_is_looked_up_once_however_often_its_child_is_heard_of():
    rig = rig_of(step("a"), step("b", "a"))
    sent(rig)
    looks = [tell(rig, one).commands.look for one in (fact("b", "leased"), fact("b", "leased"), done("b"))]
    assert looks == [["wf:a"], [], []]


def test_news_that_come_together_are_taken_in_the_order_of_the_graph():
    rig = rig_of(step("a"), step("b", "a"), step("c", "b"))
    sent(rig)
    changes = tell(rig, done("c"), done("b"), done("a"))
    assert [event.payload["step"] for event in changes.events[:-1]] == ["a", "b", "c"]
    assert changes.commands.look == []


def test_news_of_other_workflows_and_unknown_steps_are_passed_over():
    rig = rig_of(step("a"))
    sent(rig)
    strangers = [msgspec.structs.replace(done("a"), id=one) for one in ("w:a", "wf:z", "wf:a[0]", "wf:a[x]", "a", "")]
    assert tell(rig, *strangers).events == []


def test_fan_in_fires_once_at_the_last_parent():
    parents = [f"p{number}" for number in range(4)]
    rig = rig_of(*map(step, parents), step("late", *parents, when="always"))
    assert len(sent(rig)) == 4
    for name in parents:
        tell(rig, done(name), done(name))
    assert [task.id for task in sent(rig)] == ["wf:late"]
    assert kinds(rig).count("step_ready") == 1


# --- what is not done ----------------------------------------------------------------------------------------------


def test_what_depends_on_a_failure_is_skipped_and_other_branches_go_on():
    rig = rig_of(step("a"), step("b", "a"), step("c", "b"), step("other"))
    sent(rig)
    tell(rig, fact("a", "failed", error=ErrorInfo(code="TOOL_FAILED", message="no luck")))
    assert statuses(rig) == {"a": "failed", "b": "skipped", "c": "skipped", "other": "ready"}
    assert rig.run.step_view("b").reason == "step a failed"
    tell(rig, done("other"))
    view = rig.run.view()
    assert view.status == "failed"
    assert view.error == ErrorInfo(code="STEP_FAILED", message="step a failed: no luck")


def test_a_failure_is_handled_and_the_workflow_has_failed_nevertheless():
    rig = rig_of(step("a"), step("rescue", "a", when="on_failure"), step("after", "rescue"))
    sent(rig)
    tell(rig, fact("a", "failed"))
    assert [task.id for task in sent(rig)] == ["wf:rescue", "wf:after"]
    tell(rig, done("rescue"), done("after"))
    assert rig.run.status == "failed"


def test_what_its_own_condition_skips_is_no_failure():
    rig = rig_of(step("a"), step("rescue", "a", when="on_failure"))
    sent(rig)
    tell(rig, done("a"))
    assert statuses(rig)["rescue"] == "skipped"
    assert rig.run.status == "completed"


@pytest.mark.parametrize("how", ["cancelled", "gone"])
def test_a_task_that_somebody_takes_away_cancels_its_step(how):
    rig = rig_of(step("a"), step("b", "a"))
    sent(rig)
    if how == "gone":
        for _ in range(2):  # it is believed when it was asked about
            rig.run.gone(["wf:a"], rig.now)
            changes = rig.settle()
        assert [op.id for op in changes.commands.cancel] == ["wf:b"]
    else:
        tell(rig, fact("a", "cancelled", reason="by hand"))
    assert statuses(rig) == {"a": "cancelled", "b": "skipped"}
    assert rig.run.view().status == "failed"


def test_that_a_task_is_gone_is_not_believed_unless_it_was_asked():
    rig = rig_of(step("a"))
    sent(rig)
    rig.run.gone(["wf:a"], rig.now)
    assert rig.settle().commands.look == ["wf:a"]
    tell(rig, fact("a", "ready", attempt=0))
    assert statuses(rig) == {"a": "ready"}


@pytest.mark.parametrize("code", ["ID_CONFLICT", "LIMIT_EXCEEDED", "INVALID_PARAMS"])
def test_a_task_that_is_refused_fails_its_step_and_what_was_sent_after_it_is_taken_back(code):
    rig = rig_of(step("a"), step("b", "a"))
    rig.commands.clear()
    rig.run.refused("wf:a", ErrorInfo(code=code, message="no"), rig.now)
    changes = rig.settle()
    assert statuses(rig) == {"a": "failed", "b": "skipped"}
    assert [(op.id, op.force) for op in changes.commands.cancel] == [("wf:b", True)]
    error = rig.run.step_view("a").error
    assert error is not None
    assert error.code == code


def test_a_full_queue_gets_the_rest_later_and_that_is_told_once():
    rig = rig_of(step("a"), step("b"))
    rig.commands.clear()
    rig.run.accepted(["wf:a"])
    rig.run.refused("wf:b", FULL, rig.now)
    assert rig.settle().full
    assert not rig.settle().full
    assert not rig.commands
    rig.run.retry_refused()
    rig.settle()
    assert [task.id for task in sent(rig)] == ["wf:b"]


def test_a_task_of_somebody_else_is_not_taken_for_the_steps():
    rig = rig_of(step("a"))
    rig.die()
    changes = tell(rig, msgspec.structs.replace(done("a"), owner="bob"))
    assert statuses(rig) == {"a": "failed"}
    assert [event.payload["error"]["code"] for event in changes.events[:1]] == ["ID_CONFLICT"]
    assert changes.commands.cancel == []


@pytest.mark.parametrize(
    ("last", "code"),
    [
        (step("z", "a", when="always", inputs={"x": {"$from": "a", "path": "/none"}}), "REFERENCE_MISSING"),
        (step("z", "a", for_each={"$from": "a", "path": "/none"}), "REFERENCE_MISSING"),
        (step("z", "a", for_each={"$from": "a", "path": "/n"}), "INVALID_ARGUMENTS"),
        (step("z", "a", for_each={"$from": "a", "path": "/many"}), "LIMIT_EXCEEDED"),
        (step("z", "a", when="always", inputs={"x": {"$from": "a", "path": "/long"}}), "LIMIT_EXCEEDED"),
        (step("z", "a", for_each=[1], inputs={"x": {"$item": "/none"}}), "ITEMS_FAILED"),
    ],
)
def test_what_can_not_be_called_fails_with_a_reason(last, code):
    rig = rig_of(step("a"), last, step("b", "z"), rules=Rules(max_items=2, max_payload_bytes=1000))
    sent(rig)
    tell(rig, done("a", {"n": 1, "many": [1, 2, 3], "long": "x" * 1000}))
    view = rig.run.step_view("z")
    assert (view.status, view.error and view.error.code) == ("failed", code)
    assert rig.run.status == "failed"
    assert sent(rig) == []


def test_a_reference_that_leads_nowhere_waits_for_the_steps_that_may_have_it_skipped():
    rig = rig_of(
        step("a"), step("b", "a", when="always"), step("c", "a", "b", inputs={"x": {"$from": "a", "path": "/0"}})
    )
    sent(rig)
    tell(rig, done("a"))
    assert [task.id for task in sent(rig)] == ["wf:b"]
    assert statuses(rig)["c"] == "pending"
    tell(rig, fact("b", "failed"))
    assert statuses(rig)["c"] == "skipped"


@pytest.mark.parametrize("first", ["calm", "bad"])
def test_whether_a_step_is_skipped_for_a_failure_does_not_hang_on_what_ends_first(first):
    calm = [step("fine"), step("calm", "fine", when="on_failure")]
    rig = rig_of(*calm, step("bad"), step("both", "calm", "bad"), step("rescue", "both", when="on_failure"))
    sent(rig)
    news = {"calm": done("fine"), "bad": fact("bad", "failed")}
    tell(rig, news.pop(first))
    tell(rig, *news.values())
    assert statuses(rig)["both"] == "skipped"
    assert [task.id for task in sent(rig)] == ["wf:rescue"]


# --- for_each and memo ---------------------------------------------------------------------------------------------


def test_each_item_is_a_task_and_the_outputs_are_in_order():
    one = step("e", for_each=[10, 20], inputs={"x": {"$item": ""}, "i": {"$index": True}})
    rig = rig_of(one, step("after", "e", inputs={"all": {"$from": "e"}}))
    assert [(task.id, json.loads(task.payload)) for task in sent(rig)] == [
        ("wf:e[0]", {"x": 10, "i": 0}),
        ("wf:e[1]", {"x": 20, "i": 1}),
    ]
    tell(rig, done("e[1]", "second"))
    assert statuses(rig) == {"e": "ready", "after": "pending"}
    tell(rig, done("e[0]", "first"))
    assert [json.loads(task.payload) for task in sent(rig)] == [{"all": ["first", "second"]}]


def test_no_items_are_an_empty_list():
    rig = rig_of(step("e", for_each=[]))
    assert rig.run.status == "completed"
    assert rig.outputs() == {"e": []}


def test_a_failed_item_fails_the_step_once_all_have_ended():
    rig = rig_of(step("e", for_each=[1, 2, 3]))
    sent(rig)
    tell(rig, fact("e[1]", "failed", error=ErrorInfo(code="X", message="bad")), done("e[0]"))
    assert statuses(rig) == {"e": "ready"}
    tell(rig, done("e[2]"))
    error = rig.run.step_view("e").error
    assert error is not None
    assert error.message == "1 of 3 items failed: [1]; the first one: bad"


def test_work_that_was_done_before_is_not_done_again():
    steps = [step("a", memo=True, inputs={"k": 1}), step("b", "a", memo=True, inputs={"k": 1})]
    rig = rig_of(*steps)
    rig.to_end()
    assert list(rig.queue.calls) == ["wf:a"]
    assert rig.memo_hits == 1
    assert [one.memo for one in rig.run.view().steps] == [False, True]
    assert rig.outputs()["a"] == rig.outputs()["b"]


def test_questions_for_equal_work_count_among_what_waits():
    rig = rig_of(step("e", for_each=[1, 2, 3], memo=True), rules=Rules(max_queued=2))
    assert [(kind, one.index) for kind, one in rig.commands] == [("memo", 0), ("memo", 1)]


def test_work_that_ended_while_nobody_was_there_is_remembered():
    rig = rig_of(step("a", memo=True))
    rig.calm()
    rig.die()
    while rig.queue.busy():
        rig.queue.work()
    rig.to_end()
    assert len(rig.memos) == 1


# --- control -------------------------------------------------------------------------------------------------------


def test_cancelled_tasks_are_cancelled_children_first():
    rig = rig_of(step("a"), step("b", "a"), step("late", "b", when="always"))
    sent(rig)
    assert rig.control("cancel", reason="enough") == ["a", "b", "late"]
    assert [(kind, op.id, op.force) for kind, op in rig.commands] == [("do", "wf:b", False), ("do", "wf:a", False)]
    assert rig.run.view().cancelling
    tell(rig, fact("b", "cancelled"), fact("a", "cancelled"))
    view = rig.run.view()
    assert (view.status, view.reason, view.cancelling) == ("cancelled", "enough", False)
    assert set(statuses(rig).values()) == {"cancelled"}


def test_a_running_step_may_complete_while_it_is_cancelled():
    rig = rig_of(step("a"), step("b", "a"))
    sent(rig)
    tell(rig, fact("a", "leased"))
    rig.control("cancel")
    tell(rig, fact("b", "cancelled"), done("a", 1))
    assert statuses(rig) == {"a": "completed", "b": "cancelled"}
    assert rig.run.status == "cancelled"


def test_force_after_a_cancel_takes_the_tasks_away():
    rig = rig_of(step("a"))
    sent(rig)
    rig.control("cancel")
    rig.commands.clear()
    assert rig.control("cancel") == ["a"]
    assert not rig.commands
    rig.control("cancel", force=True)
    assert [(op.id, op.force) for _, op in rig.commands] == [("wf:a", True)]


def test_a_workflow_that_has_not_begun_is_cancelled_at_once():
    rig = Rig(Workflow(name="test", workflow_id="wf", steps=[step("a")]))
    assert rig.control("cancel") == ["a"]
    assert rig.run.status == "cancelled"
    rig.begin()
    assert rig.run.status == "cancelled"
    assert not rig.commands


def test_a_cancel_goes_on_after_a_restart():
    rig = rig_of(step("a"), step("b", "a"), step("late", "b", when="always"))
    rig.calm()
    rig.control("cancel")
    rig.die()
    rig.calm()  # nobody works
    assert rig.run.status == "cancelled"
    assert rig.left_open() == []


def test_what_has_ended_can_not_be_controlled():
    rig = rig_of(step("a"))
    sent(rig)
    tell(rig, done("a"))
    before = kinds(rig)
    for what in ("cancel", "pause", "resume"):
        assert rig.control(what) == []
    assert kinds(rig) == before


def test_a_pause_stops_the_lane_also_after_a_restart():
    rig = rig_of(step("a"))
    sent(rig)
    rig.control("pause", reason="lunch")
    rig.control("pause")
    assert list(rig.commands) == [("pause", True)]
    assert rig.run.view().paused
    rig.die()
    assert ("pause", True) in rig.commands
    rig.commands.clear()
    rig.control("resume")
    assert list(rig.commands) == [("pause", False)]
    assert kinds(rig)[-2:] == ["paused", "resumed"]


def test_a_lane_is_not_left_paused_at_the_end():
    rig = rig_of(step("a"))
    sent(rig)
    rig.control("pause")
    rig.commands.clear()
    tell(rig, done("a"))
    assert list(rig.commands) == [("pause", False)]
    assert not rig.run.view().paused


# --- time ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("deadline", "at"), [(None, BEGIN + 10), (BEGIN + 5, BEGIN + 5), (BEGIN + 50, BEGIN + 10)])
def test_the_whole_has_a_time(deadline, at):
    rig = rig_of(step("a"), step("b", "a"), rules=Rules(timeout_s=10.0), deadline=deadline)
    sent(rig)
    assert rig.run.next_due() == at
    rig.run.expire(at - 0.1)
    assert rig.settle().events == []
    rig.run.expire(at)
    changes = rig.settle()
    assert [(op.id, op.force) for op in changes.commands.cancel] == [("wf:b", True), ("wf:a", True)]
    rig.now = at
    tell(rig, fact("a", "cancelled"), fact("b", "cancelled"))
    view = rig.run.view()
    assert view.status == "failed"
    assert view.error == ErrorInfo(code="TIMEOUT", message="it did not end in time")
    assert rig.run.next_due() is None


def test_tasks_that_fail_at_the_deadline_do_not_start_others():
    rig = rig_of(step("a"), step("rescue", "a", when="on_failure"), deadline=BEGIN + 5)
    sent(rig)
    rig.now = BEGIN + 5
    tell(rig, fact("a", "failed", error=ErrorInfo(code="DEADLINE_EXCEEDED", message="late")))
    assert sent(rig) == []
    assert rig.run.view().error == ErrorInfo(code="TIMEOUT", message="it did not end in time")


def test_one_that_waits_past_its_deadline_fails():
    rig = Rig(Workflow(name="test", workflow_id="wf", steps=[step("a")], deadline=BEGIN + 5))
    assert rig.run.next_due() == BEGIN + 5
    rig.now = BEGIN + 5
    rig.begin()
    assert rig.run.status == "failed"
    assert statuses(rig) == {"a": "cancelled"}
    assert not rig.commands


def test_one_whose_dependency_failed_fails_unless_it_has_begun():
    why = ErrorInfo(code="DEPENDENCY_FAILED", message="other")
    waits = Rig(Workflow(name="test", workflow_id="wf", steps=[step("a")]))
    waits.run.fail(why, BEGIN)
    assert (waits.run.status, waits.run.view().error) == ("failed", why)
    runs = rig_of(step("a"))
    runs.run.fail(why, BEGIN)
    assert runs.run.status == "running"


def test_too_many_events_end_it():
    rig = rig_of(step("a"), rules=Rules(max_events=10))
    sent(rig)
    for attempt in range(1, 12):
        tell(rig, fact("a", "leased", attempt=attempt))
    assert rig.run.view().cancelling
    tell(rig, fact("a", "cancelled"))
    error = rig.run.view().error
    assert error is not None
    assert error.code == "LIMIT_EXCEEDED"


# --- after a restart -----------------------------------------------------------------------------------------------


def test_after_a_restart_nothing_is_sent_before_all_was_looked_up():
    rig = rig_of(step("a"), step("b", "a"), step("late", "b", when="always"))
    rig.die()  # none of it was carried out
    assert list(rig.commands) == [("look", "wf:a"), ("look", "wf:b")]
    rig.commands.clear()
    rig.run.gone(["wf:a"], rig.now)
    rig.settle()
    assert not rig.commands
    rig.run.gone(["wf:b"], rig.now)
    rig.settle()
    assert [task.id for task in sent(rig)] == ["wf:a", "wf:b"]


def test_after_a_restart_only_what_the_queue_lacks_is_sent():
    rig = rig_of(step("a"), step("b"))
    rig.queue.apply(rig.commands[0][1])
    rig.die()
    rig.calm()
    assert sorted(rig.queue.tasks) == ["wf:a", "wf:b"]
    assert kinds(rig) == ["submitted", "begun"]


def test_a_sending_that_arrives_after_it_was_looked_for_is_no_conflict():
    rig = rig_of(step("a"), step("b", "a", inputs={"x": {"$from": "a"}}))
    first = rig.commands[1][1]
    rig.queue.apply(rig.commands[0][1])
    while rig.queue.busy():
        rig.queue.work()
    rig.die()
    rig.run.gone(["wf:b"], rig.now)
    rig.run.observe(rig.queue.facts(["wf:a"])[0], rig.now)
    rig.commands.clear()
    rig.settle()
    rig.queue.apply(first)  # with a link; what is sent now has the output
    rig.queue.news.clear()
    while rig.commands or rig.answers:
        rig.calm()
    rig.to_end()
    assert statuses(rig) == {"a": "completed", "b": "completed"}


def test_a_task_that_was_sent_again_may_have_ended_long_ago():
    rig = rig_of(step("a"))
    rig.die()
    rig.run.gone(["wf:a"], rig.now)
    tell(rig, done("a"))  # an earlier sending arrived; nobody waits for it now
    rig.commands.clear()
    rig.run.accepted(["wf:a"])
    assert rig.settle().commands.look == ["wf:a"]


def test_a_restart_continues_in_the_state_that_was_stored():
    rig = rig_of(step("a"), step("e", for_each=[1, 2]), step("b", "a"))
    sent(rig)
    tell(rig, fact("a", "leased"), done("e[1]", 5), fact("e[0]", "leased"))
    before = rig.run.state
    rig.die()
    assert rig.run.state == before
    assert rig.same_when_replayed()


def test_at_any_time_a_replay_gives_the_state():
    rig = rig_of(step("a"), step("e", "a", for_each=[1, 2]), step("b", "e", when="always"), step("c", "b"))
    while rig.step():
        assert rig.same_when_replayed()
    assert rig.run.status == "completed"


def test_a_broken_way_to_the_queue_has_all_looked_up_again():
    rig = rig_of(step("a"), step("b"))
    sent(rig)
    tell(rig, fact("a", "leased"))
    rig.lose()
    assert list(rig.commands) == [("look", "wf:a"), ("look", "wf:b")]
    assert sorted(rig.run.waits_for()) == ["wf:a", "wf:b"]


# --- as people see it ----------------------------------------------------------------------------------------------


def test_a_view_tells_what_became_of_the_steps():
    rig = rig_of(step("a"), step("b", "a"))
    sent(rig)
    tell(rig, fact("a", "leased", started_at=BEGIN + 1))
    version = rig.run.view().version
    tell(rig, done("a", {"x": 1}, started_at=BEGIN + 1, ended_at=BEGIN + 2))
    view = rig.run.view(outputs=True)
    assert view.version > version
    assert view.counts == {"completed": 1, "ready": 1}
    first = view.steps[0]
    assert (first.task_id, first.attempt, first.worker) == ("wf:a", 1, "w")
    assert (first.started_at, first.ended_at, first.output) == (BEGIN + 1, BEGIN + 2, '{"x":1}')
    assert rig.run.view(steps=False).steps == []
    assert len(view.heads) == 1
