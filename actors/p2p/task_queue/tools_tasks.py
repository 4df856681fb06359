# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tools about single tasks, for those who submit them: `task_submit` ... `task_retry`."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from actors.p2p.answers import Done, refuse
from actors.p2p.task_queue.tools_access import Access, to_json
from actors.p2p.task_queue.tools_shown import (
    RetryPolicy,
    TaskEnd,
    TaskMetrics,
    TaskSummary,
    end_of,
    execution_time,
    metrics_of,
    output_of,
    progress_of,
    summary_of,
    worker_of,
)
from actors.task_messages import (
    FINAL,
    PRIORITY_DEFAULT,
    Cancel,
    Ended,
    Enqueue,
    Reprioritise,
    Reprioritised,
    Retry,
    RetryTask,
    Status,
    Submitted,
    TaskState,
    status_of,
)
from actors.task_views import ScanTasks
from actors.toolkit import ToolContext, tool

Name = Annotated[str, Meta(min_length=1, max_length=200)]
Priority = Annotated[float, Meta(ge=1, le=10)]
RunTime = Annotated[int, Meta(ge=1, le=31_536_000)]
Page = Annotated[int, Meta(ge=1, le=1000)]
Offset = Annotated[int, Meta(ge=0, le=1_000_000)]
Reason = Annotated[str, Meta(max_length=2000)]
JsonMap = dict[str, Any]
_MOST_RETRIES: Final = 999


class RetryConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is other than it was."""

    max_retries: Annotated[int, Meta(ge=0, le=_MOST_RETRIES)] | None = None
    """Further attempts after the first one."""
    timeout: RunTime | None = None
    """Seconds for one attempt."""


class SubmittedTask(Done):
    """The task is stored. Times are Unix seconds here and in all other tools."""

    task_id: str
    status: Status
    queue_position: int | None
    """1 = next; null when it does not wait for a worker."""
    estimated_start_time: float | None
    """By the rate at which tasks began lately; null when none did."""
    assigned_worker: str | None
    replayed: bool
    """The same task was submitted before."""


class TaskStatus(Done):
    """A task as it is now."""

    task_id: str
    task_type: str
    status: Status
    progress: float | None
    """0-100, as its worker says."""
    progress_text: str
    worker_id: str | None
    start_time: float | None
    """Of the latest attempt."""
    end_time: float | None
    queue_position: int | None
    why_waiting: str
    """Why it does not run, when it is queued."""
    attempt: int
    cancel_requested: bool
    logs: list[str] | None
    metrics: TaskMetrics | None


class CancelledTask(Done):
    """What became of it: a running task stays so until its worker stops."""

    task_id: str
    status: Status
    cancelled_at: float | None
    cleanup_required: bool
    """A lease was ended by force; what its worker did may be unfinished."""
    replayed: bool


class TaskList(Done):
    """One page, newest first."""

    tasks: list[TaskSummary]
    total_count: int
    returned_count: int
    has_more: bool


class ChangedPriority(Done):
    """Its new place."""

    task_id: str
    old_priority: float
    new_priority: float
    new_queue_position: int | None


class TaskResult(Done):
    """How a task ended, and what it gave."""

    task_id: str
    status: Status
    result: TaskEnd
    output: Any
    """What its worker gave: any JSON; null when it gave nothing or was not asked for."""
    logs: list[str] | None
    execution_time: float | None
    """Seconds of the attempt that completed it."""


class RetriedTask(Done):
    """The new task."""

    task_id: str
    retry_task_id: str
    retry_count: int
    """Which repeat it is."""
    queue_position: int | None


class TaskTools:
    """The tools, as methods."""

    def __init__(self, access: Access) -> None:
        self._access = access

    @tool(idempotent=True, destructive=False, open_world=False)
    async def task_submit(
        self,
        ctx: ToolContext,
        task_id: Name,
        task_type: Name,
        payload: JsonMap,
        priority: Priority = PRIORITY_DEFAULT,
        tags: list[Name] | None = None,
        timeout: RunTime | None = None,
        retry_policy: RetryPolicy | None = None,
        metadata: JsonMap | None = None,
    ) -> SubmittedTask:
        """Hand work to the durable queue: once this is answered, it is on disk and will be done at least once.

        Args:
            task_id: Your id for it. The same again with equal content is harmless and says `replayed`.
            task_type: Name of the tool that does it (the payload is its arguments), or a word that workers know.
            payload: For whoever does it.
            priority: 1-10; higher runs earlier.
            tags: Words to find it by.
            timeout: Seconds for one attempt.
            retry_policy: What follows a failed attempt; without it there are 2 retries.
            metadata: Kept with it.
        """
        op = Enqueue(
            id=task_id,
            type=task_type,
            payload=to_json(payload),
            owner=ctx.principal,
            fairness_key=ctx.principal,
            priority=priority,
            tags=tags or [],
            metadata=to_json(metadata or {}),
            retry=Retry() if retry_policy is None else retry_policy.as_retry(),
            timeout_s=timeout,
            position=True,
        )
        made = await self._access.do(op, Submitted)
        position, start, worker = made.position, made.estimated_start, None
        if made.replayed:
            view = await self._access.task(ctx.principal, made.id, position=True)
            position, start = view.position, view.estimated_start
            worker = view.task.worker if view.task.state == TaskState.LEASED else None
        return SubmittedTask(
            task_id=made.id,
            status=status_of(made.state),
            queue_position=position,
            estimated_start_time=start,
            assigned_worker=worker,
            replayed=made.replayed,
        )

    @tool(read_only=True, open_world=False)
    async def task_status(
        self, ctx: ToolContext, task_id: Name, include_logs: bool = False, include_metrics: bool = False
    ) -> TaskStatus:
        """How far a task is.

        Args:
            task_id: Its id.
            include_logs: With the last lines that its workers wrote.
            include_metrics: With its times and what happened to it.
        """
        view = await self._access.task(ctx.principal, task_id, position=True)
        task = view.task
        events = await self._access.queue.history(task_id) if include_metrics else []
        return TaskStatus(
            task_id=task.id,
            task_type=task.type,
            status=status_of(task.state),
            progress=progress_of(task),
            progress_text=task.progress_text,
            worker_id=worker_of(task),
            start_time=task.started_at,
            end_time=task.ended_at,
            queue_position=view.position,
            why_waiting=view.why_waiting,
            attempt=task.attempt,
            cancel_requested=task.cancel_requested,
            logs=task.logs if include_logs else None,
            metrics=metrics_of(task, events) if include_metrics else None,
        )

    @tool(idempotent=True, destructive=True, open_world=False)
    async def task_cancel(
        self, ctx: ToolContext, task_id: Name, reason: Reason | None = None, force: bool = False
    ) -> CancelledTask:
        """Cancel a task: a queued one at once, a running one when its worker hears of it.

        Args:
            task_id: Its id.
            reason: Kept with it.
            force: Take a running task from its worker now.
        """
        await self._access.task(ctx.principal, task_id)
        ended = await self._access.do(Cancel(id=task_id, reason=reason or "", force=force), Ended)
        return CancelledTask(
            task_id=task_id,
            status=status_of(ended.state),
            cancelled_at=ended.at if ended.state == TaskState.CANCELLED else None,
            cleanup_required=ended.cleanup_required,
            replayed=ended.replayed,
        )

    @tool(read_only=True, open_world=False)
    async def task_list(
        self,
        ctx: ToolContext,
        status_filter: Status | None = None,
        worker_filter: Name | None = None,
        tag_filter: list[Name] | None = None,
        priority_min: Priority | None = None,
        limit: Page = 100,
        offset: Offset = 0,
    ) -> TaskList:
        """List your tasks, newest first; operators see all.

        Args:
            status_filter: Only those.
            worker_filter: Only those that this worker had last.
            tag_filter: Only those that have all of these tags.
            priority_min: Only those of this priority or a higher one.
            limit: So many at most.
            offset: Skip so many.
        """
        ask = ScanTasks(
            status=status_filter,
            owner=None if self._access.is_operator(ctx.principal) else ctx.principal,
            worker=worker_filter or "",
            tags=tag_filter or [],
            priority_min=priority_min,
            limit=limit,
            offset=offset,
        )
        page = await self._access.queue.scan(ask)
        return TaskList(
            tasks=[summary_of(task) for task in page.tasks],
            total_count=page.total,
            returned_count=len(page.tasks),
            has_more=offset + len(page.tasks) < page.total,
        )

    @tool(idempotent=True, destructive=False, open_world=False)
    async def task_priority(
        self, ctx: ToolContext, task_id: Name, new_priority: Priority, requeue: bool = True
    ) -> ChangedPriority:
        """Change the priority of a queued task.

        Args:
            task_id: Its id.
            new_priority: 1-10; higher runs earlier.
            requeue: Now; false = from its next attempt on, which also works for a running task.
        """
        await self._access.task(ctx.principal, task_id)
        changed = await self._access.do(Reprioritise(id=task_id, priority=new_priority, requeue=requeue), Reprioritised)
        return ChangedPriority(
            task_id=task_id,
            old_priority=changed.old,
            new_priority=changed.new,
            new_queue_position=changed.position,
        )

    @tool(read_only=True, open_world=False)
    async def task_result(
        self, ctx: ToolContext, task_id: Name, include_output: bool = True, include_logs: bool = False
    ) -> TaskResult:
        """How a task ended and what it gave; NOT_FINISHED before its end.

        Args:
            task_id: Its id.
            include_output: With what its worker gave.
            include_logs: With the last lines that its workers wrote.
        """
        task = (await self._access.task(ctx.principal, task_id)).task
        if task.state not in FINAL:
            refuse("NOT_FINISHED", f"task {task_id} is {status_of(task.state)}; ask again after its end")
        return TaskResult(
            task_id=task_id,
            status=status_of(task.state),
            result=end_of(task),
            output=output_of(task) if include_output else None,
            logs=task.logs if include_logs else None,
            execution_time=execution_time(task),
        )

    @tool(retry_safe=True, destructive=False, open_world=False)
    async def task_retry(self, ctx: ToolContext, task_id: Name, retry_config: RetryConfig | None = None) -> RetriedTask:
        """Do a failed or cancelled task again, as a new task.

        Args:
            task_id: Its id.
            retry_config: What is to be other than it was.
        """
        await self._access.task(ctx.principal, task_id)
        wanted = retry_config or RetryConfig()
        # The same call, sent again after a death on its way, names the same new task.
        op = RetryTask(
            id=task_id,
            new_id=hashlib.sha256(f"{task_id}\n{ctx.call_id}".encode()).hexdigest()[:32],
            max_attempts=None if wanted.max_retries is None else wanted.max_retries + 1,
            timeout_s=wanted.timeout,
        )
        made = await self._access.do(op, Submitted)
        view = await self._access.task(ctx.principal, made.id, position=True)
        return RetriedTask(
            task_id=task_id, retry_task_id=made.id, retry_count=made.retry_count, queue_position=view.position
        )

    def all(self) -> list[Any]:
        """Each of them."""
        return [
            self.task_submit,
            self.task_status,
            self.task_cancel,
            self.task_list,
            self.task_priority,
            self.task_result,
            self.task_retry,
        ]
