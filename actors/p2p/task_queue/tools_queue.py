# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tools about the whole queue: `queue_stats`, and for operators `queue_pause`, `queue_resume`, `queue_clear`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from actors.p2p.answers import Done, refuse
from actors.p2p.task_queue.tools_access import Access
from actors.p2p.task_queue.tools_workers import WorkerShown, shown
from actors.task_messages import Clear, Cleared, Pause, Paused, Resume
from actors.toolkit import ToolContext, tool


class HourShown(msgspec.Struct, kw_only=True):
    """What happened in one hour; `at` is its begin, in Unix seconds."""

    at: float
    submitted: int
    completed: int
    failed: int
    cancelled: int


class QueueNumbers(Done):
    """Tasks that have ended are counted while they are kept."""

    queued_count: int
    running_count: int
    completed_count: int
    failed_count: int
    cancelled_count: int
    skipped_count: int
    average_wait_time: float | None
    """Seconds from ready to claimed, a moving average; null when no task was claimed yet."""
    average_execution_time: float | None
    """Seconds from claimed to completed, a moving average; null when no task was completed yet."""
    throughput: float | None
    """Tasks that ended per second, over the last five minutes; null when none ever did."""
    paused: bool
    oldest_ready_s: float | None
    """How long the ready task that waits for longest has waited."""
    worker_stats: list[WorkerShown] | None
    historical: list[HourShown] | None
    """The last 24 hours, but for those in which nothing happened."""


class PausedQueue(Done):
    """No task is given to a worker; those that run go on."""

    status: Literal["paused"]
    paused_at: float
    queued_tasks: int
    running_tasks: int


class ResumedQueue(Done):
    """Tasks are given to workers."""

    status: Literal["active"]
    resumed_at: float
    queued_tasks: int
    reordered: bool
    """False: the queue is in order of priority at all times, so that nothing had to be moved."""


class ClearedQueue(Done):
    """What is gone and what is left; tasks that run or are completed are not touched."""

    cleared_count: int
    remaining_count: int
    """Tasks that wait or run."""
    cleared_at: float


class QueueTools:
    """The tools, as methods."""

    def __init__(self, access: Access) -> None:
        self._access = access

    @tool(read_only=True, open_world=False)
    async def queue_stats(self, include_worker_stats: bool = False, include_historical: bool = False) -> QueueNumbers:
        """The whole queue in numbers.

        Args:
            include_worker_stats: With each worker.
            include_historical: With the last 24 hours.
        """
        stats = await self._access.queue.stats()
        counts = stats.counts
        return QueueNumbers(
            queued_count=counts.get("queued", 0),
            running_count=counts.get("running", 0),
            completed_count=counts.get("completed", 0),
            failed_count=counts.get("failed", 0),
            cancelled_count=counts.get("cancelled", 0),
            skipped_count=counts.get("skipped", 0),
            average_wait_time=stats.average_wait_s,
            average_execution_time=stats.average_run_s,
            throughput=stats.throughput_per_s,
            paused="" in stats.paused,
            oldest_ready_s=stats.oldest_ready_s,
            worker_stats=[shown(info) for info in stats.workers] if include_worker_stats else None,
            historical=msgspec.convert(stats.hours, list[HourShown], from_attributes=True)
            if include_historical
            else None,
        )

    @tool(idempotent=True, destructive=False, open_world=False)
    async def queue_pause(
        self, ctx: ToolContext, reason: Annotated[str, Meta(max_length=2000)] | None = None
    ) -> PausedQueue:
        """Give no tasks to workers until queue_resume, also after a restart.

        Args:
            reason: Kept with it.
        """
        self._access.check_operator(ctx.principal, "queue_pause")
        now = await self._access.do(Pause(reason=reason or ""), Paused)
        return PausedQueue(status="paused", paused_at=now.at, queued_tasks=now.queued, running_tasks=now.running)

    @tool(idempotent=True, destructive=False, open_world=False)
    async def queue_resume(self, ctx: ToolContext, reorder_by_priority: bool = True) -> ResumedQueue:  # noqa: ARG002
        """Give tasks to workers again.

        Args:
            reorder_by_priority: Has no effect: the queue is in order of priority at all times.
        """
        self._access.check_operator(ctx.principal, "queue_resume")
        now = await self._access.do(Resume(), Paused)
        return ResumedQueue(status="active", resumed_at=now.at, queued_tasks=now.queued, reordered=False)

    @tool(idempotent=True, destructive=True, open_world=False)
    async def queue_clear(
        self,
        ctx: ToolContext,
        status_filter: Literal["queued", "failed", "cancelled"] | None = None,
        confirm: bool = False,
    ) -> ClearedQueue:
        """Remove tasks for good.

        Args:
            status_filter: Only those; without it all that are queued, failed or cancelled.
            confirm: Must be true.
        """
        self._access.check_operator(ctx.principal, "queue_clear")
        if not confirm:
            refuse("INVALID_PARAMS", "nothing was removed: tasks are removed for good, so say confirm = true")
        gone = await self._access.do(Clear(statuses=[status_filter] if status_filter else []), Cleared)
        return ClearedQueue(cleared_count=gone.cleared, remaining_count=gone.remaining, cleared_at=gone.at)

    def all(self) -> list[Any]:
        """Each of them."""
        return [self.queue_stats, self.queue_pause, self.queue_resume, self.queue_clear]
