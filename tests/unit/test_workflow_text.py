# SPDX-License-Identifier: AGPL-3.0-or-later
"""Workflows as operators see them: texts, changes, and the live view."""

from __future__ import annotations

import io
import json
import time

import msgspec
import pytest
from rich.console import Console

from actors.messages import ErrorInfo
from actors.workflow_messages import (
    StepView,
    WorkflowControlled,
    WorkflowPage,
    WorkflowSubmitted,
    WorkflowView,
)
from supervisor import workflow_screen, workflow_text

replace = msgspec.structs.replace


def step(step_id: str, status: str = "pending", **more) -> StepView:
    return StepView(step_id=step_id, action="echo", status=status, cid="bs", **more)


def view(*steps: StepView, **more) -> WorkflowView:
    counts = {}
    for one in steps:
        counts[one.status] = counts.get(one.status, 0) + 1
    given = {"workflow_id": "w", "name": "nightly", "cid": "bw", "owner": "", "status": "running", "version": 1}
    given |= {"created_at": 100.0, "started_at": 101.0, "counts": counts, "steps": list(steps)}
    return WorkflowView(**(given | more))


FAILED = ErrorInfo(code="TOOL_FAILED", message="the disk\nis full")
DONE = step("a", "completed", attempt=2, worker="w1", started_at=101.0, ended_at=103.5)
VIEW = view(DONE, step("b", "failed", attempt=1, error=FAILED, started_at=104.0, ended_at=104.02), step("c"))


def test_a_submission_says_how_to_look_at_it():
    made = WorkflowSubmitted(workflow_id="w", status="running", cid="b", created_at=1.0)
    assert workflow_text.submitted_text(made, 1) == ("submitted: w (running, 1 step)\nsee: greenroom workflow watch w")
    assert workflow_text.submitted_text(replace(made, replayed=True), 2).startswith("submitted before: w (running, 2 s")


def test_a_workflow_is_shown_with_each_step():
    lines = workflow_text.show_text(VIEW).splitlines()
    assert "status      running" in lines
    assert "steps       1 completed, 1 pending, 1 failed" in lines
    head = next(at for at, line in enumerate(lines) if line.startswith("step "))
    assert [line.split() for line in lines[head:]] == [
        ["step", "action", "status", "attempts", "took", "worker"],
        ["a", "echo", "completed", "2", "2.5", "s", "w1"],
        ["b", "echo", "failed", "1", "20", "ms", "TOOL_FAILED:", "the", "disk", "is", "full"],
        ["c", "echo", "pending"],
    ]


def test_outputs_are_cut_for_people_and_whole_json_for_programs():
    text = json.dumps("x" * 3000)
    one = view(replace(DONE, output=text))
    assert "... (3002 characters; --json has all)" in workflow_text.show_text(one)
    assert json.loads(workflow_text.view_json(one))["steps"][0]["output"] == "x" * 3000
    assert json.loads(workflow_text.view_json(VIEW))["paused"] is False, "each field is there"


@pytest.mark.parametrize(
    ("more", "state"), [({"paused": True}, "paused"), ({"cancelling": True}, "cancelling"), ({}, "running")]
)
def test_the_state_says_what_is_about_to_happen(more, state):
    assert workflow_text.state_of(view(**more)) == state


def test_a_list_has_a_line_for_each_and_says_how_many_more():
    one = view(DONE, step("c"), reason="waits for v", created_at=time.time() - 90)
    lines = workflow_text.list_text(WorkflowPage(workflows=[replace(one, steps=[])], total=3)).splitlines()
    assert lines[0].split() == ["id", "name", "status", "steps", "submitted", "took"]
    assert lines[1].startswith("w   nightly  running  1/2    1 min 30 s ago")
    assert lines[1].endswith("waits for v")
    assert lines[2] == "... and 2 more (-n)"
    assert workflow_text.list_text(WorkflowPage(workflows=[], total=0)) == "no workflow matches"


def test_names_of_strangers_do_not_steer_the_terminal():
    evil = view(step("a", reason="\x1b[2J"), name="\x1b]0;x\x07")
    for text in (
        workflow_text.show_text(evil),
        workflow_text.list_text(WorkflowPage(workflows=[evil], total=1)),
        shown_on_screen(evil),
    ):
        assert "\x1b" not in text


