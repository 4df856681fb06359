# SPDX-License-Identifier: AGPL-3.0-or-later
"""Workflows as the tools show them: measured values only; what was not measured is null."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from actors.messages import ErrorInfo
from actors.p2p.workflow_scheduler.graph_text import Graph, critical_path
from actors.p2p.workflow_scheduler.tools_access import steps_ended
from actors.workflow_messages import STEP_ENDED, StepStatus, StepView, WorkflowStatus, WorkflowView


class Failure(msgspec.Struct, kw_only=True):
    """Why a step or a workflow failed."""

    code: str
    message: str
    retryable: bool
    details: dict[str, Any]


class StepShown(msgspec.Struct, kw_only=True):
    """A step as it is now. Times are Unix seconds."""

    step_id: str
    action: str
    status: StepStatus
    depends_on: list[str]
    task_id: str | None
    """Of the queue; with `for_each` there is one for each item: this with `[0]`, `[1]`, ... behind it."""
    attempt: int
    worker_id: str | None
    start_time: float | None
    end_time: float | None
    items: int | None
    """Of `for_each`, once they are known."""
    items_ended: int
    memo: bool
    """Its result is that of equal work done before."""
    error: Failure | None
    reason: str
    """Why it was skipped or cancelled."""
    cid: str
    """Of tool, inputs, policy, and the steps before it."""
    result_cid: str | None
    """Of its output."""


class StepTimes(msgspec.Struct, kw_only=True):
    """What was measured of a step; lengths in seconds."""

    step_id: str
    attempts: int
    waiting_time: float | None
    """From the moment that all steps before it had ended to its start."""
    execution_time: float | None
    """From its latest start to its end."""


class PathShown(msgspec.Struct, kw_only=True):
    """The longest path through the graph: the workflow can't be faster."""

    steps: list[str]
    length: float
    unit: Literal["seconds", "steps"]
    """Measured durations, or the number of steps when none has ended yet."""


class WorkflowMetrics(msgspec.Struct, kw_only=True):
    """What was measured of a workflow; lengths in seconds."""

    submitted_at: float
    waiting_time: float | None
    """From its submission to its begin."""
    execution_time: float | None
    """From its begin to its end."""
    attempts: int
    """Of all steps."""
    memoised: int
    """Steps whose result is that of equal work done before."""
    steps: list[StepTimes]
    critical_path: PathShown


class WorkflowSummary(msgspec.Struct, kw_only=True):
    """A workflow in a list."""

    workflow_id: str
    name: str
    status: WorkflowStatus
    owner: str
    priority: float
    tags: list[str]
    dependencies: list[str]
    steps_total: int
    steps_ended: int
    paused: bool
    created_at: float
    start_time: float | None
    end_time: float | None
    reason: str
    """Why it was cancelled, or what it waits for."""
    error: str | None


class WorkflowEnd(msgspec.Struct, kw_only=True):
    """How a workflow ended."""

    ended_at: float | None
    counts: dict[StepStatus, int]
    """Steps by status."""
    failed_steps: list[str]
    error: Failure | None
    """Of a failed workflow."""
    reason: str
    """Why it was cancelled."""


def failure_of(error: ErrorInfo | None) -> Failure | None:
    """An error in a result."""
    if error is None:
        return None
    return Failure(code=error.code, message=error.message, retryable=error.retryable, details=error.details)


def step_shown(step: StepView) -> StepShown:
    """A step."""
    return StepShown(
        step_id=step.step_id,
        action=step.action,
        status=step.status,
        depends_on=step.depends_on,
        task_id=step.task_id or None,
        attempt=step.attempt,
        worker_id=step.worker or None,
        start_time=step.started_at,
        end_time=step.ended_at,
        items=step.items,
        items_ended=step.items_ended,
        memo=step.memo,
        error=failure_of(step.error),
        reason=step.reason,
        cid=step.cid,
        result_cid=step.result or None,
    )


