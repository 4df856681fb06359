# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which ended tasks a group of operations speaks of: they are looked up in the history before anything is decided."""

from __future__ import annotations

from collections.abc import Sequence

from actors.p2p.task_queue.state import State
from actors.task_messages import (
    AckCancel,
    AnswerOwner,
    AskOwner,
    Beat,
    Cancel,
    Complete,
    Enqueue,
    Fail,
    Op,
    Release,
    Reprioritise,
    RetryTask,
)

_OF_A_TASK = frozenset(
    {Beat, Complete, Fail, Release, AckCancel, AskOwner, AnswerOwner, Cancel, Reprioritise, RetryTask}
)


def unknown(s: State, ops: Sequence[Op]) -> tuple[list[str], list[tuple[str, str]]]:
    """Ids, and pairs of owner and key, that these operations name and the live state does not know."""
    ids: dict[str, None] = {}
    keys: dict[tuple[str, str], None] = {}
    tasks = s.tasks
    for op in ops:
        if isinstance(op, Enqueue):
            if op.id and not op.fresh and op.id not in tasks:
                ids[op.id] = None
            if op.key and (op.owner, op.key) not in s.keys:
                keys[op.owner, op.key] = None
            for parent in op.depends_on:
                if parent not in tasks:
                    ids[parent] = None
        elif type(op) in _OF_A_TASK:
            task_id: str = op.id  # type: ignore[union-attr]
            if task_id not in tasks:
                ids[task_id] = None
            if isinstance(op, RetryTask):
                _of_retry(s, op, ids)
    return list(ids), list(keys)


def _of_retry(s: State, op: RetryTask, ids: dict[str, None]) -> None:
    if op.new_id and op.new_id not in s.tasks:
        ids[op.new_id] = None
    item = s.tasks.get(op.id)
    if item is not None:
        for parent in item.task.depends_on:
            if parent not in s.tasks:
                ids[parent] = None
    while item is not None and item.task.retry_of:
        before = item.task.retry_of
        item = s.tasks.get(before)
        if item is None:
            ids[before] = None
