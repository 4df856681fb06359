# SPDX-License-Identifier: AGPL-3.0-or-later
"""The tools that begin a workflow: `workflow_submit`, and `submit_workflow` for those who know it by that name."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from actors.p2p.answers import Done
from actors.p2p.workflow_scheduler.tools_access import Access
from actors.p2p.workflow_scheduler.tools_results import WorkflowResult
from actors.p2p.workflow_scheduler.tools_shown import worker_of
from actors.p2p.workflow_scheduler.tools_steps import JsonMap, StepGiven, step_of
from actors.task_messages import PRIORITY_DEFAULT
from actors.tool_messages import TOP_LEVEL
from actors.toolkit import ToolContext, tool
from actors.workflow_messages import Name, Step, SubmitWorkflow, Workflow, WorkflowStatus, WorkflowSubmitted

WorkflowId = Annotated[str, Meta(min_length=1, max_length=80, pattern=r"^[^\[\]:\s]+$")]
Priority = Annotated[float, Meta(ge=1, le=10)]
ALIAS_META: Final = {TOP_LEVEL: ["workflow_id", "workflow_status"]}


class _Named(msgspec.Struct):
    workflow_id: str | None = None


_encode = msgspec.json.Encoder().encode
_decode_named = msgspec.json.Decoder(_Named).decode


class SubmittedWorkflow(Done):
    """It is stored, and will be run."""

    workflow_id: str
    status: WorkflowStatus
    peer_assigned: str | None
    """Who began a step last; null before anybody did."""
    estimated_start_time: float | None
    """When it began; null while it waits: nothing is measured that would tell."""
    message: str
    replayed: bool
    """The same workflow was submitted before."""
    cid: str
    """Of its name and steps."""
    result: WorkflowResult | None = None
    """How it ended. Only of an MCP task, which is completed when the workflow has ended; in an answer that comes at
    once it is null."""


class StartedWorkflow(msgspec.Struct, kw_only=True):
    """It is stored, and will be run."""

    status: Literal["success", "error"]
    """Whether this call did what it was asked for; how the workflow is says `workflow_status`."""
    workflow_id: str
    workflow_status: WorkflowStatus
    message: str
    replayed: bool
    """The same workflow was submitted before."""
    result: WorkflowResult | None = None
    """How it ended. Only of an MCP task, which is completed when the workflow has ended."""


class SubmitTools:
    """The tools, as methods."""

    def __init__(self, access: Access) -> None:
        self._access = access

    @tool(idempotent=True, destructive=False, task="optional")
    async def workflow_submit(
        self,
        ctx: ToolContext,
        workflow_id: WorkflowId,
        name: Name,
        steps: list[StepGiven],
        priority: Priority = PRIORITY_DEFAULT,
        tags: list[Name] | None = None,
        dependencies: list[Name] | None = None,
        metadata: JsonMap | None = None,
    ) -> SubmittedWorkflow:
        """Run a graph of tool calls durably: once this is answered it is on disk, and goes on whatever dies.

        Args:
            workflow_id: Your id for it. The same again with equal content is harmless and says `replayed`.
            name: For people.
            steps: Tool calls; each begins when those that it depends on have ended.
            priority: 1-10; higher runs earlier.
            tags: Words to find it by.
            dependencies: Ids of workflows that have to complete before it begins.
            metadata: Kept with it.
        """
        workflow = Workflow(
            workflow_id=workflow_id,
            name=name,
            steps=[step.as_step() for step in steps],
            priority=priority,
            tags=tags or [],
            dependencies=dependencies or [],
            metadata=metadata or {},
        )
        return await self._submitted(ctx, workflow)

    @tool(retry_safe=True, destructive=False, task="optional", meta=ALIAS_META)
    async def submit_workflow(
        self,
        ctx: ToolContext,
        workflow_name: Name,
        tasks: list[JsonMap],
        workflow_id: WorkflowId | None = None,
        priority: Priority = PRIORITY_DEFAULT,
        tags: list[Name] | None = None,
        dependencies: list[Name] | None = None,
        metadata: JsonMap | None = None,
    ) -> StartedWorkflow:
        """Run tool calls durably, as a workflow; workflow_submit can more.

        Args:
            workflow_name: For people.
            tasks: In each, `task` names a tool, `step_id` (else `task-1`, `task-2`, ...) and `depends_on` place it, and
                all other keys are the tool's arguments.
            workflow_id: Your id for it; without one it is given one.
            priority: 1-10; higher runs earlier.
            tags: Words to find it by.
            dependencies: Ids of workflows that have to complete before it begins.
            metadata: Kept with it.
        """
        workflow = Workflow(
            workflow_id=workflow_id or _made_id(ctx.call_id),
            name=workflow_name,
            steps=_steps_of(tasks),
            priority=priority,
            tags=tags or [],
            dependencies=dependencies or [],
            metadata=metadata or {},
        )
        made = await self._submitted(ctx, workflow)
        return StartedWorkflow(
            status="success",
            workflow_id=made.workflow_id,
            workflow_status=made.status,
            message=made.message,
            replayed=made.replayed,
        )

    async def _submitted(self, ctx: ToolContext, workflow: Workflow) -> SubmittedWorkflow:
        ask = SubmitWorkflow(workflow=workflow, owner=ctx.principal)
        made = await self._access.service.submit(ask, len(_encode(workflow)))
        if made.status == "running" and not made.replayed:
            return _answer(made, None, made.created_at, "it is stored, and runs")
        view = await self._access.view(ctx.principal, made.workflow_id)
        message = f"it is stored, and {view.status}{f': {view.reason}' if view.reason else ''}"
        return _answer(made, worker_of(view), view.started_at, message)

    def all(self) -> list[Any]:
        """Each of them."""
        return [self.workflow_submit, self.submit_workflow]


def id_for(payload: str, call_id: str) -> str:
    """The id of the workflow that a call of one of these tools submits; '' when it can't submit one."""
    try:
        return _decode_named(payload).workflow_id or _made_id(call_id)
    except msgspec.MsgspecError:
        return ""


def _made_id(call_id: str) -> str:
    """The same call, sent again after a death on its way, names the same workflow."""
    return f"wf-{hashlib.sha256(call_id.encode()).hexdigest()[:32]}"


def with_end(value: bytes, end: WorkflowResult) -> bytes:
    """What one of these tools answered, once the workflow has ended."""
    told = msgspec.json.decode(value)
    completed = end.status == "completed"
    if "workflow_status" in told:
        told |= {"status": "success" if completed else "error", "workflow_status": end.status}
    else:
        told |= {"success": completed, "status": end.status}
    return _encode(told | {"message": f"it has {end.status}", "result": end})


def _steps_of(tasks: list[JsonMap]) -> list[Step]:
    return [step_of(task, number) for number, task in enumerate(tasks, 1)]


def _answer(made: WorkflowSubmitted, worker: str | None, start: float | None, message: str) -> SubmittedWorkflow:
    return SubmittedWorkflow(
        workflow_id=made.workflow_id,
        status=made.status,
        peer_assigned=worker,
        estimated_start_time=start,
        message=message,
        replayed=made.replayed,
        cid=made.cid,
    )
