# SPDX-License-Identifier: AGPL-3.0-or-later
"""When a task is tried again."""

from __future__ import annotations

import random

from actors.task_messages import Task


def attempts_left(task: Task) -> bool:
    """Whether a task whose attempt failed may be tried again."""
    return task.retry.max_attempts == 0 or task.attempt < task.retry.max_attempts


def backoff_s(task: Task, rng: random.Random) -> float:
    """How long to wait after an attempt: drawn between 0 and a bound that grows with each attempt."""
    retry = task.retry
    try:
        bound = retry.base_s * retry.factor ** (task.attempt - 1)
    except OverflowError:
        bound = retry.cap_s
    return rng.random() * min(retry.cap_s, bound)
