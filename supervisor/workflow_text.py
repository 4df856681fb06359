# SPDX-License-Identifier: AGPL-3.0-or-later
"""Workflows as text for people, and as JSON for programs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from actors.workflow_messages import (
    STEP_ENDED,
    StepView,
    WorkflowControlled,
    WorkflowPage,
    WorkflowSubmitted,
    WorkflowView,
)
from supervisor.screen import duration
from supervisor.task_text import clock, filled, one_line, printable, table

_STATUSES: Final = ("completed", "running", "ready", "pending", "failed", "skipped", "cancelled")
_MOST_OUTPUT_CHARS: Final = 2000


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What changed between two looks: of a step, or (without `step_id`) of the workflow."""

    at: float
    workflow_id: str
    status: str
    step_id: str = ""
    action: str = ""
    attempt: int = 0
    worker: str = ""
    seconds: float | None = None
    """Of the latest attempt of a step, once it has ended."""
    items: int | None = None
    items_ended: int = 0
    note: str = ""
    """Why it failed, was skipped or cancelled, or what it waits for."""


def submitted_text(made: WorkflowSubmitted, steps: int) -> str:
    """What was stored, and how to look at it."""
    again = " before" if made.replayed else ""
    count = f"{steps} step" if steps == 1 else f"{steps} steps"
    return (
        f"submitted{again}: {made.workflow_id} ({made.status}, {count})\n"
        f"see: greenroom workflow watch {made.workflow_id}"
    )


def list_text(page: WorkflowPage) -> str:
    """The newest ones, one line each."""
    if not page.workflows:
        return "no workflow matches"
    head = ("id", "name", "status", "steps", "submitted", "took", "")
    lines = table(head, [_list_row(view) for view in page.workflows])
    more = page.total - len(page.workflows)
    return "\n".join(map(printable, [*lines, *([f"... and {more} more (-n)"] if more > 0 else [])]))


def _list_row(view: WorkflowView) -> tuple[str, ...]:
    submitted = f"{duration(max(0.0, time.time() - view.created_at))} ago"
    took = _length(view.started_at, view.ended_at)
    return (view.workflow_id, one_line(view.name), state_of(view), share_of(view), submitted, took, note_of(view))


def state_of(view: WorkflowView) -> str:
    """Its status, and whether it is stopped or about to end."""
    if view.cancelling:
        return "cancelling"
    return "paused" if view.paused and view.status == "running" else view.status


def share_of(view: WorkflowView) -> str:
    """`3/7`: steps that have ended, of all."""
    return f"{ended_of(view)}/{sum(view.counts.values())}"


def ended_of(view: WorkflowView) -> int:
    """Steps that have ended."""
    return sum(count for status, count in view.counts.items() if status in STEP_ENDED)


def note_of(view: WorkflowView) -> str:
    """Why it failed or was cancelled, or what it waits for."""
    return one_line(f"{view.error.code}: {view.error.message}" if view.error is not None else view.reason)


def show_text(view: WorkflowView) -> str:
    """All that is known of a workflow."""
    lines = [f"{name.ljust(12)}{value}" for name, value in _facts(view) if value]
    lines += ["", *steps_table(view)]
    for step in view.steps:
        if step.output is not None:
            lines += ["", f"output of {step.step_id}", f"  {_cut(step.output)}"]
    return "\n".join(map(printable, lines))


def _facts(view: WorkflowView) -> Iterator[tuple[str, str]]:
    counts = ", ".join(f"{view.counts[status]} {status}" for status in _STATUSES if view.counts.get(status))
    yield "workflow", view.workflow_id
    yield "name", one_line(view.name)
    yield "status", state_of(view)
    yield "steps", counts
    yield "why", note_of(view)
    yield "owner", view.owner
    yield "priority", f"{view.priority:g}"
    yield "tags", ", ".join(view.tags)
    yield "after", ", ".join(view.dependencies)
    yield "submitted", clock(view.created_at)
    yield "begun", clock(view.started_at) if view.started_at else ""
    yield "ended", clock(view.ended_at) if view.ended_at else ""
    yield "took", _length(view.started_at, view.ended_at)
    yield "deadline", clock(view.deadline) if view.deadline and not view.ended_at else ""
    yield "definition", view.cid
    yield "events", f"{view.events}, head {', '.join(view.heads[:3])}" if view.heads else ""