def progress_of(view: WorkflowView) -> float:
    """0-100: the share of steps that have ended. A running `for_each` counts by its items, where steps are known."""
    total = sum(view.counts.values())
    if not total:
        return 100.0 if view.ended_at is not None else 0.0
    partly = sum(step.items_ended / step.items for step in view.steps if step.items and step.status not in STEP_ENDED)
    return round(100.0 * (steps_ended(view) + partly) / total, 2)


def current_of(view: WorkflowView) -> str | None:
    """The first step that runs, or is about to."""
    for status in ("running", "ready"):
        for step in view.steps:
            if step.status == status:
                return step.step_id
    return None


def worker_of(view: WorkflowView) -> str | None:
    """Who began a step last, by the books of the queue; None before anybody did."""
    begun = [step for step in view.steps if step.worker and step.started_at is not None]
    return max(begun, key=lambda step: step.started_at or 0.0).worker if begun else None


def execution_time(view: WorkflowView) -> float | None:
    """Seconds from its begin to its end."""
    if view.started_at is None or view.ended_at is None:
        return None
    return max(0.0, view.ended_at - view.started_at)


def graph_of(view: WorkflowView) -> Graph:
    """What is drawn of it."""
    return Graph(
        name=view.name,
        order=[step.step_id for step in view.steps],
        actions={step.step_id: step.action for step in view.steps},
        depends={step.step_id: step.depends_on for step in view.steps},
    )


def path_of(view: WorkflowView) -> PathShown:
    """The longest path, by what was measured."""
    times = {step.step_id: took for step in view.steps if (took := _took(step)) is not None}
    found = critical_path(graph_of(view), times)
    return PathShown(steps=found.steps, length=found.length, unit="seconds" if found.measured else "steps")


def metrics_of(view: WorkflowView) -> WorkflowMetrics:
    """What was measured of it."""
    ends = {step.step_id: step.ended_at for step in view.steps}
    return WorkflowMetrics(
        submitted_at=view.created_at,
        waiting_time=None if view.started_at is None else max(0.0, view.started_at - view.created_at),
        execution_time=execution_time(view),
        attempts=sum(step.attempt for step in view.steps),
        memoised=sum(step.memo for step in view.steps),
        steps=[
            StepTimes(
                step_id=step.step_id,
                attempts=step.attempt,
                waiting_time=_waited(step, view.started_at, ends),
                execution_time=_took(step),
            )
            for step in view.steps
        ],
        critical_path=path_of(view),
    )


def _took(step: StepView) -> float | None:
    if step.started_at is None or step.ended_at is None:
        return None
    return max(0.0, step.ended_at - step.started_at)


def _waited(step: StepView, begun_at: float | None, ends: dict[str, float | None]) -> float | None:
    before = [begun_at, *(ends.get(name) for name in step.depends_on)]
    if step.started_at is None or any(at is None for at in before):
        return None
    return max(0.0, step.started_at - max(at for at in before if at is not None))


def summary_of(view: WorkflowView) -> WorkflowSummary:
    """A workflow for a list."""
    return WorkflowSummary(
        workflow_id=view.workflow_id,
        name=view.name,
        status=view.status,
        owner=view.owner,
        priority=view.priority,
        tags=view.tags,
        dependencies=view.dependencies,
        steps_total=sum(view.counts.values()),
        steps_ended=steps_ended(view),
        paused=view.paused,
        created_at=view.created_at,
        start_time=view.started_at,
        end_time=view.ended_at,
        reason=view.reason,
        error=None if view.error is None else f"{view.error.code}: {view.error.message}",
    )


def end_of(view: WorkflowView) -> WorkflowEnd:
    """How it ended."""
    return WorkflowEnd(
        ended_at=view.ended_at,
        counts=view.counts,
        failed_steps=[step.step_id for step in view.steps if step.status == "failed"],
        error=failure_of(view.error),
        reason=view.reason,
    )
