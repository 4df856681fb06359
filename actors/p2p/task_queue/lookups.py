# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which ended tasks a group of operations speaks of: they are looked up in the history before anything is decided."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

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


class Unknown(NamedTuple):
    """What operations name and the live state does not know."""

    ids: list[str]
    """Of tasks that have to be known whole."""
    keys: list[tuple[str, str]]
    """Pairs of owner and key, of such tasks."""
    heads: list[str]
    """Ids of tasks whose state, or place in a chain, is all that matters."""


def unknown(s: State, ops: Sequence[Op]) -> Unknown:
    """What has to be looked up for these operations."""
    ids: dict[str, None] = {}
    keys: dict[tuple[str, str], None] = {}
    heads: dict[str, None] = {}
    tasks = s.tasks
    for op in ops:
        if isinstance(op, Enqueue):
            if op.id and not op.fresh and op.id not in tasks:
                ids[op.id] = None
            if op.key and (op.owner, op.key) not in s.keys:
                keys[op.owner, op.key] = None
            for parent in op.depends_on:
                if parent not in tasks:
                    heads[parent] = None
        elif type(op) in _OF_A_TASK:
            task_id: str = op.id  # type: ignore[union-attr]
            if task_id not in tasks:
                ids[task_id] = None
            if isinstance(op, RetryTask):
                _of_retry(s, op, ids, heads)
    return Unknown(list(ids), list(keys), list(heads))


def _of_retry(s: State, op: RetryTask, ids: dict[str, None], heads: dict[str, None]) -> None:
    if op.new_id and op.new_id not in s.tasks:
        ids[op.new_id] = None
    item = s.tasks.get(op.id)
    if item is not None:
        for parent in item.task.depends_on:
            if parent not in s.tasks:
                heads[parent] = None
    while item is not None and item.task.retry_of:
        before = item.task.retry_of
        item = s.tasks.get(before)
        if item is None:
            heads[before] = None
