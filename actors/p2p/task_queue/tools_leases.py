# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tools by which external workers take tasks and say how they ended: `task_claim` ... `task_release`.

What a worker says of a task counts only with the fencing token that it was given with it.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from actors.messages import ErrorInfo
from actors.p2p.answers import Done
from actors.p2p.task_queue.tools_access import Access, to_json
from actors.p2p.task_queue.tools_links import with_values
from actors.task_messages import (
    Claim,
    Claimed,
    Complete,
    Ended,
    Fail,
    Lease,
    Op,
    Release,
    Status,
    TaskState,
    status_of,
)
from actors.toolkit import ToolContext, tool

Name = Annotated[str, Meta(min_length=1, max_length=200)]
Token = Annotated[int, Meta(ge=1)]
Line = Annotated[str, Meta(max_length=2000)]
Lines = Annotated[list[Line], Meta(max_length=200)]
MOST_CLAIMED: Final = 128
MOST_WAIT_S: Final = 60
LEASE_BYTES: Final = 1024
"""Of a claimed task in the answer, beside its payload, at most."""


class ClaimedTask(msgspec.Struct, kw_only=True):
    """A task that is the worker's own until `lease_until`."""

    task_id: str
    task_type: str
    model_name: str
    payload: dict[str, Any]
    priority: float
    created_at: float
    status: Status
    assigned_worker: str
    attempt: int
    fencing_token: int
    """To be sent with all that is said of this task."""
    lease_until: float
    timeout: float | None
    """Seconds that this attempt may take."""
    deadline: float | None


class ClaimedTasks(Done):
    """The tasks that the worker has now; none when there was none for it."""

    tasks: list[ClaimedTask]
    paused: bool
    """No task is given to anybody until queue_resume."""


class TaskEnded(Done):
    """The state that follows."""

    task_id: str
    status: Status
    next_attempt_at: float | None
    """When it is tried again."""
    replayed: bool
    """It was said before."""