@pytest.mark.parametrize(
    ("what", "status", "steps", "words"),
    [
        ("pause", "running", [], "paused w: no step begins"),
        ("resume", "running", [], "resumed w"),
        ("cancel", "cancelled", ["b", "c"], "cancelled w; will not complete: b, c"),
        ("cancel", "running", [], "w is being cancelled"),
    ],
)
def test_an_order_says_what_became_of_it(what, status, steps, words):
    done = WorkflowControlled(workflow_id="w", status=status, steps=steps)
    assert workflow_text.controlled_text(done, what).startswith(words)


# --- changes -------------------------------------------------------------------------------------------------------


def told(before, after):
    return [(one.step_id, one.status) for one in workflow_text.changes(before, after)]


def test_the_first_look_tells_what_has_happened_and_later_ones_what_is_new():
    first = view(step("a", "running"), step("b"))
    assert told(None, first) == [("a", "running"), ("", "running")]
    assert told(first, first) == []
    second = view(step("a", "completed"), step("b", "running"), version=2)
    assert told(first, second) == [("a", "completed"), ("b", "running")]
    third = view(step("a", "completed"), step("b", "completed"), status="completed", version=3, ended_at=110.0)
    assert told(second, third) == [("b", "completed"), ("", "completed")]


def test_another_attempt_and_another_item_are_changes():
    before = view(step("a", "running", attempt=1), step("b", "running", items=3, items_ended=1))
    after = view(step("a", "running", attempt=2), step("b", "running", items=3, items_ended=2))
    texts = [workflow_text.change_text(one).split("  ", 1)[1] for one in workflow_text.changes(before, after)]
    assert texts == ["a (echo)  running  attempt 2", "b (echo)  running  2 of 3 items"]


def test_a_change_is_one_line():
    (_, change, _) = workflow_text.changes(None, VIEW)
    assert workflow_text.change_text(change) == (
        "00:01:44.020Z  b (echo)  failed  20 ms, TOOL_FAILED: the disk is full"
    )


# --- the live view -------------------------------------------------------------------------------------------------


def shown_on_screen(one: WorkflowView, steps: int = 20) -> str:
    console = Console(file=io.StringIO(), width=100, force_terminal=False)
    console.print(workflow_screen.screen(one, steps))
    return console.file.getvalue()


def test_the_screen_has_a_bar_and_the_steps():
    text = shown_on_screen(VIEW)
    assert "w  nightly  running" in text
    assert "2/3 steps" in text
    assert "TOOL_FAILED: the disk is full" in text


def test_on_a_terminal_the_latest_view_stays():
    console = Console(file=io.StringIO(), width=100, height=30, force_terminal=True)
    with workflow_screen.live(console) as show:
        show(view(step("a", "running")))
        show(VIEW)
    last = console.file.getvalue().rpartition("nightly")[2]
    assert "TOOL_FAILED" in last
    assert "2/3 steps" in last


def test_elsewhere_each_change_is_a_line(capsys):
    show = workflow_screen.lines(as_json=True)
    show(view(step("a", "running")))
    show(view(step("a", "completed"), status="completed", ended_at=110.0))
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["step_id"], one["status"]) for one in told] == [
        ("a", "running"), ("", "running"), ("a", "completed"), ("", "completed"),
    ]  # fmt: skip


def test_where_there_is_no_room_the_interesting_steps_are_shown_in_their_order():
    steps = [step(f"done{n}", "completed") for n in range(50)]
    steps += [step("bad", "failed"), step("now", "running"), step("soon", "ready")]
    steps += [step(f"later{n}") for n in range(50)]
    assert [one.step_id for one in workflow_screen.visible(steps, 5)] == ["bad", "now", "soon", "later0", "later1"]
    assert workflow_screen.visible(steps[:3], 5) == steps[:3]
    assert "... and 98 more steps" in shown_on_screen(view(*steps), 5)


def test_of_many_that_have_ended_the_latest_are_shown():
    steps = [step(f"done{n}", "completed") for n in range(10)]
    assert [one.step_id for one in workflow_screen.visible(steps, 2)] == ["done8", "done9"]
