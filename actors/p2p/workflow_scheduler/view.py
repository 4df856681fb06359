# SPDX-License-Identifier: AGPL-3.0-or-later
"""A run as people see it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.p2p.cids import cid_text
from actors.p2p.workflow_scheduler.steps import Part
from actors.workflow_messages import StepView, WorkflowView

if TYPE_CHECKING:
    from actors.p2p.workflow_scheduler.deciding import Deciding


def workflow_view(run: Deciding, *, steps: bool, outputs: bool) -> WorkflowView:
    """See `WorkflowView`. With outputs, those that are not in memory are read."""
    state, workflow = run.state, run.plan.workflow
    return WorkflowView(
        workflow_id=run.graph.workflow_id,
        name=workflow.name,
        cid=cid_text(run.plan.cid),
        owner=run.owner,
        status=state.status,
        version=state.events,
        created_at=state.created_at,
        started_at=state.begun_at,
        ended_at=state.ended_at,
        deadline=run.end_at(),
        paused=state.paused,
        cancelling=state.cancelling and state.ended_at is None,
        priority=workflow.priority,
        tags=workflow.tags,
        dependencies=workflow.dependencies,
        metadata=workflow.metadata,
        counts={status: n for status, n in state.counts.items() if n},
        steps=[step_view(run, place, outputs=outputs) for place in range(len(run.graph))] if steps else [],
        reason=state.reason,
        error=state.error,
        heads=sorted(map(cid_text, run.clock.heads)),
        events=state.events,
    )


def step_view(run: Deciding, place: int, *, outputs: bool) -> StepView:
    """See `StepView`."""
    step, record, graph = run.graph.steps[place], run.state.steps[place], run.graph
    items = record.items
    return StepView(
        step_id=step.step_id,
        action=step.action,
        status=record.status,
        cid=cid_text(run.plan.cids[step.step_id]),
        depends_on=[graph.steps[before].step_id for before in graph.depends[place]],
        task_id=graph.task_id(Part(place)),
        attempt=record.attempt,
        worker=record.worker,
        started_at=record.started_at,
        ended_at=record.ended_at,
        items=None if items is None else len(items),
        items_ended=0 if items is None else len(items) - record.items_open,
        memo=record.memo,
        result=cid_text(record.result) if record.result else "",
        output=run.outputs.text(record.result) if outputs and record.result else None,
        error=record.error,
        reason=record.reason,
    )
