# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a workflow gave: for the tool `workflow_result`, and for MCP tasks that follow a workflow to its end."""

from __future__ import annotations

from typing import Final

import msgspec

from actors.p2p.answers import Done
from actors.p2p.workflow_scheduler.tools_access import Tasks
from actors.p2p.workflow_scheduler.tools_shown import WorkflowEnd, end_of, execution_time
from actors.task_views import GetTask
from actors.workflow_messages import StepView, WorkflowStatus, WorkflowView, step_task_id

_MOST_LOGGED: Final = 500
"""Tasks whose logs are shown."""


class StepOutput(msgspec.Struct, kw_only=True):
    """What a completed step gave."""

    step_id: str
    output: msgspec.Raw
    """The value of its tool; with `for_each` the list of all, in order."""


class StepLog(msgspec.Struct, kw_only=True):
    """The last lines that the workers of a step wrote."""

    step_id: str
    index: int | None
    """Of the item of `for_each`, from 0."""
    task_id: str
    lines: list[str]


class WorkflowResult(Done):
    """How a workflow ended, and what it gave."""

    workflow_id: str
    status: WorkflowStatus
    result: WorkflowEnd
    outputs: list[StepOutput] | None
    """Of completed steps, in their order; null when they were not asked for, or are too large for one answer."""
    logs: list[StepLog] | None
    """Of steps that wrote something, while the queue keeps their tasks."""
    logs_left_out: int
    """Tasks, the last ones, whose logs were not looked for because there are too many; `task_result` has them."""
    execution_time: float | None
    """Seconds from its begin to its end."""


def result_of(
    view: WorkflowView, *, outputs: bool, logs: list[StepLog] | None = None, logs_left_out: int = 0
) -> WorkflowResult:
    """Of a workflow that has ended."""
    return WorkflowResult(
        success=True,
        workflow_id=view.workflow_id,
        status=view.status,
        result=end_of(view),
        outputs=_outputs_of(view) if outputs else None,
        logs=logs,
        logs_left_out=logs_left_out,
        execution_time=execution_time(view),
    )


def _outputs_of(view: WorkflowView) -> list[StepOutput]:
    return [
        StepOutput(step_id=step.step_id, output=msgspec.Raw(step.output.encode()))
        for step in view.steps
        if step.output is not None
    ]


async def logs_of(view: WorkflowView, tasks: Tasks) -> tuple[list[StepLog], int]:
    """What the queue has of them, and how many tasks were not looked at. Raises what the queue raises."""
    wanted = [(step, index) for step in view.steps if step.attempt or step.items for index in _indices(step)]
    logs: list[StepLog] = []
    for step, index in wanted[:_MOST_LOGGED]:
        task_id = step_task_id(view.workflow_id, step.step_id, index)
        found = await tasks.get(GetTask(id=task_id))
        if found is not None and found.task.logs:
            logs.append(StepLog(step_id=step.step_id, index=index, task_id=task_id, lines=found.task.logs))
    return logs, len(wanted[_MOST_LOGGED:])


def _indices(step: StepView) -> list[int | None]:
    return [None] if step.items is None else list(range(step.items))