class LeaseTools:
    """The tools, as methods."""

    def __init__(self, access: Access, max_result_bytes: int) -> None:
        """`max_result_bytes` of one answer."""
        self._access = access
        self._most_bytes = max_result_bytes

    @tool(retry_safe=True, destructive=False, open_world=False, timeout=MOST_WAIT_S + 15)
    async def task_claim(
        self,
        ctx: ToolContext,
        worker_id: Name,
        max_tasks: Annotated[int, Meta(ge=1, le=MOST_CLAIMED)] = 1,
        task_types: Annotated[list[Name], Meta(max_length=1000)] | None = None,
        wait: Annotated[float, Meta(ge=0, le=MOST_WAIT_S)] = 0,
        lease: Annotated[float, Meta(gt=0, le=3600)] | None = None,
        request_id: Annotated[str, Meta(max_length=200)] = "",
    ) -> ClaimedTasks:
        """Take tasks to work on. Without a heartbeat or an end they go to others when their lease ends.

        Args:
            worker_id: A worker that you registered.
            max_tasks: So many at most; never more than it has free places.
            task_types: Only these; default what it registered with.
            wait: Seconds to wait for a task when there is none.
            lease: Seconds; default as configured.
            request_id: Yours for this claim: when its answer is lost, the same again gives the same tasks.
        """
        await self._access.acting_worker(ctx.principal, worker_id)
        op = Claim(
            worker=worker_id,
            types=task_types or [],
            n=max_tasks,
            wait_s=wait,
            lease_s=lease or 0.0,
            request=request_id or ctx.call_id,
        )
        claimed = await self._access.do(op, Claimed)
        whole = await with_values(self._access, claimed.tasks, self._most_bytes - LEASE_BYTES)
        taken = await self._that_fit(whole)
        return ClaimedTasks(tasks=[claimed_task(one, worker_id) for one in taken], paused=claimed.paused)

    async def _that_fit(self, leases: list[Lease]) -> list[Lease]:
        """Those whose payloads one answer can carry; the others are given back at once."""
        left = self._most_bytes
        taken: list[Lease] = []
        surplus: list[Op] = []
        for one in leases:
            left -= len(one.payload.encode()) + LEASE_BYTES
            if taken and left < 0:
                surplus.append(
                    Release(id=one.id, token=one.token, reason="the answer had no room for it", counts=False)
                )
            else:
                taken.append(one)
        await self._access.queue.do_all(surplus, LEASE_BYTES * len(surplus))
        return taken

    @tool(idempotent=True, destructive=False, open_world=False)
    async def task_complete(
        self,
        ctx: ToolContext,
        worker_id: Name,
        task_id: Name,
        fencing_token: Token,
        result: Any = None,  # noqa: ANN401 - JSON
        logs: Lines | None = None,
    ) -> TaskEnded:
        """Say that a task is done. Counts while nobody else was given the task; again is harmless.

        Args:
            worker_id: Who did it.
            task_id: Its id.
            fencing_token: As claimed.
            result: Any JSON.
            logs: Lines for its log.
        """
        op = Complete(id=task_id, token=fencing_token, result=to_json(result), logs=logs or [])
        return await self._end(ctx, worker_id, op)

    @tool(idempotent=True, destructive=False, open_world=False)
    async def task_fail(
        self,
        ctx: ToolContext,
        worker_id: Name,
        task_id: Name,
        fencing_token: Token,
        error: Line,
        error_code: Name = "TASK_FAILED",
        retryable: bool = True,
        logs: Lines | None = None,
    ) -> TaskEnded:
        """Say that an attempt failed; the task is tried again while it has attempts left.

        Args:
            worker_id: Who tried.
            task_id: Its id.
            fencing_token: As claimed.
            error: What went wrong.
            error_code: A stable word for it.
            retryable: Another attempt may help.
            logs: Lines for its log.
        """
        info = ErrorInfo(code=error_code, message=error, retryable=retryable)
        return await self._end(ctx, worker_id, Fail(id=task_id, token=fencing_token, error=info, logs=logs or []))

    @tool(idempotent=True, destructive=False, open_world=False)
    async def task_release(
        self,
        ctx: ToolContext,
        worker_id: Name,
        task_id: Name,
        fencing_token: Token,
        reason: Annotated[str, Meta(max_length=2000)] = "",
        draining: bool = False,
    ) -> TaskEnded:
        """Give a task back, for others or because cancelling was asked for.

        Args:
            worker_id: Who has it.
            task_id: Its id.
            fencing_token: As claimed.
            reason: Kept with it.
            draining: The worker is going, which is not the task's fault: the attempt does not count.
        """
        op = Release(id=task_id, token=fencing_token, reason=reason, counts=not draining)
        return await self._end(ctx, worker_id, op)

    async def _end(self, ctx: ToolContext, worker_id: str, op: Complete | Fail | Release) -> TaskEnded:
        await self._access.acting_worker(ctx.principal, worker_id)
        await self._access.check_holder(worker_id, op.id, op.token)
        ended = await self._access.do(op, Ended)
        return TaskEnded(
            task_id=op.id,
            status=status_of(ended.state),
            next_attempt_at=ended.run_at if ended.state == TaskState.SCHEDULED else None,
            replayed=ended.replayed,
        )

    def all(self) -> list[Any]:
        """Each of them."""
        return [self.task_claim, self.task_complete, self.task_fail, self.task_release]


def claimed_task(lease: Lease, worker_id: str) -> ClaimedTask:
    """A claimed task for its worker."""
    return ClaimedTask(
        task_id=lease.id,
        task_type=lease.type,
        model_name=lease.model_name,
        payload=msgspec.json.decode(lease.payload),
        priority=lease.priority,
        created_at=lease.created_at,
        status="running",
        assigned_worker=worker_id,
        attempt=lease.attempt,
        fencing_token=lease.token,
        lease_until=lease.lease_until,
        timeout=lease.timeout_s,
        deadline=lease.deadline,
    )
