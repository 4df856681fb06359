# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tools about workflows that were submitted: `workflow_status` ... `workflow_result`, and `get_workflow_status`."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from actors.p2p.answers import Done, refuse
from actors.p2p.workflow_scheduler.graph_text import dot, mermaid
from actors.p2p.workflow_scheduler.tools_access import Access
from actors.p2p.workflow_scheduler.tools_results import WorkflowResult, logs_of, result_of
from actors.p2p.workflow_scheduler.tools_shown import (
    Failure,
    StepShown,
    WorkflowMetrics,
    WorkflowSummary,
    current_of,
    failure_of,
    graph_of,
    metrics_of,
    path_of,
    progress_of,
    step_shown,
    summary_of,
    worker_of,
)
from actors.p2p.workflow_scheduler.tools_submit import ALIAS_META, WorkflowId
from actors.toolkit import ToolContext, tool
from actors.workflow_messages import (
    WORKFLOW_ENDED,
    ControlWorkflow,
    ListWorkflows,
    Name,
    StepStatus,
    WorkflowStatus,
)

MOST_WAIT_S: Final = 60
_SETTLE_S: Final = 2.0
"""Running steps that can be stopped have done so by then."""
Wait = Annotated[float, Meta(ge=0, le=MOST_WAIT_S)]
Page = Annotated[int, Meta(ge=1, le=1000)]
Offset = Annotated[int, Meta(ge=0, le=1_000_000)]
Reason = Annotated[str, Meta(max_length=2000)]


class State(msgspec.Struct, kw_only=True):
    """A workflow as it is now. Times are Unix seconds."""

    workflow_id: str
    name: str
    progress: float
    """0-100: the share of steps that have ended."""
    current_step: str | None
    """The first step that runs, or is about to."""
    steps: list[StepShown] | None
    """In an order in which they can run."""
    peer_id: str | None
    """Who began a step last; null before anybody did."""
    start_time: float | None
    end_time: float | None
    paused: bool
    cancelling: bool
    """It is being cancelled; running steps may take a moment to stop."""
    reason: str
    """Why it was cancelled, or what it waits for."""
    error: Failure | None
    heads: list[str]
    """CIDs of its newest events: the time of its Merkle clock."""
    metrics: WorkflowMetrics | None


class WorkflowState(State, kw_only=True):
    """A workflow as it is now."""

    success: bool = True
    status: WorkflowStatus


class AliasState(State, kw_only=True):
    """A workflow as it is now."""

    status: Literal["success"]
    """This call did what it was asked for; how the workflow is says `workflow_status`."""
    workflow_status: WorkflowStatus


class CancelledWorkflow(Done):
    """It is stored that it is cancelled."""

    workflow_id: str
    status: WorkflowStatus
    """`cancelled`; `running` while a step that was asked to stop has not."""
    cancelled_steps: list[str]
    """Those that will not complete."""
    message: str


class WorkflowList(Done):
    """One page, newest first."""

    workflows: list[WorkflowSummary]
    total_count: int
    returned_count: int
    has_more: bool


class Node(msgspec.Struct, kw_only=True):
    """A step in the graph."""

    step_id: str
    action: str
    status: StepStatus
    cid: str


class Edge(msgspec.Struct, kw_only=True):
    """One step comes after another one."""

    before: str = msgspec.field(name="from")
    after: str = msgspec.field(name="to")


class Dependencies(Done):
    """The graph."""

    workflow_id: str
    dag: dict[str, list[str]] | str
    """Step -> steps that it depends on; or the text in the language that was asked for."""
    nodes: list[Node]
    edges: list[Edge]
    critical_path: list[str]
    """The longest path, in its order: the workflow can't be faster."""
    critical_path_length: float
    critical_path_unit: Literal["seconds", "steps"]
    """Measured durations (a step without one counts as the others on average), or the number of steps when there are
    none."""
    dependencies: list[str]
    """Workflows that have to complete before it begins."""


