# SPDX-License-Identifier: AGPL-3.0-or-later
"""What all tools of the scheduler share: who may see to what, and what they need of others.

A caller with no name ('') may do everything: then nobody has to say who they are. Others may see to their own
workflows; operators (of the task queue, whose tasks the steps are) to all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import trio

from actors.p2p.workflow_scheduler.service import WorkflowService
from actors.task_views import GetTask, TaskView
from actors.toolkit import ToolContext
from actors.workflow_messages import STEP_ENDED, WORKFLOW_ENDED, GetWorkflow, WorkflowView

_NEWS_EVERY_S: Final = 0.25
"""Between two words about progress."""


class Tasks(Protocol):
    """What is needed of `actors.task_client.TaskClient`."""

    async def get(self, ask: GetTask) -> TaskView | None:
        """A task, or None when there is none of this id."""
        ...


class Access:
    """The scheduler, as the callers of its tools may use it."""

    def __init__(self, service: WorkflowService, tasks: Tasks, operators: Sequence[str]) -> None:
        self.service = service
        self.tasks = tasks
        self._operators = frozenset(operators)

    def owner(self, principal: str) -> str | None:
        """Whose workflows this caller may see to; None = everybody's."""
        return None if not principal or principal in self._operators else principal

    async def view(
        self, principal: str, workflow_id: str, *, steps: bool = True, outputs: bool = False, wait_s: float = 0.0
    ) -> WorkflowView:
        """A workflow of this caller, after so long or its end. Raises `NotFoundError` and NOT_OWNER."""
        return await self.service.get(
            GetWorkflow(
                workflow_id=workflow_id, owner=self.owner(principal), steps=steps, outputs=outputs, wait_s=wait_s
            )
        )

    async def wait(self, ctx: ToolContext, workflow_id: str, wait_s: float) -> None:
        """Until the workflow has ended, or for so long; meanwhile the client hears how far it is. Raises as `view`."""
        over = trio.current_time() + wait_s
        told = -1
        seen: int | None = None
        while True:
            left = over - trio.current_time()
            ask = GetWorkflow(
                workflow_id=workflow_id,
                owner=self.owner(ctx.principal),
                steps=False,
                wait_s=max(0.0, left) if seen is not None else 0.0,
                newer_than=seen,
            )
            view = await self.service.get(ask)
            seen = view.version
            ended, total = steps_ended(view), sum(view.counts.values())
            if ended > told:
                told = ended
                ctx.progress(ended, total, f"{ended} of {total} steps have ended")
            if view.status in WORKFLOW_ENDED or left <= 0:
                return
            # Its end is heard of at once, other changes at a pace.
            pause = GetWorkflow(workflow_id=workflow_id, steps=False, wait_s=min(_NEWS_EVERY_S, left))
            await self.service.get(pause)


def steps_ended(view: WorkflowView) -> int:
    """How many of its steps are done with."""
    return sum(count for status, count in view.counts.items() if status in STEP_ENDED)