def steps_table(view: WorkflowView) -> list[str]:
    """One line for each step, in an order in which they can run."""
    head = ("step", "action", "status", "attempts", "took", "worker", "")
    return table(head, [step_row(step) for step in view.steps])


def step_row(step: StepView) -> tuple[str, ...]:
    """A step in a table."""
    took = _length(step.started_at, step.ended_at)
    return (step.step_id, step.action, step.status, str(step.attempt or ""), took, step.worker, _step_note(step))


def _step_note(step: StepView) -> str:
    notes = [f"{step.items_ended} of {step.items} items"] if step.items is not None else []
    notes += ["the result of equal work"] if step.memo else []
    notes += [f"{step.error.code}: {step.error.message}" if step.error is not None else step.reason]
    return one_line("; ".join(note for note in notes if note))


def _length(start: float | None, end: float | None) -> str:
    """How long it took, or takes so far."""
    return "" if start is None else _short(max(0.0, (time.time() if end is None else end) - start))


def _short(seconds: float) -> str:
    return duration(seconds) if seconds >= 1 else f"{1000 * seconds:.0f} ms"


def controlled_text(done: WorkflowControlled, what: str) -> str:
    """What became of an order."""
    if what == "pause":
        return f"paused {done.workflow_id}: no step begins; those that run go on"
    if what == "resume":
        return f"resumed {done.workflow_id}"
    if done.status == "cancelled":
        text = f"cancelled {done.workflow_id}"
    else:
        text = f"{done.workflow_id} is being cancelled: running steps were asked to stop"
    return printable(f"{text}; will not complete: {', '.join(done.steps)}" if done.steps else text)


# --- changes -------------------------------------------------------------------------------------------------------


def changes(before: WorkflowView | None, after: WorkflowView) -> list[Change]:
    """What is other than it was, steps first; of a workflow that is seen for the first time, what has happened."""
    known = {step.step_id: step for step in before.steps} if before is not None else {}
    found = [
        _step_change(after, step)
        for step in after.steps
        if _looks(step) != (_looks(known[step.step_id]) if step.step_id in known else ("pending", 0, 0))
    ]
    if before is None or (state_of(before), note_of(before)) != (state_of(after), note_of(after)):
        at = after.ended_at or time.time()
        found.append(Change(at=at, workflow_id=after.workflow_id, status=state_of(after), note=note_of(after)))
    return found


def _looks(step: StepView) -> tuple[str, int, int]:
    return step.status, step.attempt, step.items_ended


def _step_change(view: WorkflowView, step: StepView) -> Change:
    took = None
    if step.started_at is not None and step.ended_at is not None:
        took = max(0.0, step.ended_at - step.started_at)
    return Change(
        at=step.ended_at or time.time(),
        workflow_id=view.workflow_id,
        status=step.status,
        step_id=step.step_id,
        action=step.action,
        attempt=step.attempt,
        worker=step.worker,
        seconds=took,
        items=step.items,
        items_ended=step.items_ended,
        note=one_line(f"{step.error.code}: {step.error.message}" if step.error is not None else step.reason),
    )


def change_text(change: Change) -> str:
    """One line."""
    what = f"{change.step_id} ({change.action})" if change.step_id else f"workflow {change.workflow_id}"
    more = []
    if change.items is not None:
        more.append(f"{change.items_ended} of {change.items} items")
    if change.attempt > 1:
        more.append(f"attempt {change.attempt}")
    if change.seconds is not None:
        more.append(_short(change.seconds))
    if change.note:
        more.append(change.note)
    at = clock(change.at).split(" ")[1]
    return printable(f"{at}  {what}  {change.status}" + (f"  {', '.join(more)}" if more else ""))


# --- JSON ----------------------------------------------------------------------------------------------------------


def view_json(view: WorkflowView) -> str:
    """A workflow with every field; outputs are JSON, not text."""
    plain: dict[str, Any] = filled(view)
    for step in plain["steps"]:
        if step["output"] is not None:
            step["output"] = msgspec.Raw(step["output"].encode())
    return msgspec.json.encode(plain).decode()


def _cut(text: str) -> str:
    if len(text) <= _MOST_OUTPUT_CHARS:
        return text
    return f"{text[:_MOST_OUTPUT_CHARS]}... ({len(text)} characters; --json has all)"