class WorkflowTools:
    """The tools, as methods."""

    def __init__(self, access: Access) -> None:
        self._access = access

    @tool(read_only=True, open_world=False, timeout=MOST_WAIT_S + 15)
    async def workflow_status(
        self,
        ctx: ToolContext,
        workflow_id: WorkflowId,
        include_steps: bool = True,
        include_metrics: bool = False,
        wait: Wait = 0,
    ) -> WorkflowState:
        """How far a workflow is.

        Args:
            workflow_id: Its id.
            include_steps: With each step.
            include_metrics: With what was measured: durations, attempts, waiting times, the critical path.
            wait: Seconds to wait for its end, with news of its progress meanwhile.
        """
        state, status = await self._state(ctx, workflow_id, include_steps, include_metrics, wait)
        return WorkflowState(status=status, **state)

    @tool(read_only=True, open_world=False, timeout=MOST_WAIT_S + 15, meta=ALIAS_META)
    async def get_workflow_status(
        self,
        ctx: ToolContext,
        workflow_id: WorkflowId,
        include_steps: bool = True,
        include_metrics: bool = False,
        wait: Wait = 0,
    ) -> AliasState:
        """How far a workflow is; the same as workflow_status, whose `status` is called `workflow_status` here.

        Args:
            workflow_id: Its id.
            include_steps: With each step.
            include_metrics: With what was measured: durations, attempts, waiting times, the critical path.
            wait: Seconds to wait for its end, with news of its progress meanwhile.
        """
        state, status = await self._state(ctx, workflow_id, include_steps, include_metrics, wait)
        return AliasState(status="success", workflow_status=status, **state)

    async def _state(
        self, ctx: ToolContext, workflow_id: str, steps: bool, metrics: bool, wait_s: float
    ) -> tuple[dict[str, Any], WorkflowStatus]:
        if wait_s > 0:
            await self._access.wait(ctx, workflow_id, wait_s)
        view = await self._access.view(ctx.principal, workflow_id)
        state = State(
            workflow_id=view.workflow_id,
            name=view.name,
            progress=progress_of(view),
            current_step=current_of(view),
            steps=[step_shown(step) for step in view.steps] if steps else None,
            peer_id=worker_of(view),
            start_time=view.started_at,
            end_time=view.ended_at,
            paused=view.paused,
            cancelling=view.cancelling,
            reason=view.reason,
            error=failure_of(view.error),
            heads=view.heads,
            metrics=metrics_of(view) if metrics else None,
        )
        return msgspec.structs.asdict(state), view.status

    @tool(idempotent=True, destructive=True, open_world=False)
    async def workflow_cancel(
        self, ctx: ToolContext, workflow_id: WorkflowId, reason: Reason | None = None, force: bool = False
    ) -> CancelledWorkflow:
        """Cancel a workflow: steps that wait at once, running ones when their workers hear of it.

        Args:
            workflow_id: Its id.
            reason: Kept with it.
            force: Take running steps from their workers now.
        """
        order = ControlWorkflow(
            workflow_id=workflow_id,
            what="cancel",
            owner=self._access.owner(ctx.principal),
            reason=reason or "",
            force=force,
        )
        done = await self._access.service.control(order)
        view = await self._access.view(ctx.principal, workflow_id, steps=False, wait_s=_SETTLE_S)
        ended = view.status in WORKFLOW_ENDED
        return CancelledWorkflow(
            workflow_id=workflow_id,
            status=view.status,
            cancelled_steps=done.steps,
            message=f"it is {view.status}" if ended else "it is being cancelled: running steps were asked to stop",
        )

    @tool(read_only=True, open_world=False)
    async def workflow_list(
        self,
        ctx: ToolContext,
        status_filter: WorkflowStatus | None = None,
        peer_filter: Name | None = None,
        tag_filter: list[Name] | None = None,
        limit: Page = 50,
        offset: Offset = 0,
    ) -> WorkflowList:
        """List your workflows, newest first; operators see all.

        Args:
            status_filter: Only those.
            peer_filter: Only those of which this peer or worker did a step.
            tag_filter: Only those that have all of these tags.
            limit: So many at most.
            offset: Skip so many.
        """
        page = await self._access.service.list(
            ListWorkflows(
                status=status_filter,
                owner=self._access.owner(ctx.principal),
                worker=peer_filter or "",
                tags=tag_filter or [],
                limit=limit,
                offset=offset,
            )
        )
        return WorkflowList(
            workflows=[summary_of(view) for view in page.workflows],
            total_count=page.total,
            returned_count=len(page.workflows),
            has_more=offset + len(page.workflows) < page.total,
        )

    @tool(read_only=True, open_world=False)
    async def workflow_dependencies(
        self,
        ctx: ToolContext,
        workflow_id: WorkflowId,
        format: Literal["json", "dot", "mermaid"] = "json",  # noqa: A002 - callers know it by this name
    ) -> Dependencies:
        """The graph of a workflow and its longest path.

        Args:
            workflow_id: Its id.
            format: `dag` as an object, or as text in the language of Graphviz or Mermaid.
        """
        view = await self._access.view(ctx.principal, workflow_id)
        graph, path = graph_of(view), path_of(view)
        statuses = {step.step_id: step.status for step in view.steps}
        dag: dict[str, list[str]] | str
        if format == "json":
            dag = {step.step_id: step.depends_on for step in view.steps}
        else:
            dag = dot(graph, statuses) if format == "dot" else mermaid(graph, statuses)
        return Dependencies(
            workflow_id=workflow_id,
            dag=dag,
            nodes=[
                Node(step_id=step.step_id, action=step.action, status=step.status, cid=step.cid) for step in view.steps
            ],
            edges=[Edge(before=before, after=step.step_id) for step in view.steps for before in step.depends_on],
            critical_path=path.steps,
            critical_path_length=path.length,
            critical_path_unit=path.unit,
            dependencies=view.dependencies,
        )

    @tool(read_only=True, open_world=False)
    async def workflow_result(
        self, ctx: ToolContext, workflow_id: WorkflowId, include_outputs: bool = True, include_logs: bool = False
    ) -> WorkflowResult:
        """How a workflow ended and what its steps gave; NOT_FINISHED before its end.

        Args:
            workflow_id: Its id.
            include_outputs: With the outputs of all steps.
            include_logs: With the last lines that the workers of its steps wrote.
        """
        view = await self._access.view(ctx.principal, workflow_id, steps=False)
        if view.status not in WORKFLOW_ENDED:
            refuse("NOT_FINISHED", f"workflow {workflow_id} is {view.status}; ask again after its end")
        view = await self._access.view(ctx.principal, workflow_id, outputs=include_outputs)
        logs, left_out = await logs_of(view, self._access.tasks) if include_logs else (None, 0)
        return result_of(view, outputs=include_outputs, logs=logs, logs_left_out=left_out)

    def all(self) -> list[Any]:
        """Each of them."""
        return [
            self.workflow_status,
            self.workflow_cancel,
            self.workflow_list,
            self.workflow_dependencies,
            self.workflow_result,
            self.get_workflow_status,
        ]
