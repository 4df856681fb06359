# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the task queue tells without changing anything, and how it is asked. Rules and units as in
`actors/task_messages.py`.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from actors.messages import ErrorInfo
from actors.task_messages import Status, Task, TaskState, WorkerInfo


class GetTask(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Method `tasks/get` -> `TaskView`. Unknown: `NOT_FOUND`."""

    id: str
    wait_s: float = 0.0
    """Wait so long for its end."""
    until_asked: bool = False
    """Wait no longer than until there are questions to its owner."""
    newer_than: float | None = None
    """Wait no longer than until `updated_at` is greater than this."""
    position: bool = False


class TaskView(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A task and its place."""

    task: Task
    position: int | None = None
    estimated_start: float | None = None
    why_waiting: str = ""
    """Why it does not run: `blocked by 2 tasks`, `scheduled`, `paused`, `limit of its type reached`, ..."""


class ScanTasks(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Method `tasks/scan` -> `TaskPage`: newest first."""

    status: Status | None = None
    owner: str | None = None
    worker: str = ""
    types: list[str] = []
    tags: list[str] = []
    """All of them."""
    id_prefix: str = ""
    priority_min: float | None = None
    oldest_first: bool = False
    limit: int = 100
    offset: int = 0


class TaskPage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Some tasks, without `payload`, `result` and `depends_on`, and how many there are."""

    tasks: list[Task]
    total: int


class Hour(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What happened in one hour."""

    at: float
    submitted: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0


RUN_BUCKETS_MS: Final = (10.0, 50.0, 100.0, 500.0, 1e3, 5e3, 10e3, 30e3, 60e3, 300e3, 1800e3, 3600e3)
"""Upper bounds of the classes of `RunTimes`; what takes longer is in one more."""


class RunTimes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long completed tasks ran in their last attempt, since the queue was made."""

    buckets: list[int]
    """Tasks in each class: one more than `RUN_BUCKETS_MS`."""
    sum_ms: float


PAUSED_KEY: Final = "key:"


class QueueStats(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Method `tasks/stats` (null): the whole queue."""

    counts: dict[str, int]
    """Tasks by status, finished ones included while they are kept."""
    by_type: dict[str, dict[str, int]]
    """Type -> status -> tasks."""
    by_state: dict[str, int]
    """Tasks that have not ended, by state."""
    paused: list[str]
    """Types whose claims are stopped, '' = all; then fairness keys, each with `PAUSED_KEY` in front."""
    oldest_ready_s: float | None
    """How long the ready task that waits for longest has waited."""
    average_wait_s: float | None
    average_run_s: float | None
    throughput_per_s: float | None
    """Tasks that ended per second, over the last five minutes."""
    workers: list[WorkerInfo]
    hours: list[Hour]
    """The last 24."""
    counters: dict[str, int]
    """Since the queue was made: `submitted, completed, failed, cancelled, retried, expired, released, stale_fence,
    replayed, refused`."""
    run_times: RunTimes | None = None
    store: dict[str, Any]
    """Of the files: `path, bytes, wal_bytes, segments, groups, commits, commit_p50_ms, commit_p99_ms, history_bytes,
    recovered_tasks, recovery_s, repairs`."""


class TaskEvent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One change in a task's life, for people (`tasks/history`, `greenroom task show`)."""

    at: float
    what: str
    """`submitted, claimed, progress, completed, failed, retry, released, expired, asked, answered, cancelled, ...`"""
    worker: str = ""
    token: int = 0
    attempt: int = 0
    note: str = ""


class TaskChanged(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="task_changed"):
    """Item of method `tasks/watch` (null), which never ends: state, questions or wish to cancel of these tasks are not
    what they were. Empty = any task."""

    ids: list[str]


class ReadResults(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Method `tasks/results` -> `TaskFacts`: where many tasks are, and what they gave."""

    ids: list[str]
    """At most `MOST_RESULTS`."""


MOST_RESULTS: Final = 1000


class TaskFact(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What matters of a task to whoever waits for it."""

    id: str
    state: TaskState
    owner: str = ""
    attempt: int = 0
    token: int = 0
    worker: str = ""
    run_at: float = 0.0
    started_at: float | None = None
    ended_at: float | None = None
    progress: float | None = None
    result: str | None = None
    error: ErrorInfo | None = None
    reason: str = ""


class TaskFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """In the order in which they were asked for."""

    facts: list[TaskFact]
    unknown: list[str] = []
    """There are no tasks of these ids (any more)."""
    left: list[str] = []
    """They did not fit into the answer; ask again for these."""
