# SPDX-License-Identifier: AGPL-3.0-or-later
"""What operators ask of the workflow scheduler of a running tree. For the command line."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Literal

import trio

from actors.workflow_client import WorkflowClient
from actors.workflow_messages import (
    WORKFLOW_ENDED,
    ControlWorkflow,
    GetWorkflow,
    ListWorkflows,
    SubmitWorkflow,
    Workflow,
    WorkflowControlled,
    WorkflowPage,
    WorkflowStatus,
    WorkflowSubmitted,
    WorkflowView,
)
from supervisor.client_tasks import open_peers

_WAIT_S: Final = 30.0
_PACE_S: Final = 0.1
"""Between two looks at a workflow that changes all the time."""


@asynccontextmanager
async def open_workflows(data_dir: Path) -> AsyncGenerator[WorkflowClient, None]:
    """The workflow scheduler of the tree on this data directory."""
    async with open_peers(data_dir) as (peers, _):
        yield WorkflowClient(peers)


async def submit(data_dir: Path, workflow: Workflow) -> WorkflowSubmitted:
    """Have it stored and run. Raises `InvalidArgumentsError` with all its faults."""
    async with open_workflows(data_dir) as workflows:
        return await workflows.submit(SubmitWorkflow(workflow=workflow))


async def page(
    data_dir: Path, count: int, status: WorkflowStatus | None, tags: tuple[str, ...], owner: str | None
) -> WorkflowPage:
    """The newest ones that match."""
    async with open_workflows(data_dir) as workflows:
        return await workflows.scan(ListWorkflows(status=status, tags=list(tags), owner=owner, limit=count))


async def show(data_dir: Path, workflow_id: str, *, outputs: bool) -> WorkflowView:
    """One workflow. Raises `NotFoundError`."""
    async with open_workflows(data_dir) as workflows:
        return await workflows.get(GetWorkflow(workflow_id=workflow_id, outputs=outputs))


async def control(
    data_dir: Path,
    workflow_id: str,
    what: Literal["cancel", "pause", "resume"],
    *,
    reason: str = "",
    force: bool = False,
) -> WorkflowControlled:
    """Cancel, pause or resume one. Raises `NotFoundError`, INVALID_STATE."""
    async with open_workflows(data_dir) as workflows:
        order = ControlWorkflow(workflow_id=workflow_id, what=what, reason=reason, force=force)
        return await workflows.control(order)


async def follow(data_dir: Path, workflow_id: str, on_view: Callable[[WorkflowView], None]) -> WorkflowView:
    """Look at a workflow until it has ended: as it is, then after each change. Raises `NotFoundError`."""
    async with open_workflows(data_dir) as workflows:
        view = await workflows.get(GetWorkflow(workflow_id=workflow_id))
        on_view(view)
        while view.status not in WORKFLOW_ENDED:
            seen = view.version
            view = await workflows.get(GetWorkflow(workflow_id=workflow_id, wait_s=_WAIT_S, newer_than=seen))
            if view.version != seen:
                on_view(view)
            if view.status not in WORKFLOW_ENDED:
                await trio.sleep(_PACE_S)
        return view
