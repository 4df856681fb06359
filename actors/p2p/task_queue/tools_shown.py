# SPDX-License-Identifier: AGPL-3.0-or-later
"""Tasks as the tools show them: measured values only; what was not measured is null."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from actors import task_links
from actors.task_messages import Retry, Status, Task, TaskState, status_of
from actors.task_views import TaskEvent
from actors.tool_tasks import result_of


class RetryPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What follows a failed attempt."""

    max_retries: Annotated[int, Meta(ge=0, le=999)] = 2
    """Further attempts after the first one."""
    backoff_factor: Annotated[float, Meta(ge=1, le=100)] = 2.0
    """The wait before the next attempt is drawn between 0 and a bound, which grows by this with each attempt."""

    def as_retry(self) -> Retry:
        """As the queue takes it."""
        return Retry(max_attempts=self.max_retries + 1, factor=self.backoff_factor)


class Happened(msgspec.Struct, kw_only=True):
    """One change in a task's life."""

    at: float
    what: str
    worker_id: str | None
    attempt: int
    note: str


class TaskMetrics(msgspec.Struct, kw_only=True):
    """Times in Unix seconds, lengths in seconds."""

    submitted_at: float
    wait_time: float | None
    """From its submission to its first start."""
    execution_time: float | None
    """Of the attempt that completed it."""
    attempts: int
    max_attempts: int
    """0 = without end."""
    lease_until: float | None
    last_heartbeat: float | None
    events: list[Happened]
    """What happened to it, oldest first."""


class TaskSummary(msgspec.Struct, kw_only=True):
    """A task in a list."""

    task_id: str
    task_type: str
    status: Status
    priority: float
    tags: list[str]
    attempt: int
    worker_id: str | None
    progress: float | None
    created_at: float
    start_time: float | None
    end_time: float | None
    retry_of: str | None
    error: str | None
    """Of the latest failed attempt."""


class TaskError(msgspec.Struct, kw_only=True):
    """Why an attempt failed."""

    code: str
    message: str
    retryable: bool
    details: dict[str, Any]


class TaskEnd(msgspec.Struct, kw_only=True):
    """How a task ended."""

    ended_at: float | None
    worker_id: str | None
    attempt: int
    error: TaskError | None
    """Of a failed task."""
    is_error: bool
    """The tool that did it was there to say so, and said that it failed: its words are the output."""
    reason: str
    """Why it was cancelled or skipped."""


def progress_of(task: Task) -> float | None:
    """0-100; None when nobody said."""
    return 100.0 if task.state == TaskState.COMPLETED else task.progress


def worker_of(task: Task) -> str | None:
    """Who works on it, or did so last; None while it is queued."""
    return task.worker or None if status_of(task.state) != "queued" else None


def execution_time(task: Task) -> float | None:
    """Seconds of the attempt that completed it; None when none did."""
    if task.state != TaskState.COMPLETED or task.started_at is None or task.ended_at is None:
        return None
    return max(0.0, task.ended_at - task.started_at)


def metrics_of(task: Task, events: list[TaskEvent]) -> TaskMetrics:
    """What was measured of a task."""
    first = next((event.at for event in events if event.what == "claimed" and event.attempt == 1), None)
    running = task.state == TaskState.LEASED
    return TaskMetrics(
        submitted_at=task.created_at,
        wait_time=None if first is None else max(0.0, first - task.created_at),
        execution_time=execution_time(task),
        attempts=task.attempt,
        max_attempts=task.retry.max_attempts,
        lease_until=task.lease_until if running else None,
        last_heartbeat=task.beat_at,
        events=[
            Happened(
                at=event.at, what=event.what, worker_id=event.worker or None, attempt=event.attempt, note=event.note
            )
            for event in events
        ],
    )


def summary_of(task: Task) -> TaskSummary:
    """A task for a list."""
    return TaskSummary(
        task_id=task.id,
        task_type=task.type,
        status=status_of(task.state),
        priority=task.priority,
        tags=task.tags,
        attempt=task.attempt,
        worker_id=worker_of(task),
        progress=progress_of(task),
        created_at=task.created_at,
        start_time=task.started_at,
        end_time=task.ended_at,
        retry_of=task.retry_of or None,
        error=None if task.error is None else f"{task.error.code}: {task.error.message}",
    )


def output_of(task: Task) -> Any:  # noqa: ANN401 - JSON
    """What it gave: of a tool the value that it returned, of an external worker what that said."""
    return None if task.result is None else task_links.output_of(task.result)


def end_of(task: Task) -> TaskEnd:
    """How a task ended."""
    error = None
    if task.state == TaskState.FAILED and task.error is not None:
        said = task.error
        error = TaskError(code=said.code, message=said.message, retryable=said.retryable, details=said.details)
    return TaskEnd(
        ended_at=task.ended_at,
        worker_id=worker_of(task),
        attempt=task.attempt,
        error=error,
        is_error=task.result is not None and result_of(task.result).is_error,
        reason=task.reason if task.state in (TaskState.CANCELLED, TaskState.SKIPPED) else "",
    )
