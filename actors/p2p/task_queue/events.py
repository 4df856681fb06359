# SPDX-License-Identifier: AGPL-3.0-or-later
"""The kinds of events in the log, and the numbers that stand for states and fields in them.

Numbers are for ever: a log that an older version wrote is read by them. New ones are added at the end.
Each event's layout is written down at its number; `at` is the time of the decision, Unix seconds.
"""

from __future__ import annotations

from typing import Final

from actors.task_messages import TaskState

OPENED: Final = 1  # at, epoch
ENQUEUED: Final = 2  # at, id, type, state, ids it waits for, then number and value of each other field
CLAIMED: Final = 3  # at, worker, request, lease_s, id, token, id, token, ...
BEATEN: Final = 4  # at, id, token, lease_until, progress, progress_text, lines
COMPLETED: Final = 5  # at, id, token, result, lines
FAILED: Final = 6  # at, id, token, next state, run_at, error, lines
RELEASED: Final = 7  # at, id, token, next state, reason, whether the attempt counts, error
EXPIRED: Final = 8  # at, id, token, next state, error
CANCEL_ASKED: Final = 9  # at, id, reason
CANCELLED: Final = 10  # at, id, token from now on, reason
ASKED: Final = 11  # at, id, token, {key: question}
ANSWERED: Final = 12  # at, id, {key: answer}
REPRIORITISED: Final = 13  # at, id, priority, whether it counts at once
TIMED_OUT: Final = 14  # at, id, token from now on, error
DUE: Final = 15  # at, id, id, ...
SKIPPED: Final = 16  # at, reason, id, id, ...
PAUSED: Final = 17  # at, type, reason
RESUMED: Final = 18  # at, type
CLEARED: Final = 19  # at, [state, ...]
WORKER: Final = 20  # at, worker, owner, [type, ...], max_tasks, limits, metadata, internal
WORKER_GONE: Final = 21  # at, worker, whether its tasks are given back
WORKER_FORGOTTEN: Final = 22  # at, worker, worker, ...
ARCHIVED: Final = 23  # id, id, ...
CARRIED: Final = 24  # a whole task: see `records.pack_item`
GLOBALS: Final = 25  # all that is not a task: see `carry.py`
COUNTED: Final = 26  # stale fences, replayed, refused
KEY_PAUSED: Final = 27  # at, fairness key, reason
KEY_RESUMED: Final = 28  # at, fairness key

BLOCKED: Final = 0
SCHEDULED: Final = 1
READY: Final = 2
LEASED: Final = 3
COMPLETE: Final = 4
FAILURE: Final = 5
CANCEL: Final = 6
SKIP: Final = 7

STATES: Final = (
    TaskState.BLOCKED,
    TaskState.SCHEDULED,
    TaskState.READY,
    TaskState.LEASED,
    TaskState.COMPLETED,
    TaskState.FAILED,
    TaskState.CANCELLED,
    TaskState.SKIPPED,
)
"""Number -> state. Those before `LEASED` wait, those after it are final."""
NUMBERS: Final = {state: number for number, state in enumerate(STATES)}

FIELDS: Final = (
    "payload",
    "model_name",
    "owner",
    "key",
    "priority",
    "next_priority",
    "fairness_key",
    "tags",
    "metadata",
    "needs",
    "depends_on",
    "sticky_worker",
    "retry",
    "retry_of",
    "timeout_s",
    "queue_timeout_s",
    "deadline",
    "keep_s",
    "created_at",
    "updated_at",
    "run_at",
    "started_at",
    "ended_at",
    "attempt",
    "token",
    "worker",
    "lease_until",
    "beat_at",
    "progress",
    "progress_text",
    "logs",
    "cancel_requested",
    "reason",
    "result",
    "error",
    "asked",
    "answers",
    "blocked_by",
    "links",
)
"""Number -> field of a task, but for `id`, `type` and `state`."""
